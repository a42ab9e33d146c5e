//! The algebra that continual learning without interference rests on, for random subspaces, spectra and gradients.

#![allow(clippy::unwrap_used)]

use fwd_linalg::*;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn normal(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..n).map(|_| rng.sample::<f32, _>(rand_distr::StandardNormal)).collect()
}

/// `n` rows whose spectrum falls like `i^-power`, in directions that the seed chooses.
fn rows(n: usize, dim: usize, power: f32, seed: u64) -> Vec<f32> {
    let (z, mix) = (normal(n * dim, seed), normal(dim * dim, seed + 1));
    let mut out = vec![0.0; n * dim];
    for (row, out) in z.chunks_exact(dim).zip(out.chunks_exact_mut(dim)) {
        for (i, x) in row.iter().enumerate() {
            let scale = ((i + 1) as f32).powf(-power) / (dim as f32).sqrt();
            for (out, m) in out.iter_mut().zip(&mix[i * dim..(i + 1) * dim]) {
                *out += x * scale * m;
            }
        }
    }
    out
}

fn gram(rows: &[f32], dim: usize) -> Gram {
    let mut gram = Gram::new(dim);
    gram.push(rows).unwrap();
    gram
}

fn config(energy: f64) -> SubspaceConfig {
    SubspaceConfig { energy, ..SubspaceConfig::default() }
}

/// `k` orthonormal vectors.
fn basis(dim: usize, k: usize, seed: u64) -> Basis {
    let max_rank = SubspaceConfig { max_rank: Some(k), ..config(1.0) };
    let basis = subspace(&gram(&normal(2 * dim * dim, seed), dim), &max_rank).unwrap().basis;
    assert_eq!(basis.len(), k);
    basis
}

fn norm(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
}

/// `‖X V‖ / ‖X‖`: which part of the rows lies in a subspace.
fn part_within(rows: &[f32], within: &Basis) -> f64 {
    let inside: f64 = rows
        .chunks_exact(within.dim())
        .flat_map(|row| within.vectors().chunks_exact(within.dim()).map(move |v| dot(row, v).powi(2)))
        .sum();
    inside.sqrt() / norm(rows).max(f64::MIN_POSITIVE)
}

