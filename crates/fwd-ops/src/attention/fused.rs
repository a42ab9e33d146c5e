//! The fused attention kernel: a frozen attention sublayer as one operation on the CPU, and its backward pass.
//!
//! ```text
//! y = post(s),  s = x + W_o·C,  C = softmax(scale·Q·Kᵀ + bias)·V,  [Q K V] = W_qkv·pre(x)   (or K and V from the memory)
//! ```
//! With rotary positions Q and K are turned where the projection left them, and their gradients back.
//! The batch is cut into blocks of whole entries. Each block goes from `pre` to `post` before the next one starts, so that its
//! activations stay in cache; a block has one thread where there are enough blocks, else all threads share each of its steps. Weights that
//! are widened as they are read are read once: the batch is one block then. The projection, the probabilities and `s` are kept for the backward pass, which gives the gradients of `x` and of
//! the memory and none of a weight.

use super::weights::AttentionWeights;
use crate::bias::{AttentionBias, BiasValues};
use crate::cpu::attention::{HeadShape, Tokens, attend, attend_backward};
use crate::cpu::gemm::{Threads, rows_mut};
use crate::cpu::linear::LinearRef;
use crate::cpu::norm::{NormRef, norm_rows, norm_rows_backward_add, norm_rows_in_place};
use crate::cpu::rotary::RotaryRef;
use crate::cpu::scratch::Scratch;
use crate::cpu::{Elem, rows_per_task, simd, without_short_tasks};
use crate::dispatch::{Read, apply1, apply2, apply3, keep};
use crate::error::Result;
use crate::kernel::{Kernel, View};
use crate::rotary::Rotary;
use candle_core::{Shape, Tensor};
use faer::Accum;
use rayon::prelude::*;
use std::sync::{Arc, OnceLock};

/// Self-attention over the tokens of `x (batch, tokens, d)`, whose sizes were checked.
pub(super) fn self_attention(
    weights: &Arc<AttentionWeights>,
    sizes: Sizes,
    bias: &AttentionBias,
    rotary: Option<&Rotary>,
    x: &Tensor,
) -> Result<Tensor> {
    apply1(FusedAttention::new(weights, sizes, bias, rotary, x.track_op()), x)
}

/// Attention of `x (batch, t_q, d)` over keys and values in rows `[k ; v]`, whose sizes were checked.
pub(super) fn cross_attention(
    weights: &Arc<AttentionWeights>,
    sizes: Sizes,
    bias: &AttentionBias,
    x: &Tensor,
    key_value: &Tensor,
) -> Result<Tensor> {
    let keep = x.track_op() || key_value.track_op();
    apply2(FusedAttention::new(weights, sizes, bias, None, keep), x, key_value)
}

/// The sizes of one call.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) shape: HeadShape,
}

impl Sizes {
    /// Batch entries per task, and whether a task must use the thread pool itself: because there are too few tasks, or because each of
    /// them would widen stored weights anew.
    fn plan(&self, is_stored: bool) -> (usize, Threads) {
        let Self { batch, shape } = *self;
        let threads = rayon::current_num_threads();
        if is_stored || batch < threads || batch * shape.t_q < 16 * threads {
            return (batch, Threads::Pool);
        }
        // Whole entries only: as many rows as fit, rounded so that all threads get the same number of tasks.
        let per_thread = batch.div_ceil(threads);
        let tasks = (per_thread * shape.t_q).div_ceil(rows_per_task(batch * shape.t_q));
        (without_short_tasks(batch, shape.t_q, per_thread.div_ceil(tasks.max(1))), Threads::One)
    }
}

/// What the backward pass needs from the forward pass.
#[derive(Clone)]
struct SavedAttention {
    projected: Tensor,
    probs: Tensor,
    /// The sum before the post-norm; empty when there is none.
    sum: Tensor,
}

struct FusedAttention {
    weights: Arc<AttentionWeights>,
    sizes: Sizes,
    bias: AttentionBias,
    rotary: Option<Rotary>,
    /// Whether a backward pass may follow.
    keep: bool,
    saved: OnceLock<SavedAttention>,
}

