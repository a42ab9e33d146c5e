//! Multi-head attention with relative-position bias, padding mask and causal mask:
//! `C = softmax(scale·Q·Kᵀ + position + mask)·V`.
//!
//! T5 uses `scale = 1`, the others `1/sqrt(d_head)`. Everything stays token-major `(batch, tokens, n_heads·d_head)`. Where keys and values
//! have fewer heads, each of them serves as many heads of queries in a row (grouped-query attention).

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
/// `q (batch, t_q, n_heads·d_head)`, `k` and `v (batch, t_k, n_kv_heads·d_head)`, where `n_kv_heads` divides `n_heads`, f32 or f64, any
/// batch and token strides -> `(batch, t_q, n_heads·d_head)`.
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
    let Some(shape) =
        head_shape(n_heads, [width, w_k], [t_q, t_k]).filter(|_| b_k == batch && v.dims() == k.dims())
    else {
        return Err(OpError::shape("attention", format!("sizes do not fit: {}", shapes())));
    };
    bias.check("attention", batch, n_heads, t_q, t_k)?;
    let last_dense = |t: &Tensor| if t.stride()[2] == 1 { Ok(t.clone()) } else { t.contiguous() };
    let forward = Forward {
        sizes: Sizes { batch, shape, scale },
        bias: bias.frozen(),
        keep: q.track_op() || k.track_op() || v.track_op() || bias.trained().is_some(),
        probs: OnceLock::new(),
    };
    match bias.trained() {
        None => apply3(forward, &last_dense(q)?, &last_dense(k)?, &last_dense(v)?),
        Some(position) => apply3(Biased(forward), &last_dense(q)?, &Tensor::cat(&[k, v], 2)?, position),
    }
}

/// The heads of queries of width `w_q` over keys of width `w_k`, if they fit.
fn head_shape(n_heads: usize, [w_q, w_k]: [usize; 2], [t_q, t_k]: [usize; 2]) -> Option<HeadShape> {
    let d_head = w_q.checked_div(n_heads)?;
    let n_kv_heads = w_k.checked_div(d_head)?;
    let fits = d_head * n_heads == w_q && d_head * n_kv_heads == w_k;
    let shape = HeadShape { n_heads, n_kv_heads, d_head, t_q, t_k };
    (fits && n_kv_heads > 0 && n_heads.is_multiple_of(n_kv_heads)).then_some(shape)
}

