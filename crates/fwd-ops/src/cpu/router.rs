//! The gates of a mixture of low-rank additions: for each token a softmax over experts, by which the part of `x·Aᵀ` of each is multiplied.

use super::elem::Elem;
use super::gemm::{Threads, gemm, rows, rows_mut};
use super::scratch::Scratch;
use super::softmax::{softmax_row, softmax_row_backward};
use faer::Accum;

/// The matrix that the gates come from, for activations of one element type.
#[derive(Clone, Copy)]
pub(crate) struct RouterRef<'a, E> {
    pub(crate) n_experts: usize,
    /// `(n_experts, n_in)`.
    pub(crate) r: &'a [E],
}

impl<E: Elem> RouterRef<'_, E> {
    /// `softmax(x·Rᵀ)` for `m` rows, `(m, n_experts)`.
    pub(crate) fn gates(&self, x: &[E], m: usize, threads: Threads) -> Scratch<E> {
        let (n, n_in) = (self.n_experts, self.r.len() / self.n_experts);
        let mut gates = Scratch::new(m * n);
        let to = rows_mut(&mut gates, m, n, n);
        gemm(to, Accum::Replace, rows(x, m, n_in, n_in), rows(self.r, n, n_in, n_in).transpose(), threads);
        gates.chunks_exact_mut(n).for_each(softmax_row);
        gates
    }

    /// Multiplies the part of each expert, equal parts of `rank` columns one after another, by its gate.
    pub(crate) fn weigh(&self, gates: &[E], values: &mut [E], rank: usize) {
        for (part, gate) in values.chunks_exact_mut(rank / self.n_experts).zip(gates) {
            part.iter_mut().for_each(|value| *value *= *gate);
        }
    }

    /// The gradient of `x·Rᵀ`, of the gradient of the weighed values and of the values before they were weighed.
    pub(crate) fn d_logits(&self, gates: &[E], d_weighed: &[E], values: &[E], rank: usize) -> Scratch<E> {
        let mut d_logits = Scratch::new(gates.len());
        let n_each = rank / self.n_experts;
        let parts = d_weighed.chunks_exact(n_each).zip(values.chunks_exact(n_each));
        for (to, (d, value)) in d_logits.iter_mut().zip(parts) {
            *to = d.iter().zip(value).map(|(d, value)| *d * *value).sum();
        }
        let n = self.n_experts;
        for (p, d) in gates.chunks_exact(n).zip(d_logits.chunks_exact_mut(n)) {
            softmax_row_backward(p, d);
        }
        d_logits
    }

    /// `dx += d_logits·R`.
    pub(crate) fn add_dx(&self, d_logits: &[E], m: usize, dx: &mut [E], threads: Threads) {
        let (n, n_in) = (self.n_experts, self.r.len() / self.n_experts);
        let to = rows_mut(dx, m, n_in, n_in);
        gemm(to, Accum::Add, rows(d_logits, m, n, n), rows(self.r, n, n_in, n_in), threads);
    }

    /// `dR = d_logitsᵀ·x`.
    pub(crate) fn dr(&self, d_logits: &[E], x: &[E], m: usize, dr: &mut [E], threads: Threads) {
        let (n, n_in) = (self.n_experts, self.r.len() / self.n_experts);
        let to = rows_mut(dr, n, n_in, n_in);
        gemm(to, Accum::Replace, rows(d_logits, m, n, n).transpose(), rows(x, m, n_in, n_in), threads);
    }
}
