//! Products of bf16 on processors without instructions for it: half the bytes of f32 are read, widened in registers, and multiplied and
//! added in f32. The product of two bf16 is exact in f32, so only the sums are rounded.
#![allow(unsafe_code)]

use super::bf16::{DEPTH, read};
use super::vector::Vector;
use crate::element::{Block, Element, Kernel, PANEL};
use core::arch::x86_64::*;
use faer::MatRef;
use half::bf16;

type Step = <bf16 as Element>::Step;

pub(super) fn avx2() -> Kernel<bf16> {
    Kernel {
        max_rows: 4,
        max_steps: 512,
        pack_rows: pack_rows_avx2,
        pack_panel: pack_panel_avx2,
        turn: turn_avx2,
        block: block_avx2,
    }
}

pub(super) fn avx512() -> Kernel<bf16> {
    Kernel {
        max_rows: 12,
        max_steps: 512,
        pack_rows: pack_rows_avx512,
        pack_panel: pack_panel_avx512,
        turn: super::dot::turn,
        block: block_avx512,
    }
}

/// What pairs of bf16 need of a register of f32. Its functions may be called where the processor has the register's instructions.
trait Pairs: Vector {
    /// The first and the second elements of as many pairs as the register has lanes.
    unsafe fn pairs(from: *const bf16) -> [Self; 2];

    /// The first and the second element of one pair, in every lane.
    unsafe fn pair(from: *const bf16) -> [Self; 2];
}

impl Pairs for __m512 {
    #[inline(always)]
    unsafe fn pairs(from: *const bf16) -> [Self; 2] {
        // SAFETY: the caller has AVX-512 and 16 pairs at the address.
        unsafe { split512(_mm512_loadu_si512(from.cast())) }
    }

    #[inline(always)]
    unsafe fn pair(from: *const bf16) -> [Self; 2] {
        // SAFETY: the caller has AVX-512 and a pair at the address.
        unsafe { split512(_mm512_set1_epi32(from.cast::<i32>().read_unaligned())) }
    }
}

#[inline(always)]
unsafe fn split512(pairs: __m512i) -> [__m512; 2] {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
        [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(second)]
    }
}

