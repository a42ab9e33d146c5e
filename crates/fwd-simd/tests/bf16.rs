//! Products of bf16 at every level against sums in f64 of the rounded factors. Where Linux runs on a processor with AVX-512 BF16 and
//! without AMX, the tile instructions of the `amx` level are carried out by an emulator.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod emulator;

use faer::{Accum, MatMut, MatRef};
use fwd_simd::{Cpu, Element, Level, Lhs, PANEL, Panels, multiply, pack_panel};
use half::bf16;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Every level of this processor, and tiles in an emulator if they can be had only so.
fn levels() -> Vec<Cpu> {
    let mut levels: Vec<Cpu> = Cpu::all().collect();
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    if Cpu::best().level() == Level::Bf16 {
        emulator::install();
        // SAFETY: the processor has all levels below, and the emulator carries out the rest.
        levels.push(unsafe { Cpu::assume(Level::Amx) });
    }
    levels
}

fn assert_tiles_are_released() {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    assert!(emulator::is_released(), "the state of the tiles outlives the product");
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(4)
}

/// Values of bf16 between -1 and 1.
fn values(n: usize, rng: &mut StdRng) -> Vec<f32> {
    (0..n).map(|_| bf16::from_f32(rng.random_range(-1.0..1.0)).to_f32()).collect()
}

fn rows_mut(data: &mut [f32], m: usize, n: usize) -> MatMut<'_, f32> {
    MatMut::from_column_major_slice_mut(data, n, m).transpose_mut()
}

/// `|error| ≤ ε·(k + 2)·Σ|x·w|`: a product of two bf16 is exact in f32 or is rounded once together with a sum, and every product goes
/// through at most `k + 2` sums that are rounded, by `ε/2` each. Where subnormals count as zeros, each of `x`, `w` and the sums can lose
/// less than 2⁻¹²⁶.
fn bound(cpu: Cpu, x: &[f32], w: &[f32]) -> f64 {
    let terms = || x.iter().zip(w).map(|(&x, &w)| (f64::from(x.abs()), f64::from(w.abs())));
    let rounding =
        f64::from(f32::EPSILON) * (x.len() as f64 + 2.0) * terms().map(|(x, w)| x * w).sum::<f64>();
    let tiny = f64::from(f32::MIN_POSITIVE);
    if cpu.level() >= Level::Bf16 {
        rounding + tiny * (terms().map(|(x, w)| x + w + 1.0).sum::<f64>() + 2.0)
    } else {
        rounding + tiny * f64::from(f32::EPSILON) * x.len() as f64
    }
}

fn check(cpu: Cpu, got: f32, x: &[f32], w: &[f32], what: &str) {
    let want: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
    let bound = bound(cpu, x, w);
    assert!((f64::from(got) - want).abs() <= bound, "{cpu:?} {what}: {got} instead of {want} within {bound}");
}

fn pack(cpu: Cpu, w: &[f32], n: usize, k: usize) -> Panels<bf16> {
    Panels::pack(cpu, n, k, |i, out| out.copy_from_slice(&w[i * k..][..k]))
}

/// `x·Wᵀ` into rows that are `stride` apart.
fn product(
    cpu: Cpu,
    x: MatRef<'_, f32>,
    w: &Panels<bf16>,
    y: &mut [f32],
    stride: usize,
    alpha: f32,
    accum: Accum,
) {
    let (m, n) = (x.nrows(), w.n_rows());
    let lhs = Lhs::<bf16>::pack(cpu, x, alpha);
    for panel in 0..w.n_panels() {
        let width = PANEL.min(n - panel * PANEL);
        let y = MatMut::from_column_major_slice_with_stride_mut(&mut *y, stride, m, stride).transpose_mut();
        let y = y.subcols_mut(panel * PANEL, width);
        multiply(&lhs, 0, w.panel(panel), y, accum);
        assert_tiles_are_released();
    }
}

