//! The feed-forward sublayer of a transformer, run over blocks of rows that stay in cache:
//! `y = post(x + W_out·act(W_in·pre(x)))`.

use super::activation::{Activation, activate, activate_backward, gate, gate_backward, with_act};
use super::elem::Elem;
use super::gemm::Threads;
use super::linear::LinearRef;
use super::norm::{NormRef, norm_rows, norm_rows_backward_add, norm_rows_in_place};
use super::parallel::{rows_per_task, simd};
use super::scratch::Scratch;
use faer::Accum;
use rayon::prelude::*;

/// A feed-forward sublayer in the element type of the computation.
#[derive(Clone, Copy)]
pub(crate) struct FeedForwardRef<'a, E: Clone> {
    pub(crate) pre: NormRef<'a, E>,
    /// `(d_hidden, d)`, or `(2·d_hidden, d)` = `[gate ; up]` when gated.
    pub(crate) w_in: LinearRef<'a, E>,
    pub(crate) activation: Activation,
    pub(crate) gated: bool,
    /// The second map, `(d, d_hidden)`.
    pub(crate) w_out: LinearRef<'a, E>,
    pub(crate) post: NormRef<'a, E>,
}

/// What the backward pass needs from the forward pass.
pub(crate) struct FeedForwardSaved<E> {
    /// `W_in·pre(x)`, `(m, w_in.n_out)`.
    pub(crate) hidden: Vec<E>,
    /// The sum before the post-norm, `(m, d)`; empty when there is none.
    pub(crate) sum: Vec<E>,
}

