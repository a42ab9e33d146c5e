//! What batched SVD needs beside cuSOLVER.

use super::{close, epsilon, normal, run};
use fwd_kernels::{DType, Data, Executor, plan_convert, plan_from_eigen, plan_nonfinite};

pub(super) fn check(executor: &dyn Executor) {
    for dtype in [DType::F32, DType::F64] {
        for (batch, len) in [(1, 1), (3, 300), (2, 9001)] {
            check_nonfinite(executor, dtype, batch, len);
        }
        for (batch, q, k) in [(1, 1, 1), (3, 7, 4), (2, 300, 5)] {
            check_from_eigen(executor, dtype, batch, q, k);
        }
        for n in [0, 1, 257] {
            check_convert(executor, dtype, n);
        }
    }
}

fn check_nonfinite(executor: &dyn Executor, dtype: DType, batch: usize, len: usize) {
    let plan = plan_nonfinite(dtype, batch, len).unwrap();
    let chunks = plan.buffers[1].len / batch;
    let largest = if dtype == DType::F32 { f64::from(f32::MAX) } else { f64::MAX };
    for (value, is_bad) in [(0.5, false), (-largest, false), (f64::NAN, true), (f64::NEG_INFINITY, true)] {
        for matrix in 0..batch {
            let mut numbers = normal(5, dtype, batch * len).to_f64();
            numbers[matrix * len + len - 1] = value;
            let mut x = Data::from_f64(dtype, numbers);
            let mut flags = Data::zeros(DType::U32, batch * chunks);
            run(executor, &plan, &mut [&mut x, &mut flags]);
            let found: Vec<f64> =
                flags.to_f64().chunks_exact(chunks).map(|flags| flags.iter().sum()).collect();
            let expected: Vec<f64> =
                (0..batch).map(|i| if is_bad && i == matrix { 1.0 } else { 0.0 }).collect();
            assert_eq!(found, expected, "{dtype:?}, {batch} × {len}, {value} in matrix {matrix}");
        }
    }
}

fn check_convert(executor: &dyn Executor, from: DType, n: usize) {
    let to = if from == DType::F32 { DType::F64 } else { DType::F32 };
    let mut x = normal(6, from, n);
    let mut y = Data::zeros(to, n);
    run(executor, &plan_convert(from, n).unwrap(), &mut [&mut x, &mut y]);
    assert_eq!(y, Data::from_f64(to, x.to_f64()), "{from:?}, {n}");
}

fn check_from_eigen(executor: &dyn Executor, dtype: DType, batch: usize, q: usize, k: usize) {
    // Ascending, with one that is rounding and one that is negative by rounding, where there is room for them.
    let eigenvalue = |i: usize| match (q - 1 - i, q > 2) {
        (1, true) => 1e-17 * (q as f64).powi(2),
        (2.., true) => -1e-18,
        _ => (q as f64).powi(2),
    };
    let values: Vec<f64> = (0..batch * q).map(|i| eigenvalue(i % q) * (1 + i / q) as f64).collect();
    let vectors = normal(7, DType::F64, batch * q * q).to_f64();
    let (mut s, mut near) = (Data::zeros(dtype, batch * k), Data::zeros(dtype, batch * k * q));
    let mut scaled = Data::zeros(DType::F64, batch * k * q);
    let plan = plan_from_eigen(dtype, batch, q, k).unwrap();
    let mut inputs = [Data::F64(values.clone()), Data::F64(vectors.clone())];
    let [first, second] = &mut inputs;
    run(executor, &plan, &mut [first, second, &mut s, &mut near, &mut scaled]);
    let (mut expected_s, mut expected_near, mut expected_scaled) = (Vec::new(), Vec::new(), Vec::new());
    for matrix in 0..batch {
        for j in 0..k {
            let column = matrix * q + q - 1 - j;
            let sigma = if j == 0 { values[column].sqrt() } else { 0.0 };
            let inverse = if j == 0 { sigma.recip() } else { 0.0 };
            let vector = &vectors[column * q..][..q];
            expected_s.push(sigma);
            expected_near.extend(vector);
            expected_scaled.extend(vector.iter().map(|x| x * inverse));
        }
    }
    let what = format!("{dtype:?}, {batch} × {q}, {k} of them");
    // A rounding to the type after one or two in f64, of the square root, the quotient and the product.
    let rounding = epsilon(dtype) + 4.0 * epsilon(DType::F64);
    close(&format!("{what}, s"), &s, &expected_s, rounding, 0.0);
    close(&format!("{what}, near"), &near, &expected_near, rounding, 0.0);
    close(&format!("{what}, scaled"), &scaled, &expected_scaled, 4.0 * epsilon(DType::F64), 0.0);
}
