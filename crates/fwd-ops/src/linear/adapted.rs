//! A frozen map with low-rank additions that are trained, as one operation of its input and their factors: `y = x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ`.
//!
//! ```text
//! u = s·x·Aᵀ        (kept)         dB = dyᵀ·u
//! v = s·dy·B                       dA = vᵀ·x,  dx = dy·W + v·A
//! ```
//! With a router `u` is multiplied by the gates `g = softmax(x·Rᵀ)`, each expert's columns by its own, and so is `v` behind the gradient of the gates.
//! The weight is part of the operation and gets no gradient.

use super::addition::Addition;
use super::check::with_last_dim;
use super::map::{Forward, Map};
use super::trained::Trained;
use crate::cpu::Elem;
use crate::cpu::gemm::Threads;
use crate::cpu::low_rank::LowRankRef;
use crate::cpu::router::RouterRef;
use crate::dispatch::{Read, apply1, apply2, apply3, keep, on_gpu};
use crate::error::Result;
use crate::kernel::{Kernel, View};
use candle_core::{D, Shape, Tensor};
use faer::Accum;
use std::ops::Range;
use std::sync::OnceLock;

/// `base(x)` and the additions to it, some of which are tracked. The base is frozen.
pub(super) fn forward(base: Map, additions: &[Addition], x: &Tensor) -> Result<Tensor> {
    if on_gpu(x) {
        let n_out = base.n_out;
        let y = apply1(Forward(base), x)?;
        return additions.iter().try_fold(y, |y, addition| Ok((y + apart(addition, x, n_out)?)?));
    }
    let mut places = Vec::with_capacity(additions.len());
    let mut start = 0;
    for Addition { first, map } in additions {
        let place = Place {
            first: *first,
            n_rows: map.n_out(),
            rank: map.rank(),
            scale: map.scale,
            start,
            n_in: base.n_in,
            n_experts: map.n_experts(),
        };
        start += place.len();
        places.push(place);
    }
    let factors: Vec<Tensor> = additions
        .iter()
        .flat_map(|addition| [&addition.map.a, &addition.map.b].into_iter().chain(&addition.map.router))
        .map(|factor| factor.flatten_all())
        .collect::<candle_core::Result<_>>()?;
    let factors = Tensor::cat(&factors, 0)?;
    apply2(Adapted { base, places, inner: OnceLock::new() }, x, &factors)
}

/// `s·(x·Aᵀ)·Bᵀ` in its place among `n_out` outputs, from single operations.
fn apart(Addition { first, map }: &Addition, x: &Tensor, n_out: usize) -> Result<Tensor> {
    let mut inner = apply2(Trained, x, &map.a.t()?.contiguous()?)?;
    if let Some(router) = &map.router {
        let logits = apply2(Trained, x, &router.t()?.contiguous()?)?;
        let gates = softmax_of_rows(&logits)?.unsqueeze(D::Minus1)?;
        let mut parts = inner.dims().to_vec();
        parts.pop();
        parts.extend([map.n_experts(), map.rank() / map.n_experts()]);
        inner = inner.reshape(parts)?.broadcast_mul(&gates)?.reshape(inner.shape())?;
    }
    let outer = (apply2(Trained, &inner, &map.b.t()?.contiguous()?)? * map.scale)?;
    Ok(outer.pad_with_zeros(D::Minus1, *first, n_out - first - map.n_out())?)
}

/// The softmax over the last dimension, from single operations.
fn softmax_of_rows(logits: &Tensor) -> Result<Tensor> {
    let largest = logits.max_keepdim(D::Minus1)?.detach();
    let parts = logits.broadcast_sub(&largest)?.exp()?;
    Ok(parts.broadcast_div(&parts.sum_keepdim(D::Minus1)?)?)
}

/// Where the factors of an addition lie among those of all: `A` from `start` on, `B` behind it, and then the router if there is one.
#[derive(Debug, Clone, Copy)]
struct Place {
    first: usize,
    n_rows: usize,
    rank: usize,
    scale: f64,
    start: usize,
    n_in: usize,
    /// 0 without a router.
    n_experts: usize,
}

impl Place {
    fn len(&self) -> usize {
        self.rank * (self.n_in + self.n_rows) + self.n_experts * self.n_in
    }

