//! What a low-rank addition changes of a product: `y[:, rows] += s·(x·Aᵀ)·Bᵀ` forward, `dx += s·(dy[:, rows]·B)·A` backward. With a router
//! the columns of `x·Aᵀ` are multiplied by the gates of their experts.

use super::elem::Elem;
use super::gemm::{Threads, gemm, rows, rows_mut};
use super::router::RouterRef;
use super::scratch::Scratch;
use faer::{Accum, MatRef};
use std::borrow::Cow;

/// What a [`LowRankRef`] refers to.
pub(crate) struct LowRankValues<'a, E: Clone> {
    pub(crate) first: usize,
    pub(crate) n_rows: usize,
    pub(crate) rank: usize,
    pub(crate) scale: f64,
    pub(crate) a: Cow<'a, [E]>,
    pub(crate) b: Cow<'a, [E]>,
    /// Of how many experts, and its values.
    pub(crate) router: Option<(usize, Cow<'a, [E]>)>,
}

impl<E: Elem> LowRankValues<'_, E> {
    pub(crate) fn as_ref(&self) -> LowRankRef<'_, E> {
        let &Self { first, n_rows, rank, scale, .. } = self;
        let router = self.router.as_ref().map(|(n_experts, r)| RouterRef { n_experts: *n_experts, r });
        LowRankRef { first, n_rows, rank, scale, a: &self.a, b: &self.b, router }
    }
}

/// A low-rank addition to some outputs of a linear map, for activations of one element type.
#[derive(Clone, Copy)]
pub(crate) struct LowRankRef<'a, E> {
    /// The outputs that it adds to.
    pub(crate) first: usize,
    pub(crate) n_rows: usize,
    pub(crate) rank: usize,
    pub(crate) scale: f64,
    /// `(rank, n_in)`.
    pub(crate) a: &'a [E],
    /// `(n_rows, rank)`.
    pub(crate) b: &'a [E],
    pub(crate) router: Option<RouterRef<'a, E>>,
}

impl<'a, E: Elem> LowRankRef<'a, E> {
    fn a(&self, n_in: usize) -> MatRef<'a, E> {
        rows(self.a, self.rank, n_in, n_in)
    }

    fn b(&self) -> MatRef<'a, E> {
        rows(self.b, self.n_rows, self.rank, self.rank)
    }

    fn scaled(&self, mut values: Scratch<E>) -> Scratch<E> {
        let scale = E::of(self.scale);
        values.iter_mut().for_each(|value| *value *= scale);
        values
    }

    /// `x·Aᵀ` for `m` rows, `(m, rank)`.
    pub(crate) fn products(&self, x: &[E], m: usize, n_in: usize, threads: Threads) -> Scratch<E> {
        let mut products = Scratch::new(m * self.rank);
        let to = rows_mut(&mut products, m, self.rank, self.rank);
        gemm(to, Accum::Replace, rows(x, m, n_in, n_in), self.a(n_in).transpose(), threads);
        products
    }

    /// `s·x·Aᵀ` for `m` rows, `(m, rank)`, multiplied by the gates if there is a router.
    pub(crate) fn inner(&self, x: &[E], m: usize, n_in: usize, threads: Threads) -> Scratch<E> {
        let mut inner = self.scaled(self.products(x, m, n_in, threads));
        if let Some(router) = &self.router {
            router.weigh(&router.gates(x, m, threads), &mut inner, self.rank);
        }
        inner
    }

    /// `y[:, rows] += inner·Bᵀ`, of rows of `n_out` outputs.
    pub(crate) fn add_outer(&self, inner: &[E], m: usize, y: &mut [E], n_out: usize, threads: Threads) {
        let to = rows_mut(y, m, n_out, n_out).subcols_mut(self.first, self.n_rows);
        gemm(to, Accum::Add, rows(inner, m, self.rank, self.rank), self.b().transpose(), threads);
    }

    /// `s·dy[:, rows]·B` for `m` rows of `n_out` outputs: the gradient of `x·Aᵀ`, or with a router that of the products with the gates.
    pub(crate) fn d_inner(&self, dy: &[E], m: usize, n_out: usize, threads: Threads) -> Scratch<E> {
        let mut d_inner = Scratch::new(m * self.rank);
        let to = rows_mut(&mut d_inner, m, self.rank, self.rank);
        gemm(to, Accum::Replace, self.outputs(dy, m, n_out), self.b(), threads);
        self.scaled(d_inner)
    }

    /// `dx += d_inner·A`.
    pub(crate) fn add_dx(&self, d_inner: &[E], m: usize, dx: &mut [E], n_in: usize, threads: Threads) {
        let to = rows_mut(dx, m, n_in, n_in);
        gemm(to, Accum::Add, rows(d_inner, m, self.rank, self.rank), self.a(n_in), threads);
    }

    /// `dA = d_innerᵀ·x`.
    pub(crate) fn da(&self, d_inner: &[E], x: &[E], m: usize, da: &mut [E], threads: Threads) {
        let n_in = da.len() / self.rank;
        let to = rows_mut(da, self.rank, n_in, n_in);
        let d_inner = rows(d_inner, m, self.rank, self.rank).transpose();
        gemm(to, Accum::Replace, d_inner, rows(x, m, n_in, n_in), threads);
    }

    /// `dB = dy[:, rows]ᵀ·inner`.
    pub(crate) fn db(&self, dy: &[E], inner: &[E], m: usize, n_out: usize, db: &mut [E], threads: Threads) {
        let to = rows_mut(db, self.n_rows, self.rank, self.rank);
        let outputs = self.outputs(dy, m, n_out).transpose();
        gemm(to, Accum::Replace, outputs, rows(inner, m, self.rank, self.rank), threads);
    }

    fn outputs<'d>(&self, dy: &'d [E], m: usize, n_out: usize) -> MatRef<'d, E> {
        rows(dy, m, n_out, n_out).subcols(self.first, self.n_rows)
    }
}
