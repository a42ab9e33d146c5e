//! Multi-head attention with relative-position bias, padding mask and causal mask:
//! `C = softmax(scale·Q·Kᵀ + position + mask)·V`.
//!
//! T5 uses `scale = 1`, BERT and EVA `1/sqrt(d_head)`. Everything stays token-major `(batch, tokens, n_heads·d_head)`.

use crate::cpu::Elem;
use crate::cpu::attention::{HeadShape, ScoreTerms, Tokens, attend, attend_backward};
use crate::cpu::gemm::{Threads, rows_mut};
use crate::dispatch::{Kernel, Read, View, apply1, apply3, keep};
use crate::error::{OpError, Result};
use candle_core::{DType, Device, Shape, Tensor};
use rayon::prelude::*;
use std::borrow::Cow;
use std::sync::OnceLock;

/// What is added to attention scores before the softmax. Nothing in it gets a gradient.
#[derive(Debug, Clone, Default)]
pub struct AttentionBias {
    position: Option<Tensor>,
    keys: Option<Tensor>,
    causal: bool,
}

impl AttentionBias {
    /// No bias and no mask.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds `position (n_heads, t_q, t_k)` to the scores of every batch entry.
    ///
    /// # Errors
    /// [`OpError::Shape`] if it is not of rank 3 or is tracked for gradients, which it would not get.
    pub fn with_position(mut self, position: &Tensor) -> Result<Self> {
        if position.rank() != 3 || position.track_op() {
            let what = format!(
                "the position bias must be an untracked (heads, t_q, t_k), got {:?}",
                position.shape()
            );
            return Err(OpError::shape("attention", what));
        }
        self.position = Some(position.contiguous()?);
        Ok(self)
    }

    /// Hides padding: `mask (batch, t_k)`, integer or float, 0 for a key that must not be seen.
    ///
    /// # Errors
    /// [`OpError::Shape`] if it is not of rank 2.
    pub fn with_padding_mask(mut self, mask: &Tensor) -> Result<Self> {
        let (batch, t_k) = mask.dims2().map_err(|_| {
            OpError::shape("attention", format!("the mask must be (b, t_k), got {:?}", mask.shape()))
        })?;
        let seen = mask.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let added: Vec<f32> = seen.iter().map(|&s| if s == 0.0 { f32::NEG_INFINITY } else { 0.0 }).collect();
        self.keys = Some(Tensor::from_vec(added, (batch, t_k), mask.device())?);
        Ok(self)
    }

    /// The same bias for activations of another type (f32 or f64).
    ///
    /// # Errors
    /// An error of candle.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let cast = |t: &Option<Tensor>| t.as_ref().map(|t| t.to_dtype(dtype)).transpose();
        Ok(Self { position: cast(&self.position)?, keys: cast(&self.keys)?, causal: self.causal })
    }

    /// Query `i` sees keys `0 ..= i + t_k − t_q`.
    pub fn causal(mut self) -> Self {
        self.causal = true;
        self
    }

    /// [`OpError::Shape`] unless bias and mask fit the sizes of an attention.
    pub(crate) fn check(
        &self,
        op: &'static str,
        batch: usize,
        n_heads: usize,
        t_q: usize,
        t_k: usize,
    ) -> Result<()> {
        let misfit = |what: &str, want: &[usize], got: &Tensor| {
            Err(OpError::shape(op, format!("{what} must be {want:?}, got {:?}", got.shape())))
        };
        match (&self.position, &self.keys) {
            (Some(p), _) if p.dims() != [n_heads, t_q, t_k] => {
                misfit("position bias", &[n_heads, t_q, t_k], p)
            }
            (_, Some(k)) if k.dims() != [batch, t_k] => misfit("padding mask", &[batch, t_k], k),
            _ => Ok(()),
        }
    }

    pub(crate) fn read(&self) -> BiasRead<'_> {
        BiasRead {
            position: self.position.as_ref().map(Read::new),
            keys: self.keys.as_ref().map(Read::new),
            causal: self.causal,
        }
    }
}

/// An [`AttentionBias`] locked for reading.
pub(crate) struct BiasRead<'a> {
    position: Option<Read<'a>>,
    keys: Option<Read<'a>>,
    causal: bool,
}

