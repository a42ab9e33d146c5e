//! GELU, ReLU and SiLU, plain and gated.

use super::{close, epsilon, normal, run};
use fwd_kernels::{
    ActivationKind, DType, Data, Executor, GatedShape, Target, plan_activation_backward,
    plan_activation_forward, plan_gated_backward, plan_gated_forward,
};

pub(super) fn check(executor: &dyn Executor) {
    let kinds = [
        ActivationKind::GeluErf,
        ActivationKind::GeluTanh,
        ActivationKind::Relu,
        ActivationKind::Silu,
        ActivationKind::QuickGelu,
    ];
    for kind in kinds {
        for dtype in [DType::F32, DType::Bf16, DType::F16] {
            for (len, magnitude) in [(0, 1.0), (1, 1.0), (7, 3.0), (4096, 2.0), (16_387, 1.0), (64, 1000.0)] {
                plain(executor, kind, dtype, len, magnitude);
            }
            for (rows, d) in [(1, 1), (0, 8), (3, 8), (5, 13), (7, 160), (9, 2048)] {
                gated(executor, &GatedShape { kind, rows, d, dtype });
            }
        }
        not_finite(executor, kind);
    }
}

/// The distribution function of the normal distribution: the integral of its density by Simpson's rule, to about 1e-9.
fn normal_cdf(x: f64) -> f64 {
    let density = |t: f64| (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt();
    let end = x.abs().min(9.0);
    let n = 1000;
    let h = end / f64::from(n);
    let inner: f64 = (1..n).map(|i| density(f64::from(i) * h) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    let half = h / 3.0 * (density(0.0) + inner + density(end));
    if x < 0.0 { 0.5 - half } else { 0.5 + half }
}

/// `f(x)` and `f′(x)`.
fn reference(kind: ActivationKind, x: f64) -> (f64, f64) {
    match kind {
        ActivationKind::GeluErf => {
            let cdf = normal_cdf(x);
            (x * cdf, cdf + x * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt())
        }
        ActivationKind::GeluTanh => {
            let root = (2.0 / std::f64::consts::PI).sqrt();
            let u = root * (x + 0.044_715 * x.powi(3));
            let (tanh, du) = (u.tanh(), root * (1.0 + 3.0 * 0.044_715 * x * x));
            (0.5 * x * (1.0 + tanh), 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * du)
        }
        ActivationKind::Relu => (x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 }),
        ActivationKind::Silu | ActivationKind::QuickGelu => {
            let a = if kind == ActivationKind::Silu { 1.0 } else { 1.702 };
            let s = 1.0 / (1.0 + (-a * x).exp());
            (x * s, s + a * x * s * (1.0 - s))
        }
    }
}

/// Error of `f(x)/x` and of `f′(x)` in f32: 0.75e-7 of the approximation of Φ, a few roundings of numbers up to 1.5, and in the slope
/// the exponent's rounding, at most 2 eps·|u|, times x²·φ(x) < 0.6.
const SLOPE_ERROR: f64 = 0.75e-7 + 16.0 / (1 << 24) as f64;

/// A GPU whose grids are so small that blocks go over several tiles.
fn one_multiprocessor(executor: &dyn Executor) -> Target {
    Target { n_multiprocessors: 1, ..executor.target() }
}

fn plain(executor: &dyn Executor, kind: ActivationKind, dtype: DType, len: usize, magnitude: f64) {
    let mut x = Data::from_f64(dtype, normal(1, dtype, len).to_f64().iter().map(|x| x * magnitude));
    let mut dy = normal(2, dtype, len);
    let (mut y, mut dx) = (Data::zeros(dtype, len), Data::zeros(dtype, len));
    let target = one_multiprocessor(executor);
    run(executor, &plan_activation_forward(kind, len, dtype, &target).unwrap(), &mut [&mut x, &mut y]);
    let backward = plan_activation_backward(kind, len, dtype, &target).unwrap();
    run(executor, &backward, &mut [&mut x, &mut dy, &mut dx]);
    let expected: Vec<(f64, f64)> = x.to_f64().iter().map(|&x| reference(kind, x)).collect();
    let ys: Vec<f64> = expected.iter().map(|e| e.0).collect();
    let dxs: Vec<f64> = expected.iter().zip(dy.to_f64()).map(|(e, dy)| e.1 * dy).collect();
    let what = format!("{kind:?}, {len} × {dtype:?} of size {magnitude}");
    let rounding = epsilon(dtype);
    // A number of the half types below their least normal one has a fixed error.
    let least = if dtype == DType::F16 { 2f64.powi(-24) } else { 2f64.powi(-126) };
    let far = 5.0 * SLOPE_ERROR * if magnitude > 100.0 { 1.0 } else { magnitude };
    close(&format!("{what}, y"), &y, &ys, rounding + 2.0 * SLOPE_ERROR, far + least);
    close(&format!("{what}, dx"), &dx, &dxs, rounding, 5.0 * SLOPE_ERROR + least);
}

fn gated(executor: &dyn Executor, shape: &GatedShape) {
    let GatedShape { kind, rows, d, dtype } = *shape;
    let (mut h, mut dy) = (normal(3, dtype, rows * 2 * d), normal(4, dtype, rows * d));
    let (mut y, mut dh) = (Data::zeros(dtype, rows * d), Data::zeros(dtype, rows * 2 * d));
    let target = one_multiprocessor(executor);
    run(executor, &plan_gated_forward(shape, &target).unwrap(), &mut [&mut h, &mut y]);
    run(executor, &plan_gated_backward(shape, &target).unwrap(), &mut [&mut h, &mut dy, &mut dh]);
    let (mut ys, mut dhs) = (Vec::new(), Vec::new());
    for (h, dy) in h.to_f64().chunks_exact(2 * d).zip(dy.to_f64().chunks_exact(d)) {
        let (gate, up) = h.split_at(d);
        let values: Vec<(f64, f64)> = gate.iter().map(|&g| reference(kind, g)).collect();
        ys.extend(values.iter().zip(up).map(|(v, u)| v.0 * u));
        dhs.extend((0..d).map(|i| dy[i] * up[i] * values[i].1));
        dhs.extend((0..d).map(|i| dy[i] * values[i].0));
    }
    let (rounding, least) = (epsilon(dtype), if dtype == DType::F16 { 2f64.powi(-24) } else { 0.0 });
    // Factors up to 5 beside the activation's error, two of them in the gradient to the gate.
    let relative = rounding + 4.0 * 2f64.powi(-24);
    close(&format!("{shape:?}, y"), &y, &ys, relative, 25.0 * SLOPE_ERROR + least);
    close(&format!("{shape:?}, dh"), &dh, &dhs, relative, 25.0 * SLOPE_ERROR + least);
}

fn not_finite(executor: &dyn Executor, kind: ActivationKind) {
    let mut x = Data::F32(vec![f32::NAN, f32::INFINITY, 1e30, -1e30, f32::MAX]);
    let mut dy = Data::F32(vec![1.0; 5]);
    let (mut y, mut dx) = (Data::zeros(DType::F32, 5), Data::zeros(DType::F32, 5));
    let target = executor.target();
    run(executor, &plan_activation_forward(kind, 5, DType::F32, &target).unwrap(), &mut [&mut x, &mut y]);
    let backward = plan_activation_backward(kind, 5, DType::F32, &target).unwrap();
    run(executor, &backward, &mut [&mut x, &mut dy, &mut dx]);
    let (y, dx) = (y.to_f64(), dx.to_f64());
    assert!(y[0].is_nan(), "{kind:?} of NaN is {}", y[0]);
    assert_eq!(y[1..], [f64::INFINITY, f64::from(1e30f32), 0.0, f64::from(f32::MAX)], "{kind:?}");
    assert_eq!(dx[2..], [1.0, 0.0, 1.0], "{kind:?}");
}