impl<E: Elem> FeedForwardRef<'_, E> {
    /// Whether a product widens a weight as it goes: then all rows are one block, and each product has all threads.
    fn is_stored(&self) -> bool {
        self.w_in.is_stored() || self.w_out.is_stored()
    }

    /// Rows of a block, and the threads of each of its steps.
    fn plan(&self, m: usize) -> (usize, Threads) {
        if self.is_stored() { (m.max(1), Threads::Pool) } else { (rows_per_task(m), Threads::One) }
    }

    fn act(&self, hidden: &[E], out: &mut [E], threads: Threads) {
        let (n_in, n_out) = (self.w_in.n_out, self.w_out.n_in);
        let one = |hidden: &[E], out: &mut [E]| {
            with_act!(self.activation, A => simd(#[inline(always)] || {
                if self.gated {
                    hidden.chunks_exact(n_in).zip(out.chunks_exact_mut(n_out)).for_each(|(h, y)| gate::<A, E>(h, y));
                } else {
                    activate::<A, E>(hidden, out);
                }
            }));
        };
        let m = hidden.len() / n_in;
        if threads == Threads::Team {
            return fwd_simd::fork_chunks(out, n_out, usize::MAX, |first, out| {
                one(&hidden[first * n_in..][..out.len() / n_out * n_in], out);
            });
        }
        if threads.count() == 1 || m < 2 * threads.count() {
            return one(hidden, out);
        }
        let rows = rows_per_task(m);
        hidden.par_chunks(rows * n_in).zip(out.par_chunks_mut(rows * n_out)).for_each(|(h, y)| one(h, y));
    }

    fn act_backward(&self, hidden: &[E], d_act: &[E], d_hidden: &mut [E], threads: Threads) {
        let (n_in, n_out) = (self.w_in.n_out, self.w_out.n_in);
        let one = |hidden: &[E], d_act: &[E], d_hidden: &mut [E]| {
            with_act!(self.activation, A => simd(#[inline(always)] || {
                if self.gated {
                    for ((h, dy), dh) in hidden
                        .chunks_exact(n_in)
                        .zip(d_act.chunks_exact(n_out))
                        .zip(d_hidden.chunks_exact_mut(n_in))
                    {
                        gate_backward::<A, E>(h, dy, dh);
                    }
                } else {
                    activate_backward::<A, E>(hidden, d_act, d_hidden);
                }
            }))
        };
        let m = hidden.len() / n_in;
        if threads.count() == 1 || m < 2 * threads.count() {
            return one(hidden, d_act, d_hidden);
        }
        let rows = rows_per_task(m);
        hidden
            .par_chunks(rows * n_in)
            .zip(d_act.par_chunks(rows * n_out))
            .zip(d_hidden.par_chunks_mut(rows * n_in))
            .for_each(|((h, d), dh)| one(h, d, dh));
    }

    /// One block of rows; `y` comes in as a copy of `x`. `sum` is written only when there is a post-norm.
    fn forward_block(&self, x: &[E], y: &mut [E], hidden: &mut [E], sum: Option<&mut [E]>, threads: Threads) {
        let d = self.w_in.n_in;
        let m = x.len() / d;
        let normed;
        let input = if self.pre.is_identity() {
            x
        } else {
            let mut buffer = Scratch::new(x.len());
            simd(
                #[inline(always)]
                || norm_rows(self.pre, x, d, &mut buffer),
            );
            normed = buffer;
            &normed
        };
        self.w_in.forward(input, m, hidden, Accum::Replace, threads);
        let mut act = Scratch::new(m * self.w_out.n_in);
        self.act(hidden, &mut act, threads);
        self.w_out.forward(&act, m, y, Accum::Add, threads);
        if !self.post.is_identity() {
            if let Some(sum) = sum {
                sum.copy_from_slice(y);
            }
            simd(
                #[inline(always)]
                || norm_rows_in_place(self.post, y, d),
            );
        }
    }

    /// `y` for all rows of `x`; with `save` also what [`Self::backward`] needs.
    pub(crate) fn forward(&self, x: &[E], save: bool) -> (Vec<E>, Option<FeedForwardSaved<E>>) {
        let (d, wide) = (self.w_in.n_in, self.w_in.n_out);
        let m = x.len() / d;
        let (step, threads) = self.plan(m);
        let mut y = x.to_vec();
        if save {
            let mut hidden = Scratch::new(m * wide);
            let mut sum = vec![E::zero(); if self.post.is_identity() { 0 } else { m * d }];
            let blocks = x
                .par_chunks(step * d)
                .zip(y.par_chunks_mut(step * d))
                .zip(hidden.par_chunks_mut(step * wide));
            if sum.is_empty() {
                blocks.for_each(|((x, y), h)| self.forward_block(x, y, h, None, threads));
            } else {
                blocks
                    .zip(sum.par_chunks_mut(step * d))
                    .for_each(|(((x, y), h), s)| self.forward_block(x, y, h, Some(s), threads));
            }
            return (y, Some(FeedForwardSaved { hidden: hidden.into_vec(), sum }));
        }
        let without_saving = |x: &[E], y: &mut [E], threads: Threads| {
            let mut hidden = Scratch::new(x.len() / d * wide);
            self.forward_block(x, y, &mut hidden, None, threads);
        };
        if Threads::for_rows(m) == Threads::Team {
            // Too few rows to share out (decoding): the products share the weight instead.
            without_saving(x, &mut y, Threads::Team);
        } else {
            x.par_chunks(step * d)
                .zip(y.par_chunks_mut(step * d))
                .for_each(|(x, y)| without_saving(x, y, threads));
        }
        (y, None)
    }

    /// `dx` from `dy` and what the forward pass saved, with the weights frozen.
    pub(crate) fn backward(&self, x: &[E], hidden: &[E], sum: &[E], dy: &[E]) -> Vec<E> {
        let (d, wide) = (self.w_in.n_in, self.w_in.n_out);
        let m = x.len() / d;
        let (step, threads) = self.plan(m);
        let mut dx = vec![E::zero(); x.len()];
        let one_block = |i: usize, dx: &mut [E]| {
            let (from, to) = (i * step * d, i * step * d + dx.len());
            let (x, m) = (&x[from..to], dx.len() / d);
            // dx starts as the gradient of the sum x + feed_forward(x), which reaches x directly.
            simd(
                #[inline(always)]
                || {
                    if self.post.is_identity() {
                        dx.copy_from_slice(&dy[from..to]);
                    } else {
                        norm_rows_backward_add(self.post, &sum[from..to], d, &dy[from..to], dx);
                    }
                },
            );
            let mut d_act = Scratch::new(m * self.w_out.n_in);
            self.w_out.backward(dx, m, &mut d_act, Accum::Replace, threads);
            let mut d_hidden = Scratch::new(m * wide);
            self.act_backward(&hidden[i * step * wide..][..m * wide], &d_act, &mut d_hidden, threads);
            if self.pre.is_identity() {
                self.w_in.backward(&d_hidden, m, dx, Accum::Add, threads);
            } else {
                let mut d_normed = Scratch::new(m * d);
                self.w_in.backward(&d_hidden, m, &mut d_normed, Accum::Replace, threads);
                simd(
                    #[inline(always)]
                    || norm_rows_backward_add(self.pre, x, d, &d_normed, dx),
                );
            }
        };
        dx.par_chunks_mut(step * d).enumerate().for_each(|(i, dx)| one_block(i, dx));
        dx
    }
}