/// The parameters of the sublayer in one element type.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a, E: Clone> {
    pub(super) pre: NormRef<'a, E>,
    pub(super) projection: LinearRef<'a, E>,
    pub(super) output: LinearRef<'a, E>,
    pub(super) post: NormRef<'a, E>,
    pub(super) rotary: Option<RotaryRef<'a, E>>,
    pub(super) scale: f64,
    pub(super) shape: HeadShape,
}

/// One task's share of the buffers of a forward pass.
struct Block<'a, E> {
    first_entry: usize,
    x: &'a [E],
    /// Comes in as a copy of `x`.
    y: &'a mut [E],
    projected: &'a mut [E],
    probs: &'a mut [E],
    sum: &'a mut [E],
}

/// Queries, keys and values of one batch entry, from the packed projection or the given memory.
fn qkv<'a, E: Elem>(
    shape: HeadShape,
    projected: &'a [E],
    memory: Option<&'a [E]>,
    entry: usize,
) -> [Tokens<'a, E>; 3] {
    let (w, kv) = (shape.width(), shape.kv_width());
    match memory {
        None => {
            let stride = w + 2 * kv;
            let data = &projected[entry * shape.t_q * stride..];
            [0, w, w + kv].map(|at| Tokens { data: &data[at..], stride })
        }
        Some(memory) => {
            let data = &memory[entry * shape.t_k * 2 * kv..];
            let queries = Tokens { data: &projected[entry * shape.t_q * w..], stride: w };
            [queries, Tokens { data, stride: 2 * kv }, Tokens { data: &data[kv..], stride: 2 * kv }]
        }
    }
}

