//! Multi-head attention with relative-position bias, padding mask and causal mask:
//! `C = softmax(scale·Q·Kᵀ + position + mask)·V`.
//!
//! T5 uses `scale = 1`, BERT and EVA `1/sqrt(d_head)`. Everything stays token-major `(batch, tokens, n_heads·d_head)`.

use crate::bias::AttentionBias;
use crate::cpu::Elem;
use crate::cpu::attention::{HeadShape, Tokens, attend, attend_backward};
use crate::cpu::gemm::{Threads, rows_mut};
use crate::dispatch::{Read, apply1, apply2, apply3, keep, on_gpu};
use crate::error::{OpError, Result};
use crate::gpu::{self, Arg, GpuStorage};
use crate::kernel::{Kernel, View};
use crate::linear::SumRows;
use crate::softmax;
use candle_core::{Layout, Shape, Tensor};
use rayon::prelude::*;
use std::sync::OnceLock;

/// Attention of every query over all keys of its batch entry.
///
/// # Shapes
/// `q (batch, t_q, n_heads·d_head)`, `k` and `v (batch, t_k, n_heads·d_head)`, f32 or f64, any batch and token strides
/// -> `(batch, t_q, n_heads·d_head)`.
///
/// # Errors
/// [`OpError::Shape`] if the shapes or the bias do not fit.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    n_heads: usize,
    scale: f64,
    bias: &AttentionBias,
) -> Result<Tensor> {
    let shapes = || format!("q {:?}, k {:?}, v {:?}, {n_heads} heads", q.shape(), k.shape(), v.shape());
    let (Ok((batch, t_q, width)), Ok((b_k, t_k, w_k))) = (q.dims3(), k.dims3()) else {
        return Err(OpError::shape("attention", format!("rank 3 expected: {}", shapes())));
    };
    if b_k != batch || w_k != width || v.dims() != k.dims() || n_heads == 0 || width % n_heads != 0 {
        return Err(OpError::shape("attention", format!("sizes do not fit: {}", shapes())));
    }
    bias.check("attention", batch, n_heads, t_q, t_k)?;
    let last_dense = |t: &Tensor| if t.stride()[2] == 1 { Ok(t.clone()) } else { t.contiguous() };
    let forward = Forward {
        sizes: Sizes { batch, shape: HeadShape { n_heads, d_head: width / n_heads, t_q, t_k }, scale },
        bias: bias.frozen(),
        keep: q.track_op() || k.track_op() || v.track_op() || bias.trained().is_some(),
        probs: OnceLock::new(),
    };
    match bias.trained() {
        None => apply3(forward, &last_dense(q)?, &last_dense(k)?, &last_dense(v)?),
        Some(position) => apply3(Biased(forward), &last_dense(q)?, &Tensor::cat(&[k, v], 2)?, position),
    }
}

/// [`attention()`] over the result of one projection, with rows `[q ; k ; v]`, which need not be taken apart.
pub(crate) fn attention_of_packed(
    qkv: &Tensor,
    n_heads: usize,
    scale: f64,
    bias: &AttentionBias,
) -> Result<Tensor> {
    let (batch, t, wide) = qkv.dims3()?;
    if bias.trained().is_some() {
        let [q, k, v] = [0, 1, 2].map(|i| qkv.narrow(2, i * (wide / 3), wide / 3));
        return attention(&q?, &k?, &v?, n_heads, scale, bias);
    }
    bias.check("attention", batch, n_heads, t, t)?;
    let shape = HeadShape { n_heads, d_head: wide / 3 / n_heads, t_q: t, t_k: t };
    let sizes = Sizes { batch, shape, scale };
    let forward = Forward { sizes, bias: bias.clone(), keep: qkv.track_op(), probs: OnceLock::new() };
    apply1(Joined(forward), qkv)
}

/// [`attention()`] over keys and values in rows `[k ; v]`, which need not be taken apart.
pub(crate) fn attention_of_paired(
    q: &Tensor,
    kv: &Tensor,
    n_heads: usize,
    scale: f64,
    bias: &AttentionBias,
) -> Result<Tensor> {
    let ((batch, t_q, width), (_, t_k, _)) = (q.dims3()?, kv.dims3()?);
    if bias.trained().is_some() {
        let (k, v) = (kv.narrow(2, 0, width)?, kv.narrow(2, width, width)?);
        return attention(q, &k, &v, n_heads, scale, bias);
    }
    bias.check("attention", batch, n_heads, t_q, t_k)?;
    let shape = HeadShape { n_heads, d_head: width / n_heads, t_q, t_k };
    let (sizes, keep) = (Sizes { batch, shape, scale }, q.track_op() || kv.track_op());
    apply2(Joined(Forward { sizes, bias: bias.clone(), keep, probs: OnceLock::new() }), q, kv)
}

