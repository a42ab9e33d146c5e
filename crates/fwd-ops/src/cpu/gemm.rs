//! Products with a frozen weight: `y = x·Wᵀ` forward, `dx = dy·W` backward.
//!
//! The arithmetic is faer's single-threaded kernel; this module splits the work over the threads (by rows of `x`, or by
//! rows of `W` when `x` has few) and widens half-precision weights.

use super::elem::Elem;
use super::parallel::simd;
use crate::error::OpError;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Tensor};
use faer::{Accum, MatMut, MatRef};
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use std::borrow::Cow;

/// Below this many multiply-adds a product stays on the calling thread.
const MIN_PARALLEL_WORK: usize = 100_000;

/// Whether a kernel may spread its work over the thread pool, or already runs inside one of its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    One,
    Pool,
}

impl Threads {
    pub(crate) fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Pool => rayon::current_num_threads(),
        }
    }
}

/// A row-major `(rows, cols)` view whose rows lie `stride` elements apart.
#[inline(always)]
pub(crate) fn rows<E>(slice: &[E], rows: usize, cols: usize, stride: usize) -> MatRef<'_, E> {
    MatRef::from_row_major_slice_with_stride(slice, rows, cols, stride)
}

/// The mutable form of [`rows`].
///
/// Built as the transpose of a column-major view: faer 0.24.4's `from_row_major_slice_with_stride_mut` swaps its strides and
/// lets safe code write out of bounds.
#[inline(always)]
pub(crate) fn rows_mut<E>(slice: &mut [E], rows: usize, cols: usize, stride: usize) -> MatMut<'_, E> {
    MatMut::from_column_major_slice_with_stride_mut(slice, cols, rows, stride).transpose_mut()
}

/// `dst (m, n) = lhs (m, k) · rhs (k, n)`, or `dst += …`, over the given threads.
pub(crate) fn gemm<E: Elem>(
    dst: MatMut<'_, E>,
    accum: Accum,
    lhs: MatRef<'_, E>,
    rhs: MatRef<'_, E>,
    threads: Threads,
) {
    let (m, n, k) = (dst.nrows(), dst.ncols(), lhs.ncols());
    let tasks = threads.count();
    if tasks == 1 || m * n * k < MIN_PARALLEL_WORK {
        return E::gemm(dst, accum, lhs, rhs, E::one());
    }
    if m >= 16 * tasks {
        let step = m.div_ceil(tasks);
        dst.par_row_chunks_mut(step)
            .zip(lhs.par_row_chunks(step))
            .for_each(|(dst, lhs)| E::gemm(dst, accum, lhs, rhs, E::one()));
    } else {
        let step = n.div_ceil(tasks);
        dst.par_col_chunks_mut(step)
            .zip(rhs.par_col_chunks(step))
            .for_each(|(dst, rhs)| E::gemm(dst, accum, lhs, rhs, E::one()));
    }
}

/// A frozen linear map in the element type of the computation: `Wᵀ (n_in, n_out)` row-major, optional bias.
#[derive(Clone, Copy)]
pub(crate) struct LinearRef<'a, E> {
    pub(crate) transposed: &'a [E],
    pub(crate) bias: Option<&'a [E]>,
    pub(crate) n_in: usize,
    pub(crate) n_out: usize,
}

impl<E: Elem> LinearRef<'_, E> {
    /// `W (n_out, n_in)`.
    pub(crate) fn weight(&self) -> MatRef<'_, E> {
        rows(self.transposed, self.n_in, self.n_out, self.n_out).transpose()
    }

    /// `y = x·Wᵀ + b` for `m` rows, or `y += …`.
    pub(crate) fn forward(&self, x: &[E], m: usize, y: &mut [E], accum: Accum, threads: Threads) {
        let weight = self.weight().transpose();
        gemm(
            rows_mut(y, m, self.n_out, self.n_out),
            accum,
            rows(x, m, self.n_in, self.n_in),
            weight,
            threads,
        );
        if let Some(bias) = self.bias {
            simd(
                #[inline(always)]
                || {
                    for row in y.chunks_exact_mut(self.n_out) {
                        for (y, &b) in row.iter_mut().zip(bias) {
                            *y += b;
                        }
                    }
                },
            );
        }
    }

    /// `dx = dy·W` for `m` rows, or `dx += …`.
    pub(crate) fn backward(&self, dy: &[E], m: usize, dx: &mut [E], accum: Accum, threads: Threads) {
        let weight = self.weight();
        gemm(
            rows_mut(dx, m, self.n_in, self.n_in),
            accum,
            rows(dy, m, self.n_out, self.n_out),
            weight,
            threads,
        );
    }
}

/// The values of a contiguous CPU tensor in element type `E`: borrowed where the types agree, widened otherwise.
///
/// A half-precision weight is widened as a whole (in parallel) each time it is used: the memory it saves is the memory at
/// rest, and the cost is one pass over the weight against `2·m` operations on each of its elements.
pub(crate) fn widen<'a, E: Elem>(
    storage: &'a CpuStorage,
    tensor: &Tensor,
) -> candle_core::Result<Cow<'a, [E]>> {
    let layout = tensor.layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a frozen parameter must be contiguous, got {layout:?}");
    };
    if storage.dtype() == E::DTYPE {
        return Ok(Cow::Borrowed(&E::cpu_storage_as_slice(storage)?[start..end]));
    }
    let mut out = vec![E::zero(); end - start];
    match storage {
        CpuStorage::BF16(values) => widen_half(&values[start..end], &mut out),
        CpuStorage::F16(values) => widen_half(&values[start..end], &mut out),
        CpuStorage::F32(values) => {
            out.iter_mut().zip(&values[start..]).for_each(|(o, &w)| *o = E::of(f64::from(w)));
        }
        other => {
            let supported = "frozen parameters are f32, bf16 or f16, or f64 for f64 activations";
            return Err(OpError::DType { op: "frozen parameter", dtype: other.dtype(), supported }.into());
        }
    }
    Ok(Cow::Owned(out))
}

fn widen_half<E: Elem, H: Sync>(values: &[H], out: &mut [E])
where
    [H]: HalfFloatSliceExt,
{
    const BLOCK: usize = 1 << 14;
    out.par_chunks_mut(BLOCK).zip(values.par_chunks(BLOCK)).for_each(|(out, values)| {
        let mut wide = [0f32; BLOCK];
        let wide = &mut wide[..out.len()];
        values.convert_to_f32_slice(wide);
        out.iter_mut().zip(wide).for_each(|(o, w)| *o = E::of(f64::from(*w)));
    });
}

/// Whether [`widen`] and the kernels accept this element type for a frozen parameter.
pub(crate) fn is_weight_dtype(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::BF16 | DType::F16)
}
