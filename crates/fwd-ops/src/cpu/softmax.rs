//! Softmax of one row with additive terms: `p_j = exp(s_j − max s) / Σ exp(s_j − max s)`.
//!
//! A row whose scores are all −∞ has no distribution; it gets zeros, and a zero gradient.

use super::elem::{Elem, dot, sum_of};

/// Replaces the scores in `row` by their softmax.
#[inline(always)]
pub(crate) fn softmax_row<E: Elem>(row: &mut [E]) {
    let mut max = E::NEG_INFINITY;
    for &s in row.iter() {
        max = max.max_or_nan(s);
    }
    if max == E::NEG_INFINITY {
        row.fill(E::zero());
        return;
    }
    for s in row.iter_mut() {
        *s = Elem::exp(*s - max);
    }
    let scale = E::one() / sum_of(row.len(), |i| row[i]);
    for s in row.iter_mut() {
        *s *= scale;
    }
}

/// Replaces `dp` by `ds_j = p_j·(dp_j − Σ_k p_k dp_k)`.
#[inline(always)]
pub(crate) fn softmax_row_backward<E: Elem>(p: &[E], dp: &mut [E]) {
    let mean = dot(p, dp);
    for (d, &p) in dp.iter_mut().zip(p) {
        *d = p * (*d - mean);
    }
}