#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    shape: HeadShape,
    scale: f64,
}

struct Forward {
    sizes: Sizes,
    bias: AttentionBias,
    keep: bool,
    probs: OnceLock<Tensor>,
}

/// Attention over tensors that hold several of queries, keys and values side by side in each row.
struct Joined(Forward);

/// Attention whose third argument is a position bias that gets a gradient; the second is `[k ; v]` in one row.
struct Biased(Forward);

struct Backward {
    sizes: Sizes,
    probs: Tensor,
    qkv: [Tensor; 3],
    /// Whether the gradients of the scores are wanted, to be summed up for the position bias.
    wants_scores: bool,
}

impl<'a, E: Elem> View<'a, E> {
    fn tokens(&self, entry: usize) -> Tokens<'a, E> {
        Tokens { data: &self.data[entry * self.stride[0]..], stride: self.stride[1] }
    }
}

fn tokens_of<E>(data: &[E], from: usize, stride: usize) -> Tokens<'_, E> {
    Tokens { data: &data[from..], stride }
}

impl Forward {
    fn run<'a, E: Elem>(
        &self,
        qkv: impl Fn(usize) -> [Tokens<'a, E>; 3] + Sync,
    ) -> candle_core::Result<(Vec<E>, Shape)> {
        let Sizes { batch, shape, scale } = self.sizes;
        let (t_q, t_k, width) = (shape.t_q, shape.t_k, shape.width());
        let read = self.bias.read();
        let bias = read.values()?;
        let mut probs = vec![E::zero(); batch * shape.n_probs()];
        let mut context = vec![E::zero(); batch * t_q * width];
        if batch * t_q * width > 0 && t_k > 0 {
            let inner = if batch < rayon::current_num_threads() { Threads::Pool } else { Threads::One };
            probs
                .par_chunks_mut(shape.n_probs())
                .zip(context.par_chunks_mut(t_q * width))
                .enumerate()
                .for_each(|(b, (probs, context))| {
                    let context = rows_mut(context, t_q, width, width);
                    attend(shape, &bias.terms(b, t_k, scale), qkv(b), probs, context, inner);
                });
        }
        if self.keep {
            let _ = self.probs.set(keep(probs)?);
        }
        Ok((context, Shape::from((batch, t_q, width))))
    }

    /// [`Self::run`] with `[k ; v]` in one row.
    fn run_paired<E: Elem>(&self, q: &View<'_, E>, kv: &View<'_, E>) -> candle_core::Result<(Vec<E>, Shape)> {
        self.run(|b| {
            let k = kv.tokens(b);
            [q.tokens(b), k, tokens_of(k.data, self.sizes.shape.width(), k.stride)]
        })
    }

    /// [`Self::run_gpu`] with `[k ; v]` in one row.
    fn run_paired_gpu<S: GpuStorage>(
        &self,
        q: Arg<'_, S>,
        kv: Arg<'_, S>,
    ) -> candle_core::Result<(S, Shape)> {
        let shape = self.sizes.shape;
        let [k, v] = [0, shape.width()].map(|offset| (kv.storage, heads_of(&kv, shape, offset)));
        self.run_gpu([(q.storage, heads_of(&q, shape, 0)), k, v])
    }

