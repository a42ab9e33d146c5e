//! An operation against a reference in candle's basic operations and against finite differences, in f64, and in f32 against its
//! own f64 result.

#![allow(dead_code, missing_docs, clippy::unwrap_used)] // Helpers of tests: each file uses some, and they may panic.

use candle_core::{D, DType, Device, Tensor, Var};
use fwd_ops::backward;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;

pub(crate) type Function<'a> = &'a dyn Fn(&[Tensor]) -> Tensor;

pub(crate) fn normal(seed: u64, shape: &[usize], dtype: DType) -> Tensor {
    let mut rng = StdRng::seed_from_u64(seed);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| rng.sample(StandardNormal)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

pub(crate) fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

pub(crate) fn abs_max(t: &Tensor) -> f64 {
    values(t).into_iter().fold(0.0, |m, v| if v.is_nan() { f64::NAN } else { m.max(v.abs()) })
}

pub(crate) fn max_diff(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    abs_max(&(a.to_dtype(DType::F64).unwrap() - b.to_dtype(DType::F64).unwrap()).unwrap())
}

/// `Σ weight∘f(inputs)` with fixed random weights, so that every output element counts differently.
pub(crate) fn loss(f: Function<'_>, inputs: &[Tensor]) -> Tensor {
    let y = f(inputs);
    let weight = normal(99, y.dims(), y.dtype());
    (y * weight).unwrap().sum_all().unwrap()
}

/// The gradients of [`loss`]; fails if any is missing.
pub(crate) fn gradients(f: Function<'_>, inputs: &[Tensor]) -> Vec<Tensor> {
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let names: Vec<String> = (0..vars.len()).map(|i| format!("input {i}")).collect();
    let parameters: Vec<(&str, &Var)> = names.iter().map(String::as_str).zip(&vars).collect();
    let gradients = backward(&loss(f, &tensors), &parameters).unwrap();
    assert!(gradients.iter().all(|g| !g.track_op()), "a gradient must not keep the graph alive");
    gradients
}

/// Forward and gradients of `ours` equal those of `reference`, finite differences, and (to f32 accuracy) the f32 run, on the CPU and
/// with the feature `emulate` on an emulated GPU.
pub(crate) fn verify(what: &str, inputs: &[Tensor], ours: Function<'_>, reference: Function<'_>) {
    let (y, want) = (ours(inputs), reference(inputs));
    let scale = abs_max(&want).max(1.0);
    assert!(max_diff(&y, &want) <= 1e-12 * scale, "{what}: forward off by {:e}", max_diff(&y, &want));
    let (got, expected) = (gradients(ours, inputs), gradients(reference, inputs));
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        let (off, scale) = (max_diff(g, e), abs_max(e).max(1.0));
        assert!(off <= 1e-10 * scale, "{what}: gradient {i} off from the reference by {off:e}");
        check_differences(what, i, g, inputs, ours);
    }
    let single: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(DType::F32).unwrap()).collect();
    let check_f32 = |what: &str| {
        let y32 = ours(&single);
        assert_eq!(y32.dtype(), DType::F32, "{what}: f32 in, f32 out");
        let off = max_diff(&y32, &want);
        assert!(off <= 1e-5 * scale, "{what}: f32 forward off by {off:e}");
        for (i, (g, e)) in gradients(ours, &single).iter().zip(&expected).enumerate() {
            let (off, scale) = (max_diff(g, e), abs_max(e).max(1.0));
            assert!(off <= 2e-5 * scale, "{what}: f32 gradient {i} off by {off:e}");
        }
    };
    check_f32(what);
    // What a GPU computes does not depend on the threads of the host.
    #[cfg(feature = "emulate")]
    if rayon::current_thread_index().is_none() || rayon::current_num_threads() == 1 {
        fwd_ops::emulated(fwd_kernels::Target::H100, || check_f32(&format!("{what}, on an emulated GPU")));
    }
}

