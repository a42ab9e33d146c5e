//! Products with a frozen weight: `y = x·Wᵀ` forward, `dx = dy·W` backward, and what low-rank additions ([`LowRankValues`]) change of them. Packed weights are multiplied panel by panel ([`packed`]),
//! those that stay as they are stored tile by tile ([`product`]).

use super::elem::Elem;
use super::gemm::{Threads, gemm, rows, rows_mut};
use super::low_rank::LowRankValues;
use super::packed;
use super::parallel::simd;
use super::stored::{StoredRows, product};
use crate::error::OpError;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Tensor};
use faer::{Accum, MatRef};
use fwd_simd::Panels;
use half::bf16;
use std::borrow::Cow;

/// The weight of a frozen linear map.
#[derive(Clone, Copy)]
pub(crate) enum WeightRef<'a, E> {
    /// `Wᵀ (n_in, n_out)`, row-major.
    Transposed(&'a [E]),
    /// The rows of `W`, below each other.
    Runs(&'a [Run<'a>]),
}

/// Rows of a frozen matrix in one form, of one or more parts.
pub(crate) enum Run<'a> {
    /// As they are stored.
    Stored(Vec<StoredRows<'a>>),
    /// Panels of f32.
    F32(Vec<&'a Panels<f32>>),
    /// Packed and rounded.
    Bf16(Vec<&'a Panels<bf16>>),
}

impl Run<'_> {
    /// Takes `next` in if it has the same form, or hands it back.
    pub(crate) fn extend(&mut self, next: Self) -> Option<Self> {
        match (self, next) {
            (Self::Stored(all), Self::Stored(next)) => all.extend(next),
            (Self::F32(all), Self::F32(next)) => all.extend(next),
            (Self::Bf16(all), Self::Bf16(next)) => all.extend(next),
            (_, next) => return Some(next),
        }
        None
    }

    /// Rows of all parts.
    fn n_rows(&self) -> usize {
        match self {
            Self::Stored(parts) => parts.iter().map(|part| part.n_rows).sum(),
            Self::F32(parts) => parts.iter().map(|part| part.n_rows()).sum(),
            Self::Bf16(parts) => parts.iter().map(|part| part.n_rows()).sum(),
        }
    }
}

/// A frozen linear map for activations of one element type.
#[derive(Clone, Copy)]
pub(crate) struct LinearRef<'a, E: Clone> {
    pub(crate) weight: WeightRef<'a, E>,
    pub(crate) bias: Option<&'a [E]>,
    /// What is added to the weight.
    pub(crate) additions: &'a [LowRankValues<'a, E>],
    pub(crate) n_in: usize,
    pub(crate) n_out: usize,
}

impl<'a, E: Elem> LinearRef<'a, E> {
    /// Whether a product widens the weight as it goes. Then one product for all rows costs less than one for each block of rows.
    pub(crate) fn is_stored(&self) -> bool {
        matches!(self.weight, WeightRef::Runs(runs) if runs.iter().any(|run| matches!(run, Run::Stored(_))))
    }

    /// `Wᵀ (n_in, n_out)` as a view of a row-major slice.
    pub(crate) fn transposed(&self, values: &'a [E]) -> MatRef<'a, E> {
        rows(values, self.n_in, self.n_out, self.n_out)
    }

    /// `y = x·Wᵀ + b` for `m` rows, or `y += …`.
    pub(crate) fn forward(&self, x: &[E], m: usize, y: &mut [E], accum: Accum, threads: Threads) {
        let to = rows_mut(y, m, self.n_out, self.n_out);
        match self.weight {
            WeightRef::Transposed(values) => {
                gemm(to, accum, rows(x, m, self.n_in, self.n_in), self.transposed(values), threads);
            }
            WeightRef::Runs(runs) => {
                let (mut rest, x_rows) = (to, rows(x, m, self.n_in, self.n_in));
                for run in runs {
                    let (y, other) = rest.split_at_col_mut(run.n_rows());
                    rest = other;
                    match run {
                        Run::Stored(parts) => product::forward(parts, x, y, accum, threads),
                        Run::F32(parts) => packed::forward(parts, x_rows, y, accum, threads),
                        Run::Bf16(parts) => packed::forward(parts, x_rows, y, accum, threads),
                    }
                }
            }
        }
        for addition in self.additions.iter().map(LowRankValues::as_ref) {
            let inner = addition.inner(x, m, self.n_in, threads);
            addition.add_outer(&inner, m, y, self.n_out, threads);
        }
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
        let d_outputs = dy;
        let (to, dy) = (rows_mut(dx, m, self.n_in, self.n_in), rows(dy, m, self.n_out, self.n_out));
        match self.weight {
            WeightRef::Transposed(values) => {
                gemm(to, accum, dy, self.transposed(values).transpose(), threads);
            }
            WeightRef::Runs(runs) => {
                let (mut dx, mut accum, mut at) = (to, accum, 0);
                for run in runs {
                    let (dx, dy) = (dx.as_mut(), dy.subcols(at, run.n_rows()));
                    match run {
                        Run::Stored(parts) => product::backward(parts, dy, dx, accum, threads),
                        Run::F32(parts) => packed::backward(parts, dy, dx, accum, threads),
                        Run::Bf16(parts) => packed::backward(parts, dy, dx, accum, threads),
                    }
                    (accum, at) = (Accum::Add, at + run.n_rows());
                }
            }
        }
        for addition in self.additions.iter().map(LowRankValues::as_ref) {
            let d_inner = addition.d_inner(d_outputs, m, self.n_out, threads);
            addition.add_dx(&d_inner, m, dx, self.n_in, threads);
        }
    }
}

/// The values of a contiguous CPU tensor in element type `E`: borrowed where the types agree, widened otherwise.
///
/// Vectors (a bias, the weight of a norm) may be stored in half precision; matrices in half precision are not widened here.
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

fn widen_half<E: Elem, H: Copy>(values: &[H], out: &mut [E])
where
    f32: From<H>,
{
    out.iter_mut().zip(values).for_each(|(o, &w)| *o = E::of(f64::from(f32::from(w))));
}

/// Whether [`widen`] and the kernels accept this element type for a frozen parameter.
pub(crate) fn is_weight_dtype(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::BF16 | DType::F16)
}