    /// Both products and the softmax between them; `qkv` are the heads of queries, keys and values wherever they lie.
    fn run_gpu<S: GpuStorage>(&self, qkv: [(&S, Layout); 3]) -> candle_core::Result<(S, Shape)> {
        let Sizes { batch, shape, scale } = self.sizes;
        let HeadShape { n_heads, d_head, t_q, t_k } = shape;
        let shape = Shape::from((batch, t_q, n_heads * d_head));
        let probs_shape = Shape::from((batch, n_heads, t_q, t_k));
        let like = qkv[0].0;
        if shape.elem_count() == 0 || t_k == 0 {
            if self.keep {
                let _ = self.probs.set(gpu::tensor(gpu::zeros(like, &probs_shape)?, probs_shape));
            }
            return Ok((gpu::zeros(like, &shape)?, shape));
        }
        let [q, k, v] = [0, 1, 2].map(|i| gpu::dense(qkv[i].0, &qkv[i].1));
        let heads = |n: usize| Layout::contiguous((batch, n_heads, n, d_head));
        let probs_layout = Layout::contiguous(&probs_shape);
        let scores = gpu::product((&q?, &heads(t_q)), (&k?, &gpu::transposed(&heads(t_k))))?;
        let probs = softmax::on_gpu(&self.bias, scale, Arg::new(&scores, &probs_layout))?;
        let context = gpu::product((&probs, &probs_layout), (&v?, &heads(t_k)))?;
        let tokens = Layout::new(
            Shape::from((batch, t_q, n_heads, d_head)),
            vec![n_heads * t_q * d_head, d_head, t_q * d_head, 1],
            0,
        );
        if self.keep {
            let _ = self.probs.set(gpu::tensor(probs, probs_shape));
        }
        Ok((gpu::dense(&context, &tokens)?, shape))
    }

    /// The heads of the parts of `tokens (b, t, n_parts·n_heads·d_head)`, each `(b, n_heads, t, d_head)`, without a history.
    fn heads(&self, tokens: &Tensor, n_parts: usize) -> candle_core::Result<Vec<Tensor>> {
        let HeadShape { n_heads, d_head, .. } = self.sizes.shape;
        let (batch, t, _) = tokens.dims3()?;
        let split = tokens.detach().reshape((batch, t, n_parts, n_heads, d_head))?;
        let heads = split.permute((2, 0, 3, 1, 4))?.contiguous()?;
        (0..n_parts).map(|i| heads.get(i)).collect()
    }

    /// On a GPU, from the heads of queries, keys and values and the gradient of the context: the gradients of the three, as tokens, and
    /// of the scores times `scale`. The equations are those of [`attend_backward`].
    fn gradients_on_gpu(&self, qkv: &[Tensor], dy: &Tensor) -> candle_core::Result<[Tensor; 4]> {
        let Sizes { shape, scale, .. } = self.sizes;
        let (Some(probs), [q, k, v]) = (self.probs.get(), qkv) else {
            candle_core::bail!("attention: backward before forward");
        };
        let tokens = |t: &Tensor| {
            let (batch, _, n, _) = t.dims4()?;
            t.transpose(1, 2)?.contiguous()?.reshape((batch, n, shape.width()))
        };
        if probs.elem_count() == 0 || q.elem_count() == 0 {
            let zeros = |t: &Tensor| tokens(&t.zeros_like()?);
            return Ok([zeros(q)?, zeros(k)?, zeros(v)?, probs.zeros_like()?]);
        }
        let d_context = &self.heads(dy, 1)?[0];
        let dv = probs.t()?.matmul(d_context)?;
        let d_scores = softmax::backward(probs, &d_context.matmul(&v.t()?)?, scale)?;
        let (dq, dk) = (d_scores.matmul(k)?, d_scores.t()?.matmul(q)?);
        Ok([tokens(&dq)?, tokens(&dk)?, tokens(&dv)?, d_scores])
    }

    /// `[dq | dk | dv]`, then the gradients of the scores if wanted, flat.
    fn flat_gradients(
        &self,
        [q, k, v]: [&Tensor; 3],
        dy: &Tensor,
        wants_scores: bool,
    ) -> candle_core::Result<Tensor> {
        let Some(probs) = self.probs.get().cloned() else {
            candle_core::bail!("attention: backward before forward");
        };
        let qkv = [q.contiguous()?, k.contiguous()?, v.contiguous()?];
        Ok(apply1(Backward { sizes: self.sizes, probs, qkv, wants_scores }, dy)?)
    }
}

/// Where the heads of tokens `(b, t, …)` lie, the first at `offset` in its row: `(b, n_heads, t, d_head)`.
fn heads_of<S: GpuStorage>(tokens: &Arg<'_, S>, shape: HeadShape, offset: usize) -> Layout {
    let (dims, stride) = (tokens.dims(), tokens.layout.stride());
    Layout::new(
        Shape::from((dims[0], shape.n_heads, dims[1], shape.d_head)),
        vec![stride[0], shape.d_head, stride[1], 1],
        tokens.layout.start_offset() + offset,
    )
}

/// A part of a flat gradient in the shape of its tensor, if that is tracked.
fn part(flat: &Tensor, at: usize, like: &Tensor) -> candle_core::Result<Option<Tensor>> {
    like.track_op().then(|| flat.narrow(0, at, like.elem_count())?.reshape(like.shape())).transpose()
}

