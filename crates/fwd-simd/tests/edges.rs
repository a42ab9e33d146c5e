//! What products of f32 do at the edges of shapes and of numbers, at every level that this processor has.

use faer::{Accum, MatMut, MatRef};
use fwd_simd::{Cpu, Element, Level, Lhs, PANEL, Panels, gemm, multiply, multiply_panels, pack_panel};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn values(n: usize, rng: &mut StdRng) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn rows_mut(data: &mut [f32], m: usize, n: usize) -> MatMut<'_, f32> {
    MatMut::from_column_major_slice_mut(data, n, m).transpose_mut()
}

fn packed(cpu: Cpu, w: &[f32], n: usize, k: usize) -> Panels<f32> {
    Panels::pack(cpu, n, k, |i, out| out.copy_from_slice(&w[i * k..][..k]))
}

/// The panels with their columns of the result.
fn jobs<'a>(w: &'a Panels<f32>, y: MatMut<'a, f32>) -> Vec<(&'a [<f32 as Element>::Step], MatMut<'a, f32>)> {
    let (mut rest, mut jobs) = (y, Vec::new());
    for i in 0..w.n_panels() {
        let (columns, other) = rest.split_at_col_mut(PANEL.min(w.n_rows() - i * PANEL));
        rest = other;
        jobs.push((w.panel(i), columns));
    }
    jobs
}

#[test]
fn every_level_of_this_processor_is_tested() {
    let tested: Vec<_> = Cpu::all().map(Cpu::level).collect();
    let missing: Vec<_> = Level::ALL.into_iter().filter(|level| !tested.contains(level)).collect();
    eprintln!("levels tested here: {tested:?}; this processor lacks: {missing:?}");
    assert_eq!(tested.len() + missing.len(), Level::ALL.len());
    assert_eq!(tested.last().copied(), Some(Cpu::best().level()));
}

/// Operands of every layout within larger matrices: rows side by side, depth side by side, and neither.
fn layouts(data: &[f32], m: usize, k: usize) -> [MatRef<'_, f32>; 3] {
    [
        MatRef::from_row_major_slice_with_stride(&data[1..], m, k, k + 3),
        MatRef::from_column_major_slice_with_stride(&data[1..], m, k, m + 5),
        every_other(MatRef::from_row_major_slice_with_stride(&data[1..], m, 2 * k, 2 * k)),
    ]
}