impl<E: Elem> Parts<'_, E> {
    fn is_stored(&self) -> bool {
        self.projection.is_stored() || self.output.is_stored()
    }

    fn forward_block(
        &self,
        block: Block<'_, E>,
        memory: Option<&[E]>,
        bias: &BiasValues<'_, E>,
        threads: Threads,
    ) {
        let Block { first_entry, x, y, projected, probs, sum } = block;
        let (d, shape) = (self.projection.n_in, self.shape);
        let (m, per_entry) = (x.len() / d, shape.t_q * shape.width());
        self.project(first_entry, x, projected, threads);
        let projected = &*projected;
        let mut context = Scratch::new(m * shape.width());
        let one_entry = |i: usize, probs: &mut [E], context: &mut [E], threads: Threads| {
            let context = rows_mut(context, shape.t_q, shape.width(), shape.width());
            let terms = bias.terms(first_entry + i, shape.t_k, self.scale);
            let memory = memory.map(|m| &m[first_entry * shape.t_k * 2 * shape.kv_width()..]);
            attend(shape, &terms, qkv(shape, projected, memory, i), probs, context, threads);
        };
        if threads.count() > 1 && m / shape.t_q >= threads.count() {
            probs
                .par_chunks_mut(shape.n_probs())
                .zip(context.par_chunks_mut(per_entry))
                .enumerate()
                .for_each(|(i, (probs, context))| one_entry(i, probs, context, Threads::One));
        } else {
            let entries = probs.chunks_mut(shape.n_probs()).zip(context.chunks_mut(per_entry));
            entries.enumerate().for_each(|(i, (probs, context))| one_entry(i, probs, context, threads));
        }
        self.output.forward(&context, m, y, Accum::Add, threads);
        if !self.post.is_identity() {
            if !sum.is_empty() {
                sum.copy_from_slice(y);
            }
            simd(
                #[inline(always)]
                || norm_rows_in_place(self.post, y, d),
            );
        }
    }

    /// The projection of the normalised rows of whole entries, its queries and keys turned by their positions if they have any.
    pub(super) fn project(&self, first_entry: usize, x: &[E], projected: &mut [E], threads: Threads) {
        let d = self.projection.n_in;
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
        self.projection.forward(input, x.len() / d, projected, Accum::Replace, threads);
        self.turn(first_entry, projected, false);
    }

    /// Turns the queries and keys of whole entries by their rotary positions, if there are any, or their gradients back.
    fn turn(&self, first_entry: usize, projected: &mut [E], inverse: bool) {
        let Some(rotary) = &self.rotary else { return };
        let rotary = rotary.starting_at(first_entry * self.shape.t_q);
        let n_heads = self.shape.n_heads + self.shape.n_kv_heads;
        simd(
            #[inline(always)]
            || rotary.turn(projected, self.projection.n_out, n_heads, inverse),
        );
    }

    /// One task of the backward pass: `dx` (or empty if not wanted) and, for a cross-attention, `d_memory`.
    fn backward_block(
        &self,
        saved: SavedRef<'_, E>,
        dx: &mut [E],
        d_memory: Option<&mut [E]>,
        threads: Threads,
    ) {
        let (d, shape) = (self.projection.n_in, self.shape);
        let (w, kv) = (shape.width(), shape.kv_width());
        let SavedRef { first_entry, n_entries, x, dy, projected, probs, sum, memory } = saved;
        let m = n_entries * shape.t_q;
        // The gradient of the sum x + attention(x), which reaches x directly.
        let mut d_sum = Scratch::new(m * d);
        simd(
            #[inline(always)]
            || {
                if self.post.is_identity() {
                    d_sum.copy_from_slice(dy);
                } else {
                    d_sum.fill(E::zero());
                    norm_rows_backward_add(self.post, sum, d, dy, &mut d_sum);
                }
            },
        );
        let mut d_context = Scratch::new(m * w);
        self.output.backward(&d_sum, m, &mut d_context, Accum::Replace, threads);
        let wide = self.projection.n_out;
        let mut d_projected = Scratch::new(m * wide);
        let mut d_memory = d_memory;
        for (i, d_projected) in d_projected.chunks_mut(shape.t_q * wide).enumerate() {
            let probs = &probs[i * shape.n_probs()..][..shape.n_probs()];
            let d_context = Tokens { data: &d_context[i * shape.t_q * w..], stride: w };
            let memory = memory.map(|m| &m[first_entry * shape.t_k * 2 * kv..]);
            let [dq, dk, dv] = match &mut d_memory {
                None => {
                    let all = rows_mut(d_projected, shape.t_q, wide, wide);
                    let (dq, dkv) = all.split_at_col_mut(w);
                    let (dk, dv) = dkv.split_at_col_mut(kv);
                    [dq, dk, dv]
                }
                Some(d_memory) => {
                    let d_memory = &mut d_memory[i * shape.t_k * 2 * kv..][..shape.t_k * 2 * kv];
                    let (dk, dv) = rows_mut(d_memory, shape.t_k, 2 * kv, 2 * kv).split_at_col_mut(kv);
                    [rows_mut(d_projected, shape.t_q, w, w), dk, dv]
                }
            };
            attend_backward(
                shape,
                self.scale,
                qkv(shape, projected, memory, i),
                probs,
                d_context,
                [dq, dk, dv],
                &mut [],
                threads,
            );
        }
        if dx.is_empty() {
            return;
        }
        self.turn(first_entry, &mut d_projected, true);
        dx.copy_from_slice(&d_sum);
        if self.pre.is_identity() {
            self.projection.backward(&d_projected, m, dx, Accum::Add, threads);
        } else {
            let mut d_normed = Scratch::new(m * d);
            self.projection.backward(&d_projected, m, &mut d_normed, Accum::Replace, threads);
            simd(
                #[inline(always)]
                || norm_rows_backward_add(self.pre, x, d, &d_normed, dx),
            );
        }
    }
}

/// One task's share of what a backward pass reads.
struct SavedRef<'a, E> {
    first_entry: usize,
    n_entries: usize,
    x: &'a [E],
    dy: &'a [E],
    projected: &'a [E],
    probs: &'a [E],
    sum: &'a [E],
    /// The whole memory, not only this task's entries.
    memory: Option<&'a [E]>,
}

/// Calls `$body` with `$parts` bound to the sublayer's parameters as `Parts<E>`.
macro_rules! with_parts {
    ($weights:expr, $rotary:expr, $shape:expr, $E:ty, $parts:ident => $body:expr) => {{
        let weights = &*$weights;
        let rotary = $rotary.as_ref().map(|rotary| rotary.read());
        let rotary = rotary.as_ref().map(|read| read.values::<$E>()).transpose()?;
        let read =
            (weights.pre.read(), weights.projection.read(), weights.output.read(), weights.post.read());
        let values =
            (read.0.values::<$E>()?, read.1.values::<$E>()?, read.2.values::<$E>()?, read.3.values::<$E>()?);
        let $parts = Parts {
            pre: values.0.as_ref(),
            projection: values.1.as_ref(),
            output: values.2.as_ref(),
            post: values.3.as_ref(),
            rotary: rotary.as_ref().map(|values| values.as_ref()),
            scale: weights.scale,
            shape: $shape,
        };
        $body
    }};
}

