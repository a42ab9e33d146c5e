//! A step of generation through a frozen attention sublayer on the CPU, as one operation: the new tokens' keys and values go straight
//! into the cache, over which their queries attend. The products share out the rows of their matrices and the attention its heads, each in
//! one section of the team ([`Threads::Team`]); what lies between them is too little work to be shared out.

use super::cache::KvCache;
use super::fused::{Parts, Sizes, with_parts};
use super::weights::AttentionWeights;
use crate::bias::{AttentionBias, BiasValues};
use crate::cpu::attention::{Tokens, attend, attend_one};
use crate::cpu::gemm::{MIN_PARALLEL_WORK, Threads, rows_mut};
use crate::cpu::norm::norm_rows_in_place;
use crate::cpu::scratch::Scratch;
use crate::cpu::{Elem, simd};
use crate::dispatch::{Read, apply2};
use crate::error::Result;
use crate::kernel::{Kernel, View};
use crate::rotary::Rotary;
use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Shape, Tensor};
use faer::Accum;
use rayon::prelude::*;
use std::sync::{Arc, OnceLock};

/// Self-attention of new tokens `x (batch, t_new, d)` over themselves and the cache, to which they are added. The sizes were checked.
pub(super) fn self_attention(
    weights: &Arc<AttentionWeights>,
    sizes: Sizes,
    bias: &AttentionBias,
    rotary: Option<&Rotary>,
    x: &Tensor,
    cache: &mut KvCache,
) -> Result<Tensor> {
    let Sizes { batch, shape } = sizes;
    let x = x.contiguous()?;
    let memory = cache.reserve([batch, shape.t_q, 2 * shape.kv_width()], x.dtype(), x.device())?;
    let step = Step { weights, sizes, bias, rotary, x: &x, y: OnceLock::new() };
    memory.inplace_op1(&step)?;
    cache.advance(shape.t_q);
    step.y.into_inner().ok_or_else(|| candle_core::Error::Msg("a step gave nothing".into()).into())
}

/// Attention of one token `x (batch, 1, d)` of each entry over given keys and values. The sizes were checked, and no gradient is wanted.
pub(super) fn cross_attention(
    weights: &Arc<AttentionWeights>,
    sizes: Sizes,
    bias: &AttentionBias,
    x: &Tensor,
    key_value: &Tensor,
) -> Result<Tensor> {
    apply2(CrossStep { weights: Arc::clone(weights), sizes, bias: bias.clone() }, x, key_value)
}

/// An operation on the memory of a cache.
struct Step<'a> {
    weights: &'a AttentionWeights,
    sizes: Sizes,
    bias: &'a AttentionBias,
    rotary: Option<&'a Rotary>,
    x: &'a Tensor,
    y: OnceLock<Tensor>,
}

struct CrossStep {
    weights: Arc<AttentionWeights>,
    sizes: Sizes,
    bias: AttentionBias,
}

impl Step<'_> {
    fn run<E: Elem>(&self, memory: &mut [E], capacity: usize) -> candle_core::Result<()> {
        let Sizes { batch, shape } = self.sizes;
        let (read, bias) = (Read::new(self.x), self.bias.read());
        let (x, bias) = (read.values::<E>()?, bias.values::<E>()?);
        let mut y = x.to_vec();
        with_parts!(self.weights, self.rotary, shape, E, parts => {
            let projected = project(&parts, batch, &x);
            let (wide, new) = (parts.projection.n_out, 2 * shape.kv_width());
            let before = shape.t_k - shape.t_q;
            for (entry, tokens) in projected.chunks_exact(shape.t_q * wide).enumerate() {
                let at = (entry * capacity + before) * new;
                let rows = memory[at..][..shape.t_q * new].chunks_exact_mut(new);
                rows.zip(tokens.chunks_exact(wide)).for_each(|(row, token)| row.copy_from_slice(&token[wide - new..]));
            }
            finish(&parts, batch, &projected, (memory, capacity), &bias, &mut y);
        });
        let _ = self.y.set(Tensor::from_vec(y, self.x.shape(), &Device::Cpu)?);
        Ok(())
    }
}

