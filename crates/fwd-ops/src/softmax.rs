//! Softmax over the last dimension with an additive bias and a padding mask.
//!
//! `p_j = exp(s_j + b_j + m_j − max)/Σ…`. A row whose keys are all masked gets zeros and a zero gradient (candle and
//! PyTorch give NaN).

use crate::bias::AttentionBias;
use crate::cpu::attention::scores_to_probs;
use crate::cpu::softmax::softmax_row_backward;
use crate::cpu::{Elem, rows_per_task, simd};
use crate::dispatch::{Read, apply1, apply2};
use crate::error::{OpError, Result};
use crate::gpu::{Arg, GpuStorage};
use crate::kernel::{Kernel, View};
use candle_core::{Shape, Tensor};
use fwd_kernels::{DType, Order, Place, SoftmaxShape, plan_softmax_backward, plan_softmax_forward};
use rayon::prelude::*;

/// Attention probabilities from scores.
///
/// # Shapes
/// `scores (batch, n_heads, t_q, t_k)` in f32 or f64 -> the same; see [`AttentionBias`] for what is added.
///
/// # Errors
/// [`OpError::Shape`] if the bias does not fit the scores.
pub fn softmax(scores: &Tensor, bias: &AttentionBias) -> Result<Tensor> {
    let &[batch, n_heads, t_q, t_k] = scores.dims() else {
        return Err(OpError::shape(
            "softmax",
            format!("scores must be (b, h, t_q, t_k), got {:?}", scores.shape()),
        ));
    };
    bias.check("softmax", batch, n_heads, t_q, t_k)?;
    apply1(Forward(bias.clone()), scores)
}

struct Forward(AttentionBias);

/// The gradient to the scores before they were multiplied by `scale`.
struct Backward {
    scale: f64,
}

/// What a GPU does with scores `(batch, n_heads, t_q, t_k)` before the softmax.
fn shape_on_gpu(dims: &[usize], scale: f64) -> candle_core::Result<SoftmaxShape> {
    let &[batch, n_heads, t_q, t_k] = dims else {
        candle_core::bail!("softmax: scores must be (b, h, t_q, t_k), got {dims:?}")
    };
    Ok(SoftmaxShape {
        batch,
        n_heads,
        t_q,
        t_k,
        dtype: DType::F32,
        scale: scale as f32,
        position: false,
        place: Place::Separate,
        keys: false,
        order: Order::All,
    })
}

/// `softmax(scale·scores + bias)` in the memory of a GPU.
pub(crate) fn on_gpu<S: GpuStorage>(
    bias: &AttentionBias,
    scale: f64,
    scores: Arg<'_, S>,
) -> candle_core::Result<S> {
    let read = [bias.position(), bias.keys()].map(|added| added.map(Read::new));
    let added = read.iter().flatten().map(Read::on_gpu).collect::<candle_core::Result<Vec<_>>>()?;
    let shape = SoftmaxShape {
        position: read[0].is_some(),
        keys: read[1].is_some(),
        order: if bias.is_causal() { Order::Causal } else { Order::All },
        ..shape_on_gpu(scores.dims(), scale)?
    };
    let inputs: Vec<_> = std::iter::once(scores).chain(added.iter().map(|a| a.arg())).collect();
    scores.launch_one(plan_softmax_forward(&shape), &inputs)
}

/// The gradient to `scores` of `probs = softmax(scale·scores + …)`.
pub(crate) fn backward(probs: &Tensor, d_probs: &Tensor, scale: f64) -> Result<Tensor> {
    apply2(Backward { scale }, probs, d_probs)
}

impl Kernel<1> for Forward {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu<E: Elem>(&self, [scores]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let [_, n_heads, t_q, t_k] = <[usize; 4]>::try_from(scores.dims).unwrap_or_default();
        let mut probs = scores.data.to_vec();
        if !probs.is_empty() {
            let read = self.0.read();
            let bias = read.values()?;
            probs.par_chunks_mut(t_q * t_k).enumerate().for_each(|(tile, scores)| {
                let terms = bias.terms(tile / n_heads, t_k, 1.0);
                simd(
                    #[inline(always)]
                    || scores_to_probs(t_q, t_k, &terms, tile % n_heads, scores),
                );
            });
        }
        Ok((probs, Shape::from_dims(scores.dims)))
    }

    fn gpu<S: GpuStorage>(&self, [scores]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        Ok((on_gpu(&self.0, 1.0, scores)?, Shape::from_dims(scores.dims())))
    }

    fn backward(&self, _: [&Tensor; 1], y: &Tensor, dy: &Tensor) -> candle_core::Result<[Option<Tensor>; 1]> {
        Ok([Some(backward(y, dy, 1.0)?)])
    }
}

impl Kernel<2> for Backward {
    fn name(&self) -> &'static str {
        "softmax_backward"
    }

    fn cpu<E: Elem>(&self, [p, dp]: [View<'_, E>; 2]) -> candle_core::Result<(Vec<E>, Shape)> {
        let (t_k, scale) = (p.last_dim(), E::of(self.scale));
        let mut ds = dp.data.to_vec();
        if !ds.is_empty() {
            let step = rows_per_task(ds.len() / t_k) * t_k;
            ds.par_chunks_mut(step).zip(p.data.par_chunks(step)).for_each(|(ds, p)| {
                simd(
                    #[inline(always)]
                    || {
                        p.chunks_exact(t_k).zip(ds.chunks_exact_mut(t_k)).for_each(|(p, ds)| {
                            softmax_row_backward(p, ds);
                            ds.iter_mut().for_each(|ds| *ds *= scale);
                        })
                    },
                );
            });
        }
        Ok((ds, Shape::from_dims(p.dims)))
    }

    fn gpu<S: GpuStorage>(&self, [p, dp]: [Arg<'_, S>; 2]) -> candle_core::Result<(S, Shape)> {
        let shape = shape_on_gpu(p.dims(), self.scale)?;
        let plan = plan_softmax_backward(&shape, false, &p.storage.target()?);
        Ok((p.launch_one(plan, &[p, dp])?, Shape::from_dims(p.dims())))
    }
}