impl Pairs for __m256 {
    #[inline(always)]
    unsafe fn pairs(from: *const bf16) -> [Self; 2] {
        // SAFETY: the caller has AVX2 and 8 pairs at the address.
        unsafe { split256(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn pair(from: *const bf16) -> [Self; 2] {
        // SAFETY: the caller has AVX2 and a pair at the address.
        unsafe { split256(_mm256_set1_epi32(from.cast::<i32>().read_unaligned())) }
    }
}

#[inline(always)]
unsafe fn split256(pairs: __m256i) -> [__m256; 2] {
    // SAFETY: the caller has AVX2.
    unsafe {
        let second = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32));
        [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(second)]
    }
}

/// `M` rows times `C` registers of columns at a time. A sum goes on from what is in the result, so that its bits depend neither on `M` nor
/// on where the depth is cut.
///
/// # Safety
/// The processor has the instructions of `V`, and `M` rows of `n` columns lie at `c`, which nobody else reads or writes.
#[inline(always)]
unsafe fn rows<V: Pairs, const M: usize, const C: usize>(block: Block<'_, bf16>) {
    let Block { n, a, b, c, c_stride, accumulate, .. } = block;
    assert_eq!(a.len(), 2 * M * b.len(), "a pair of every row for every step");
    for first in (0..n).step_by(C * V::LANES) {
        // SAFETY: `M` pairs of `a` belong to each step of `b`, a step has `PANEL` pairs, and the masks keep to the `n` columns of the
        // `M` rows.
        unsafe {
            let at = |i: usize, j: usize| c.offset(i as isize * c_stride).wrapping_add(first + j * V::LANES);
            let mask = |j: usize| V::mask(n.saturating_sub(first + j * V::LANES));
            let mut sums = [[V::splat(0.0); C]; M];
            if accumulate {
                for (i, sums) in sums.iter_mut().enumerate() {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = V::load_masked(at(i, j), mask(j));
                    }
                }
            }
            let mut a = a.as_ptr();
            for step in b {
                let step = step.0.as_ptr().add(2 * first);
                let mut columns = [[V::splat(0.0); 2]; C];
                for (j, columns) in columns.iter_mut().enumerate() {
                    *columns = V::pairs(step.add(2 * j * V::LANES));
                }
                for sums in &mut sums {
                    let pair = V::pair(a);
                    for (sum, columns) in sums.iter_mut().zip(columns) {
                        *sum = pair[0].mul_add(columns[0], *sum);
                        *sum = pair[1].mul_add(columns[1], *sum);
                    }
                    a = a.add(2);
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                for (j, sum) in sums.iter().enumerate() {
                    sum.store_masked(at(i, j), mask(j));
                }
            }
        }
    }
}

/// # Safety
/// As [`rows`] with the rows of the block.
#[target_feature(enable = "avx2,fma")]
unsafe fn block_avx2(block: Block<'_, bf16>) {
    // SAFETY: as the caller says.
    unsafe {
        match block.m {
            1 => rows::<__m256, 1, 4>(block),
            2 => rows::<__m256, 2, 2>(block),
            3 => rows::<__m256, 3, 2>(block),
            4 => rows::<__m256, 4, 2>(block),
            m => unreachable!("a block of {m} rows"),
        }
    }
}

/// # Safety
/// As [`rows`] with the rows of the block.
#[target_feature(enable = "avx512f")]
unsafe fn block_avx512(block: Block<'_, bf16>) {
    // SAFETY: as the caller says.
    unsafe {
        match block.m {
            1 => rows::<__m512, 1, 2>(block),
            2 => rows::<__m512, 2, 2>(block),
            3 => rows::<__m512, 3, 2>(block),
            4 => rows::<__m512, 4, 2>(block),
            5 => rows::<__m512, 5, 2>(block),
            6 => rows::<__m512, 6, 2>(block),
            7 => rows::<__m512, 7, 2>(block),
            8 => rows::<__m512, 8, 2>(block),
            9 => rows::<__m512, 9, 2>(block),
            10 => rows::<__m512, 10, 2>(block),
            11 => rows::<__m512, 11, 2>(block),
            12 => rows::<__m512, 12, 2>(block),
            m => unreachable!("a block of {m} rows"),
        }
    }
}

/// The pairs of [`DEPTH`] values. Plain arithmetic, which the compiler makes vector instructions of.
#[inline(always)]
fn pairs(x: &[f32; DEPTH], alpha: f32) -> [[bf16; 2]; DEPTH / 2] {
    std::array::from_fn(|i| [bf16::round(alpha * x[2 * i]), bf16::round(alpha * x[2 * i + 1])])
}

/// Of each step all rows, one after the other: `(steps, m)` pairs.
#[inline(always)]
fn pack_rows(x: MatRef<'_, f32>, alpha: f32, out: &mut [bf16]) {
    let m = x.nrows();
    for (tile, out) in out.chunks_exact_mut(m * DEPTH).enumerate() {
        for i in 0..m {
            let pairs = pairs(&read(x, i, tile * DEPTH), alpha);
            for (pair, out) in pairs.iter().zip(out.chunks_exact_mut(2 * m)) {
                out[2 * i..][..2].copy_from_slice(pair);
            }
        }
    }
}

#[inline(always)]
fn pack_panel(rows: MatRef<'_, f32>, out: &mut [Step]) {
    for (tile, out) in out.chunks_exact_mut(DEPTH / 2).enumerate() {
        for j in 0..PANEL {
            let x = if j < rows.nrows() { read(rows, j, tile * DEPTH) } else { [0.0; DEPTH] };
            for (pair, out) in pairs(&x, 1.0).iter().zip(&mut *out) {
                out.0[2 * j..][..2].copy_from_slice(pair);
            }
        }
    }
}

/// # Safety
/// The processor has AVX2.
#[target_feature(enable = "avx2,fma")]
fn pack_rows_avx2(x: MatRef<'_, f32>, alpha: f32, out: &mut [bf16]) {
    pack_rows(x, alpha, out);
}

/// # Safety
/// The processor has AVX2.
#[target_feature(enable = "avx2,fma")]
fn pack_panel_avx2(rows: MatRef<'_, f32>, out: &mut [Step]) {
    pack_panel(rows, out);
}

/// Two pairs of step `p`, of the columns `2s` and `2s + 1`, become two pairs of step `s`, of the columns `2p` and `2p + 1`.
///
/// # Safety
/// The processor has AVX2.
#[target_feature(enable = "avx2,fma")]
fn turn_avx2(from: &[Step], to: &mut [Step]) {
    for (s, to) in to.iter_mut().enumerate() {
        for (from, to) in from.iter().zip(to.0.chunks_exact_mut(4)) {
            let from = &from.0[4 * s..][..4];
            to.copy_from_slice(&[from[0], from[2], from[1], from[3]]);
        }
    }
}

/// # Safety
/// The processor has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn pack_rows_avx512(x: MatRef<'_, f32>, alpha: f32, out: &mut [bf16]) {
    pack_rows(x, alpha, out);
}

/// # Safety
/// The processor has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn pack_panel_avx512(rows: MatRef<'_, f32>, out: &mut [Step]) {
    pack_panel(rows, out);
}
