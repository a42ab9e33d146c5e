//! Multi-head attention of one batch entry: per head `S = scale·Q·Kᵀ + bias + mask`, `P = softmax(S)`, `C = P·V`.
//!
//! Queries, keys, values and contexts stay token-major, `(tokens, n_heads·d_head)` with a row stride, so that a packed
//! projection is read in place and nothing is transposed. Grouped-query attention (Ainslie et al. 2023) has fewer heads of keys and
//! values than of queries: query head `h` reads head `h / (n_heads / n_kv_heads)` of them.

use super::elem::{Elem, dot};
use super::gemm::{Threads, rows, rows_mut};
use super::parallel::simd;
use super::softmax::{softmax_row, softmax_row_backward};
use faer::{Accum, MatMut, MatRef};
use rayon::prelude::*;

/// The sizes of one attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadShape {
    /// Heads of queries.
    pub(crate) n_heads: usize,
    /// Heads of keys and of values; their number divides that of the queries' heads.
    pub(crate) n_kv_heads: usize,
    pub(crate) d_head: usize,
    pub(crate) t_q: usize,
    pub(crate) t_k: usize,
}

impl HeadShape {
    /// Width of a row of queries or contexts.
    pub(crate) fn width(&self) -> usize {
        self.n_heads * self.d_head
    }

    /// Width of a row of keys or of values.
    pub(crate) fn kv_width(&self) -> usize {
        self.n_kv_heads * self.d_head
    }

    /// Heads of queries that read the same keys and values.
    pub(crate) fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Number of attention probabilities of one batch entry.
    pub(crate) fn n_probs(&self) -> usize {
        self.n_heads * self.t_q * self.t_k
    }
}

/// What is added to the scores, and their scale.
#[derive(Clone, Copy)]
pub(crate) struct ScoreTerms<'a, E> {
    pub(crate) scale: f64,
    /// `(n_heads, t_q, t_k)`, shared by the batch: relative positions.
    pub(crate) position: Option<&'a [E]>,
    /// `(t_k)` of this batch entry: 0 for a key that may be seen, −∞ for padding.
    pub(crate) keys: Option<&'a [E]>,
    /// Query `i` sees keys `0 ..= i + t_k − t_q` only.
    pub(crate) causal: bool,
}

/// Rows of `(tokens, width)` that lie `stride` elements apart.
#[derive(Clone, Copy)]
pub(crate) struct Tokens<'a, E> {
    pub(crate) data: &'a [E],
    pub(crate) stride: usize,
}

impl<'a, E: Elem> Tokens<'a, E> {
    fn head(&self, head: usize, d_head: usize, n_tokens: usize) -> MatRef<'a, E> {
        rows(&self.data[head * d_head..], n_tokens, d_head, self.stride)
    }

    fn token(&self, token: usize, head: usize, d_head: usize) -> &'a [E] {
        &self.data[token * self.stride + head * d_head..][..d_head]
    }
}

/// Turns the raw scores of one head into probabilities.
#[inline(always)]
pub(crate) fn scores_to_probs<E: Elem>(
    t_q: usize,
    t_k: usize,
    terms: &ScoreTerms<'_, E>,
    head: usize,
    scores: &mut [E],
) {
    for (i, row) in scores.chunks_exact_mut(t_k).enumerate() {
        if let Some(position) = terms.position {
            let bias = &position[(head * t_q + i) * t_k..][..t_k];
            for (s, &b) in row.iter_mut().zip(bias) {
                *s += b;
            }
        }
        if let Some(keys) = terms.keys {
            for (s, &b) in row.iter_mut().zip(keys) {
                *s += b;
            }
        }
        if terms.causal {
            let visible = (i + 1 + t_k).saturating_sub(t_q).min(t_k);
            row[visible..].fill(E::NEG_INFINITY);
        }
        softmax_row(row);
    }
}

