//! Row normalisations, forward and backward.
//!
//! ```text
//! layer norm: y = w·(x − mean x)/sqrt(var x + eps) + b        RMS norm: y = w·x/sqrt(mean x² + eps)
//! ```
//! Statistics are accumulated in the element type over 16 lanes.

use super::elem::{Elem, sum_of};

/// The parameters of a row normalisation, as slices of width `d`.
#[derive(Clone, Copy)]
pub(crate) enum NormRef<'a, E> {
    /// No normalisation: the identity.
    Identity,
    Rms {
        weight: &'a [E],
        eps: f64,
    },
    Layer {
        weight: &'a [E],
        bias: &'a [E],
        eps: f64,
    },
}

impl<E: Elem> NormRef<'_, E> {
    pub(crate) fn is_identity(&self) -> bool {
        matches!(self, Self::Identity)
    }
}

#[inline(always)]
fn rms_scale<E: Elem>(x: &[E], eps: f64) -> E {
    let mean_square = sum_of(x.len(), |i| x[i] * x[i]) / E::of(x.len() as f64);
    E::one() / Elem::sqrt(mean_square + E::of(eps))
}

#[inline(always)]
fn mean_and_scale<E: Elem>(x: &[E], eps: f64) -> (E, E) {
    let n = E::of(x.len() as f64);
    let mean = sum_of(x.len(), |i| x[i]) / n;
    let variance = sum_of(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / n;
    (mean, E::one() / Elem::sqrt(variance + E::of(eps)))
}

/// Normalises every row of `x` (rows of width `d`) into `y`.
#[inline(always)]
pub(crate) fn norm_rows<E: Elem>(norm: NormRef<'_, E>, x: &[E], d: usize, y: &mut [E]) {
    y.copy_from_slice(x);
    norm_rows_in_place(norm, y, d);
}

/// Normalises every row of `x` in place.
#[inline(always)]
pub(crate) fn norm_rows_in_place<E: Elem>(norm: NormRef<'_, E>, x: &mut [E], d: usize) {
    match norm {
        NormRef::Identity => {}
        NormRef::Rms { weight, eps } => {
            for x in x.chunks_exact_mut(d) {
                let scale = rms_scale(x, eps);
                for (x, &w) in x.iter_mut().zip(weight) {
                    *x = w * (*x * scale);
                }
            }
        }
        NormRef::Layer { weight, bias, eps } => {
            for x in x.chunks_exact_mut(d) {
                let (mean, scale) = mean_and_scale(x, eps);
                for ((x, &w), &b) in x.iter_mut().zip(weight).zip(bias) {
                    *x = (*x - mean) * scale * w + b;
                }
            }
        }
    }
}

/// Adds the input gradient of [`norm_rows`] to `dx`: `dx += dnormᵀ(x)·dy`.
///
/// With `x̂` the normalised row and `g = w·dy`: RMS `dx = r·(g − x̂·mean(g·x̂))`, layer norm the same with `mean(g)`
/// subtracted too.
#[inline(always)]
pub(crate) fn norm_rows_backward_add<E: Elem>(
    norm: NormRef<'_, E>,
    x: &[E],
    d: usize,
    dy: &[E],
    dx: &mut [E],
) {
    let n = E::of(d as f64);
    match norm {
        NormRef::Identity => {
            for (dx, &dy) in dx.iter_mut().zip(dy) {
                *dx += dy;
            }
        }
        NormRef::Rms { weight, eps } => {
            let w = &weight[..d];
            for ((x, dy), dx) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
                let r = rms_scale(x, eps);
                let along = sum_of(d, |i| w[i] * dy[i] * x[i]) * r * r / n;
                for i in 0..d {
                    dx[i] += r * (w[i] * dy[i] - x[i] * along);
                }
            }
        }
        NormRef::Layer { weight, eps, .. } => {
            let w = &weight[..d];
            for ((x, dy), dx) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
                let (mean, r) = mean_and_scale(x, eps);
                let along = sum_of(d, |i| w[i] * dy[i] * (x[i] - mean)) * r * r / n;
                let level = sum_of(d, |i| w[i] * dy[i]) / n;
                for i in 0..d {
                    dx[i] += r * (w[i] * dy[i] - level - (x[i] - mean) * along);
                }
            }
        }
    }
}

/// `out += Σ_rows x` for rows of the width of `out`, in order.
#[inline(always)]
pub(crate) fn sum_rows<E: Elem>(x: &[E], out: &mut [E]) {
    for row in x.chunks_exact(out.len()) {
        for (out, &x) in out.iter_mut().zip(row) {
            *out += x;
        }
    }
}

/// Gradient of the weight of [`norm_rows`] over all rows: `dw += Σ_rows dy·x̂`. That of a bias is [`sum_rows`] of `dy`.
#[inline(always)]
pub(crate) fn norm_rows_weight_gradient<E: Elem>(norm: NormRef<'_, E>, x: &[E], dy: &[E], dw: &mut [E]) {
    let d = dw.len();
    for (x, dy) in x.chunks_exact(d).zip(dy.chunks_exact(d)) {
        let (mean, scale) = match norm {
            NormRef::Identity => return,
            NormRef::Rms { eps, .. } => (E::zero(), rms_scale(x, eps)),
            NormRef::Layer { eps, .. } => mean_and_scale(x, eps),
        };
        for i in 0..d {
            dw[i] += dy[i] * ((x[i] - mean) * scale);
        }
    }
}