/// Central differences of at most 24 coordinates of input `i`.
pub(crate) fn check_differences(what: &str, i: usize, gradient: &Tensor, inputs: &[Tensor], f: Function<'_>) {
    const STEP: f64 = 1e-5;
    let (base, shape) = (values(&inputs[i]), inputs[i].shape());
    let gradient = values(gradient);
    let scale = gradient.iter().fold(1.0f64, |m, g| m.max(g.abs()));
    for at in (0..base.len()).step_by(base.len().div_ceil(24).max(1)) {
        let at_offset = |offset: f64| {
            let mut moved = base.clone();
            moved[at] += offset;
            let mut inputs = inputs.to_vec();
            inputs[i] = Tensor::from_vec(moved, shape, &Device::Cpu).unwrap();
            loss(f, &inputs).to_scalar::<f64>().unwrap()
        };
        let slope = (at_offset(STEP) - at_offset(-STEP)) / (2.0 * STEP);
        let off = (slope - gradient[at]).abs();
        assert!(
            off < 1e-6 * scale,
            "{what}: gradient {i}[{at}] is {}, finite differences give {slope}",
            gradient[at]
        );
    }
}

pub(crate) fn reference_linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let y = x.broadcast_matmul(&weight.t().unwrap()).unwrap();
    bias.map_or_else(|| y.clone(), |b| y.broadcast_add(b).unwrap())
}

/// `weight.dtype()` follows the activations in the f32 run.
pub(crate) fn like(t: &Tensor, x: &Tensor) -> Tensor {
    t.to_dtype(x.dtype()).unwrap()
}

pub(crate) fn reference_rms(x: &Tensor, weight: &Tensor, eps: f64) -> Tensor {
    let scale = (x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap() + eps).unwrap().sqrt().unwrap();
    x.broadcast_div(&scale).unwrap().broadcast_mul(weight).unwrap()
}

pub(crate) fn reference_layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Tensor {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1).unwrap()).unwrap();
    let scale = (centred.sqr().unwrap().mean_keepdim(D::Minus1).unwrap() + eps).unwrap().sqrt().unwrap();
    centred.broadcast_div(&scale).unwrap().broadcast_mul(weight).unwrap().broadcast_add(bias).unwrap()
}

/// Additive terms of a bias as one dense `(b, h, t_q, t_k)` tensor, −1e30 for what must not be seen.
pub(crate) fn dense_bias(
    position: Option<&Tensor>,
    mask: Option<&[Vec<f64>]>,
    causal: bool,
    dims: [usize; 4],
) -> Tensor {
    let [b, h, t_q, t_k] = dims;
    let mut out = vec![0.0; b * h * t_q * t_k];
    let position = position.map(values);
    for (at, value) in out.iter_mut().enumerate() {
        let (entry, head, i, j) = (at / (h * t_q * t_k), at / (t_q * t_k) % h, at / t_k % t_q, at % t_k);
        if let Some(position) = &position {
            *value += position[(head * t_q + i) * t_k + j];
        }
        let hidden = mask.is_some_and(|m| m[entry][j] == 0.0) || (causal && j + t_q > i + t_k);
        *value += if hidden { -1e30 } else { 0.0 };
    }
    Tensor::from_vec(out, &dims, &Device::Cpu).unwrap()
}

pub(crate) fn reference_softmax(scores: &Tensor, bias: &Tensor) -> Tensor {
    let s = (scores + like(bias, scores)).unwrap();
    let e = s.broadcast_sub(&s.max_keepdim(D::Minus1).unwrap().detach()).unwrap().exp().unwrap();
    e.broadcast_div(&e.sum_keepdim(D::Minus1).unwrap()).unwrap()
}

pub(crate) fn reference_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    h: usize,
    scale: f64,
    bias: &Tensor,
) -> Tensor {
    let split = |t: &Tensor| {
        let (b, n, w) = t.dims3().unwrap();
        t.reshape((b, n, h, w / h)).unwrap().transpose(1, 2).unwrap().contiguous().unwrap()
    };
    let (q, k, v) = (split(q), split(k), split(v));
    let scores = (q.matmul(&k.transpose(2, 3).unwrap().contiguous().unwrap()).unwrap() * scale).unwrap();
    let context = reference_softmax(&scores, bias).matmul(&v).unwrap();
    let (b, h, n, d) = context.dims4().unwrap();
    context.transpose(1, 2).unwrap().contiguous().unwrap().reshape((b, n, h * d)).unwrap()
}

/// `(batch, heads, t_q, t_k, d_head)`; of `(7, 2, 96, …)` each of two threads gets several blocks of entries.
pub(crate) const ATTENTION_SHAPES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 1, 1, 1, 1),
    (2, 3, 5, 5, 4),
    (3, 2, 4, 7, 5),
    (1, 4, 9, 6, 8),
    (5, 2, 1, 6, 3),
    (7, 2, 96, 5, 3),
    (2, 1, 1, 3, 300),
];
