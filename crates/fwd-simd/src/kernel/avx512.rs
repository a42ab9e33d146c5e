//! f32 in AVX-512: 14 rows × 2 registers of a panel are 28 of the 32 registers.
#![allow(unsafe_code)]

use super::f32::level;
use super::vector::Vector;
use std::arch::x86_64::*;

level! {
    __m512, "avx512f";
    packed [1 2 3 4 5 6 7 8 9 10 11 12 13 14] [1 2 3 4 5 6 7 8 9 10 11 12 13 14] [1 2 3 4 5 6 7 8] [1 2 3 4 5 6];
    along [1 2 3 4 5 6 7 8] [1 2 3 4 5 6 7 8] [1 2 3 4 5 6 7 8] [1 2 3 4 5 6];
}

impl Vector for __m512 {
    const LANES: usize = 16;
    type Mask = __mmask16;

    #[inline(always)]
    unsafe fn mask(n: usize) -> __mmask16 {
        if n >= 16 { !0 } else { (1 << n) - 1 }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the function is inlined where AVX-512 is enabled; so are those below.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller says that 16 elements can be read.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: __mmask16) -> Self {
        // SAFETY: the caller says that the elements of the mask can be read; the instruction touches no others.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller says that 16 elements can be written.
        unsafe { _mm512_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: __mmask16) {
        // SAFETY: the caller says that the elements of the mask can be written; the instruction touches no others.
        unsafe { _mm512_mask_storeu_ps(to, mask, self) }
    }

    #[inline(always)]
    unsafe fn mul(self, by: Self) -> Self {
        // SAFETY: as in `splat`.
        unsafe { _mm512_mul_ps(self, by) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, by: Self, to: Self) -> Self {
        // SAFETY: as in `splat`.
        unsafe { _mm512_fmadd_ps(self, by, to) }
    }

    /// Pairs of rows, then pairs of pairs give 4×4 squares in order; then the 128-bit quarters change places.
    #[inline(always)]
    unsafe fn transpose(rows: impl Fn(usize) -> Self, mut column: impl FnMut(usize, Self)) {
        // SAFETY: as in `splat`.
        unsafe {
            let mut quads = [[_mm512_setzero_ps(); 4]; 4];
            for (i, quad) in quads.iter_mut().enumerate() {
                let [r0, r1, r2, r3] = [rows(4 * i), rows(4 * i + 1), rows(4 * i + 2), rows(4 * i + 3)];
                let (low01, high01) = (_mm512_unpacklo_ps(r0, r1), _mm512_unpackhi_ps(r0, r1));
                let (low23, high23) = (_mm512_unpacklo_ps(r2, r3), _mm512_unpackhi_ps(r2, r3));
                // Quarter `q` of entry `c` is column `4·q + c` of these four rows.
                *quad = [
                    _mm512_shuffle_ps::<0x44>(low01, low23),
                    _mm512_shuffle_ps::<0xee>(low01, low23),
                    _mm512_shuffle_ps::<0x44>(high01, high23),
                    _mm512_shuffle_ps::<0xee>(high01, high23),
                ];
            }
            #[allow(clippy::needless_range_loop)] // A column of four rows of registers.
            for c in 0..4 {
                let [a, b, d, e] = [quads[0][c], quads[1][c], quads[2][c], quads[3][c]];
                let (ab_even, ab_odd) =
                    (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
                let (de_even, de_odd) =
                    (_mm512_shuffle_f32x4::<0x88>(d, e), _mm512_shuffle_f32x4::<0xdd>(d, e));
                column(c, _mm512_shuffle_f32x4::<0x88>(ab_even, de_even));
                column(4 + c, _mm512_shuffle_f32x4::<0x88>(ab_odd, de_odd));
                column(8 + c, _mm512_shuffle_f32x4::<0xdd>(ab_even, de_even));
                column(12 + c, _mm512_shuffle_f32x4::<0xdd>(ab_odd, de_odd));
            }
        }
    }
}
