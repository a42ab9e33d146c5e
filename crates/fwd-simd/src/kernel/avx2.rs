//! f32 in AVX2: 6 rows × 2 registers are 12 of the 16 registers.
#![allow(unsafe_code)]

use super::f32::level;
use super::vector::Vector;
use std::arch::x86_64::*;

level! {
    __m256, "avx2,fma";
    packed [1 2 3 4 5 6 7 8 9 10 11 12] [1 2 3 4 5 6] [1 2 3] [1 2 3];
    along [1 2 3 4 5 6 7 8] [1 2 3 4 5 6] [1 2 3] [1 2 3];
}

impl Vector for __m256 {
    const LANES: usize = 8;
    type Mask = __m256i;

    #[inline(always)]
    unsafe fn mask(n: usize) -> __m256i {
        // SAFETY: the function is inlined where AVX2 is enabled; so are those below.
        unsafe {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            _mm256_cmpgt_epi32(_mm256_set1_epi32(n.min(8) as i32), lanes)
        }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: as in `mask`.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller says that 8 elements can be read.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: __m256i) -> Self {
        // SAFETY: the caller says that the elements of the mask can be read; the instruction touches no others.
        unsafe { _mm256_maskload_ps(from, mask) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller says that 8 elements can be written.
        unsafe { _mm256_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: __m256i) {
        // SAFETY: the caller says that the elements of the mask can be written; the instruction touches no others.
        unsafe { _mm256_maskstore_ps(to, mask, self) }
    }

    #[inline(always)]
    unsafe fn mul(self, by: Self) -> Self {
        // SAFETY: as in `mask`.
        unsafe { _mm256_mul_ps(self, by) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, by: Self, to: Self) -> Self {
        // SAFETY: as in `mask`; FMA is enabled there as well.
        unsafe { _mm256_fmadd_ps(self, by, to) }
    }

    /// Pairs of rows, then pairs of pairs give 4×4 squares in order; then the halves change places.
    #[inline(always)]
    unsafe fn transpose(rows: impl Fn(usize) -> Self, mut column: impl FnMut(usize, Self)) {
        // SAFETY: as in `mask`.
        unsafe {
            let mut quads = [[_mm256_setzero_ps(); 4]; 2];
            for (i, quad) in quads.iter_mut().enumerate() {
                let [r0, r1, r2, r3] = [rows(4 * i), rows(4 * i + 1), rows(4 * i + 2), rows(4 * i + 3)];
                let (low01, high01) = (_mm256_unpacklo_ps(r0, r1), _mm256_unpackhi_ps(r0, r1));
                let (low23, high23) = (_mm256_unpacklo_ps(r2, r3), _mm256_unpackhi_ps(r2, r3));
                // Half `h` of entry `c` is column `4·h + c` of these four rows.
                *quad = [
                    _mm256_shuffle_ps::<0x44>(low01, low23),
                    _mm256_shuffle_ps::<0xee>(low01, low23),
                    _mm256_shuffle_ps::<0x44>(high01, high23),
                    _mm256_shuffle_ps::<0xee>(high01, high23),
                ];
            }
            #[allow(clippy::needless_range_loop)] // A column of four rows of registers.
            for c in 0..4 {
                column(c, _mm256_permute2f128_ps::<0x20>(quads[0][c], quads[1][c]));
                column(4 + c, _mm256_permute2f128_ps::<0x31>(quads[0][c], quads[1][c]));
            }
        }
    }
}
