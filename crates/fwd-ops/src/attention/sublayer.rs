//! The attention sublayer of a transformer, as a single operation while it is frozen: `y = post(x + W_o·attend(W_qkv·pre(x)))`.
//!
//! T5 and EVA use `pre` (RMS or layer norm), BERT uses `post`. One operation per sublayer keeps each block of rows in cache
//! from the norm to the residual sum, and leaves one edge in candle's graph, where every edge costs an allocation and an
//! addition in the backward pass; only the input (and the memory of a cross-attention) gets a gradient. As soon as a parameter is
//! tracked, and always on a GPU, the sublayer runs as the single operations that it is made of, and every tracked parameter gets its
//! gradient.

use super::cache::KvCache;
use super::dot_product::{attention, attention_of_packed, attention_of_paired};
use super::fused::{self, Sizes};
use super::step;
use super::weights::AttentionWeights;
use crate::bias::AttentionBias;
use crate::cpu::attention::HeadShape;
use crate::dispatch::on_gpu;
use crate::error::{OpError, Result};
use crate::linear::{MapChange, check_last_dim};
use crate::rotary::Rotary;
use candle_core::Tensor;
use std::sync::Arc;

/// An attention sublayer with its norms and residual connection.
#[derive(Debug, Clone)]
pub struct AttentionSublayer(Arc<AttentionWeights>);

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
        self.self_attention(x, bias, None)
    }

    /// [`Self::forward`] with queries and keys turned by the positions of their tokens.
    ///
    /// # Shapes
    /// `x (batch, tokens, d)`, `rotary` for `batch·tokens` positions and heads of this width -> as `x`.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_rotary(&self, x: &Tensor, bias: &AttentionBias, rotary: &Rotary) -> Result<Tensor> {
        self.self_attention(x, bias, Some(rotary))
    }

    fn self_attention(&self, x: &Tensor, bias: &AttentionBias, rotary: Option<&Rotary>) -> Result<Tensor> {
        let sizes = self.sizes(x, None, 0, bias)?;
        self.check_rotary(rotary, sizes)?;
        if on_gpu(x) || self.is_trained(bias) {
            let qkv = self.project(x, rotary)?;
            let context = attention_of_packed(&qkv, sizes.shape, self.0.scale, bias)?;
            return self.finish(x, &context);
        }
        fused::self_attention(&self.0, sizes, bias, rotary, x)
    }

    /// Cross-attention: queries from `x`, keys and values given.
    ///
    /// # Shapes
    /// `x (batch, t_q, d)`, `key_value (batch, t_k, 2·n_kv_heads·d_head)` with rows `[k ; v]` -> as `x`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if an argument does not fit, or the projection is one of queries, keys and values.
    pub fn forward_cross(&self, x: &Tensor, key_value: &Tensor, bias: &AttentionBias) -> Result<Tensor> {
        let sizes = self.sizes(x, Some(key_value), 0, bias)?;
        if on_gpu(x) || self.is_trained(bias) {
            let (weights, q) = (&*self.0, self.project(x, None)?);
            let context = attention_of_paired(&q, key_value, weights.n_heads, weights.scale, bias)?;
            return self.finish(x, &context);
        }
        if sizes.shape.t_q == 1 && sizes.batch > 0 && !x.track_op() && !key_value.track_op() {
            return step::cross_attention(&self.0, sizes, bias, x, key_value);
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
        self.self_step(x, cache, bias, None)
    }

    /// [`Self::step`] with the queries and keys of the new tokens turned by their positions; the cache keeps turned keys.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn step_rotary(
        &self,
        x: &Tensor,
        cache: &mut KvCache,
        bias: &AttentionBias,
        rotary: &Rotary,
    ) -> Result<Tensor> {
        self.self_step(x, cache, bias, Some(rotary))
    }

    fn self_step(
        &self,
        x: &Tensor,
        cache: &mut KvCache,
        bias: &AttentionBias,
        rotary: Option<&Rotary>,
    ) -> Result<Tensor> {
        let sizes = self.sizes(x, None, cache.len(), bias)?;
        self.check_rotary(rotary, sizes)?;
        let x = x.detach();
        if !on_gpu(&x) && !self.is_trained(bias) && x.elem_count() > 0 {
            return step::self_attention(&self.0, sizes, bias, rotary, &x, cache);
        }
        let weights = &*self.0;
        let (width, kv_width) = (weights.output.n_in(), weights.kv_width());
        let projected = self.project(&x, rotary)?;
        let all = cache.push(&projected.narrow(2, width, 2 * kv_width)?)?;
        let (q, k, v) =
            (projected.narrow(2, 0, width)?, all.narrow(2, 0, kv_width)?, all.narrow(2, kv_width, kv_width)?);
        let context = attention(&q, &k, &v, weights.n_heads, weights.scale, bias)?;
        self.finish(&x, &context)
    }

    /// Self-attention of tokens behind others, whose keys and values are given: what [`Self::forward_rotary`] of all of them gives for the
    /// later ones. Only these get a gradient.
    ///
    /// # Shapes
    /// `x (batch, t_new, d)`, `before (batch, t_before, 2·n_kv_heads·d_head)` as [`KvCache::tokens`] gives it -> as `x`; the bias is for
    /// `t_q = t_new` and all keys, `rotary` for the new tokens.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_behind(
        &self,
        x: &Tensor,
        before: &Tensor,
        bias: &AttentionBias,
        rotary: Option<&Rotary>,
    ) -> Result<Tensor> {
        let weights = &*self.0;
        let (width, kv_width) = (weights.output.n_in(), weights.kv_width());
        let n_before = match before.dims() {
            &[batch, n_before, w] if batch == x.dim(0)? && w == 2 * kv_width => n_before,
            dims => {
                let what = format!("keys and values {dims:?} in front of {:?}", x.shape());
                return Err(OpError::shape("attention_sublayer", what));
            }
        };
        let sizes = self.sizes(x, None, n_before, bias)?;
        self.check_rotary(rotary, sizes)?;
        let projected = self.project(x, rotary)?;
        let all = Tensor::cat(&[before, &projected.narrow(2, width, 2 * kv_width)?], 1)?;
        let (q, k, v) =
            (projected.narrow(2, 0, width)?, all.narrow(2, 0, kv_width)?, all.narrow(2, kv_width, kv_width)?);
        let context = attention(&q, &k, &v, weights.n_heads, weights.scale, bias)?;
        self.finish(x, &context)
    }

    fn check_rotary(&self, rotary: Option<&Rotary>, Sizes { batch, shape }: Sizes) -> Result<()> {
        rotary.map_or(Ok(()), |rotary| rotary.check("attention_sublayer", batch, shape.t_q, shape.d_head))
    }

    /// The sublayer up to its queries (and keys and values), turned by their positions if they have any, from single operations.
    fn project(&self, x: &Tensor, rotary: Option<&Rotary>) -> Result<Tensor> {
        let weights = &*self.0;
        let projected = weights.projection.forward(&weights.pre.forward(x)?)?;
        match rotary {
            Some(rotary) => rotary.forward(&projected, weights.n_heads + weights.n_kv_heads),
            None => Ok(projected),
        }
    }

    /// The rest of it.
    fn finish(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let weights = &*self.0;
        weights.post.forward(&(x + weights.output.forward(context)?)?)
    }

    /// Whether any parameter gets a gradient, or somebody sees the input of a map: then the sublayer runs as single operations, not as one.
    fn is_trained(&self, bias: &AttentionBias) -> bool {
        let weights = &*self.0;
        weights.pre.is_trained()
            || weights.projection.is_apart()
            || weights.output.is_apart()
            || weights.post.is_trained()
            || bias.trained().is_some()
    }

    /// The same sublayer with what `change` makes of its linear maps, as [`Linear::adapted`](crate::Linear::adapted).
    ///
    /// # Errors
    /// Those of `change`; [`OpError::Shape`] if a map has other widths then.
    pub fn with_maps(&self, change: &mut MapChange<'_>) -> Result<Self> {
        let weights = &*self.0;
        let (projection, output) = (change(&weights.projection)?, change(&weights.output)?);
        Self::new(AttentionWeights { projection, output, ..weights.clone() })
    }

    /// The weights that this sublayer was built from.
    pub fn weights(&self) -> &AttentionWeights {
        &self.0
    }

    fn check_projection(&self, n_rows: usize) -> Result<()> {
        let n_out = self.0.projection.n_out();
        if n_out == n_rows {
            return Ok(());
        }
        Err(OpError::shape("attention_sublayer", format!("the projection has {n_out} rows, {n_rows} needed")))
    }

    /// The sizes of an attention of `x` over itself, behind `n_before` tokens of a cache, or over given keys and values.
    fn sizes(
        &self,
        x: &Tensor,
        key_value: Option<&Tensor>,
        n_before: usize,
        bias: &AttentionBias,
    ) -> Result<Sizes> {
        let weights = &*self.0;
        let (width, kv_width) = (weights.output.n_in(), weights.kv_width());
        let (batch, t_q, _) = x.dims3().map_err(|_| {
            OpError::shape("attention_sublayer", format!("x must be (b, t, d), got {:?}", x.shape()))
        })?;
        check_last_dim("attention_sublayer", x, weights.projection.n_in())?;
        self.check_projection(if key_value.is_some() { width } else { width + 2 * kv_width })?;
        let t_k = match key_value {
            None => n_before + t_q,
            Some(kv) => match kv.dims() {
                &[b, t_k, w] if b == batch && t_k > 0 && w == 2 * kv_width => t_k,
                dims => {
                    let what =
                        format!("keys and values must be ({batch}, t_k > 0, {}), got {dims:?}", 2 * kv_width);
                    return Err(OpError::shape("attention_sublayer", what));
                }
            },
        };
        bias.check("attention_sublayer", batch, weights.n_heads, t_q, t_k)?;
        let (n_heads, n_kv_heads) = (weights.n_heads, weights.n_kv_heads);
        Ok(Sizes { batch, shape: HeadShape { n_heads, n_kv_heads, d_head: weights.d_head(), t_q, t_k } })
    }
}
