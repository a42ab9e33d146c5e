//! Layer norm and RMS norm.

use super::{close, epsilon, normal, run};
use fwd_kernels::{
    DType, Data, Executor, NormKind, NormShape, plan_norm_backward, plan_norm_forward,
    plan_norm_weight_gradient, plan_sum_rows,
};

pub(super) fn check(executor: &dyn Executor) {
    for kind in [NormKind::Rms, NormKind::Layer] {
        for dtype in [DType::F32, DType::Bf16, DType::F16] {
            for (rows, d) in [(1, 1), (3, 7), (5, 32), (2, 200), (4, 768), (3, 2048), (0, 16)] {
                check_shape(executor, &NormShape { kind, rows, d, eps: 1e-5, dtype });
            }
            for (rows, d) in [(0, 8), (1, 3), (9, 40), (67, 7), (300, 264)] {
                check_parameters(executor, &NormShape { kind, rows, d, eps: 1e-5, dtype });
            }
        }
    }
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        for (rows, d) in [(0, 8), (1, 1), (3, 1000), (75, 33), (200, 16)] {
            check_sum(executor, rows, d, dtype);
        }
    }
}

/// One row: the result, and the gradient to the row, in f64.
fn reference(shape: &NormShape, x: &[f64], w: &[f64], b: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let d = shape.d as f64;
    let layer = shape.kind == NormKind::Layer;
    let mean = if layer { x.iter().sum::<f64>() / d } else { 0.0 };
    let scale = (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d + f64::from(shape.eps)).sqrt().recip();
    let n: Vec<f64> = x.iter().map(|x| (x - mean) * scale).collect();
    let g: Vec<f64> = dy.iter().zip(w).map(|(dy, w)| dy * w).collect();
    let shift = if layer { g.iter().sum::<f64>() / d } else { 0.0 };
    let along = g.iter().zip(&n).map(|(g, n)| g * n).sum::<f64>() / d;
    let y = n.iter().zip(w).zip(b).map(|((n, w), b)| n * w + if layer { *b } else { 0.0 }).collect();
    let dx = g.iter().zip(&n).map(|(g, n)| scale * (g - shift - n * along)).collect();
    (y, dx)
}

fn check_shape(executor: &dyn Executor, shape: &NormShape) {
    let NormShape { rows, d, dtype, .. } = *shape;
    let mut x = normal(1, dtype, rows * d);
    let mut dy = normal(2, dtype, rows * d);
    let (mut w, mut b) = (normal(3, DType::F32, d), normal(4, DType::F32, d));
    let (mut y, mut dx) = (Data::zeros(dtype, rows * d), Data::zeros(dtype, rows * d));
    let forward = plan_norm_forward(shape).unwrap();
    match shape.kind {
        NormKind::Layer => run(executor, &forward, &mut [&mut x, &mut w, &mut b, &mut y]),
        NormKind::Rms => run(executor, &forward, &mut [&mut x, &mut w, &mut y]),
    }
    run(executor, &plan_norm_backward(shape).unwrap(), &mut [&mut x, &mut w, &mut dy, &mut dx]);
    let (xs, ws, bs, dys) = (x.to_f64(), w.to_f64(), b.to_f64(), dy.to_f64());
    let mut expected = (Vec::new(), Vec::new());
    for (x, dy) in xs.chunks_exact(d).zip(dys.chunks_exact(d)) {
        let (y, dx) = reference(shape, x, &ws, &bs, dy);
        expected.0.extend(y);
        expected.1.extend(dx);
    }
    // A row of one element has variance 0: its scale is 1/sqrt(eps), and so are the errors.
    let amplified = if d == 1 { 400.0 } else { 1.0 };
    let sums = 2f64.powi(-24) * (d as f64).sqrt() * 8.0 * amplified;
    let rounding = 2.0 * epsilon(dtype);
    close(&format!("{shape:?}, y"), &y, &expected.0, rounding, sums);
    close(&format!("{shape:?}, dx"), &dx, &expected.1, rounding, sums);
}

/// The gradients to weight and bias.
fn check_parameters(executor: &dyn Executor, shape: &NormShape) {
    let NormShape { kind, rows, d, dtype, .. } = *shape;
    let (mut x, mut dy) = (normal(5, dtype, rows * d), normal(6, dtype, rows * d));
    let (mut dw, mut db) = (Data::zeros(DType::F32, d), Data::zeros(DType::F32, d));
    let plan = plan_norm_weight_gradient(shape, &executor.target()).unwrap();
    match kind {
        NormKind::Layer => run(executor, &plan, &mut [&mut x, &mut dy, &mut dw, &mut db]),
        NormKind::Rms => run(executor, &plan, &mut [&mut x, &mut dy, &mut dw]),
    }
    let (xs, dys) = (x.to_f64(), dy.to_f64());
    let (mut weight, mut bias) = (vec![0.0; d], vec![0.0; d]);
    for (x, dy) in xs.chunks_exact(d).zip(dys.chunks_exact(d)) {
        let (n, _) = reference(shape, x, &vec![1.0; d], &vec![0.0; d], dy);
        for i in 0..d {
            weight[i] += dy[i] * n[i];
            bias[i] += dy[i];
        }
    }
    // Sums of √rows random summands up to about 10, each rounded a few times, as are the statistics of √d.
    let sums = 2f64.powi(-24) * 40.0 * (1.0 + (rows as f64).sqrt()) * (1.0 + (d as f64).sqrt());
    close(&format!("{shape:?}, dw"), &dw, &weight, 0.0, sums);
    if kind == NormKind::Layer {
        close(&format!("{shape:?}, db"), &db, &bias, 0.0, sums);
    }
}

fn check_sum(executor: &dyn Executor, rows: usize, d: usize, dtype: DType) {
    let mut x = normal(7, dtype, rows * d);
    let mut sums = Data::zeros(DType::F32, d);
    let plan = plan_sum_rows(rows, d, dtype, &executor.target()).unwrap();
    run(executor, &plan, &mut [&mut x, &mut sums]);
    let mut expected = vec![0.0; d];
    for row in x.to_f64().chunks_exact(d) {
        expected.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    let rounding = 2f64.powi(-24) * 8.0 * (1.0 + rows as f64);
    close(&format!("sum of {rows} rows of {d} {dtype:?}"), &sums, &expected, 0.0, rounding);
}
