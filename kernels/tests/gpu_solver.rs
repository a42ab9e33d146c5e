//! Batched SVD and eigenvalues on the GPU, where there is one, against a Jacobi SVD in f64 on the host:
//! `cargo test --features cuda --test gpu_solver`.
#![cfg(feature = "cuda")]
#![allow(clippy::print_stdout, clippy::unwrap_used)] // Helpers of a test may speak and panic.

mod common;

use fwd_kernels::{
    Accuracy, DType, Data, EigenRoute, EigenShape, KernelError, Layout, Solver, SvdPlan, SvdRoute, SvdShape,
    plan_eigen, plan_svd,
};
use rand::{SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, StandardNormal};

fn solver() -> Option<Solver> {
    common::device().map(|device| Solver::new(&device).unwrap_or_else(|error| panic!("{error}")))
}

fn normal(seed: u64, len: usize) -> Vec<f64> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..len).map(|_| StandardNormal.sample(&mut random)).collect()
}

fn epsilon(dtype: DType) -> f64 {
    if dtype == DType::F32 { 2f64.powi(-24) } else { 2f64.powi(-53) }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// One-sided Jacobi: turns the columns, which are the rows of `vectors`, until they are orthogonal. Gives singular values, descending,
/// and the unit vectors along the columns.
fn jacobi(mut vectors: Vec<Vec<f64>>) -> (Vec<f64>, Vec<Vec<f64>>) {
    for _ in 0..60 {
        let mut turned = false;
        for i in 0..vectors.len() {
            for j in i + 1..vectors.len() {
                let (head, tail) = vectors.split_at_mut(j);
                let (x, y) = (&mut head[i], &mut tail[0]);
                let (a, b, c) = (dot(x, x), dot(y, y), dot(x, y));
                if c.abs() <= 1e-15 * (a * b).sqrt() || c == 0.0 {
                    continue;
                }
                turned = true;
                let zeta = (b - a) / (2.0 * c);
                let t = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
                let cosine = t.hypot(1.0).recip();
                let sine = cosine * t;
                for (x, y) in x.iter_mut().zip(y.iter_mut()) {
                    (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
                }
            }
        }
        if !turned {
            break;
        }
    }
    let mut pairs: Vec<(f64, Vec<f64>)> = vectors
        .into_iter()
        .map(|vector| {
            let length = dot(&vector, &vector).sqrt();
            let scale = if length > 0.0 { length.recip() } else { 0.0 };
            (length, vector.into_iter().map(|x| x * scale).collect())
        })
        .collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    pairs.into_iter().unzip()
}

/// The squared Frobenius norm of P − Q for the projectors on two orthonormal bases of one size: 2·(k − ‖XᵀY‖²).
fn projector_distance(x: &[&[f64]], y: &[&[f64]]) -> f64 {
    let common: f64 = x.iter().flat_map(|x| y.iter().map(move |y| dot(x, y).powi(2))).sum();
    (2.0 * (x.len() as f64 - common)).max(0.0)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Spectrum {
    Random,
    /// Two singular values, each many times.
    Repeated,
    /// Half of the singular values are 0.
    Deficient,
    /// As random, times 10¹².
    Large,
}

/// Matrices by rows.
fn matrices(shape: &SvdShape, spectrum: Spectrum) -> Vec<Vec<f64>> {
    let SvdShape { batch, m, n, dtype, .. } = *shape;
    let short = m.min(n);
    (0..batch)
        .map(|matrix| {
            let seed = 10 + matrix as u64;
            let mut a = match spectrum {
                Spectrum::Random => normal(seed, m * n),
                Spectrum::Large => normal(seed, m * n).into_iter().map(|x| x * 1e12).collect(),
                Spectrum::Deficient => {
                    let rank = short.div_ceil(2);
                    let (l, r) = (normal(seed, m * rank), normal(seed + 1000, n * rank));
                    (0..m * n).map(|e| dot(&l[e / n * rank..][..rank], &r[e % n * rank..][..rank])).collect()
                }
                Spectrum::Repeated => {
                    // Orthonormal columns from random ones; the first half has length 2, the rest 1.
                    let (_, q) = jacobi(columns(&normal(seed, m * n), m, n, m >= n));
                    let length = |j: usize| if j < short.div_ceil(2) { 2.0 } else { 1.0 };
                    let at =
                        |i: usize, j: usize| if m >= n { q[j][i] * length(j) } else { q[i][j] * length(i) };
                    (0..m * n).map(|e| at(e / n, e % n)).collect()
                }
            };
            if dtype == DType::F32 {
                a.iter_mut().for_each(|x| *x = f64::from(*x as f32));
            }
            a
        })
        .collect()
}

/// The columns of a matrix by rows, or its rows: those of which there are fewer.
fn columns(a: &[f64], m: usize, n: usize, tall: bool) -> Vec<Vec<f64>> {
    if tall {
        (0..n).map(|j| (0..m).map(|i| a[i * n + j]).collect()).collect()
    } else {
        a.chunks_exact(n).map(<[f64]>::to_vec).collect()
    }
}

fn store(shape: &SvdShape, matrices: &[Vec<f64>]) -> Data {
    let SvdShape { m, n, order, dtype, .. } = *shape;
    let at = |a: &[f64], e: usize| match order {
        Layout::Rows => a[e],
        Layout::Columns => a[e % m * n + e / m],
    };
    Data::from_f64(dtype, matrices.iter().flat_map(|a| (0..m * n).map(move |e| at(a, e))))
}

fn check_svd(solver: &mut Solver, plan: &SvdPlan, spectrum: Spectrum) {
    let SvdShape { m, n, k, dtype, .. } = plan.shape;
    let what = format!("{plan:?}, {spectrum:?}");
    let matrices = matrices(&plan.shape, spectrum);
    let [u, s, v] = solver
        .svd_host(plan, &store(&plan.shape, &matrices))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let (u, s, v) = (u.to_f64(), s.to_f64(), v.to_f64());
    for (b, a) in matrices.iter().enumerate() {
        let (u, s, v) = (&u[b * k * m..][..k * m], &s[b * k..][..k], &v[b * k * n..][..k * n]);
        let u: Vec<&[f64]> = u.chunks_exact(m).collect();
        let v: Vec<&[f64]> = v.chunks_exact(n).collect();
        let tall = m >= n;
        let (expected, basis) = jacobi(columns(a, m, n, tall));
        let largest = expected[0];
        // Backward errors of Jacobi and of products grow with the root of the number of terms; the constant is that of LAPACK's tests.
        let tolerance = 30.0 * epsilon(dtype) * ((m + n) as f64).sqrt();
        // The Gram route knows σ² to e·σ₁² only: a zero may be as large as the root of that.
        let squared = (2f64.powi(-52) * m.min(n) as f64).sqrt();
        let floor = if plan.route == SvdRoute::Gram { squared } else { 0.0 };
        for (i, (s, expected)) in s.iter().zip(&expected).enumerate() {
            let error = (s - expected).abs();
            assert!(
                error <= (tolerance + 2.0 * floor) * largest,
                "{what}: σ_{i} of matrix {b} is {s}, not {expected}"
            );
            assert!(i == 0 || *s <= expected.max(f64::MIN_POSITIVE) + (tolerance + 2.0 * floor) * largest);
        }
        assert!(s.windows(2).all(|pair| pair[0] >= pair[1]), "{what}: not descending: {s:?}");
        // Vectors of singular values that are well above rounding are orthonormal.
        let kept = s.iter().take_while(|&&s| s > 1e-3 * largest).count();
        // (σ₁/σ)² of the far side's error on the Gram route, at σ = 10⁻³·σ₁.
        let gram = if plan.route == SvdRoute::Gram { 1e6 * 2f64.powi(-52) * m.min(n) as f64 } else { 0.0 };
        for (side, vectors) in [("u", &u), ("v", &v)] {
            for i in 0..kept {
                for j in 0..=i {
                    let error = (dot(vectors[i], vectors[j]) - f64::from(i == j)).abs();
                    assert!(error <= tolerance + gram, "{what}: {side}_{i}·{side}_{j} is off by {error}");
                }
            }
        }
        if k == m.min(n) {
            let rest: f64 = (0..m * n)
                .map(|e| (a[e] - (0..k).map(|j| u[j][e / n] * s[j] * v[j][e % n]).sum::<f64>()).powi(2))
                .sum();
            let bound = (tolerance + floor) * largest * (k as f64).sqrt();
            assert!(
                rest.sqrt() <= bound,
                "{what}: reconstruction is off by {}, allowed {bound}",
                rest.sqrt()
            );
        }
        // The subspace before a gap of the spectrum, on the longer side, turns by the error over the gap.
        let next = expected.get(kept).copied().unwrap_or(0.0);
        if kept > 0 && expected[kept - 1] - next > 1e-2 * largest {
            let found: Vec<&[f64]> = if tall { u[..kept].to_vec() } else { v[..kept].to_vec() };
            let basis: Vec<&[f64]> = basis[..kept].iter().map(Vec::as_slice).collect();
            let allowed = (tolerance + gram) * largest / (expected[kept - 1] - next) * (kept as f64).sqrt();
            // The distance is a difference of numbers near k, known to the orthogonality of both.
            let distance = projector_distance(&found, &basis);
            let rounding = 4.0 * kept as f64 * (tolerance + gram);
            assert!(distance <= allowed.powi(2) + rounding, "{what}: projectors differ by {distance}");
        }
    }
}

#[test]
fn svd_of_every_route() {
    let Some(mut solver) = solver() else { return };
    for dtype in [DType::F32, DType::F64] {
        for order in [Layout::Rows, Layout::Columns] {
            for (batch, m, n) in [
                (1, 1usize, 1usize),
                (100, 5, 3),
                (3, 31, 32),
                (3, 120, 40),
                (2, 40, 121),
                (5, 64, 64),
                (1, 33, 1),
            ] {
                let short: usize = m.min(n);
                for accuracy in [Accuracy::Full, Accuracy::Squared] {
                    for k in [1, short.div_ceil(2), short] {
                        let shape = SvdShape { batch, m, n, k, dtype, order, accuracy };
                        let plan = plan_svd(&shape).unwrap();
                        check_svd(&mut solver, &plan, Spectrum::Random);
                    }
                    let shape = SvdShape { batch, m, n, k: short, dtype, order, accuracy };
                    let plan = plan_svd(&shape).unwrap();
                    for spectrum in [Spectrum::Repeated, Spectrum::Deficient, Spectrum::Large] {
                        check_svd(&mut solver, &plan, spectrum);
                    }
                }
            }
        }
    }
}

#[test]
fn a_sketch_finds_a_matrix_of_low_rank() {
    let Some(mut solver) = solver() else { return };
    for dtype in [DType::F32, DType::F64] {
        for (order, m, n) in
            [(Layout::Columns, 1500, 1100), (Layout::Rows, 1500, 1100), (Layout::Rows, 1100, 1300)]
        {
            let k = 12;
            let shape = SvdShape { batch: 2, m, n, k, dtype, order, accuracy: Accuracy::Sketch };
            let plan = plan_svd(&shape).unwrap();
            assert!(matches!(plan.route, SvdRoute::Randomised { .. }));
            let matrices: Vec<Vec<f64>> = (0..2)
                .map(|seed| {
                    let (l, r) = (normal(seed, m * k), normal(seed + 50, n * k));
                    (0..m * n).map(|e| dot(&l[e / n * k..][..k], &r[e % n * k..][..k])).collect()
                })
                .collect();
            let data = store(&shape, &matrices);
            let [u, s, v] = solver.svd_host(&plan, &data).unwrap_or_else(|error| panic!("{plan:?}: {error}"));
            let (u, s, v) = (u.to_f64(), s.to_f64(), v.to_f64());
            for (b, a) in matrices.iter().enumerate() {
                let u: Vec<&[f64]> = u[b * k * m..][..k * m].chunks_exact(m).collect();
                let v: Vec<&[f64]> = v[b * k * n..][..k * n].chunks_exact(n).collect();
                let s = &s[b * k..][..k];
                let rest: f64 = (0..m * n)
                    .map(|e| (a[e] - (0..k).map(|j| u[j][e / n] * s[j] * v[j][e % n]).sum::<f64>()).powi(2))
                    .sum();
                // The rank is k: a sketch of k + p vectors misses nothing but rounding.
                let bound = 100.0 * epsilon(dtype) * ((m + n) as f64).sqrt() * s[0] * (k as f64).sqrt();
                assert!(rest.sqrt() <= bound, "{plan:?}: off by {}, allowed {bound}", rest.sqrt());
            }
        }
    }
}

#[test]
fn eigenvalues_of_every_route() {
    let Some(mut solver) = solver() else { return };
    for dtype in [DType::F32, DType::F64] {
        for (batch, n) in [(1, 1), (7, 2), (5, 33), (4, 100), (1, 200)] {
            let lower = normal(3, batch * n * n);
            let at = |b: usize, i: usize, j: usize| lower[(b * n + i.max(j)) * n + i.min(j)];
            let symmetric = (0..batch * n * n).map(|e| at(e / (n * n), e / n % n, e % n));
            let a = Data::from_f64(dtype, symmetric);
            for route in [EigenRoute::Batched, EigenRoute::Single] {
                let mut plan = plan_eigen(&EigenShape { batch, n, dtype }).unwrap();
                plan.route = route;
                plan.n_streams = batch.min(3);
                let [values, vectors] =
                    solver.eigen_host(&plan, &a).unwrap_or_else(|error| panic!("{plan:?}: {error}"));
                let (values, vectors, a) = (values.to_f64(), vectors.to_f64(), a.to_f64());
                for b in 0..batch {
                    let (values, a) = (&values[b * n..][..n], &a[b * n * n..][..n * n]);
                    let vectors: Vec<&[f64]> = vectors[b * n * n..][..n * n].chunks_exact(n).collect();
                    let largest = values.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
                    let tolerance = 30.0 * epsilon(dtype) * (n as f64).sqrt();
                    assert!(values.windows(2).all(|pair| pair[0] <= pair[1]), "{plan:?}: not ascending");
                    for (i, vector) in vectors.iter().enumerate() {
                        let rest: f64 = (0..n)
                            .map(|row| (dot(&a[row * n..][..n], vector) - values[i] * vector[row]).powi(2))
                            .sum();
                        assert!(rest.sqrt() <= tolerance * largest, "{plan:?}: residual {}", rest.sqrt());
                        for (j, other) in vectors[..=i].iter().enumerate() {
                            let error = (dot(vector, other) - f64::from(i == j)).abs();
                            assert!(error <= tolerance, "{plan:?}: vectors {i} and {j} are off by {error}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn numbers_that_are_not_finite_are_refused_with_their_matrix() {
    let Some(mut solver) = solver() else { return };
    for accuracy in [Accuracy::Full, Accuracy::Squared] {
        let (order, dtype) = (Layout::Rows, DType::F32);
        let shape = SvdShape { batch: 3, m: 50, n: 40, k: 4, dtype, order, accuracy };
        let mut numbers = normal(9, 3 * 50 * 40);
        numbers[2 * 50 * 40 + 7] = f64::NAN;
        let found = solver.svd_host(&plan_svd(&shape).unwrap(), &Data::from_f64(DType::F32, numbers));
        assert_eq!(found, Err(KernelError::NonFinite { op: "svd", index: 2 }));
    }
    // Squares beyond f64: the Gram matrix is refused, not decomposed into NaN.
    let (order, dtype, accuracy) = (Layout::Rows, DType::F64, Accuracy::Squared);
    let shape = SvdShape { batch: 1, m: 50, n: 40, k: 4, dtype, order, accuracy };
    let huge = normal(9, 50 * 40).into_iter().map(|x| x * 1e200).collect();
    let found = solver.svd_host(&plan_svd(&shape).unwrap(), &Data::F64(huge));
    assert!(matches!(found, Err(KernelError::NonFinite { index: 0, .. })), "{found:?}");
}

#[test]
fn a_wrong_length_or_type_is_refused() {
    let Some(mut solver) = solver() else { return };
    let shape = SvdShape {
        batch: 1,
        m: 4,
        n: 3,
        k: 3,
        dtype: DType::F32,
        order: Layout::Rows,
        accuracy: Accuracy::Full,
    };
    let plan = plan_svd(&shape).unwrap();
    for wrong in [Data::zeros(DType::F32, 11), Data::zeros(DType::F64, 12), Data::zeros(DType::U32, 12)] {
        assert!(matches!(solver.svd_host(&plan, &wrong), Err(KernelError::Buffer { .. })), "{wrong:?}");
    }
}
