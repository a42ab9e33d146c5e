//! Products of bf16 by `vdpbf16ps` (AVX-512 BF16): `c += a₁·b₁`, then `c += a₀·b₀`, for a pair of bf16 in each of 16 lanes.
//!
//! Each of the two is a fused multiply-add that is rounded to nearest; subnormal factors and results count as zeros (Intel 64 and IA-32
//! Architectures Software Developer's Manual, volume 2, VDPBF16PS). A sum over a depth of `k` is therefore off by at most
//! `k·ε/2·Σ|a·b|` in first order, ε = 2⁻²³, and by `2⁻¹²⁶·Σ(|a| + |b| + 1)` for what was taken as zero.
//!
//! Rounding to bf16 (`vcvtne2ps2bf16`) is to nearest, ties to even. A NaN stays a NaN; a subnormal f32 becomes a zero of its sign, which
//! changes it by less than 2⁻¹²⁶.
#![allow(unsafe_code)]

use super::bf16::{DEPTH, read};
use super::vector::Vector;
use crate::element::{Block, Element, Kernel, PANEL};
use core::arch::x86_64::*;
use faer::MatRef;
use half::bf16;

type Step = <bf16 as Element>::Step;

/// Steps of a tile.
const TILE: usize = 16;

pub(super) fn kernel() -> Kernel<bf16> {
    Kernel { max_rows: 14, max_steps: 512, pack_rows, pack_panel, turn, block }
}

/// Up to [`DEPTH`] values of a row, from column `from`, as [`TILE`] pairs; zeros follow the last column.
#[target_feature(enable = "avx512f,avx512bf16")]
fn pairs(x: MatRef<'_, f32>, row: usize, from: usize, alpha: f32) -> __m512 {
    let whole: [f32; DEPTH];
    let address = if x.col_stride() == 1 && from + DEPTH <= x.ncols() {
        assert!(row < x.nrows());
        x.as_ptr().wrapping_offset(row as isize * x.row_stride() + from as isize)
    } else {
        whole = read(x, row, from);
        whole.as_ptr()
    };
    let alpha = _mm512_set1_ps(alpha);
    // SAFETY: 32 values lie side by side at the address, in the row or in the array. The types of pairs are 64 bytes without an invalid
    // pattern.
    unsafe {
        let (low, high) = (_mm512_loadu_ps(address), _mm512_loadu_ps(address.add(16)));
        let rounded = _mm512_cvtne2ps_pbh(_mm512_mul_ps(high, alpha), _mm512_mul_ps(low, alpha));
        std::mem::transmute::<__m512bh, __m512>(rounded)
    }
}

/// Of each step all rows, one after the other: `(steps, m)` pairs.
///
/// # Safety
/// The processor has AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
fn pack_rows(x: MatRef<'_, f32>, alpha: f32, out: &mut [bf16]) {
    let m = x.nrows();
    let mask = ((1u32 << m) - 1) as __mmask16;
    for (tile, out) in out.chunks_exact_mut(m * DEPTH).enumerate() {
        let mut rows = [_mm512_setzero_ps(); TILE];
        for (i, row) in rows[..m].iter_mut().enumerate() {
            *row = pairs(x, i, tile * DEPTH, alpha);
        }
        // SAFETY: the processor has AVX-512, and the mask writes `m` dwords, the rows of a step.
        unsafe {
            Vector::transpose(
                |i| rows[i],
                |step, rows| {
                    let out = out[2 * m * step..][..2 * m].as_mut_ptr();
                    _mm512_mask_storeu_ps(out.cast(), mask, rows);
                },
            );
        }
    }
}

/// The rows of a block as they are, rounded, `DEPTH` columns at a time: `(tiles, m, DEPTH)`, as tiles are loaded.
///
/// # Safety
/// The processor has AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn pack_tiles(x: MatRef<'_, f32>, alpha: f32, out: &mut [bf16]) {
    for (tile, out) in out.chunks_exact_mut(x.nrows() * DEPTH).enumerate() {
        for (i, out) in out.chunks_exact_mut(DEPTH).enumerate() {
            let row = pairs(x, i, tile * DEPTH, alpha);
            // SAFETY: the chunk has 64 bytes.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr().cast(), row) };
        }
    }
}

/// # Safety
/// The processor has AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn pack_panel(rows: MatRef<'_, f32>, out: &mut [Step]) {
    if rows.nrows() == PANEL && rows.row_stride() == 1 {
        return pack_columns(rows, out);
    }
    for (tile, out) in out.chunks_exact_mut(TILE).enumerate() {
        for (half, first) in [0, PANEL / 2].into_iter().enumerate() {
            let mut pairs_of_rows = [_mm512_setzero_ps(); TILE];
            for (row, i) in pairs_of_rows.iter_mut().zip(first..rows.nrows()) {
                *row = pairs(rows, i, tile * DEPTH, 1.0);
            }
            // SAFETY: the processor has AVX-512, and half a step has 64 bytes.
            unsafe {
                Vector::transpose(
                    |i| pairs_of_rows[i],
                    |step, rows| {
                        let out = out[step].0[half * DEPTH..][..DEPTH].as_mut_ptr();
                        _mm512_storeu_ps(out.cast(), rows);
                    },
                );
            }
        }
    }
}