impl InplaceOp1 for Step<'_> {
    fn name(&self) -> &'static str {
        "attention_step"
    }

    fn cpu_fwd(&self, memory: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (_, capacity, _) = layout.shape().dims3()?;
        match memory {
            CpuStorage::F32(memory) => self.run(memory, capacity),
            CpuStorage::F64(memory) => self.run(memory, capacity),
            _ => candle_core::bail!("attention_step: activations are f32 or f64"),
        }
    }
}

impl Kernel<2> for CrossStep {
    fn name(&self) -> &'static str {
        "cross_attention_step"
    }

    fn cpu<E: Elem>(&self, [x, memory]: [View<'_, E>; 2]) -> candle_core::Result<(Vec<E>, Shape)> {
        let Sizes { batch, shape } = self.sizes;
        let bias = self.bias.read();
        let bias = bias.values::<E>()?;
        let mut y = x.data.to_vec();
        with_parts!(self.weights, None::<Rotary>, shape, E, parts => {
            let projected = project(&parts, batch, x.data);
            finish(&parts, batch, &projected, (memory.data, shape.t_k), &bias, &mut y);
        });
        Ok((y, Shape::from_dims(x.dims)))
    }
}

fn project<E: Elem>(parts: &Parts<'_, E>, batch: usize, x: &[E]) -> Scratch<E> {
    let m = batch * parts.shape.t_q;
    let mut projected = Scratch::new(m * parts.projection.n_out);
    parts.project(0, x, &mut projected, Threads::for_rows(m));
    projected
}

/// Attention of the queries in `projected` over keys and values in rows `[k ; v]`, with memory for `capacity` tokens of each entry, and
/// what follows it. `y` comes in as a copy of the input.
fn finish<E: Elem>(
    parts: &Parts<'_, E>,
    batch: usize,
    projected: &[E],
    (key_values, capacity): (&[E], usize),
    bias: &BiasValues<'_, E>,
    y: &mut [E],
) {
    let shape = parts.shape;
    let (m, kv, wide) = (batch * shape.t_q, shape.kv_width(), parts.projection.n_out);
    let qkv = |entry: usize| {
        let data = &key_values[entry * capacity * 2 * kv..];
        let queries = Tokens { data: &projected[entry * shape.t_q * wide..], stride: wide };
        [queries, Tokens { data, stride: 2 * kv }, Tokens { data: &data[kv..], stride: 2 * kv }]
    };
    let terms = |entry: usize| bias.terms(entry, shape.t_k, parts.scale);
    let mut context = Scratch::new(m * shape.width());
    if shape.t_q == 1 {
        let work = batch * shape.n_probs() * shape.d_head;
        let members = if work < MIN_PARALLEL_WORK { 1 } else { usize::MAX };
        fwd_simd::fork_chunks(&mut context, shape.d_head, members, |first, heads| {
            let mut probs = Scratch::new(shape.t_k);
            for (i, out) in heads.chunks_exact_mut(shape.d_head).enumerate() {
                let (entry, head) = ((first + i) / shape.n_heads, (first + i) % shape.n_heads);
                let (terms, qkv) = (terms(entry), qkv(entry));
                out.fill(E::zero());
                simd(
                    #[inline(always)]
                    || attend_one(shape, &terms, head, qkv, &mut probs, out),
                );
            }
        });
    } else {
        let mut probs = Scratch::new(batch * shape.n_probs());
        let inner = if batch < rayon::current_num_threads() { Threads::Pool } else { Threads::One };
        let one_entry = |entry: usize, probs: &mut [E], context: &mut [E], threads: Threads| {
            let context = rows_mut(context, shape.t_q, shape.width(), shape.width());
            attend(shape, &terms(entry), qkv(entry), probs, context, threads);
        };
        let (per_entry, n_probs) = (shape.t_q * shape.width(), shape.n_probs());
        if batch * n_probs * shape.d_head < MIN_PARALLEL_WORK {
            let entries = probs.chunks_mut(n_probs).zip(context.chunks_mut(per_entry));
            entries.enumerate().for_each(|(i, (probs, context))| one_entry(i, probs, context, Threads::One));
        } else {
            let entries = probs.par_chunks_mut(n_probs).zip(context.par_chunks_mut(per_entry));
            entries.enumerate().for_each(|(i, (probs, context))| one_entry(i, probs, context, inner));
        }
    }
    parts.output.forward(&context, m, y, Accum::Add, Threads::for_rows(m));
    simd(
        #[inline(always)]
        || norm_rows_in_place(parts.post, y, parts.output.n_out),
    );
}
