//! The signed low-rank update.

use super::{epsilon, normal, run};
use fwd_kernels::{DType, Data, Executor, ProjectionShape, Target, plan_projection};

pub(super) fn check(executor: &dyn Executor) {
    for target in targets(executor) {
        let check = |keeps_rest, (rows, d, rank), dtype, magnitude| {
            let shape = ProjectionShape { rows, d, rank, keeps_rest, dtype };
            check_shape(executor, &target, &shape, magnitude);
        };
        for (keeps_rest, shape) in [
            (true, (1, 1, 1)),
            (false, (1, 7, 3)),
            (true, (3, 33, 0)),
            (false, (2, 10, 0)),
            (true, (0, 16, 3)),
            (false, (17, 160, 31)),
            (true, (33, 200, 40)),
            (false, (20, 129, 77)),
            (true, (66, 140, 130)),
            (true, (5, 768, 64)),
            (false, (2, 300, 290)),
            (true, (2, 2100, 5)),
        ] {
            check(keeps_rest, shape, DType::F32, 1.0);
        }
        for (keeps_rest, shape) in [(true, (1, 1, 1)), (false, (3, 31, 5)), (true, (40, 136, 66))] {
            check(keeps_rest, shape, DType::Bf16, 1.0);
            check(keeps_rest, shape, DType::F16, 1.0);
        }
        // Large and small magnitudes: f32 keeps its exponents.
        check(true, (3, 64, 20), DType::F32, 1e30);
        check(false, (3, 64, 20), DType::F32, 1e-30);
        check_leakage(executor, &target);
    }
}

/// What is there, and with clusters also smaller GPUs of its kind, which take other plans: clusters of 8 blocks, and tiles.
pub(super) fn targets(executor: &dyn Executor) -> Vec<Target> {
    let target = executor.target();
    let mut targets = vec![target];
    if target.capability >= 90 {
        targets.extend([60, 1].map(|n_multiprocessors| Target { n_multiprocessors, ..target }));
    }
    targets
}

/// `rank` orthonormal vectors of d elements, rounded to a type: the first cosines, with random signs of the elements.
pub(super) fn basis(seed: u64, rank: usize, d: usize, dtype: DType) -> Data {
    let signs: Vec<f64> = normal(seed, DType::F64, d).to_f64().iter().map(|x| x.signum()).collect();
    let element = |k: usize, j: usize| {
        let wave = (std::f64::consts::PI * k as f64 * (j as f64 + 0.5) / d as f64).cos();
        signs[j] * wave * (if k == 0 { 1.0 } else { 2.0 } / d as f64).sqrt()
    };
    Data::from_f64(dtype, (0..rank * d).map(|i| element(i / d, i % d)))
}

pub(super) fn norm(row: &[f64]) -> f64 {
    row.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The coefficients of each row, `(x Vᵀ)`.
pub(super) fn coefficients(x: &[f64], basis: &[f64], d: usize) -> Vec<Vec<f64>> {
    let along = |row: &[f64]| {
        basis.chunks_exact(d).map(|v| v.iter().zip(row).map(|(a, b)| a * b).sum()).collect::<Vec<f64>>()
    };
    x.chunks_exact(d).map(along).collect()
}

/// Π of the gradient, computed in f64.
pub(super) fn project(x: &[f64], basis: &[f64], c: &[f64], d: usize, keeps_rest: bool) -> Vec<f64> {
    let mut out = if keeps_rest { x.to_vec() } else { vec![0.0; x.len()] };
    for (row, along) in out.chunks_exact_mut(d).zip(coefficients(x, basis, d)) {
        for ((v, along), c) in basis.chunks_exact(d).zip(along).zip(c) {
            row.iter_mut().zip(v).for_each(|(x, v)| *x += along * c * v);
        }
    }
    out
}

/// The error of Π relative to the length of a row: of a product of split numbers, and of a sum of d and one of r terms.
pub(super) fn tolerance(d: usize, rank: usize) -> f64 {
    epsilon(DType::F32) * (8.0 + ((d + rank) as f64).sqrt())
}

/// Standard normal rows times a magnitude.
fn check_shape(executor: &dyn Executor, target: &Target, shape: &ProjectionShape, magnitude: f64) {
    let ProjectionShape { rows, d, rank, keeps_rest, dtype } = *shape;
    let numbers = normal(11, DType::F64, rows * d).to_f64();
    let mut g = Data::from_f64(dtype, numbers.iter().map(|x| x * magnitude));
    let (mut v, mut c) = (basis(12, rank, d, dtype), normal(13, DType::F32, rank));
    let mut out = Data::zeros(dtype, rows * d);
    let plan = plan_projection(shape, target).unwrap();
    run(executor, &plan, &mut [&mut g, &mut v, &mut c, &mut out]);
    let (g, v, c, out) = (g.to_f64(), v.to_f64(), c.to_f64(), out.to_f64());
    let expected = project(&g, &v, &c, d, keeps_rest);
    let largest = c.iter().fold(0.0, |a: f64, c| a.max(c.abs()));
    // 16-bit rows are rounded twice: the coefficients, and the result.
    let rounding = if dtype == DType::F32 { 0.0 } else { 2.0 * epsilon(dtype) };
    let relative = (1.0 + largest) * (tolerance(d, rank) + rounding);
    for (i, g) in g.chunks_exact(d).enumerate() {
        let (found, expected) = (&out[i * d..][..d], &expected[i * d..][..d]);
        let error: Vec<f64> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
        assert!(
            norm(&error) <= relative * norm(g),
            "{shape:?}, {:?}: row {i} is off by {} of {}",
            plan.launches,
            norm(&error),
            norm(g)
        );
    }
}

/// What a projection forbids does not come through.
fn check_leakage(executor: &dyn Executor, target: &Target) {
    let (rows, d, rank) = (18, 288, 96);
    let shape = ProjectionShape { rows, d, rank, keeps_rest: true, dtype: DType::F32 };
    let (mut g, mut v) = (normal(21, DType::F32, rows * d), basis(22, rank, d, DType::F32));
    let (mut c, mut out) = (Data::F32(vec![-1.0; rank]), Data::zeros(DType::F32, rows * d));
    run(executor, &plan_projection(&shape, target).unwrap(), &mut [&mut g, &mut v, &mut c, &mut out]);
    let leaked = coefficients(&out.to_f64(), &v.to_f64(), d).concat();
    let (leaked, kept) = (norm(&leaked), norm(&out.to_f64()));
    assert!(leaked <= 1e-5 * kept && kept > 0.5 * norm(&g.to_f64()), "{leaked} of {kept} leak");
}
