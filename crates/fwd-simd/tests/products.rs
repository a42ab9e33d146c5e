//! Every level that this processor has against sums in f64.

use faer::{Accum, MatMut, MatRef};
use fwd_simd::{Cpu, Element, Lhs, PANEL, Panels, gemm, multiply};
use half::bf16;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn values(n: usize, rng: &mut StdRng) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn rows_mut(data: &mut [f32], m: usize, n: usize) -> MatMut<'_, f32> {
    MatMut::from_column_major_slice_mut(data, n, m).transpose_mut()
}

/// `|error| ≤ eps·(k + 2)·Σ|x·w|`: every product and every partial sum is rounded once.
fn check(got: f32, x: &[f32], w: &[f32], what: &str) {
    let want: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
    let size: f64 = x.iter().zip(w).map(|(&x, &w)| (f64::from(x) * f64::from(w)).abs()).sum();
    let bound = f64::from(f32::EPSILON) * (x.len() as f64 + 2.0) * size + 1e-30;
    assert!((f64::from(got) - want).abs() <= bound, "{what}: {got} instead of {want}");
}

const SHAPES: [(usize, usize, usize); 12] = [
    (1, 1, 1),
    (1, 32, 32),
    (2, 33, 31),
    (3, 7, 64),
    (5, 100, 37),
    (14, 64, 96),
    (15, 65, 33),
    (29, 512, 40),
    (37, 37, 32),
    (4, 1100, 70),
    (64, 3, 5),
    (1, 2048, 100),
];

fn packed_products<T: Element>(cpu: Cpu) {
    let mut rng = StdRng::seed_from_u64(1);
    for (m, k, n) in SHAPES {
        let round = |v: Vec<f32>| -> Vec<f32> { v.into_iter().map(|v| T::round(v).widen()).collect() };
        let (x, w) = (round(values(m * k, &mut rng)), round(values(n * k, &mut rng)));
        let what = format!("{cpu:?} {} {m}x{k}x{n}", std::any::type_name::<T>());
        let packed = Panels::<T>::pack(cpu, n, k, |i, out| out.copy_from_slice(&w[i * k..][..k]));
        let lhs = Lhs::<T>::pack(cpu, MatRef::from_row_major_slice(&x, m, k), 1.0);
        let mut y = vec![f32::NAN; m * n];
        for panel in 0..packed.n_panels() {
            let cols = rows_mut(&mut y, m, n).subcols_mut(panel * PANEL, PANEL.min(n - panel * PANEL));
            multiply(&lhs, 0, packed.panel(panel), cols, Accum::Replace);
        }
        for i in 0..m {
            for j in 0..n {
                check(y[i * n + j], &x[i * k..][..k], &w[j * k..][..k], &what);
            }
        }
        // dx = dy·W over the same panels, turned.
        let dy = round(values(m * n, &mut rng));
        let lhs = Lhs::<T>::pack(cpu, MatRef::from_row_major_slice(&dy, m, n), 1.0);
        let mut dx = vec![f32::NAN; m * k];
        for first in (0..k).step_by(PANEL) {
            let width = PANEL.min(k - first);
            let mut panel = vec![T::ZERO; T::steps(n)];
            packed.transposed_panel(cpu, first..first + width, 0, n, &mut panel);
            multiply(&lhs, 0, &panel, rows_mut(&mut dx, m, k).subcols_mut(first, width), Accum::Replace);
        }
        for i in 0..m {
            for j in 0..k {
                let column: Vec<f32> = (0..n).map(|row| w[row * k + j]).collect();
                check(dx[i * k + j], &dy[i * n..][..n], &column, &format!("{what} backward"));
            }
        }
    }
}

#[test]
fn packed_f32_products_agree_with_f64_at_every_level() {
    Cpu::all().for_each(packed_products::<f32>);
}

#[test]
fn packed_bf16_products_agree_with_f64_at_every_level() {
    Cpu::all().for_each(packed_products::<bf16>);
}

#[test]
fn dense_products_take_any_strides_and_add() {
    let mut rng = StdRng::seed_from_u64(2);
    for cpu in Cpu::all() {
        for (m, k, n) in SHAPES {
            let (a, b, c) = (values(m * k, &mut rng), values(k * n, &mut rng), values(m * n, &mut rng));
            for (a_turned, b_turned) in [(false, false), (true, false), (false, true), (true, true)] {
                let lhs = if a_turned {
                    MatRef::from_column_major_slice(&a, m, k)
                } else {
                    MatRef::from_row_major_slice(&a, m, k)
                };
                let rhs = if b_turned {
                    MatRef::from_column_major_slice(&b, k, n)
                } else {
                    MatRef::from_row_major_slice(&b, k, n)
                };
                let mut y = c.clone();
                gemm(cpu, rows_mut(&mut y, m, n), Accum::Add, lhs, rhs, 0.5);
                for i in 0..m {
                    for j in 0..n {
                        let mut left: Vec<f32> = (0..k).map(|p| 0.5 * lhs[(i, p)]).collect();
                        let mut right: Vec<f32> = (0..k).map(|p| rhs[(p, j)]).collect();
                        left.push(1.0);
                        right.push(c[i * n + j]);
                        check(
                            y[i * n + j],
                            &left,
                            &right,
                            &format!("{cpu:?} {m}x{k}x{n} {a_turned} {b_turned}"),
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_part_of_the_depth_can_be_multiplied_alone() {
    let mut rng = StdRng::seed_from_u64(3);
    for cpu in Cpu::all() {
        let (m, k, n, half) = (3, 128, 32, 64);
        let (x, w) = (values(m * k, &mut rng), values(n * k, &mut rng));
        let lhs = Lhs::<f32>::pack(cpu, MatRef::from_row_major_slice(&x, m, k), 1.0);
        let packed = Panels::<f32>::pack(cpu, n, k, |i, out| out.copy_from_slice(&w[i * k..][..k]));
        let mut y = vec![f32::NAN; m * n];
        multiply(&lhs, half, &packed.panel(0)[half..], rows_mut(&mut y, m, n), Accum::Replace);
        multiply(&lhs, 0, &packed.panel(0)[..half], rows_mut(&mut y, m, n), Accum::Add);
        for i in 0..m {
            for j in 0..n {
                check(y[i * n + j], &x[i * k..][..k], &w[j * k..][..k], "in two parts");
            }
        }
    }
}