#[test]
fn every_number_of_rows_and_columns() {
    for cpu in levels() {
        let mut rng = rng();
        for m in 1..=70 {
            let (k, n) = (1 + m * 7 % 70, 1 + m * 11 % 70);
            let (x, w, old) = (values(m * k, &mut rng), values(n * k, &mut rng), values(m * n, &mut rng));
            let packed = pack(cpu, &w, n, k);
            let mut y = vec![f32::NAN; m * n];
            product(cpu, MatRef::from_row_major_slice(&x, m, k), &packed, &mut y, n, 1.0, Accum::Replace);
            let mut sum = old.clone();
            product(cpu, MatRef::from_row_major_slice(&x, m, k), &packed, &mut sum, n, 1.0, Accum::Add);
            for (i, x) in x.chunks_exact(k).enumerate() {
                for (j, w) in w.chunks_exact(k).enumerate() {
                    let at = i * n + j;
                    check(cpu, y[at], x, w, &format!("{m}x{k}x{n}"));
                    let (x, w) = ([x, &[1.0]].concat(), [w, &[old[at]]].concat());
                    check(cpu, sum[at], &x, &w, &format!("{m}x{k}x{n} added"));
                }
            }
        }
    }
}

#[test]
fn depths_beyond_what_is_taken_at_once() {
    for cpu in levels() {
        let mut rng = rng();
        for (m, k, n) in [(1, 4111, 33), (3, 2049, 64), (35, 2080, 32)] {
            let (x, w) = (values(m * k, &mut rng), values(n * k, &mut rng));
            let packed = pack(cpu, &w, n, k);
            let mut y = vec![f32::NAN; m * n];
            product(cpu, MatRef::from_row_major_slice(&x, m, k), &packed, &mut y, n, 1.0, Accum::Replace);
            for (i, x) in x.chunks_exact(k).enumerate() {
                for (j, w) in w.chunks_exact(k).enumerate() {
                    check(cpu, y[i * n + j], x, w, &format!("{m}x{k}x{n}"));
                }
            }
        }
    }
}

#[test]
fn nothing_outside_of_the_result_is_written() {
    for cpu in levels() {
        for (m, n) in [(1, 1), (5, 16), (15, 17), (17, 31), (32, 32), (33, 40)] {
            let (k, stride, mut rng) = (40, n + 5, rng());
            let (x, w) = (values(m * k, &mut rng), values(n * k, &mut rng));
            let mut y = vec![7f32; m * stride];
            let packed = pack(cpu, &w, n, k);
            product(
                cpu,
                MatRef::from_row_major_slice(&x, m, k),
                &packed,
                &mut y,
                stride,
                1.0,
                Accum::Replace,
            );
            for (i, y) in y.chunks_exact(stride).enumerate() {
                for (j, &y) in y.iter().enumerate() {
                    match w.chunks_exact(k).nth(j) {
                        Some(w) => check(cpu, y, &x[i * k..][..k], w, &format!("{m}x{n}")),
                        None => assert_eq!(y, 7.0, "{cpu:?} {m}x{n}: column {j} of row {i}"),
                    }
                }
            }
        }
    }
}

#[test]
fn panels_are_the_same_at_every_level() {
    let (k, n, mut rng) = (77, 70, rng());
    let w: Vec<f32> = (0..n * k).map(|_| rng.random_range(-1.0..1.0)).collect();
    let columns: Vec<f32> = (0..n * k).map(|i| w[i % n * k + i / n]).collect();
    let rounded = |row: usize, col: usize| bf16::from_f32(w[row * k + col]).to_f32();
    for cpu in levels() {
        let packed = pack(cpu, &w, n, k);
        for row in 0..n {
            for col in 0..k {
                assert_eq!(packed.at(row, col), rounded(row, col), "{cpu:?} {row} {col}");
            }
        }
        for panel in 0..packed.n_panels() {
            let (first, height) = (panel * PANEL, PANEL.min(n - panel * PANEL));
            let strided = MatRef::from_column_major_slice(&columns, n, k).subrows(first, height);
            let mut out = vec![fwd_simd::Step([bf16::NAN; 64]); bf16::steps(k)];
            pack_panel::<bf16>(cpu, strided, &mut out);
            assert_eq!(out, packed.panel(panel), "{cpu:?}: packed from columns");
        }
        for first in (0..k).step_by(PANEL) {
            let width = PANEL.min(k - first);
            let mut out = vec![fwd_simd::Step([bf16::NAN; 64]); bf16::steps(n)];
            packed.transposed_panel(cpu, first..first + width, 0, n, &mut out);
            for (i, step) in out.iter().enumerate() {
                for (j, value) in step.0.iter().enumerate() {
                    let (row, col) = (2 * i + j % 2, first + j / 2);
                    let want = if row < n && col < k { rounded(row, col) } else { 0.0 };
                    assert_eq!(value.to_f32(), want, "{cpu:?}: row {row}, column {col}, turned");
                }
            }
        }
    }
}

