//! Rotary positions.

use super::{close, epsilon, normal, run};
use fwd_kernels::{DType, Data, Executor, RotaryShape, Target, plan_rotary};

pub(super) fn check(executor: &dyn Executor) {
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        // Without heads, without anything behind them, odd halves, rows that end within a block, many rows for one multiprocessor.
        for (rows, width, n_heads, d_head) in
            [(0, 8, 1, 8), (1, 2, 1, 2), (3, 7, 0, 4), (5, 48, 4, 8), (7, 45, 3, 10), (300, 96, 4, 16)]
        {
            for inverse in [false, true] {
                one(executor, &RotaryShape { rows, width, n_heads, d_head, inverse, dtype });
            }
        }
    }
}

fn one(executor: &dyn Executor, shape: &RotaryShape) {
    let RotaryShape { rows, width, n_heads, d_head, inverse, dtype } = *shape;
    let half = d_head / 2;
    let mut x = normal(5, dtype, rows * width);
    let angles = normal(6, DType::F32, rows * half).to_f64();
    let mut cos = Data::from_f64(DType::F32, angles.iter().map(|a| a.cos()));
    let mut sin = Data::from_f64(DType::F32, angles.iter().map(|a| a.sin()));
    let mut y = Data::zeros(dtype, rows * width);
    let target = Target { n_multiprocessors: 1, ..executor.target() };
    run(executor, &plan_rotary(shape, &target).unwrap(), &mut [&mut x, &mut cos, &mut sin, &mut y]);
    let (from, cos, sin) = (x.to_f64(), cos.to_f64(), sin.to_f64());
    let mut expected = from.clone();
    for row in 0..rows {
        for head in 0..n_heads {
            for i in 0..half {
                let (left, pair) = (row * width + head * d_head + i, row * half + i);
                let (a, b) = (from[left], from[left + half]);
                let s = if inverse { -sin[pair] } else { sin[pair] };
                expected[left] = a * cos[pair] - b * s;
                expected[left + half] = b * cos[pair] + a * s;
            }
        }
    }
    // Two products of numbers up to 5 and a sum are rounded in f32, the result in its type.
    close(
        &format!("{shape:?}"),
        &y,
        &expected,
        epsilon(dtype),
        15.0 * 2f64.powi(-24) + f64::from(f32::MIN_POSITIVE),
    );
}