impl Kernel<3> for Forward {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu<E: Elem>(&self, [q, k, v]: [View<'_, E>; 3]) -> candle_core::Result<(Vec<E>, Shape)> {
        self.run(|b| [q.tokens(b), k.tokens(b), v.tokens(b)])
    }

    fn gpu<S: GpuStorage>(&self, qkv: [Arg<'_, S>; 3]) -> candle_core::Result<(S, Shape)> {
        self.run_gpu(qkv.map(|t| (t.storage, heads_of(&t, self.sizes.shape, 0))))
    }

    fn backward(
        &self,
        [q, k, v]: [&Tensor; 3],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 3]> {
        if on_gpu(dy) {
            let heads = [self.heads(q, 1)?, self.heads(k, 1)?, self.heads(v, 1)?].concat();
            let [dq, dk, dv, _] = self.gradients_on_gpu(&heads, dy)?;
            return Ok([(dq, q), (dk, k), (dv, v)].map(|(d, of)| of.track_op().then_some(d)));
        }
        let flat = self.flat_gradients([q, k, v], dy, false)?;
        let (n_q, n_k) = (q.elem_count(), k.elem_count());
        Ok([part(&flat, 0, q)?, part(&flat, n_q, k)?, part(&flat, n_q + n_k, v)?])
    }
}

impl Kernel<3> for Biased {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu<E: Elem>(&self, [q, kv, _]: [View<'_, E>; 3]) -> candle_core::Result<(Vec<E>, Shape)> {
        self.0.run_paired(&q, &kv)
    }

    fn gpu<S: GpuStorage>(&self, [q, kv, _]: [Arg<'_, S>; 3]) -> candle_core::Result<(S, Shape)> {
        self.0.run_paired_gpu(q, kv)
    }

    fn backward(
        &self,
        [q, kv, position]: [&Tensor; 3],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 3]> {
        let Sizes { batch, shape, .. } = self.0.sizes;
        if on_gpu(dy) {
            let heads = [self.0.heads(q, 1)?, self.0.heads(kv, 2)?].concat();
            let [dq, dk, dv, d_scores] = self.0.gradients_on_gpu(&heads, dy)?;
            let d_kv = kv.track_op().then(|| Tensor::cat(&[dk, dv], 2)).transpose()?;
            // The bias is added after the scale.
            let d_scores = (d_scores.flatten_from(1)? / self.0.sizes.scale)?;
            let d_position = apply1(SumRows, &d_scores)?.reshape(position.shape())?;
            return Ok([q.track_op().then_some(dq), d_kv, Some(d_position)]);
        }
        let width = shape.width();
        let (k, v) = (kv.narrow(2, 0, width)?, kv.narrow(2, width, width)?);
        let flat = self.0.flat_gradients([q, &k, &v], dy, true)?;
        let (n_q, n_k) = (q.elem_count(), k.elem_count());
        let d_kv = if kv.track_op() {
            let like = |at: usize| flat.narrow(0, at, n_k)?.reshape(k.shape());
            Some(Tensor::cat(&[like(n_q)?, like(n_q + n_k)?], 2)?)
        } else {
            None
        };
        let d_scores = flat.narrow(0, n_q + 2 * n_k, batch * shape.n_probs())?;
        let d_position = apply1(SumRows, &d_scores.reshape((batch, shape.n_probs()))?)?;
        Ok([part(&flat, 0, q)?, d_kv, Some(d_position.reshape(position.shape())?)])
    }
}

impl Joined {
    /// The gradients of queries, keys and values, as tokens.
    fn gradients(&self, tensors: &[(&Tensor, usize)], dy: &Tensor) -> candle_core::Result<[Tensor; 3]> {
        if on_gpu(dy) {
            let heads = tensors.iter().map(|(t, parts)| self.0.heads(t, *parts));
            let heads = heads.collect::<candle_core::Result<Vec<_>>>()?.concat();
            let [dq, dk, dv, _] = self.0.gradients_on_gpu(&heads, dy)?;
            return Ok([dq, dk, dv]);
        }
        let width = self.0.sizes.shape.width();
        let mut parts = Vec::with_capacity(3);
        for (tensor, n) in tensors {
            for i in 0..*n {
                parts.push(tensor.narrow(2, i * width, width)?);
            }
        }
        let [q, k, v] = &parts[..] else { candle_core::bail!("attention: {} parts", parts.len()) };
        let flat = self.0.flat_gradients([q, k, v], dy, false)?;
        let (n_q, n_k) = (q.elem_count(), k.elem_count());
        let part = |at: usize, like: &Tensor| flat.narrow(0, at, like.elem_count())?.reshape(like.shape());
        Ok([part(0, q)?, part(n_q, k)?, part(n_q + n_k, v)?])
    }
}

/// Of `[q ; k ; v]`.
impl Kernel<1> for Joined {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu<E: Elem>(&self, [qkv]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let width = self.0.sizes.shape.width();
        self.0.run(|b| {
            let q = qkv.tokens(b);
            [0, 1, 2].map(|i| tokens_of(q.data, i * width, q.stride))
        })
    }

    fn gpu<S: GpuStorage>(&self, [qkv]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        let shape = self.0.sizes.shape;
        self.0.run_gpu([0, 1, 2].map(|i| (qkv.storage, heads_of(&qkv, shape, i * shape.width()))))
    }

    fn backward(
        &self,
        [qkv]: [&Tensor; 1],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 1]> {
        Ok([Some(Tensor::cat(&self.gradients(&[(qkv, 3)], dy)?, 2)?)])
    }
}

/// Of `q` and `[k ; v]`.
impl Kernel<2> for Joined {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu<E: Elem>(&self, [q, kv]: [View<'_, E>; 2]) -> candle_core::Result<(Vec<E>, Shape)> {
        self.0.run_paired(&q, &kv)
    }

    fn gpu<S: GpuStorage>(&self, [q, kv]: [Arg<'_, S>; 2]) -> candle_core::Result<(S, Shape)> {
        self.0.run_paired_gpu(q, kv)
    }

    fn backward(
        &self,
        [q, kv]: [&Tensor; 2],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 2]> {
        let [dq, dk, dv] = self.gradients(&[(q, 1), (kv, 2)], dy)?;
        let d_kv = kv.track_op().then(|| Tensor::cat(&[dk, dv], 2)).transpose()?;
        Ok([q.track_op().then_some(dq), d_kv])
    }
}

impl Kernel<1> for Backward {
    fn name(&self) -> &'static str {
        "attention_backward"
    }

    fn cpu<E: Elem>(&self, [dy]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let Sizes { batch, shape, scale } = self.sizes;
        let (t_q, t_k, width) = (shape.t_q, shape.t_k, shape.width());
        let read = [Read::new(&self.qkv[0]), Read::new(&self.qkv[1]), Read::new(&self.qkv[2])];
        let probs = Read::new(&self.probs);
        let (q, k, v, probs) =
            (read[0].values::<E>()?, read[1].values::<E>()?, read[2].values::<E>()?, probs.values::<E>()?);
        let (n_q, n_k, n_scores) =
            (t_q * width, t_k * width, if self.wants_scores { shape.n_probs() } else { 0 });
        let mut flat = vec![E::zero(); batch * (n_q + 2 * n_k + n_scores)];
        if n_q > 0 && n_k > 0 {
            let (dq, rest) = flat.split_at_mut(batch * n_q);
            let (dk, rest) = rest.split_at_mut(batch * n_k);
            let (dv, mut d_scores) = rest.split_at_mut(batch * n_k);
            let d_scores: Vec<&mut [E]> =
                (0..batch).map(|_| d_scores.split_off_mut(..n_scores).unwrap_or_default()).collect();
            dq.par_chunks_mut(n_q)
                .zip(dk.par_chunks_mut(n_k))
                .zip(dv.par_chunks_mut(n_k))
                .zip(d_scores)
                .enumerate()
                .for_each(|(b, (((dq, dk), dv), d_scores))| {
                    let tokens = |data, n| tokens_of(data, b * n, width);
                    attend_backward(
                        shape,
                        scale,
                        [tokens(&q, n_q), tokens(&k, n_k), tokens(&v, n_k)],
                        &probs[b * shape.n_probs()..][..shape.n_probs()],
                        tokens(dy.data, n_q),
                        [
                            rows_mut(dq, t_q, width, width),
                            rows_mut(dk, t_k, width, width),
                            rows_mut(dv, t_k, width, width),
                        ],
                        d_scores,
                        Threads::One,
                    );
                });
        }
        let n = flat.len();
        Ok((flat, Shape::from(n)))
    }
}
