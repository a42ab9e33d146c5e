//! Products of dense matrices. The arithmetic is that of `fwd-simd` (f32) or faer (f64) on one thread; this module splits the work over the threads, by rows of
//! the result, or by its columns when there are few rows.

use super::elem::Elem;
use faer::{Accum, MatMut, MatRef};
use rayon::prelude::*;

/// Below this many multiply-adds a product stays on the calling thread.
pub(crate) const MIN_PARALLEL_WORK: usize = 100_000;

/// Whether a kernel may spread its work over the thread pool, or already runs inside one of its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    One,
    /// Those of rayon.
    Pool,
    /// Those of [`fwd_simd::fork`]: for the sections of few rows, which take microseconds and follow each other.
    Team,
}

impl Threads {
    /// For the sections of so many rows of activations, outside of any task.
    pub(crate) fn for_rows(n_rows: usize) -> Self {
        if n_rows < 16 * rayon::current_num_threads() { Self::Team } else { Self::Pool }
    }

    pub(crate) fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Pool => rayon::current_num_threads(),
            Self::Team => fwd_simd::members(),
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
    if threads == Threads::Team {
        // Runs of whole cache lines.
        fwd_simd::fork_columns(dst, 16, tasks, |first, dst| {
            let rhs = rhs.subcols(first, dst.ncols());
            E::gemm(dst, accum, lhs, rhs, E::one());
        });
    } else if m >= 16 * tasks {
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