pub(super) use with_parts;

impl FusedAttention {
    fn new(
        weights: &Arc<AttentionWeights>,
        sizes: Sizes,
        bias: &AttentionBias,
        rotary: Option<&Rotary>,
        keep: bool,
    ) -> Self {
        let (weights, rotary) = (Arc::clone(weights), rotary.cloned());
        Self { weights, sizes, bias: bias.clone(), rotary, keep, saved: OnceLock::new() }
    }

    fn run<E: Elem>(&self, x: &View<'_, E>, memory: Option<&[E]>) -> candle_core::Result<(Vec<E>, Shape)> {
        let Sizes { batch, shape } = self.sizes;
        let mut y = x.data.to_vec();
        if y.is_empty() {
            let [projected, probs, sum] =
                [keep::<E>(Vec::new())?, keep::<E>(Vec::new())?, keep::<E>(Vec::new())?];
            let _ = self.saved.set(SavedAttention { projected, probs, sum });
            return Ok((y, Shape::from_dims(x.dims)));
        }
        let read = self.bias.read();
        let bias = read.values::<E>()?;
        with_parts!(self.weights, self.rotary, shape, E, parts => {
            let (entries, threads) = self.sizes.plan(parts.is_stored());
            let (d, wide) = (parts.projection.n_in, parts.projection.n_out);
            let (row, proj, prob) = (shape.t_q * d, shape.t_q * wide, shape.n_probs());
            let mut projected = Scratch::new(batch * proj);
            let mut probs = Scratch::new(batch * prob);
            let mut sum = vec![E::zero(); if self.keep && !parts.post.is_identity() { batch * row } else { 0 }];
            // An empty buffer is cut by hand: chunking it would give no task at all.
            let sums: Vec<&mut [E]> = if sum.is_empty() {
                (0..batch.div_ceil(entries)).map(|_| &mut [][..]).collect()
            } else {
                sum.chunks_mut(entries * row).collect()
            };
            let blocks: Vec<Block<'_, E>> = x.data.chunks(entries * row)
                .zip(y.chunks_mut(entries * row))
                .zip(projected.chunks_mut(entries * proj))
                .zip(probs.chunks_mut(entries * prob))
                .zip(sums)
                .enumerate()
                .map(|(i, ((((x, y), projected), probs), sum))| Block { first_entry: i * entries, x, y, projected, probs, sum })
                .collect();
            if threads == Threads::One {
                blocks.into_par_iter().for_each(|block| parts.forward_block(block, memory, &bias, threads));
            } else {
                blocks.into_iter().for_each(|block| parts.forward_block(block, memory, &bias, threads));
            }
            if self.keep {
                let kept = SavedAttention { projected: keep(projected.into_vec())?, probs: keep(probs.into_vec())?, sum: keep(sum)? };
                let _ = self.saved.set(kept);
            }
        });
        Ok((y, Shape::from_dims(x.dims)))
    }

    fn saved(&self) -> candle_core::Result<SavedAttention> {
        self.saved
            .get()
            .cloned()
            .ok_or_else(|| candle_core::Error::Msg("attention_sublayer: nothing was saved".into()))
    }
}

impl Kernel<1> for FusedAttention {
    fn name(&self) -> &'static str {
        "attention_sublayer"
    }

    fn cpu<E: Elem>(&self, [x]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        self.run(&x, None)
    }

    fn backward(
        &self,
        [x]: [&Tensor; 1],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 1]> {
        let kernel = FusedAttentionBackward {
            weights: Arc::clone(&self.weights),
            sizes: self.sizes,
            rotary: self.rotary.clone(),
            saved: self.saved()?,
            want: [true, false],
        };
        Ok([Some(apply2(kernel, x, dy)?)])
    }
}