/// [`pack_panel`] of whole panels whose columns lie in memory as they are: two of them make a step.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pack_columns(rows: MatRef<'_, f32>, out: &mut [Step]) {
    let interleave: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
    // SAFETY: the array has 64 bytes.
    let interleave = unsafe { _mm512_loadu_si512(interleave.as_ptr().cast()) };
    let column = |depth: usize, half: usize| {
        if depth >= rows.ncols() {
            return _mm512_setzero_ps();
        }
        let address = rows.as_ptr().wrapping_offset(depth as isize * rows.col_stride() + 16 * half as isize);
        // SAFETY: a column holds 32 values side by side.
        unsafe { _mm512_loadu_ps(address) }
    };
    for (step, out) in out.iter_mut().enumerate() {
        for (half, out) in out.0.chunks_exact_mut(DEPTH).enumerate() {
            let both = _mm512_cvtne2ps_pbh(column(2 * step + 1, half), column(2 * step, half));
            // SAFETY: both types are 64 bytes without an invalid pattern, and half a step has as many.
            unsafe {
                let both = std::mem::transmute::<__m512bh, __m512i>(both);
                _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_permutexvar_epi16(interleave, both));
            }
        }
    }
}

/// Turns a square of 4 times 4 quarters of a register.
#[target_feature(enable = "avx512f")]
fn turn_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (even, odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
    let (even2, odd2) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
    [
        _mm512_shuffle_i32x4::<0x88>(even, even2),
        _mm512_shuffle_i32x4::<0x88>(odd, odd2),
        _mm512_shuffle_i32x4::<0xdd>(even, even2),
        _mm512_shuffle_i32x4::<0xdd>(odd, odd2),
    ]
}

/// Turns a square: two pairs of step `p`, of the columns `2s` and `2s + 1`, are two pairs of step `s`, of the columns `2p` and `2p + 1`,
/// with the words in the middle exchanged. The square of 16 × 16 such qwords is turned in four quarters of 8 × 8.
///
/// # Safety
/// The processor has AVX-512.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn turn(from: &[Step], to: &mut [Step]) {
    assert!(from.len() == TILE && to.len() == TILE, "a whole square");
    for (half_step, half_col) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut pairs = [_mm512_setzero_si512(); 8];
        for i in (0..8).step_by(2) {
            let from = &from[half_step * 8 + i..][..2];
            // SAFETY: half a step has 64 bytes.
            let [a, b] = [0, 1].map(|j: usize| unsafe {
                _mm512_loadu_si512(from[j].0[half_col * DEPTH..][..DEPTH].as_ptr().cast())
            });
            pairs[i] = _mm512_unpacklo_epi64(a, b);
            pairs[i + 1] = _mm512_unpackhi_epi64(a, b);
        }
        for i in 0..2 {
            let turned = turn_quarters([pairs[i], pairs[2 + i], pairs[4 + i], pairs[6 + i]]);
            for (j, qwords) in turned.into_iter().enumerate() {
                let qwords = _mm512_shufflehi_epi16::<0xd8>(_mm512_shufflelo_epi16::<0xd8>(qwords));
                let to = &mut to[half_col * 8 + 2 * j + i].0[half_step * DEPTH..][..DEPTH];
                // SAFETY: half a step has 64 bytes.
                unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), qwords) };
            }
        }
    }
}

/// # Safety
/// The processor has AVX-512 BF16, and `m` rows of `n` columns lie at `c`, which nobody else reads or writes.
unsafe fn block(block: Block<'_, bf16>) {
    // SAFETY: as the caller says.
    unsafe {
        match block.m {
            1 => rows::<1>(block),
            2 => rows::<2>(block),
            3 => rows::<3>(block),
            4 => rows::<4>(block),
            5 => rows::<5>(block),
            6 => rows::<6>(block),
            7 => rows::<7>(block),
            8 => rows::<8>(block),
            9 => rows::<9>(block),
            10 => rows::<10>(block),
            11 => rows::<11>(block),
            12 => rows::<12>(block),
            13 => rows::<13>(block),
            14 => rows::<14>(block),
            m => unreachable!("a block of {m} rows"),
        }
    }
}

/// `M` rows. A sum goes on from what is in the result, so that its bits depend neither on `M` nor on where the depth is cut.
///
/// # Safety
/// As [`block`] with `m = M`.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows<const M: usize>(block: Block<'_, bf16>) {
    let Block { n, a, b, c, c_stride, accumulate, .. } = block;
    assert_eq!(a.len(), 2 * M * b.len(), "a pair of every row for every step");
    let masks = [0, 16].map(|first: usize| ((1u32 << n.saturating_sub(first).min(16)) - 1) as __mmask16);
    let mut sums = [[_mm512_setzero_ps(); 2]; M];
    // SAFETY: there are `M` rows, of which the masks keep to `n` columns; `M` pairs of `a` belong to each step of `b`, which has 32.
    unsafe {
        let half_row = |i: usize, half: usize| c.offset(i as isize * c_stride).wrapping_add(16 * half);
        if accumulate {
            for (i, sums) in sums.iter_mut().enumerate() {
                sums[0] = _mm512_maskz_loadu_ps(masks[0], half_row(i, 0));
                sums[1] = _mm512_maskz_loadu_ps(masks[1], half_row(i, 1));
            }
        }
        let mut a = a.as_ptr().cast::<i32>();
        for step in b {
            let b = step.0.as_ptr().cast::<__m512i>();
            let columns = [bh(_mm512_load_si512(b)), bh(_mm512_load_si512(b.add(1)))];
            for sums in &mut sums {
                let pair = bh(_mm512_set1_epi32(a.read_unaligned()));
                sums[0] = _mm512_dpbf16_ps(sums[0], pair, columns[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], pair, columns[1]);
                a = a.add(1);
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            _mm512_mask_storeu_ps(half_row(i, 0), masks[0], sums[0]);
            _mm512_mask_storeu_ps(half_row(i, 1), masks[1], sums[1]);
        }
    }
}

#[inline(always)]
fn bh(pairs: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes without an invalid pattern.
    unsafe { std::mem::transmute(pairs) }
}
