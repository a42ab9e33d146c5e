//! The attention sublayer of a transformer, as a single operation while it is frozen: `y = post(x + W_o·attend(W_qkv·pre(x)))`.
//!
//! T5 and EVA use `pre` (RMS or layer norm), BERT uses `post`. One operation per sublayer keeps each block of rows in cache
//! from the norm to the residual sum, and leaves one edge in candle's graph, where every edge costs an allocation and an
//! addition in the backward pass; only the input (and the memory of a cross-attention) gets a gradient. As soon as a parameter is
//! tracked, and always on a GPU, the sublayer runs as the single operations that it is made of, and every tracked parameter gets its
//! gradient.

use super::dot_product::{attention_of_packed, attention_of_paired};
use super::fused::{self, Sizes};
use super::weights::AttentionWeights;
use crate::bias::AttentionBias;
use crate::cpu::attention::HeadShape;
use crate::dispatch::on_gpu;
use crate::error::{OpError, Result};
use crate::linear::check_last_dim;
use candle_core::Tensor;
use std::sync::Arc;

/// An attention sublayer with its norms and residual connection.
#[derive(Debug, Clone)]
pub struct AttentionSublayer(Arc<AttentionWeights>);

/// The keys and values that a self-attention has seen so far during generation.
#[derive(Debug, Clone, Default)]
pub struct KvCache(Option<Tensor>);

impl KvCache {
    /// Keeps the batch entries `rows`, in that order (beam search).
    ///
    /// # Errors
    /// An error of candle if a row does not exist.
    pub fn select(&mut self, rows: &Tensor) -> Result<()> {
        if let Some(cache) = &self.0 {
            self.0 = Some(cache.index_select(rows, 0)?);
        }
        Ok(())
    }
}

impl AttentionSublayer {
    /// Puts the weights together.
    ///
    /// # Errors
    /// [`OpError::Shape`] if their widths do not fit.
    pub fn new(weights: AttentionWeights) -> Result<Self> {
        weights.check()?;
        Ok(Self(Arc::new(weights)))
    }

    /// Self-attention over the tokens of `x`.
    ///
    /// # Shapes
    /// `x (batch, tokens, d)`, f32 or f64 -> the same.
    ///
    /// # Errors
    /// [`OpError::Shape`] if `x` or the bias does not fit, or the projection is one of queries only.
    pub fn forward(&self, x: &Tensor, bias: &AttentionBias) -> Result<Tensor> {
        let sizes = self.sizes(x, None, bias)?;
        if on_gpu(x) || self.is_trained(bias) {
            let weights = &*self.0;
            let context = attention_of_packed(&self.project(x)?, weights.n_heads, weights.scale, bias)?;
            return self.finish(x, &context);
        }
        fused::self_attention(&self.0, sizes, bias, x)
    }

    /// Cross-attention: queries from `x`, keys and values given.
    ///
    /// # Shapes
    /// `x (batch, t_q, d)`, `key_value (batch, t_k, 2·n_heads·d_head)` with rows `[k ; v]` -> as `x`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if an argument does not fit, or the projection is one of queries, keys and values.
    pub fn forward_cross(&self, x: &Tensor, key_value: &Tensor, bias: &AttentionBias) -> Result<Tensor> {
        let sizes = self.sizes(x, Some(key_value), bias)?;
        if on_gpu(x) || self.is_trained(bias) {
            let (weights, q) = (&*self.0, self.project(x)?);
            let context = attention_of_paired(&q, key_value, weights.n_heads, weights.scale, bias)?;
            return self.finish(x, &context);
        }
        fused::cross_attention(&self.0, sizes, bias, x, key_value)
    }

    /// One generation step: self-attention of the new tokens over themselves and everything in `cache`, to which they are
    /// added. Records no gradient.
    ///
    /// # Shapes
    /// `x (batch, t_new, d)` -> the same; the bias is for `t_q = t_new` and all keys.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn step(&self, x: &Tensor, cache: &mut KvCache, bias: &AttentionBias) -> Result<Tensor> {
        let weights = &*self.0;
        let width = weights.output.n_in();
        self.check_projection(3)?;
        let x = x.detach();
        let projected = self.project(&x)?;
        let new = projected.narrow(2, width, 2 * width)?.contiguous()?;
        let all = match &cache.0 {
            Some(old) => Tensor::cat(&[old, &new], 1)?,
            None => new,
        };
        let q = projected.narrow(2, 0, width)?;
        let context = attention_of_paired(&q, &all, weights.n_heads, weights.scale, bias)?;
        let y = self.finish(&x, &context)?;
        cache.0 = Some(all);
        Ok(y)
    }

    /// The sublayer up to its queries (and keys and values), from single operations.
    fn project(&self, x: &Tensor) -> Result<Tensor> {
        self.0.projection.forward(&self.0.pre.forward(x)?)
    }

    /// The rest of it.
    fn finish(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let weights = &*self.0;
        weights.post.forward(&(x + weights.output.forward(context)?)?)
    }

    /// Whether any parameter gets a gradient: then the sublayer runs as single operations, not as one.
    fn is_trained(&self, bias: &AttentionBias) -> bool {
        let weights = &*self.0;
        weights.pre.is_trained()
            || weights.projection.is_trained()
            || weights.output.is_trained()
            || weights.post.is_trained()
            || bias.trained().is_some()
    }

    /// The weights that this sublayer was built from.
    pub fn weights(&self) -> &AttentionWeights {
        &self.0
    }

    fn check_projection(&self, parts: usize) -> Result<()> {
        let (n_out, width) = (self.0.projection.n_out(), self.0.output.n_in());
        if n_out == parts * width {
            return Ok(());
        }
        Err(OpError::shape(
            "attention_sublayer",
            format!("the projection has {n_out} rows, {} needed", parts * width),
        ))
    }

    fn sizes(&self, x: &Tensor, key_value: Option<&Tensor>, bias: &AttentionBias) -> Result<Sizes> {
        let weights = &*self.0;
        let width = weights.output.n_in();
        let (batch, t_q, _) = x.dims3().map_err(|_| {
            OpError::shape("attention_sublayer", format!("x must be (b, t, d), got {:?}", x.shape()))
        })?;
        check_last_dim("attention_sublayer", x, weights.projection.n_in())?;
        self.check_projection(if key_value.is_some() { 1 } else { 3 })?;
        let t_k = match key_value {
            None => t_q,
            Some(kv) => match kv.dims() {
                &[b, t_k, w] if b == batch && t_k > 0 && w == 2 * width => t_k,
                dims => {
                    let what =
                        format!("keys and values must be ({batch}, t_k > 0, {}), got {dims:?}", 2 * width);
                    return Err(OpError::shape("attention_sublayer", what));
                }
            },
        };
        bias.check("attention_sublayer", batch, weights.n_heads, t_q, t_k)?;
        Ok(Sizes {
            batch,
            shape: HeadShape { n_heads: weights.n_heads, d_head: width / weights.n_heads, t_q, t_k },
        })
    }
}