/// Every second column.
#[allow(unsafe_code)]
fn every_other(x: MatRef<'_, f32>) -> MatRef<'_, f32> {
    assert_eq!(x.col_stride(), 1);
    // SAFETY: column `2·j` lies within the matrix for each `j` below half of its columns.
    unsafe { MatRef::from_raw_parts(x.as_ptr(), x.nrows(), x.ncols() / 2, x.row_stride(), 2) }
}

#[test]
fn dense_products_of_all_heights_and_widths_leave_their_surroundings_alone() {
    let mut rng = StdRng::seed_from_u64(4);
    let k = 7;
    for cpu in Cpu::all() {
        for m in 1..=30 {
            for n in [1, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 40, 47, 48, 49, 63, 64, 65, 97] {
                let (a, b) = (
                    values(2 * (m + 5) * (k + 5) + 1, &mut rng),
                    values(2 * (n + 5) * (k + 5) + 1, &mut rng),
                );
                for (i, lhs) in layouts(&a, m, k).into_iter().enumerate() {
                    for (j, rhs) in layouts(&b, k, n).into_iter().enumerate() {
                        let stride = n + 2;
                        let mut y = vec![7f32; m * stride + 1];
                        let c = MatMut::from_column_major_slice_with_stride_mut(&mut y[1..], n, m, stride);
                        gemm(cpu, c.transpose_mut(), Accum::Replace, lhs, rhs, 1.0);
                        assert_eq!(y[0], 7.0);
                        for (row, y) in y[1..].chunks_exact(stride).enumerate() {
                            assert_eq!(&y[n..], [7.0; 2], "{cpu:?} {m}x{k}x{n} writes beyond row {row}");
                            for (col, &y) in y[..n].iter().enumerate() {
                                let terms =
                                    (0..k).map(|p| f64::from(lhs[(row, p)]) * f64::from(rhs[(p, col)]));
                                let (want, size) =
                                    terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                                let bound = f64::from(f32::EPSILON) * (k as f64 + 2.0) * size;
                                let error = (f64::from(y) - want).abs();
                                assert!(
                                    error <= bound,
                                    "{cpu:?} {m}x{k}x{n} layouts {i} {j}, ({row}, {col}): {y} for {want}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_result_whose_rows_lie_side_by_side_is_the_transposed_one() {
    let mut rng = StdRng::seed_from_u64(5);
    let (m, k, n) = (19, 23, 41);
    let (a, b) = (values(m * k, &mut rng), values(k * n, &mut rng));
    let (lhs, rhs) = (MatRef::from_row_major_slice(&a, m, k), MatRef::from_row_major_slice(&b, k, n));
    for cpu in Cpu::all() {
        let (mut y, mut turned) = (vec![0f32; m * n], vec![0f32; m * n]);
        gemm(cpu, rows_mut(&mut y, m, n), Accum::Replace, lhs, rhs, 2.0);
        gemm(cpu, MatMut::from_column_major_slice_mut(&mut turned, m, n), Accum::Replace, lhs, rhs, 2.0);
        for i in 0..m {
            for j in 0..n {
                assert_eq!(y[i * n + j], turned[j * m + i], "{cpu:?}");
            }
        }
    }
}

#[test]
fn products_of_nothing() {
    for cpu in Cpu::all() {
        let empty = |m, n| MatRef::from_row_major_slice(&[0f32; 0], m, n);
        let mut y = [f32::NAN, 3.0, 4.0, 5.0, 6.0, 7.0];
        gemm(cpu, rows_mut(&mut y, 2, 3), Accum::Replace, empty(2, 0), empty(0, 3), 1.0);
        assert_eq!(y, [0.0; 6], "no depth, replaced");
        y.fill(2.0);
        gemm(cpu, rows_mut(&mut y, 2, 3), Accum::Add, empty(2, 0), empty(0, 3), 1.0);
        assert_eq!(y, [2.0; 6], "no depth, added");
        gemm(
            cpu,
            rows_mut(&mut [], 0, 3),
            Accum::Replace,
            empty(0, 2),
            MatRef::from_row_major_slice(&[1f32; 6], 2, 3),
            1.0,
        );
        gemm(
            cpu,
            rows_mut(&mut [], 2, 0),
            Accum::Replace,
            MatRef::from_row_major_slice(&[1f32; 6], 2, 3),
            empty(3, 0),
            1.0,
        );

        let no_rows = packed(cpu, &[], 0, 5);
        assert_eq!((no_rows.n_panels(), no_rows.n_bytes()), (0, 0));
        let no_columns = packed(cpu, &[], 3, 0);
        let x = Lhs::<f32>::pack(cpu, empty(2, 0), 1.0);
        y.fill(f32::NAN);
        multiply(&x, 0, no_columns.panel(0), rows_mut(&mut y, 2, 3), Accum::Replace);
        assert_eq!(y, [0.0; 6]);
        let x = Lhs::<f32>::pack(cpu, empty(0, 5), 1.0);
        multiply_panels(
            &x,
            0,
            &mut jobs(&packed(cpu, &[1.0; 5], 1, 5), rows_mut(&mut [], 0, 1)),
            Accum::Replace,
        );
    }
}

#[test]
fn nan_and_infinity_reach_their_row_and_column_and_no_others() {
    let mut rng = StdRng::seed_from_u64(6);
    for cpu in Cpu::all() {
        for (m, k, n) in [(1, 33, 37), (5, 16, 32), (20, 300, 70)] {
            let (mut x, mut w) = (values(m * k, &mut rng), values(n * k, &mut rng));
            let (row, col) = (m / 2, n - 1);
            x[row * k + k - 1] = f32::INFINITY;
            // Infinity times zero.
            w[k - 1] = 0.0;
            w[col * k] = f32::NAN;
            let check = |y: &[f32], what: &str| {
                for i in 0..m {
                    for j in 0..n {
                        let y = y[i * n + j];
                        let is_as_expected = if j == col || (i == row && j == 0) {
                            y.is_nan()
                        } else if i == row {
                            y.is_infinite()
                        } else {
                            y.is_finite()
                        };
                        assert!(is_as_expected, "{cpu:?} {m}x{k}x{n} {what} ({i}, {j}): {y}");
                    }
                }
            };
            let lhs = MatRef::from_row_major_slice(&x, m, k);
            let mut y = vec![0f32; m * n];
            gemm(
                cpu,
                rows_mut(&mut y, m, n),
                Accum::Replace,
                lhs,
                MatRef::from_column_major_slice(&w, k, n),
                1.0,
            );
            check(&y, "dense");
            y.fill(f32::NAN);
            let w = packed(cpu, &w, n, k);
            multiply_panels(
                &Lhs::<f32>::pack(cpu, lhs, 1.0),
                0,
                &mut jobs(&w, rows_mut(&mut y, m, n)),
                Accum::Replace,
            );
            check(&y, "packed");
        }
    }
}

/// Threads share out rows or panels: neither may change a bit.
#[test]
fn a_row_gives_the_same_bits_alone_and_among_others() {
    let mut rng = StdRng::seed_from_u64(7);
    let (m, k, n) = (300, 700, 70);
    let (x, w, start) = (values(m * k, &mut rng), values(n * k, &mut rng), values(m * n, &mut rng));
    for cpu in Cpu::all() {
        let w = packed(cpu, &w, n, k);
        let mut want = start.clone();
        let x = MatRef::from_row_major_slice(&x, m, k);
        multiply_panels(
            &Lhs::<f32>::pack(cpu, x, 0.5),
            0,
            &mut jobs(&w, rows_mut(&mut want, m, n)),
            Accum::Add,
        );
        // The depth in two runs of panels, cut where a part of the sum ends.
        let mut y = start.clone();
        let whole = Lhs::<f32>::pack(cpu, x, 0.5);
        for (from, to) in [(0, 512), (512, k)] {
            let mut jobs = jobs(&w, rows_mut(&mut y, m, n));
            jobs.iter_mut().for_each(|(panel, _)| *panel = &panel[from..to]);
            multiply_panels(&whole, from, &mut jobs, Accum::Add);
        }
        assert_eq!(y, want, "{cpu:?} in two runs");
        for height in [1, 2, 3, 5, 13, 14, 15, 97, 300] {
            let mut y = start.clone();
            for first in (0..m).step_by(height) {
                let here = height.min(m - first);
                let x = Lhs::<f32>::pack(cpu, x.subrows(first, here), 0.5);
                for panel in 0..w.n_panels() {
                    let y = rows_mut(&mut y, m, n).subrows_mut(first, here);
                    let y = y.subcols_mut(panel * PANEL, PANEL.min(n - panel * PANEL));
                    multiply(&x, 0, w.panel(panel), y, Accum::Add);
                }
            }
            assert_eq!(y, want, "{cpu:?} in groups of {height}");
        }
    }
}

#[test]
fn dense_products_give_the_same_bits_in_parts() {
    let mut rng = StdRng::seed_from_u64(8);
    let (m, k, n) = (270, 600, 130);
    let (a, b) = (values(m * k, &mut rng), values(n * k, &mut rng));
    for cpu in Cpu::all() {
        for (lhs, rhs) in [
            (MatRef::from_row_major_slice(&a, m, k), MatRef::from_row_major_slice(&b, k, n)),
            (MatRef::from_column_major_slice(&a, m, k), MatRef::from_column_major_slice(&b, k, n)),
        ] {
            let mut want = vec![0f32; m * n];
            gemm(cpu, rows_mut(&mut want, m, n), Accum::Replace, lhs, rhs, 1.0);
            for (height, width) in [(1, 130), (7, 50), (135, 17), (270, 64)] {
                let mut y = vec![0f32; m * n];
                for i in (0..m).step_by(height) {
                    for j in (0..n).step_by(width) {
                        let (height, width) = (height.min(m - i), width.min(n - j));
                        let y = rows_mut(&mut y, m, n).submatrix_mut(i, j, height, width);
                        gemm(cpu, y, Accum::Replace, lhs.subrows(i, height), rhs.subcols(j, width), 1.0);
                    }
                }
                assert_eq!(y, want, "{cpu:?} in parts of {height}x{width}");
            }
        }
    }
}

#[test]
fn packing_does_not_depend_on_the_layout_and_pads_with_zeros() {
    let mut rng = StdRng::seed_from_u64(9);
    for cpu in Cpu::all() {
        for (n, k) in [(1, 1), (5, 40), (16, 16), (17, 100), (31, 3), (32, 33)] {
            let data = values(2 * (n + 5) * (k + 5) + 1, &mut rng);
            for rows in layouts(&data, n, k) {
                let mut panel = vec![<f32 as Element>::ZERO; k];
                panel.iter_mut().for_each(|step| step.0.fill(f32::NAN));
                pack_panel::<f32>(cpu, rows, &mut panel);
                for (depth, step) in panel.iter().enumerate() {
                    for (j, &value) in step.0.iter().enumerate() {
                        assert_eq!(value, if j < n { rows[(j, depth)] } else { 0.0 }, "{cpu:?} {n}x{k}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_packed_matrix_gives_its_rows_back() {
    let mut rng = StdRng::seed_from_u64(10);
    let (n, k) = (70, 37);
    let w = values(n * k, &mut rng);
    let packed = packed(Cpu::current(), &w, n, k);
    for i in 0..n {
        let mut row = vec![0f32; k - 3];
        packed.row(i, 3, &mut row);
        assert_eq!(row, w[i * k + 3..][..k - 3]);
        assert_eq!(packed.at(i, k - 1), w[i * k + k - 1]);
    }
}