/// The values of an [`AttentionBias`] in one element type.
pub(crate) struct BiasValues<'a, E: Clone> {
    position: Option<Cow<'a, [E]>>,
    keys: Option<Cow<'a, [E]>>,
    causal: bool,
}

impl BiasRead<'_> {
    pub(crate) fn values<E: Elem>(&self) -> candle_core::Result<BiasValues<'_, E>> {
        Ok(BiasValues {
            position: self.position.as_ref().map(Read::values).transpose()?,
            keys: self.keys.as_ref().map(Read::values).transpose()?,
            causal: self.causal,
        })
    }
}

impl<E: Elem> BiasValues<'_, E> {
    /// The terms of batch entry `entry`.
    pub(crate) fn terms(&self, entry: usize, t_k: usize, scale: f64) -> ScoreTerms<'_, E> {
        ScoreTerms {
            scale,
            position: self.position.as_deref(),
            keys: self.keys.as_deref().map(|keys| &keys[entry * t_k..][..t_k]),
            causal: self.causal,
        }
    }
}

/// Attention of every query over all keys of its batch entry.
///
/// # Shapes
/// `q (batch, t_q, n_heads·d_head)`, `k` and `v (batch, t_k, n_heads·d_head)`, f32 or f64, any batch and token strides
/// -> `(batch, t_q, n_heads·d_head)`.
///
/// # Errors
/// [`OpError::Shape`] if the shapes or the bias do not fit.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    n_heads: usize,
    scale: f64,
    bias: &AttentionBias,
) -> Result<Tensor> {
    let shapes = || format!("q {:?}, k {:?}, v {:?}, {n_heads} heads", q.shape(), k.shape(), v.shape());
    let (Ok((batch, t_q, width)), Ok((b_k, t_k, w_k))) = (q.dims3(), k.dims3()) else {
        return Err(OpError::shape("attention", format!("rank 3 expected: {}", shapes())));
    };
    if b_k != batch || w_k != width || v.dims() != k.dims() || n_heads == 0 || width % n_heads != 0 {
        return Err(OpError::shape("attention", format!("sizes do not fit: {}", shapes())));
    }
    bias.check("attention", batch, n_heads, t_q, t_k)?;
    let last_dense = |t: &Tensor| if t.stride()[2] == 1 { Ok(t.clone()) } else { t.contiguous() };
    let kernel = Forward {
        sizes: Sizes { batch, shape: HeadShape { n_heads, d_head: width / n_heads, t_q, t_k }, scale },
        bias: bias.clone(),
        keep: q.track_op() || k.track_op() || v.track_op(),
        probs: OnceLock::new(),
    };
    apply3(kernel, &last_dense(q)?, &last_dense(k)?, &last_dense(v)?)
}

#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    shape: HeadShape,
    scale: f64,
}

struct Forward {
    sizes: Sizes,
    bias: AttentionBias,
    keep: bool,
    probs: OnceLock<Tensor>,
}

struct Backward {
    sizes: Sizes,
    probs: Tensor,
    qkv: [Tensor; 3],
}

impl<'a, E: Elem> View<'a, E> {
    fn tokens(&self, entry: usize) -> Tokens<'a, E> {
        Tokens { data: &self.data[entry * self.stride[0]..], stride: self.stride[1] }
    }
}

fn tokens_of<E>(data: &[E], from: usize, stride: usize) -> Tokens<'_, E> {
    Tokens { data: &data[from..], stride }
}

