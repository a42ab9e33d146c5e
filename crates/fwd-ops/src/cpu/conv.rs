//! Convolutions of frozen image encoders, `NCHW`: depthwise `k×k` with stride and explicit padding, and pointwise `1×1`.

use super::gemm::{LinearRef, rows, rows_mut};
use super::{Elem, simd};
use faer::Accum;
use rayon::prelude::*;

/// The sizes of a depthwise convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DepthwiseShape {
    pub(crate) channels: usize,
    pub(crate) in_hw: [usize; 2],
    pub(crate) out_hw: [usize; 2],
    pub(crate) kernel_hw: [usize; 2],
    pub(crate) stride: usize,
    /// Zero rows above and zero columns to the left of the image; below and to the right it follows from `out_hw`.
    pub(crate) pad_top_left: [usize; 2],
}

impl DepthwiseShape {
    /// The outputs `lo..hi` along one axis for which kernel tap `tap` reads inside the image, and the input of output `lo`.
    #[inline(always)]
    fn span(&self, axis: usize, tap: usize) -> (usize, usize, usize) {
        let (n_in, n_out, pad) = (self.in_hw[axis], self.out_hw[axis], self.pad_top_left[axis]);
        let lo = pad.saturating_sub(tap).div_ceil(self.stride);
        let hi = if n_in + pad > tap { (n_in + pad - tap).div_ceil(self.stride).min(n_out) } else { 0 };
        let lo = lo.min(hi);
        (lo, hi, (lo * self.stride + tap).saturating_sub(pad))
    }
}

/// `y[c] = bias[c] + Σ_taps w[c, tap]·x[c] shifted`, for every plane `(image, channel)`.
pub(crate) fn depthwise<E: Elem>(s: DepthwiseShape, x: &[E], weight: &[E], bias: Option<&[E]>, y: &mut [E]) {
    let (plane_in, plane_out) = (s.in_hw[0] * s.in_hw[1], s.out_hw[0] * s.out_hw[1]);
    let taps = s.kernel_hw[0] * s.kernel_hw[1];
    x.par_chunks_exact(plane_in).zip(y.par_chunks_exact_mut(plane_out)).enumerate().for_each(
        |(plane, (x, y))| {
            let channel = plane % s.channels;
            let weight = &weight[channel * taps..][..taps];
            y.fill(bias.map_or(E::zero(), |b| b[channel]));
            simd(
                #[inline(always)]
                || {
                    for ky in 0..s.kernel_hw[0] {
                        let (row_lo, row_hi, row_in) = s.span(0, ky);
                        for kx in 0..s.kernel_hw[1] {
                            let (lo, hi, col_in) = s.span(1, kx);
                            if lo == hi {
                                continue; // This tap lies in the padding for every output.
                            }
                            let w = weight[ky * s.kernel_hw[1] + kx];
                            for oy in row_lo..row_hi {
                                let x = &x[(row_in + (oy - row_lo) * s.stride) * s.in_hw[1] + col_in..];
                                let y = &mut y[oy * s.out_hw[1] + lo..oy * s.out_hw[1] + hi];
                                if s.stride == 1 {
                                    y.iter_mut().zip(x).for_each(|(y, &x)| *y += w * x);
                                } else {
                                    y.iter_mut()
                                        .zip(x.iter().step_by(s.stride))
                                        .for_each(|(y, &x)| *y += w * x);
                                }
                            }
                        }
                    }
                },
            );
        },
    );
}

/// The input gradient of [`depthwise`].
pub(crate) fn depthwise_backward<E: Elem>(s: DepthwiseShape, dy: &[E], weight: &[E], dx: &mut [E]) {
    let (plane_in, plane_out) = (s.in_hw[0] * s.in_hw[1], s.out_hw[0] * s.out_hw[1]);
    let taps = s.kernel_hw[0] * s.kernel_hw[1];
    dx.par_chunks_exact_mut(plane_in).zip(dy.par_chunks_exact(plane_out)).enumerate().for_each(
        |(plane, (dx, dy))| {
            let weight = &weight[plane % s.channels * taps..][..taps];
            dx.fill(E::zero());
            simd(
                #[inline(always)]
                || {
                    for ky in 0..s.kernel_hw[0] {
                        let (row_lo, row_hi, row_in) = s.span(0, ky);
                        for kx in 0..s.kernel_hw[1] {
                            let (lo, hi, col_in) = s.span(1, kx);
                            if lo == hi {
                                continue; // This tap lies in the padding for every output.
                            }
                            let w = weight[ky * s.kernel_hw[1] + kx];
                            for oy in row_lo..row_hi {
                                let dx = &mut dx[(row_in + (oy - row_lo) * s.stride) * s.in_hw[1] + col_in..];
                                let dy = &dy[oy * s.out_hw[1] + lo..oy * s.out_hw[1] + hi];
                                dx.iter_mut().step_by(s.stride).zip(dy).for_each(|(dx, &dy)| *dx += w * dy);
                            }
                        }
                    }
                },
            );
        },
    );
}

/// `y (n_out, pixels) = W·x (n_in, pixels) + b` for every image.
pub(crate) fn pointwise<E: Elem>(linear: LinearRef<'_, E>, n_pixels: usize, x: &[E], y: &mut [E]) {
    let (n_in, n_out) = (linear.n_in, linear.n_out);
    x.par_chunks_exact(n_in * n_pixels).zip(y.par_chunks_exact_mut(n_out * n_pixels)).for_each(|(x, y)| {
        let accum = match linear.bias {
            Some(bias) => {
                y.chunks_exact_mut(n_pixels).zip(bias).for_each(|(row, &b)| row.fill(b));
                Accum::Add
            }
            None => Accum::Replace,
        };
        let weight = linear.weight();
        E::gemm(
            rows_mut(y, n_out, n_pixels, n_pixels),
            accum,
            weight,
            rows(x, n_in, n_pixels, n_pixels),
            E::one(),
        );
    });
}

/// The input gradient of [`pointwise`]: `dx = Wᵀ·dy`.
pub(crate) fn pointwise_backward<E: Elem>(linear: LinearRef<'_, E>, n_pixels: usize, dy: &[E], dx: &mut [E]) {
    let (n_in, n_out) = (linear.n_in, linear.n_out);
    dx.par_chunks_exact_mut(n_in * n_pixels).zip(dy.par_chunks_exact(n_out * n_pixels)).for_each(
        |(dx, dy)| {
            let weight = linear.weight().transpose();
            let dy = rows(dy, n_out, n_pixels, n_pixels);
            E::gemm(rows_mut(dx, n_in, n_pixels, n_pixels), Accum::Replace, weight, dy, E::one());
        },
    );
}