/// [`attention()`] over the result of one projection, with rows `[q ; k ; v]`, which need not be taken apart.
pub(crate) fn attention_of_packed(
    qkv: &Tensor,
    shape: HeadShape,
    scale: f64,
    bias: &AttentionBias,
) -> Result<Tensor> {
    let (batch, t, _) = qkv.dims3()?;
    let (w, kv) = (shape.width(), shape.kv_width());
    if bias.trained().is_some() {
        let (q, k, v) = (qkv.narrow(2, 0, w)?, qkv.narrow(2, w, kv)?, qkv.narrow(2, w + kv, kv)?);
        return attention(&q, &k, &v, shape.n_heads, scale, bias);
    }
    bias.check("attention", batch, shape.n_heads, t, t)?;
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
    let ((batch, t_q, width), (_, t_k, pair)) = (q.dims3()?, kv.dims3()?);
    let Some(shape) = head_shape(n_heads, [width, pair / 2], [t_q, t_k]) else {
        let what = format!("q {:?}, keys and values {:?}, {n_heads} heads", q.shape(), kv.shape());
        return Err(OpError::shape("attention", what));
    };
    if bias.trained().is_some() {
        let kv_width = shape.kv_width();
        let (k, v) = (kv.narrow(2, 0, kv_width)?, kv.narrow(2, kv_width, kv_width)?);
        return attention(q, &k, &v, n_heads, scale, bias);
    }
    bias.check("attention", batch, n_heads, t_q, t_k)?;
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
            [q.tokens(b), k, tokens_of(k.data, self.sizes.shape.kv_width(), k.stride)]
        })
    }

    /// [`Self::run_gpu`] with `[k ; v]` in one row.
    fn run_paired_gpu<S: GpuStorage>(
        &self,
        q: Arg<'_, S>,
        kv: Arg<'_, S>,
    ) -> candle_core::Result<(S, Shape)> {
        let shape = self.sizes.shape;
        let [k, v] = [0, shape.kv_width()].map(|offset| (kv.storage, kv_heads_of(&kv, shape, offset)));
        self.run_gpu([(q.storage, heads_of(&q, shape, 0)), k, v])
    }

    /// Both products and the softmax between them; `qkv` are the heads of queries, keys and values wherever they lie.
    fn run_gpu<S: GpuStorage>(&self, qkv: [(&S, Layout); 3]) -> candle_core::Result<(S, Shape)> {
        let Sizes { batch, shape, scale } = self.sizes;
        let HeadShape { n_heads, d_head, t_q, t_k, .. } = shape;
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

    /// `n` heads of `tokens (b, t, …)` from a column on, `(b, n, t, d_head)`, without a history.
    fn heads(&self, tokens: &Tensor, from: usize, n: usize) -> candle_core::Result<Tensor> {
        let d_head = self.sizes.shape.d_head;
        let (batch, t, _) = tokens.dims3()?;
        let heads = tokens.detach().narrow(2, from, n * d_head)?.reshape((batch, t, n, d_head))?;
        heads.transpose(1, 2)?.contiguous()
    }

    /// The heads of keys or of values of `tokens` from a column on, each as often as there are heads of queries that read it,
    /// `(b, n_heads, t, d_head)`.
    fn kv_heads(&self, tokens: &Tensor, from: usize) -> candle_core::Result<Tensor> {
        let HeadShape { n_heads, n_kv_heads, d_head, .. } = self.sizes.shape;
        let heads = self.heads(tokens, from, n_kv_heads)?;
        if n_kv_heads == n_heads {
            return Ok(heads);
        }
        let (batch, _, t, _) = heads.dims4()?;
        let every = heads.unsqueeze(2)?.broadcast_as((batch, n_kv_heads, n_heads / n_kv_heads, t, d_head))?;
        every.contiguous()?.reshape((batch, n_heads, t, d_head))
    }

    /// On a GPU, from the heads of queries, keys and values and the gradient of the context: the gradients of the three, as tokens, and
    /// of the scores times `scale`. The equations are those of [`attend_backward`].
    fn gradients_on_gpu(&self, qkv: &[Tensor], dy: &Tensor) -> candle_core::Result<[Tensor; 4]> {
        let Sizes { shape, scale, .. } = self.sizes;
        let (Some(probs), [q, k, v]) = (self.probs.get(), qkv) else {
            candle_core::bail!("attention: backward before forward");
        };
        let tokens = |t: &Tensor| {
            let (batch, n_heads, n, d_head) = t.dims4()?;
            t.transpose(1, 2)?.contiguous()?.reshape((batch, n, n_heads * d_head))
        };
        // A head of keys or of values has the sum of the gradients of its group.
        let kv_tokens = |t: &Tensor| {
            if shape.group() == 1 {
                return tokens(t);
            }
            let (batch, _, n, d_head) = t.dims4()?;
            tokens(&t.reshape((batch, shape.n_kv_heads, shape.group(), n, d_head))?.sum(2)?)
        };
        if probs.elem_count() == 0 || q.elem_count() == 0 {
            let zeros = |t: &Tensor| tokens(&t.zeros_like()?);
            let kv_zeros = |t: &Tensor| kv_tokens(&t.zeros_like()?);
            return Ok([zeros(q)?, kv_zeros(k)?, kv_zeros(v)?, probs.zeros_like()?]);
        }
        let d_context = &self.heads(dy, 0, shape.n_heads)?;
        let dv = probs.t()?.matmul(d_context)?;
        let d_scores = softmax::backward(probs, &d_context.matmul(&v.t()?)?, scale)?;
        let (dq, dk) = (d_scores.matmul(k)?, d_scores.t()?.matmul(q)?);
        Ok([tokens(&dq)?, kv_tokens(&dk)?, kv_tokens(&dv)?, d_scores])
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

/// As [`heads_of`] for keys or values: each of their heads stands as often as there are heads of queries that read it,
/// `(b, n_kv_heads, group, t, d_head)`.
fn kv_heads_of<S: GpuStorage>(tokens: &Arg<'_, S>, shape: HeadShape, offset: usize) -> Layout {
    let (dims, stride) = (tokens.dims(), tokens.layout.stride());
    Layout::new(
        Shape::from((dims[0], shape.n_kv_heads, shape.group(), dims[1], shape.d_head)),
        vec![stride[0], shape.d_head, 0, stride[1], 1],
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

    fn gpu<S: GpuStorage>(&self, [q, k, v]: [Arg<'_, S>; 3]) -> candle_core::Result<(S, Shape)> {
        let shape = self.sizes.shape;
        let [k, v] = [k, v].map(|t| (t.storage, kv_heads_of(&t, shape, 0)));
        self.run_gpu([(q.storage, heads_of(&q, shape, 0)), k, v])
    }

    fn backward(
        &self,
        [q, k, v]: [&Tensor; 3],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 3]> {
        if on_gpu(dy) {
            let heads =
                [self.heads(q, 0, self.sizes.shape.n_heads)?, self.kv_heads(k, 0)?, self.kv_heads(v, 0)?];
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
            let heads = [
                self.0.heads(q, 0, shape.n_heads)?,
                self.0.kv_heads(kv, 0)?,
                self.0.kv_heads(kv, shape.kv_width())?,
            ];
            let [dq, dk, dv, d_scores] = self.0.gradients_on_gpu(&heads, dy)?;
            let d_kv = kv.track_op().then(|| Tensor::cat(&[dk, dv], 2)).transpose()?;
            // The bias is added after the scale.
            let d_scores = (d_scores.flatten_from(1)? / self.0.sizes.scale)?;
            let d_position = apply1(SumRows, &d_scores)?.reshape(position.shape())?;
            return Ok([q.track_op().then_some(dq), d_kv, Some(d_position)]);
        }
        let width = shape.kv_width();
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
    /// The gradients of queries, keys and values, as tokens; each lies in a tensor from a column on.
    fn gradients(&self, [q, k, v]: [(&Tensor, usize); 3], dy: &Tensor) -> candle_core::Result<[Tensor; 3]> {
        let shape = self.0.sizes.shape;
        if on_gpu(dy) {
            let heads = [
                self.0.heads(q.0, q.1, shape.n_heads)?,
                self.0.kv_heads(k.0, k.1)?,
                self.0.kv_heads(v.0, v.1)?,
            ];
            let [dq, dk, dv, _] = self.0.gradients_on_gpu(&heads, dy)?;
            return Ok([dq, dk, dv]);
        }
        let kv_width = shape.kv_width();
        let (q, k, v) = (
            q.0.narrow(2, q.1, shape.width())?,
            k.0.narrow(2, k.1, kv_width)?,
            v.0.narrow(2, v.1, kv_width)?,
        );
        let flat = self.0.flat_gradients([&q, &k, &v], dy, false)?;
        let (n_q, n_k) = (q.elem_count(), k.elem_count());
        let part = |at: usize, like: &Tensor| flat.narrow(0, at, like.elem_count())?.reshape(like.shape());
        Ok([part(0, &q)?, part(n_q, &k)?, part(n_q + n_k, &v)?])
    }
}

/// Of `[q ; k ; v]`.
impl Kernel<1> for Joined {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu<E: Elem>(&self, [qkv]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let (w, kv) = (self.0.sizes.shape.width(), self.0.sizes.shape.kv_width());
        self.0.run(|b| {
            let q = qkv.tokens(b);
            [0, w, w + kv].map(|at| tokens_of(q.data, at, q.stride))
        })
    }

    fn gpu<S: GpuStorage>(&self, [qkv]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        let shape = self.0.sizes.shape;
        let (w, kv) = (shape.width(), shape.kv_width());
        let [k, v] = [w, w + kv].map(|at| (qkv.storage, kv_heads_of(&qkv, shape, at)));
        self.0.run_gpu([(qkv.storage, heads_of(&qkv, shape, 0)), k, v])
    }

    fn backward(
        &self,
        [qkv]: [&Tensor; 1],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 1]> {
        let (w, kv) = (self.0.sizes.shape.width(), self.0.sizes.shape.kv_width());
        Ok([Some(Tensor::cat(&self.gradients([(qkv, 0), (qkv, w), (qkv, w + kv)], dy)?, 2)?)])
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
        let kv_width = self.0.sizes.shape.kv_width();
        let [dq, dk, dv] = self.gradients([(q, 0), (kv, 0), (kv, kv_width)], dy)?;
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
        let (t_q, t_k, width, kv_width) = (shape.t_q, shape.t_k, shape.width(), shape.kv_width());
        let read = [Read::new(&self.qkv[0]), Read::new(&self.qkv[1]), Read::new(&self.qkv[2])];
        let probs = Read::new(&self.probs);
        let (q, k, v, probs) =
            (read[0].values::<E>()?, read[1].values::<E>()?, read[2].values::<E>()?, probs.values::<E>()?);
        let (n_q, n_k, n_scores) =
            (t_q * width, t_k * kv_width, if self.wants_scores { shape.n_probs() } else { 0 });
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
                    let keys = |data| tokens_of(data, b * n_k, kv_width);
                    attend_backward(
                        shape,
                        scale,
                        [tokens_of(&q, b * n_q, width), keys(&k), keys(&v)],
                        &probs[b * shape.n_probs()..][..shape.n_probs()],
                        tokens_of(dy.data, b * n_q, width),
                        [
                            rows_mut(dq, t_q, width, width),
                            rows_mut(dk, t_k, kv_width, kv_width),
                            rows_mut(dv, t_k, kv_width, kv_width),
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
