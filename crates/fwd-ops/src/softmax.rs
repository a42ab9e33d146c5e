//! Softmax over the last dimension with an additive bias and a padding mask.
//!
//! `p_j = exp(s_j + b_j + m_j − max)/Σ…`. A row whose keys are all masked gets zeros and a zero gradient (candle and
//! PyTorch give NaN).

use crate::attention::AttentionBias;
use crate::cpu::softmax::softmax_row_backward;
use crate::cpu::{Elem, rows_per_task, simd};
use crate::dispatch::{Kernel, View, apply1, apply2};
use crate::error::{OpError, Result};
use candle_core::{Shape, Tensor};
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
struct Backward;

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
                    || crate::cpu::attention::scores_to_probs(t_q, t_k, &terms, tile % n_heads, scores),
                );
            });
        }
        Ok((probs, Shape::from_dims(scores.dims)))
    }

    fn backward(&self, _: [&Tensor; 1], y: &Tensor, dy: &Tensor) -> candle_core::Result<[Option<Tensor>; 1]> {
        Ok([Some(apply2(Backward, y, dy)?)])
    }
}

impl Kernel<2> for Backward {
    fn name(&self) -> &'static str {
        "softmax_backward"
    }

    fn cpu<E: Elem>(&self, [p, dp]: [View<'_, E>; 2]) -> candle_core::Result<(Vec<E>, Shape)> {
        let t_k = p.last_dim();
        let mut ds = dp.data.to_vec();
        if !ds.is_empty() {
            let step = rows_per_task(ds.len() / t_k) * t_k;
            ds.par_chunks_mut(step).zip(p.data.par_chunks(step)).for_each(|(ds, p)| {
                simd(
                    #[inline(always)]
                    || {
                        p.chunks_exact(t_k)
                            .zip(ds.chunks_exact_mut(t_k))
                            .for_each(|(p, ds)| softmax_row_backward(p, ds))
                    },
                );
            });
        }
        Ok((ds, Shape::from_dims(p.dims)))
    }
}