impl Kernel<2> for FusedAttention {
    fn name(&self) -> &'static str {
        "cross_attention_sublayer"
    }

    fn cpu<E: Elem>(&self, [x, memory]: [View<'_, E>; 2]) -> candle_core::Result<(Vec<E>, Shape)> {
        self.run(&x, Some(memory.data))
    }

    fn backward(
        &self,
        [x, memory]: [&Tensor; 2],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 2]> {
        let want = [x.track_op(), memory.track_op()];
        let kernel = FusedAttentionBackward {
            weights: Arc::clone(&self.weights),
            sizes: self.sizes,
            rotary: self.rotary.clone(),
            saved: self.saved()?,
            want,
        };
        let flat = apply3(kernel, x, memory, dy)?;
        let n_x = if want[0] { x.elem_count() } else { 0 };
        let part = |wanted: bool, at: usize, like: &Tensor| {
            wanted.then(|| flat.narrow(0, at, like.elem_count())?.reshape(like.shape())).transpose()
        };
        Ok([part(want[0], 0, x)?, part(want[1], n_x, memory)?])
    }
}

struct FusedAttentionBackward {
    weights: Arc<AttentionWeights>,
    sizes: Sizes,
    rotary: Option<Rotary>,
    saved: SavedAttention,
    /// Whether the gradients of the input and of the memory are wanted.
    want: [bool; 2],
}

impl FusedAttentionBackward {
    /// `[dx if wanted | d_memory if there is one]`, flat.
    fn run<E: Elem>(&self, x: &[E], memory: Option<&[E]>, dy: &[E]) -> candle_core::Result<Vec<E>> {
        let Sizes { batch, shape } = self.sizes;
        let read =
            (Read::new(&self.saved.projected), Read::new(&self.saved.probs), Read::new(&self.saved.sum));
        let (projected, probs, sum) = (read.0.values::<E>()?, read.1.values::<E>()?, read.2.values::<E>()?);
        let n_x = if self.want[0] { x.len() } else { 0 };
        let mut flat = vec![E::zero(); n_x + memory.map_or(0, <[E]>::len)];
        if x.is_empty() {
            return Ok(flat);
        }
        with_parts!(self.weights, self.rotary, shape, E, parts => {
            let (entries, threads) = self.sizes.plan(parts.is_stored());
            let (row, proj) = (shape.t_q * parts.projection.n_in, shape.t_q * parts.projection.n_out);
            let mem = shape.t_k * 2 * shape.kv_width();
            let (mut dx, mut d_memory) = flat.split_at_mut(n_x);
            let mut tasks = Vec::new();
            for first_entry in (0..batch).step_by(entries) {
                let n = entries.min(batch - first_entry);
                let cut = |data: &'_ [E], width: usize| -> std::ops::Range<usize> {
                    if data.is_empty() { 0..0 } else { first_entry * width..(first_entry + n) * width }
                };
                let saved = SavedRef {
                    first_entry,
                    n_entries: n,
                    x: &x[cut(x, row)],
                    dy: &dy[cut(dy, row)],
                    projected: &projected[cut(&projected, proj)],
                    probs: &probs[cut(&probs, shape.n_probs())],
                    sum: &sum[cut(&sum, row)],
                    memory,
                };
                let dx_part = dx.split_off_mut(..if self.want[0] { n * row } else { 0 }).unwrap_or_default();
                let mem_part = memory.map(|_| d_memory.split_off_mut(..n * mem).unwrap_or_default());
                tasks.push((saved, dx_part, mem_part));
            }
            if threads == Threads::One {
                tasks.into_par_iter().for_each(|(s, dx, dm)| parts.backward_block(s, dx, dm, threads));
            } else {
                tasks.into_iter().for_each(|(s, dx, dm)| parts.backward_block(s, dx, dm, threads));
            }
        });
        Ok(flat)
    }
}

impl Kernel<2> for FusedAttentionBackward {
    fn name(&self) -> &'static str {
        "attention_sublayer_backward"
    }

    fn cpu<E: Elem>(&self, [x, dy]: [View<'_, E>; 2]) -> candle_core::Result<(Vec<E>, Shape)> {
        Ok((self.run(x.data, None, dy.data)?, Shape::from_dims(x.dims)))
    }
}

impl Kernel<3> for FusedAttentionBackward {
    fn name(&self) -> &'static str {
        "cross_attention_sublayer_backward"
    }

    fn cpu<E: Elem>(&self, [x, memory, dy]: [View<'_, E>; 3]) -> candle_core::Result<(Vec<E>, Shape)> {
        let flat = self.run(x.data, Some(memory.data), dy.data)?;
        let n = flat.len();
        Ok((flat, Shape::from(n)))
    }
}
