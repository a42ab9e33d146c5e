//! Stored rows at every level that this processor has, against sums in f64 of the decoded elements.

use fwd_simd::{Cpu, Format, Rounded, decode, products, rounded_products};
use half::{bf16, f16};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn activations(n: usize, rng: &mut StdRng) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

/// Random rows: any codes, and scales of either sign near 0.01, some of them 0 or subnormal.
fn stored(format: Format, n_rows: usize, n_cols: usize, rng: &mut StdRng) -> Vec<u8> {
    let n = n_rows * n_cols;
    let values = activations(n, rng).into_iter();
    match format {
        Format::F32 => return values.flat_map(f32::to_le_bytes).collect(),
        Format::Bf16 => return values.flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect(),
        Format::F16 => return values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
        _ => {}
    }
    let mut bytes: Vec<u8> = (0..format.row_bytes(n)).map(|_| rng.random()).collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for &at in format.scale_places() {
            let scale = match rng.random_range(0..8) {
                0 => f16::from_f32(0.0),
                1 => f16::from_bits(rng.random_range(1..0x400)),
                _ => f16::from_f32(rng.random_range(-0.02..0.02)),
            };
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    bytes
}

fn decoded(cpu: Cpu, format: Format, rows: &[u8], n_cols: usize) -> Vec<f32> {
    let decode_row = |row| {
        let mut out = vec![f32::NAN; n_cols];
        decode(cpu, format, row, 0, &mut out);
        out
    };
    rows.chunks_exact(format.row_bytes(n_cols)).flat_map(decode_row).collect()
}

/// The largest magnitude that the offset of an element can have, for every element.
fn offsets(format: Format, rows: &[u8]) -> Vec<f64> {
    let largest = match format {
        Format::Q4_1 | Format::Q5_1 => 1.0,
        Format::Q4K | Format::Q5K => 63.0,
        _ => return vec![0.0; rows.len() / format.block_bytes() * format.block_len()],
    };
    let of = |block: &[u8]| {
        let minimum = f64::from(f16::from_le_bytes([block[2], block[3]])).abs();
        vec![largest * minimum; format.block_len()]
    };
    rows.chunks_exact(format.block_bytes()).flat_map(of).collect()
}

/// Widths that end within a group where a format allows it.
fn widths(format: Format) -> Vec<usize> {
    match format.block_len() {
        1 => vec![1, 31, 32, 45, 320],
        n => vec![n, 3 * n, 4 * n, 2 * n, n],
    }
}

/// `|error| ≤ eps·(n + 8)·Σ(|w| + 2·|offset|)·|x|`: an element is split into `scale·q`, at most `|w| + |offset|`, and its offset; every
/// product and every partial sum is rounded once, and so are scales and their products.
fn check(got: f32, w: &[f32], offsets: &[f64], x: &[f32], what: &str) {
    let (mut want, mut size) = (0.0, 0.0);
    for ((&w, &offset), &x) in w.iter().zip(offsets).zip(x) {
        want += f64::from(w) * f64::from(x);
        size += (f64::from(w).abs() + 2.0 * offset) * f64::from(x).abs();
    }
    let bound = f64::from(f32::EPSILON) * (w.len() as f64 + 8.0) * size + f64::from(f32::MIN_POSITIVE);
    assert!((f64::from(got) - want).abs() <= bound, "{what}: {got} instead of {want}, bound {bound:e}");
}

#[test]
fn every_level_decodes_the_same_bits_from_any_group_on() {
    let mut rng = StdRng::seed_from_u64(1);
    for format in Format::ALL {
        for n_cols in widths(format) {
            let rows = stored(format, 3, n_cols, &mut rng);
            let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let levels: Vec<_> = Cpu::all().collect();
            let want = decoded(levels[0], format, &rows, n_cols);
            for &cpu in &levels {
                assert_eq!(bits(&decoded(cpu, format, &rows, n_cols)), bits(&want), "{format} {cpu:?}");
                for from in (0..n_cols).step_by(32) {
                    let mut out = vec![f32::NAN; (n_cols - from).min(64)];
                    decode(cpu, format, &rows[..format.row_bytes(n_cols)], from, &mut out);
                    assert_eq!(bits(&out), bits(&want[from..][..out.len()]), "{format} {cpu:?} from {from}");
                }
            }
        }
    }
}

#[test]
fn products_agree_with_f64_at_every_level() {
    let mut rng = StdRng::seed_from_u64(2);
    for format in Format::ALL {
        for (n_cols, n_rows) in widths(format).into_iter().zip([1, 2, 5, 64, 65]) {
            let rows = stored(format, n_rows, n_cols, &mut rng);
            let offsets = offsets(format, &rows);
            for m in [0, 1, 2, 3, 4, 7, 8] {
                let x = activations(m * n_cols, &mut rng);
                for cpu in Cpu::all() {
                    let what = format!("{format} {cpu:?} {n_rows}x{n_cols}, {m} rows");
                    let w = decoded(cpu, format, &rows, n_cols);
                    let check_all = |y: &[f32], x: &[f32], what: &str| {
                        for (at, &y) in y.iter().enumerate() {
                            let (row, i) = (at / m, at % m);
                            let (from, to) = (row * n_cols, (row + 1) * n_cols);
                            check(y, &w[from..to], &offsets[from..to], &x[i * n_cols..][..n_cols], what);
                        }
                    };
                    let mut y = vec![f32::NAN; n_rows * m];
                    products(cpu, format, &rows, &x, n_cols, &mut y);
                    check_all(&y, &x, &what);
                    if format.block_len() > 1 {
                        let rounded = Rounded::new(&x, n_cols);
                        let mut y = vec![f32::NAN; n_rows * m];
                        rounded_products(cpu, format, &rows, &rounded, &mut y);
                        check_all(&y, &rounded.values(), &format!("{what} in 8 bits"));
                    }
                }
            }
        }
    }
}

/// Rounding to the nearest multiple of `max/127` in f32: the quotient is off by at most 2⁻¹⁵ of a step.
#[test]
fn activations_are_off_by_half_a_step() {
    let mut rng = StdRng::seed_from_u64(3);
    for magnitude in [1.0, 3e38, 1e-30, 2f32.powi(-121), 1e-42, 0.0] {
        let x: Vec<f32> = activations(320, &mut rng).into_iter().map(|v| v * magnitude).collect();
        for (x, rounded) in x.chunks(32).zip(Rounded::new(&x, 320).values().chunks(32)) {
            let step = f64::from(x.iter().fold(0f32, |m, v| m.max(v.abs()))) / 127.0;
            let bound = step * (0.5 + 2f64.powi(-15)) + 2f64.powi(-120);
            for (&x, &r) in x.iter().zip(rounded) {
                assert!((f64::from(x) - f64::from(r)).abs() <= bound, "{x} became {r}, the step is {step:e}");
            }
        }
    }
}

/// Every code at the end of its range against activations at the end of theirs: sums of products must not saturate.
#[test]
fn the_largest_codes_and_activations_do_not_overflow() {
    for format in Format::ALL.into_iter().filter(|format| format.block_len() > 1) {
        let n_cols = format.block_len() * 2;
        for code in [0x00, 0x7f, 0x80, 0xff] {
            let mut row = vec![code; format.row_bytes(n_cols)];
            for block in row.chunks_exact_mut(format.block_bytes()) {
                for &at in format.scale_places() {
                    block[at..at + 2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
                }
            }
            let offsets = offsets(format, &row);
            for sign in [1.0f32, -1.0] {
                let x = Rounded::new(&vec![sign; n_cols], n_cols);
                for cpu in Cpu::all() {
                    let w = decoded(cpu, format, &row, n_cols);
                    let mut y = [f32::NAN];
                    rounded_products(cpu, format, &row, &x, &mut y);
                    check(y[0], &w, &offsets, &x.values(), &format!("{format} {cpu:?} code {code:#x}"));
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_is_not_hidden_and_zeros_give_zero() {
    let mut rng = StdRng::seed_from_u64(4);
    for format in Format::ALL {
        let n_cols = 256;
        let rows = stored(format, 3, n_cols, &mut rng);
        for cpu in Cpu::all() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0] {
                let mut x = activations(3 * n_cols, &mut rng);
                x[n_cols + 77] = bad;
                x[2 * n_cols..].fill(0.0);
                let mut all = vec![vec![f32::INFINITY; 9]; 2];
                products(cpu, format, &rows, &x, n_cols, &mut all[0]);
                if format.block_len() > 1 {
                    rounded_products(cpu, format, &rows, &Rounded::new(&x, n_cols), &mut all[1]);
                } else {
                    all.pop();
                }
                for (y, kind) in all.iter().zip(["f32", "8 bits"]) {
                    for (at, &y) in y.iter().enumerate() {
                        let what = format!("{format} {cpu:?} {kind}: {y}");
                        match at % 3 {
                            1 => assert_eq!(y.is_finite(), bad == 0.0, "{what}"),
                            2 => assert_eq!(y, 0.0, "{what}"),
                            _ => assert!(y.is_finite(), "{what}"),
                        }
                        assert!(at % 3 != 1 || !bad.is_nan() || y.is_nan(), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "not for bf16")]
fn products_in_8_bits_are_for_blocks() {
    rounded_products(Cpu::best(), Format::Bf16, &[0; 64], &Rounded::new(&[0.0; 32], 32), &mut [0.0]);
}