/// Π of the definition, in f64.
fn reference(rows: &[f32], dim: usize, delta: f64, pieces: &[(&Basis, f32)]) -> Vec<f32> {
    rows.chunks_exact(dim)
        .flat_map(|row| {
            let mut out: Vec<f64> = row.iter().map(|&x| delta * f64::from(x)).collect();
            for (piece, c) in pieces {
                for v in piece.vectors().chunks_exact(dim) {
                    let a = f64::from(*c) * dot(row, v);
                    out.iter_mut().zip(v).for_each(|(out, &v)| *out += a * f64::from(v));
                }
            }
            out.into_iter().map(|x| x as f32).collect::<Vec<_>>()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_projection_is_idempotent_symmetric_and_linear(
        dim in 4usize..70, n in 1usize..40, keeps_rest: bool, a in -3.0f32..3.0, seed in 0u64..1000,
    ) {
        let (first, c) = (basis(dim, dim / 2, seed), if keeps_rest { -1.0 } else { 1.0 });
        let projection = Projection::new(dim, keeps_rest, &[(&first, c)]).unwrap();
        let apply = |rows: &[f32]| { let mut rows = rows.to_vec(); projection.apply(&mut rows).unwrap(); rows };
        let (x, y) = (normal(n * dim, seed + 2), normal(n * dim, seed + 3));
        let (px, py) = (apply(&x), apply(&y));
        let bound = 1e-6 * (norm(&x) + norm(&y)) * f64::from(1.0 + a.abs());
        prop_assert!(distance(&apply(&px), &px) <= bound);
        prop_assert!((dot(&px, &y) - dot(&x, &py)).abs() <= 1e-6 * norm(&x) * norm(&y));
        let sum: Vec<f32> = x.iter().zip(&y).map(|(x, y)| a * x + y).collect();
        let expected: Vec<f32> = px.iter().zip(&py).map(|(x, y)| a * x + y).collect();
        prop_assert!(distance(&apply(&sum), &expected) <= bound);
        prop_assert!(distance(&px, &reference(&x, dim, f64::from(u8::from(keeps_rest)), &[(&first, c)])) <= bound);
    }

    #[test]
    fn more_energy_takes_more_directions_and_captures_it(
        dim in 2usize..60, n in 1usize..150, power in 0.0f32..2.0, seed in 0u64..1000,
    ) {
        let z = rows(n, dim, power, seed);
        let gram = gram(&z, dim);
        let mut last = (0, 0.0);
        for energy in [0.1, 0.5, 0.9, 0.95, 0.99, 1.0] {
            let task = subspace(&gram, &config(energy)).unwrap();
            prop_assert!(task.basis.len() >= last.0 && task.captured >= last.1);
            prop_assert!(task.basis.len() <= n.min(dim));
            prop_assert!(task.captured >= energy - 1e-5, "{} of {energy}", task.captured);
            let inside = part_within(&z, &task.basis).powi(2);
            prop_assert!((inside - task.captured).abs() <= 1e-5);
            let curve = energy_curve(&task.eigenvalues);
            prop_assert!(curve.windows(2).all(|w| w[0] <= w[1] + 1e-12) && (curve[dim - 1] - 1.0).abs() < 1e-9);
            prop_assert!(task.basis.len() == 1 || curve[task.basis.len() - 2] < energy);
            last = (task.basis.len(), task.captured);
        }
    }

    #[test]
    fn the_subspace_is_that_of_the_singular_vectors(dim in 2usize..40, n in 1usize..60, seed in 0u64..1000) {
        let z = rows(n, dim, 1.0, seed);
        let k = n.min(dim).div_ceil(2);
        let limited = SubspaceConfig { max_rank: Some(k), precision: Precision::Double, ..config(1.0) };
        let task = subspace(&gram(&z, dim), &limited).unwrap();
        let svd = thin_svd(&z.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(), dim).unwrap();
        for (value, sigma) in task.eigenvalues.iter().zip(&svd.singular_values) {
            prop_assert!((value - sigma * sigma).abs() <= 2e-6 * svd.singular_values[0].powi(2));
        }
        // Vectors are compared by what they span: where the gap behind the k-th value is clear.
        let gap = svd.singular_values.get(k).map_or(1.0, |next| 1.0 - (next / svd.singular_values[k - 1]).powi(2));
        prop_assume!(gap > 0.05);
        let reference = Basis::from_orthonormal(dim, svd.right[..k * dim].iter().map(|&x| x as f32).collect()).unwrap();
        prop_assert!(overlap(&task.basis, &reference).unwrap() > 1.0 - 1e-4);
    }

    #[test]
    fn the_order_and_the_sharding_of_rows_do_not_matter(
        dim in 1usize..30, n in 2usize..200, at in 0.0f64..1.0, seed in 0u64..1000,
    ) {
        let z = rows(n, dim, 0.5, seed);
        let whole = gram(&z, dim);
        let scale = whole.matrix().iter().fold(0f64, |a, x| a.max(x.abs()));
        let close = |other: &Gram| whole.matrix().iter().zip(other.matrix()).all(|(a, b)| (a - b).abs() <= 1e-6 * scale);
        let backward: Vec<f32> = z.chunks_exact(dim).rev().flatten().copied().collect();
        prop_assert!(close(&gram(&backward, dim)));
        let (a, b) = z.split_at((n as f64 * at) as usize * dim);
        let (a, b) = (gram(a, dim), gram(b, dim));
        let merged = Gram::merged(dim, vec![a.clone(), b.clone()]).unwrap();
        prop_assert!(close(&merged) && merged.n_rows() == n as u64);
        prop_assert_eq!(merged.matrix(), Gram::merged(dim, vec![b, a]).unwrap().matrix());
    }

    #[test]
    fn no_projected_update_leaks_whatever_the_gradients(
        dim in 4usize..40, n in 1usize..20, update_only: bool, decay in 0.0f64..0.1, seed in 0u64..1000,
    ) {
        let at = if update_only { ProjectAt::Update } else { ProjectAt::Both };
        prop_assert!(leakage(dim, n, at, decay, 60, seed) <= 1e-5);
    }
}

/// The part of the change of a parameter that lies in the forbidden half of the space, after AdamW steps with badly scaled
/// gradients, warm-up and clipping.
fn leakage(dim: usize, n: usize, at: ProjectAt, weight_decay: f64, n_steps: usize, seed: u64) -> f64 {
    let forbidden = basis(dim, dim / 2, seed);
    let projection = Projection::new(dim, true, &[(&forbidden, -1.0)]).unwrap();
    let mut state = AdamWState::new(n * dim);
    let mut change = vec![0.0f32; n * dim];
    let scales = normal(n * dim, seed + 9);
    for step in 0..n_steps {
        let mut gradient = normal(n * dim, seed + 100 + step as u64);
        gradient.iter_mut().zip(&scales).for_each(|(g, s)| *g = (*g + 0.5) * s * s * s);
        let lr = 1e-2 * ((step + 1) as f64 / 20.0).min(1.0);
        let (gradient_scale, _) = clip_factor(&gradient, 1.0);
        let optimiser = AdamW { lr, weight_decay, ..AdamW::default() };
        ProjectedAdamW { optimiser, projection: &projection, at, gradient_scale }
            .step(&mut state, &mut change, &gradient)
            .unwrap();
    }
    part_within(&change, &forbidden)
}

#[test]
fn adamw_with_only_the_gradient_projected_leaks_tens_of_percent() {
    let leak = |at| leakage(64, 16, at, 0.0, 500, 3);
    assert!(leak(ProjectAt::Gradient) > 0.1, "{}", leak(ProjectAt::Gradient));
    assert!(leak(ProjectAt::Both) <= 1e-5 && leak(ProjectAt::Update) <= 1e-5);
}

#[test]
fn fifty_tasks_keep_the_basis_orthonormal() {
    let dim = 160;
    let mut older = Basis::empty(dim);
    for task in 0..50 {
        // Each task has a strong part that all share, a part of its own, and noise.
        let mut z = rows(200, dim, 1.5, task);
        z.iter_mut().zip(rows(200, dim, 1.5, 999)).for_each(|(z, shared)| *z += 3.0 * shared);
        let limited = SubspaceConfig { max_rank: Some(3), ..config(0.99999) };
        let added = residual_subspace(&gram(&z, dim), &older, &limited).unwrap();
        assert_eq!(added.basis.len(), 3, "task {task}");
        assert!(added.captured > added.captured_before);
        older.extend(&added.basis).unwrap();
        assert!(older.orthonormality_error() <= 1e-5, "{:e} after task {task}", older.orthonormality_error());
    }
    assert_eq!(older.len(), 150);
    // The last dimensions, and not one more.
    for seed in 100..110 {
        let added = residual_subspace(&gram(&normal(900 * dim, seed), dim), &older, &config(1.0)).unwrap();
        older.extend(&added.basis).unwrap();
    }
    assert_eq!(older.len(), dim);
    assert!(older.orthonormality_error() <= 1e-5);
    let exhausted = residual_subspace(&gram(&normal(9 * dim, 1), dim), &older, &config(1.0)).unwrap();
    assert!(exhausted.basis.is_empty() && exhausted.captured == 1.0);
}

#[test]
fn both_arithmetics_find_the_residual_that_the_definition_gives() {
    let dim = 50;
    let (first, second) = (gram(&rows(300, dim, 1.0, 1), dim), rows(300, dim, 1.0, 5));
    let older = subspace(&first, &config(0.9)).unwrap().basis;
    // The definition: project the rows, then decompose.
    let mut residual = second.clone();
    Projection::new(dim, true, &[(&older, -1.0)]).unwrap().apply(&mut residual).unwrap();
    let expected = thin_svd(&residual.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(), dim).unwrap();
    for precision in [Precision::Single, Precision::Double] {
        let config = SubspaceConfig { precision, ..config(0.95) };
        let added = residual_subspace(&gram(&second, dim), &older, &config).unwrap();
        let k = added.basis.len();
        let sigma = &expected.singular_values;
        for (value, sigma) in added.eigenvalues.iter().zip(sigma) {
            assert!((value - sigma * sigma).abs() <= 1e-5 * sigma.max(1.0).powi(2), "{precision:?}");
        }
        let captured = added.captured_before * added.energy;
        let sum = |k: usize| captured + sigma[..k].iter().map(|x| x * x).sum::<f64>();
        assert!(sum(k) >= 0.95 * added.energy - 1e-3 && sum(k - 1) < 0.95 * added.energy + 1e-3);
        assert!(part_within(added.basis.vectors(), &older) <= 1e-5);
    }
}

#[test]
fn a_basis_of_a_real_width_is_orthonormal_in_f32() {
    let dim = 1024;
    let mut z = normal(3000 * dim, 1);
    for row in z.chunks_exact_mut(dim) {
        row.iter_mut().enumerate().for_each(|(i, x)| *x *= ((i + 1) as f32).powf(-0.5));
    }
    let basis = subspace(&gram(&z, dim), &config(0.97)).unwrap().basis;
    assert!(basis.len() > 500);
    assert!(basis.orthonormality_error() <= 1e-5, "{:e}", basis.orthonormality_error());
}

#[test]
fn an_older_basis_does_not_turn_rounding_into_directions() {
    let dim = 120;
    let older = basis(dim, 80, 4);
    // One direction, nearly all of it inside the older basis.
    let row: Vec<f32> =
        older.vectors()[..dim].iter().zip(normal(dim, 8)).map(|(b, x)| 30.0 * b + 0.05 * x).collect();
    for precision in [Precision::Single, Precision::Double] {
        let config = SubspaceConfig { precision, ..config(1.0) };
        let added = residual_subspace(&gram(&row.repeat(5), dim), &older, &config).unwrap();
        assert!(added.basis.len() <= 1, "{precision:?}: {}", added.basis.len());
    }
}

#[test]
fn the_edges_are_defined() {
    let none = subspace(&Gram::new(4), &config(0.95)).unwrap();
    assert!(none.basis.is_empty() && none.energy == 0.0 && none.captured == 0.0);
    assert!(subspace(&gram(&[0.0; 12], 4), &config(1.0)).unwrap().basis.is_empty());
    assert!(subspace(&Gram::new(0), &config(1.0)).unwrap().basis.is_empty());
    // Two rows in five dimensions, one of them twice: rank 1 and 2, at all of the energy too.
    let z = [1.0f32, 2.0, 0.0, 0.0, 1.0];
    assert_eq!(subspace(&gram(&z.repeat(2), 5), &config(1.0)).unwrap().basis.len(), 1);
    let two = [z, [0.0, 0.0, 1.0, 1e-2, 0.0]].concat();
    assert_eq!(subspace(&gram(&two, 5), &config(1.0)).unwrap().basis.len(), 2);
    // Repeated eigenvalues: the identity, of which half the energy takes half the directions.
    let identity: Vec<f32> = (0..36).map(|i| f32::from(u8::from(i % 7 == 0))).collect();
    assert_eq!(subspace(&gram(&identity, 6), &config(0.5)).unwrap().basis.len(), 3);
    // Magnitudes at which a sum of squares in f32 would not exist.
    for scale in [1e-18f32, 1e18] {
        let z: Vec<f32> = rows(40, 8, 1.0, 2).iter().map(|x| x * scale).collect();
        let wide: Vec<f64> = z.iter().map(|&x| f64::from(x)).collect();
        let mut double = Gram::new(8);
        double.push(&wide).unwrap();
        let reference = subspace(&gram(&rows(40, 8, 1.0, 2), 8), &config(0.9)).unwrap().basis.len();
        assert_eq!(subspace(&double, &config(0.9)).unwrap().basis.len(), reference);
    }
    let huge = gram(&[3e38; 8], 4);
    assert_eq!(subspace(&huge, &config(0.9)).unwrap_err(), LinalgError::Overflow { op: "residual_subspace" });
    for energy in [0.0, -1.0, 1.5, f64::NAN] {
        assert!(matches!(subspace(&Gram::new(4), &config(energy)), Err(LinalgError::Range { .. })));
    }
    assert!(matches!(
        residual_subspace(&Gram::new(4), &Basis::empty(5), &config(0.9)),
        Err(LinalgError::Shape { .. })
    ));
    assert!(
        Basis::from_orthonormal(2, vec![1.0, 0.1]).is_err()
            && Basis::from_orthonormal(2, vec![f32::NAN; 2]).is_err()
    );
}

#[test]
fn angles_and_overlaps_of_known_subspaces() {
    let unit = |angle: f32| Basis::from_orthonormal(3, vec![angle.cos(), angle.sin(), 0.0]).unwrap();
    for degrees in [5.0f32, 30.0, 60.0, 90.0] {
        let angle = principal_angles(&unit(0.0), &unit(degrees.to_radians())).unwrap()[0];
        assert!((angle.to_degrees() - f64::from(degrees)).abs() < 1e-3);
        let cosine = f64::from(degrees).to_radians().cos();
        assert!((overlap(&unit(0.0), &unit(degrees.to_radians())).unwrap() - cosine * cosine).abs() < 1e-6);
    }
    let plane = Basis::from_orthonormal(3, vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0]).unwrap();
    assert!((overlap(&plane, &unit(1.0)).unwrap() - 1.0).abs() < 1e-6);
    assert_eq!(overlap(&plane, &Basis::empty(3)).unwrap(), 0.0);
    assert!(principal_angles(&plane, &Basis::empty(4)).is_err());
    assert_eq!(effective_rank(&[]), 0.0);
    assert!((effective_rank(&[1.0; 7]) - 7.0).abs() < 1e-12);
    assert_eq!(energy_curve(&[0.0, 0.0]), [0.0, 0.0]);
}