/// Bit patterns of f32 that are hard to round: every upper half with lower halves about the tie.
fn hard_to_round() -> impl Iterator<Item = f32> {
    let lower = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    (0..=u16::MAX).flat_map(move |upper| {
        lower.map(|lower: u16| f32::from_bits(u32::from(upper) << 16 | u32::from(lower)))
    })
}

#[test]
fn activations_are_rounded_to_nearest_even() {
    for value in hard_to_round() {
        let (got, want) = (<bf16 as Element>::round(value), bf16::from_f32(value));
        assert_eq!(got.to_bits(), want.to_bits(), "{value:e}");
    }
    let all: Vec<f32> = hard_to_round().collect();
    for cpu in levels() {
        // A product with one is the rounded value itself.
        let one = pack(cpu, &[1.0], 1, 1);
        let few = if cpu.level() == Level::Amx && Cpu::best() != cpu { 97 } else { 1 };
        let all: Vec<f32> = all.iter().copied().step_by(few).collect();
        for values in all.chunks(1 << 12) {
            let mut y = vec![0f32; values.len()];
            let x = MatRef::from_row_major_slice(values, values.len(), 1);
            product(cpu, x, &one, &mut y, 1, 1.0, Accum::Replace);
            for (&value, &y) in values.iter().zip(&y) {
                let want = bf16::from_f32(value).to_f32();
                if value.is_nan() {
                    assert!(y.is_nan(), "{cpu:?}: NaN became {y}");
                } else if want.abs() > f32::MIN_POSITIVE || cpu.level() < Level::Bf16 {
                    assert_eq!(y, want, "{cpu:?}: {value:e}");
                } else {
                    assert!((y - want).abs() <= f32::MIN_POSITIVE, "{cpu:?}: {value:e} became {y:e}");
                }
            }
        }
    }
}

#[test]
fn tiny_factors_are_lost_by_no_more_than_the_least_normal_number() {
    for cpu in levels() {
        let (m, k, n, mut rng) = (9, 50, 33, rng());
        let tiny: Vec<f32> =
            values(m * k, &mut rng).iter().map(|x| bf16::from_f32(x * 1e-37).to_f32()).collect();
        for scale in [1.0, 1e-3, 1e30] {
            let w: Vec<f32> =
                values(n * k, &mut rng).iter().map(|w| bf16::from_f32(w * scale).to_f32()).collect();
            let mut y = vec![f32::NAN; m * n];
            let x = MatRef::from_row_major_slice(&tiny, m, k);
            product(cpu, x, &pack(cpu, &w, n, k), &mut y, n, 1.0, Accum::Replace);
            for (i, x) in tiny.chunks_exact(k).enumerate() {
                for (j, w) in w.chunks_exact(k).enumerate() {
                    check(cpu, y[i * n + j], x, w, &format!("scale {scale}"));
                }
            }
        }
    }
}