/// Runs `body(head)` with the column block of `out` that belongs to the head and its tile of `probs`.
fn for_each_head<E: Elem>(
    shape: HeadShape,
    mut out: MatMut<'_, E>,
    probs: &mut [E],
    threads: Threads,
    body: impl Fn(usize, MatMut<'_, E>, &mut [E]) + Sync,
) {
    let tile = shape.t_q * shape.t_k;
    if tile == 0 {
        return;
    }
    match threads {
        Threads::One => {
            for (head, probs) in probs.chunks_exact_mut(tile).enumerate() {
                body(head, out.as_mut().subcols_mut(head * shape.d_head, shape.d_head), probs);
            }
        }
        Threads::Pool | Threads::Team => out
            .par_col_chunks_mut(shape.d_head)
            .zip(probs.par_chunks_exact_mut(tile))
            .enumerate()
            .for_each(|(head, (out, probs))| body(head, out, probs)),
    }
}

/// Attention of one batch entry; leaves the probabilities in `probs (n_heads, t_q, t_k)` and writes `context`.
pub(crate) fn attend<E: Elem>(
    shape: HeadShape,
    terms: &ScoreTerms<'_, E>,
    [q, k, v]: [Tokens<'_, E>; 3],
    probs: &mut [E],
    context: MatMut<'_, E>,
    threads: Threads,
) {
    let HeadShape { d_head, t_q, t_k, .. } = shape;
    if t_k == 0 {
        let mut context = context;
        context.fill(E::zero());
        return;
    }
    for_each_head(shape, context, probs, threads, |head, mut context, probs| {
        if t_q == 1 {
            // One query: two passes over the keys and values cost less than setting up two matrix products.
            let mut out = [E::zero(); MAX_STACK_HEAD];
            if d_head <= MAX_STACK_HEAD {
                let out = &mut out[..d_head];
                simd(
                    #[inline(always)]
                    || attend_one(shape, terms, head, [q, k, v], probs, out),
                );
                for (i, &value) in out.iter().enumerate() {
                    context[(0, i)] = value;
                }
                return;
            }
        }
        let scores = rows_mut(probs, t_q, t_k, t_k);
        let of_group = head / shape.group();
        let (q, k) = (q.head(head, d_head, t_q), k.head(of_group, d_head, t_k));
        E::gemm(scores, Accum::Replace, q, k.transpose(), E::of(terms.scale));
        simd(
            #[inline(always)]
            || scores_to_probs(t_q, t_k, terms, head, probs),
        );
        E::gemm(context, Accum::Replace, rows(probs, t_q, t_k, t_k), v.head(of_group, d_head, t_k), E::one());
    });
}

/// The widest head that one query attends to without matrix products.
const MAX_STACK_HEAD: usize = 256;

/// Attention of one query by one head, which is added to `out (d_head)`; leaves the probabilities in `probs (t_k)`.
#[inline(always)]
pub(crate) fn attend_one<E: Elem>(
    shape: HeadShape,
    terms: &ScoreTerms<'_, E>,
    head: usize,
    [q, k, v]: [Tokens<'_, E>; 3],
    probs: &mut [E],
    out: &mut [E],
) {
    let HeadShape { d_head, t_q, t_k, .. } = shape;
    let (query, of_group) = (q.token(0, head, d_head), head / shape.group());
    for (j, score) in probs.iter_mut().enumerate() {
        *score = dot(query, k.token(j, of_group, d_head)) * E::of(terms.scale);
    }
    scores_to_probs(t_q, t_k, terms, head, probs);
    for (j, &p) in probs.iter().enumerate() {
        for (o, &value) in out.iter_mut().zip(v.token(j, of_group, d_head)) {
            *o += p * value;
        }
    }
}

/// Gradients of one batch entry: `dV = Pᵀ·dC`, `dS = P∘(dP − rowsum(P∘dP))` with `dP = dC·Vᵀ`,
/// `dQ = scale·dS·K`, `dK = scale·dSᵀ·Q`; those of keys and values are sums over the heads of queries that read them, in order.
/// `[dq, dk, dv]` are overwritten, and so is `d_scores (n_heads, t_q, t_k)` with dS, unless it is empty.
#[allow(clippy::too_many_arguments)] // The three groups of pointers of one equation.
pub(crate) fn attend_backward<E: Elem>(
    shape: HeadShape,
    scale: f64,
    [q, k, v]: [Tokens<'_, E>; 3],
    probs: &[E],
    d_context: Tokens<'_, E>,
    [dq, dk, dv]: [MatMut<'_, E>; 3],
    d_scores: &mut [E],
    threads: Threads,
) {
    let HeadShape { n_kv_heads, d_head, t_q, t_k, .. } = shape;
    let (scale, tile, group) = (E::of(scale), t_q * t_k, shape.group());
    // The heads of queries that read head `of_group` of keys and values; `dq` are their columns, `d_scores` as many tiles, or one that
    // they use in turn.
    let one_group = |of_group: usize,
                     mut dq: MatMut<'_, E>,
                     mut dk: MatMut<'_, E>,
                     mut dv: MatMut<'_, E>,
                     d_scores: &mut [E]| {
        for i in 0..group {
            let head = of_group * group + i;
            let accum = if i == 0 { Accum::Replace } else { Accum::Add };
            let at = if d_scores.len() > tile { i * tile } else { 0 };
            let d_scores = &mut d_scores[at..][..tile];
            let probs = &probs[head * tile..][..tile];
            let d_context = d_context.head(head, d_head, t_q);
            let p = rows(probs, t_q, t_k, t_k);
            E::gemm(dv.as_mut(), accum, p.transpose(), d_context, E::one());
            let d_probs = rows_mut(d_scores, t_q, t_k, t_k);
            E::gemm(d_probs, Accum::Replace, d_context, v.head(of_group, d_head, t_k).transpose(), E::one());
            simd(
                #[inline(always)]
                || {
                    for (p, d) in probs.chunks_exact(t_k).zip(d_scores.chunks_exact_mut(t_k)) {
                        softmax_row_backward(p, d);
                    }
                },
            );
            let d_scores = rows(d_scores, t_q, t_k, t_k);
            let dq = dq.as_mut().subcols_mut(i * d_head, d_head);
            E::gemm(dq, Accum::Replace, d_scores, k.head(of_group, d_head, t_k), scale);
            E::gemm(dk.as_mut(), accum, d_scores.transpose(), q.head(head, d_head, t_q), scale);
        }
    };
    if threads == Threads::One || !d_scores.is_empty() {
        let (mut dq, mut dk, mut dv) = (dq, dk, dv);
        let mut scratch = vec![E::zero(); if d_scores.is_empty() { tile } else { 0 }];
        for of_group in 0..n_kv_heads {
            let d_scores = if d_scores.is_empty() {
                &mut scratch
            } else {
                &mut d_scores[of_group * group * tile..][..group * tile]
            };
            one_group(
                of_group,
                dq.as_mut().subcols_mut(of_group * group * d_head, group * d_head),
                dk.as_mut().subcols_mut(of_group * d_head, d_head),
                dv.as_mut().subcols_mut(of_group * d_head, d_head),
                d_scores,
            );
        }
        return;
    }
    dq.par_col_chunks_mut(group * d_head)
        .zip(dk.par_col_chunks_mut(d_head))
        .zip(dv.par_col_chunks_mut(d_head))
        .enumerate()
        .for_each_init(
            || vec![E::zero(); tile],
            |scratch, (of_group, ((dq, dk), dv))| one_group(of_group, dq, dk, dv, scratch),
        );
}