    fn of<'a, E: Elem>(&self, factors: &'a [E]) -> LowRankRef<'a, E> {
        let [a, b, r] = self.parts().map(|part| &factors[part]);
        let router = (!r.is_empty()).then_some(RouterRef { n_experts: self.n_experts, r });
        LowRankRef {
            first: self.first,
            n_rows: self.n_rows,
            rank: self.rank,
            scale: self.scale,
            a,
            b,
            router,
        }
    }

    /// The places of `A`, `B` and router.
    fn parts(&self) -> [Range<usize>; 3] {
        let a = self.start..self.start + self.rank * self.n_in;
        let b = a.end..a.end + self.rank * self.n_rows;
        [a, b.clone(), b.end..self.start + self.len()]
    }
}

/// A frozen map of the first argument, with additions whose factors are the second one.
struct Adapted {
    base: Map,
    places: Vec<Place>,
    /// `s·x·Aᵀ` of all additions, with the gates.
    inner: OnceLock<Tensor>,
}

/// Of `x`, the factors and `dy`: the gradient of the factors, and behind it that of `x` if it is wanted.
struct AdaptedBackward {
    base: Map,
    places: Vec<Place>,
    inner: Tensor,
    want_dx: bool,
}

impl Kernel<2> for Adapted {
    fn name(&self) -> &'static str {
        "adapted_linear"
    }

    fn cpu<E: Elem>(&self, [x, factors]: [View<'_, E>; 2]) -> candle_core::Result<(Vec<E>, Shape)> {
        let (n_in, n_out) = (self.base.n_in, self.base.n_out);
        let m = x.data.len() / n_in;
        let threads = Threads::for_rows(m);
        let mut y = vec![E::zero(); m * n_out];
        self.base.read().values()?.as_ref().forward(x.data, m, &mut y, Accum::Replace, threads);
        let mut all = Vec::new();
        for place in &self.places {
            let map = place.of(factors.data);
            let inner = map.inner(x.data, m, n_in, threads);
            map.add_outer(&inner, m, &mut y, n_out, threads);
            all.extend_from_slice(&inner);
        }
        let _ = self.inner.set(keep(all)?);
        Ok((y, with_last_dim(x.dims, n_out)))
    }

    fn backward(
        &self,
        [x, factors]: [&Tensor; 2],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 2]> {
        let Some(inner) = self.inner.get().cloned() else {
            candle_core::bail!("adapted_linear: nothing was saved")
        };
        let want_dx = x.track_op();
        let kernel = AdaptedBackward { base: self.base.clone(), places: self.places.clone(), inner, want_dx };
        let both = apply3(kernel, x, factors, dy)?;
        let n = factors.elem_count();
        let d_factors = both.narrow(0, 0, n)?;
        let dx = if want_dx { Some(both.narrow(0, n, x.elem_count())?.reshape(x.shape())?) } else { None };
        Ok([dx, Some(d_factors)])
    }
}

impl Kernel<3> for AdaptedBackward {
    fn name(&self) -> &'static str {
        "adapted_linear_backward"
    }

    fn cpu<E: Elem>(&self, [x, factors, dy]: [View<'_, E>; 3]) -> candle_core::Result<(Vec<E>, Shape)> {
        let (n_in, n_out) = (self.base.n_in, self.base.n_out);
        let (m, n_factors) = (x.data.len() / n_in, factors.data.len());
        let mut both = vec![E::zero(); n_factors + if self.want_dx { m * n_in } else { 0 }];
        let (d_factors, dx) = both.split_at_mut(n_factors);
        if self.want_dx {
            self.base.read().values()?.as_ref().backward(dy.data, m, dx, Accum::Replace, Threads::Pool);
        }
        let read = Read::new(&self.inner);
        let inner = read.values::<E>()?;
        let mut at = 0;
        for place in &self.places {
            let map = place.of(factors.data);
            let inner = &inner[at..][..m * place.rank];
            at += m * place.rank;
            let mut d_inner = map.d_inner(dy.data, m, n_out, Threads::Pool);
            let [da, db, dr] = place.parts();
            map.db(dy.data, inner, m, n_out, &mut d_factors[db], Threads::Pool);
            if let Some(router) = &map.router {
                let gates = router.gates(x.data, m, Threads::Pool);
                let products = map.products(x.data, m, n_in, Threads::Pool);
                let d_logits = router.d_logits(&gates, &d_inner, &products, place.rank);
                router.dr(&d_logits, x.data, m, &mut d_factors[dr], Threads::Pool);
                if self.want_dx {
                    router.add_dx(&d_logits, m, dx, Threads::Pool);
                }
                router.weigh(&gates, &mut d_inner, place.rank);
            }
            map.da(&d_inner, x.data, m, &mut d_factors[da], Threads::Pool);
            if self.want_dx {
                map.add_dx(&d_inner, m, dx, n_in, Threads::Pool);
            }
        }
        let n = both.len();
        Ok((both, Shape::from(n)))
    }
}