#[test]
fn nan_and_infinity_reach_their_row_and_no_other() {
    for cpu in levels() {
        let (m, k, n, mut rng) = (20, 45, 40, rng());
        let w: Vec<f32> = values(n * k, &mut rng).iter().map(|w| w.abs() + 0.5).collect();
        let mut x = values(m * k, &mut rng);
        (x[3 * k + 7], x[6 * k + 44], x[18 * k]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
        let mut y = vec![0f32; m * n];
        let rows = MatRef::from_row_major_slice(&x, m, k);
        product(cpu, rows, &pack(cpu, &w, n, k), &mut y, n, 1.0, Accum::Replace);
        for (i, y) in y.chunks_exact(n).enumerate() {
            for &y in y {
                match i {
                    3 => assert!(y.is_nan(), "{cpu:?}: {y}"),
                    6 => assert_eq!(y, f32::INFINITY, "{cpu:?}"),
                    18 => assert_eq!(y, f32::NEG_INFINITY, "{cpu:?}"),
                    _ => assert!(y.is_finite(), "{cpu:?}: row {i}"),
                }
            }
        }
    }
}

#[test]
fn a_factor_and_any_strides_of_the_activations() {
    for cpu in levels() {
        let (m, k, n, mut rng) = (19, 66, 34, rng());
        let (x, w) = (values(m * k, &mut rng), values(n * k, &mut rng));
        let packed = pack(cpu, &w, n, k);
        let mut y = vec![f32::NAN; m * n];
        // A power of two, so that the rounded activations are twice the values.
        product(cpu, MatRef::from_column_major_slice(&x, m, k), &packed, &mut y, n, 2.0, Accum::Replace);
        for i in 0..m {
            let x: Vec<f32> = (0..k).map(|p| 2.0 * x[p * m + i]).collect();
            for (j, w) in w.chunks_exact(k).enumerate() {
                check(cpu, y[i * n + j], &x, w, "from columns");
            }
        }
    }
}

#[test]
fn a_part_of_the_depth_and_none() {
    for cpu in levels() {
        let (m, k, n, part, mut rng) = (18, 160, 20, 64, rng());
        let (x, w) = (values(m * k, &mut rng), values(n * k, &mut rng));
        let lhs = Lhs::<bf16>::pack(cpu, MatRef::from_row_major_slice(&x, m, k), 1.0);
        let packed = pack(cpu, &w, n, k);
        let (first, last) = packed.panel(0).split_at(bf16::steps(part));
        let mut y = vec![f32::NAN; m * n];
        multiply(&lhs, part, last, rows_mut(&mut y, m, n), Accum::Replace);
        multiply(&lhs, 0, first, rows_mut(&mut y, m, n), Accum::Add);
        multiply(&lhs, part, &[], rows_mut(&mut y, m, n), Accum::Add);
        for (i, x) in x.chunks_exact(k).enumerate() {
            for (j, w) in w.chunks_exact(k).enumerate() {
                check(cpu, y[i * n + j], x, w, "in parts");
            }
        }
        multiply(&lhs, 0, &[], rows_mut(&mut y, m, n), Accum::Replace);
        assert!(y.iter().all(|&y| y == 0.0), "{cpu:?}: a product of no depth");
    }
}

#[test]
fn the_bits_of_a_row_depend_neither_on_other_rows_nor_on_cuts_of_the_depth() {
    for cpu in levels() {
        let (m, k, n, mut rng) = (33, 1216, 40, rng());
        let (x, w) = (values(m * k, &mut rng), values(n * k, &mut rng));
        let packed = pack(cpu, &w, n, k);
        let rows = MatRef::from_row_major_slice(&x, m, k);
        let mut all = vec![f32::NAN; m * n];
        product(cpu, rows, &packed, &mut all, n, 1.0, Accum::Replace);
        for (first, height) in [(0, 1), (3, 2), (5, 4), (9, 7), (16, 17)] {
            let mut some = vec![f32::NAN; height * n];
            product(cpu, rows.subrows(first, height), &packed, &mut some, n, 1.0, Accum::Replace);
            assert_eq!(some, all[first * n..][..height * n], "{cpu:?}: rows {first} and {} more", height - 1);
        }
        let lhs = Lhs::<bf16>::pack(cpu, rows, 1.0);
        let (start, end) = packed.panel(0).split_at(bf16::steps(96));
        let mut parts = all.clone();
        let mut y = rows_mut(&mut parts, m, n).subcols_mut(0, PANEL);
        multiply(&lhs, 0, start, y.as_mut(), Accum::Replace);
        multiply(&lhs, 96, end, y.as_mut(), Accum::Add);
        assert_eq!(parts, all, "{cpu:?}: in two parts");
    }
}