impl Kernel<3> for Forward {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu<E: Elem>(&self, [q, k, v]: [View<'_, E>; 3]) -> candle_core::Result<(Vec<E>, Shape)> {
        let Sizes { batch, shape, scale } = self.sizes;
        let (t_q, t_k, width) = (shape.t_q, shape.t_k, shape.width());
        let read = self.bias.read();
        let bias = read.values()?;
        let mut probs = vec![E::zero(); batch * shape.n_probs()];
        let mut context = vec![E::zero(); batch * t_q * width];
        if batch * t_q * width > 0 && t_k > 0 {
            let inner = if batch < rayon::current_num_threads() { Threads::Pool } else { Threads::One };
            probs
                .par_chunks_mut(shape.n_probs())
                .zip(context.par_chunks_mut(t_q * width))
                .enumerate()
                .for_each(|(b, (probs, context))| {
                    let context = rows_mut(context, t_q, width, width);
                    let qkv = [q.tokens(b), k.tokens(b), v.tokens(b)];
                    attend(shape, &bias.terms(b, t_k, scale), qkv, probs, context, inner);
                });
        }
        if self.keep {
            let _ = self.probs.set(keep(probs)?);
        }
        Ok((context, Shape::from((batch, t_q, width))))
    }

    fn backward(
        &self,
        [q, k, v]: [&Tensor; 3],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 3]> {
        let Some(probs) = self.probs.get().cloned() else {
            candle_core::bail!("attention: backward before forward");
        };
        let kernel =
            Backward { sizes: self.sizes, probs, qkv: [q.contiguous()?, k.contiguous()?, v.contiguous()?] };
        let flat = apply1(kernel, dy)?;
        let (n_q, n_k) = (q.elem_count(), k.elem_count());
        let part = |at: usize, like: &Tensor| {
            like.track_op().then(|| flat.narrow(0, at, like.elem_count())?.reshape(like.shape())).transpose()
        };
        Ok([part(0, q)?, part(n_q, k)?, part(n_q + n_k, v)?])
    }
}

impl Kernel<1> for Backward {
    fn name(&self) -> &'static str {
        "attention_backward"
    }

    fn cpu<E: Elem>(&self, [dy]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let Sizes { batch, shape, scale } = self.sizes;
        let (t_q, t_k, width) = (shape.t_q, shape.t_k, shape.width());
        let read = [Read::new(&self.qkv[0]), Read::new(&self.qkv[1]), Read::new(&self.qkv[2])];
        let probs = Read::new(&self.probs);
        let (q, k, v, probs) =
            (read[0].values::<E>()?, read[1].values::<E>()?, read[2].values::<E>()?, probs.values::<E>()?);
        let (n_q, n_k) = (t_q * width, t_k * width);
        let mut flat = vec![E::zero(); batch * (n_q + 2 * n_k)];
        if n_q > 0 && n_k > 0 {
            let (dq, dkv) = flat.split_at_mut(batch * n_q);
            let (dk, dv) = dkv.split_at_mut(batch * n_k);
            dq.par_chunks_mut(n_q)
                .zip(dk.par_chunks_mut(n_k))
                .zip(dv.par_chunks_mut(n_k))
                .enumerate()
                .for_each(|(b, ((dq, dk), dv))| {
                    let tokens = |data, n| tokens_of(data, b * n, width);
                    attend_backward(
                        shape,
                        scale,
                        [tokens(&q, n_q), tokens(&k, n_k), tokens(&v, n_k)],
                        &probs[b * shape.n_probs()..][..shape.n_probs()],
                        tokens(dy.data, n_q),
                        [
                            rows_mut(dq, t_q, width, width),
                            rows_mut(dk, t_k, width, width),
                            rows_mut(dv, t_k, width, width),
                        ],
                        Threads::One,
                    );
                });
        }
        let n = flat.len();
        Ok((flat, Shape::from(n)))
    }
}

/// The additive bias of T5's relative positions: `bias[h, i, j] = table[bucket(j − (i + offset)), h]`.
///
/// # Shapes
/// `table (n_buckets, n_heads)`, `buckets (t_q·t_k)` row-major with every value below `n_buckets` -> `(n_heads, t_q, t_k)`.
///
/// # Errors
/// [`OpError::Shape`] if the sizes do not fit, [`OpError::IdOutOfRange`] for a bucket outside the table.
pub fn position_bias(table: &Tensor, buckets: &[u32], t_q: usize, t_k: usize) -> Result<Tensor> {
    let (_, n_heads) = table.dims2()?;
    if buckets.len() != t_q * t_k {
        return Err(OpError::shape(
            "position_bias",
            format!("{} buckets for {t_q}·{t_k} pairs", buckets.len()),
        ));
    }
    let ids = Tensor::from_slice(buckets, buckets.len(), table.device())?;
    let rows = crate::embedding(table, &ids)?;
    Ok(rows.t()?.contiguous()?.reshape((n_heads, t_q, t_k))?)
}
