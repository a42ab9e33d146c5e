//! AVX2, AVX-512, and AVX-512 with dot products of bytes (VNNI).
//!
//! Bytes are unpacked in 256-bit registers at all of these levels: 32 codes fill one.
#![allow(clippy::needless_range_loop)] // Counted loops over arrays become vector instructions.
#![allow(unsafe_code)]

use super::super::GROUP;
use super::super::rounded::Group;
use super::traits::{Codes, Floats, FloatsWork, Int8, Int8Work};
use crate::level::{Cpu, Level};
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// The instructions of a level. Only the functions below make one, where the processor has these instructions.
#[derive(Clone, Copy)]
struct X86<L>(PhantomData<L>);

/// AVX2, FMA and F16C.
#[derive(Clone, Copy)]
enum Avx2 {}
/// AVX-512 F, BW, CD, DQ and VL besides.
#[derive(Clone, Copy)]
enum Avx512 {}
/// Dot products of bytes besides.
#[derive(Clone, Copy)]
enum Vnni {}

/// Every processor with AVX2 has it, but it has a bit of its own.
pub(super) fn has_f16c() -> bool {
    is_x86_feature_detected!("f16c")
}

pub(super) fn has_vnni() -> bool {
    is_x86_feature_detected!("avx512vnni")
}

/// `run_x(cpu, work)`, which checks the processor, and the same compiled for it.
macro_rules! run {
    ($run:ident, $compiled:ident, $work:ident, $marker:ty, $features:literal, $level:expr, $extension:expr) => {
        pub(super) fn $run(cpu: Cpu, work: impl $work) {
            #[target_feature(enable = $features)]
            fn $compiled(work: impl $work) {
                work.run(X86::<$marker>(PhantomData));
            }
            assert!(cpu.level() >= $level && has_f16c() && $extension, "instructions that are missing");
            // SAFETY: a `Cpu` is made only for a level that the processor has, and the extensions beside it were just asked for.
            unsafe { $compiled(work) }
        }
    };
}

run!(run_avx2, avx2, FloatsWork, Avx2, "avx2,fma,f16c,bmi1,bmi2", Level::Avx2, true);
run!(run_int8_avx2, int8_avx2, Int8Work, Avx2, "avx2,fma,f16c,bmi1,bmi2", Level::Avx2, true);
run!(
    run_avx512,
    avx512,
    FloatsWork,
    Avx512,
    "avx2,fma,f16c,bmi1,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl",
    Level::Avx512,
    true
);
run!(
    run_int8_vnni,
    int8_vnni,
    Int8Work,
    Vnni,
    "avx2,fma,f16c,bmi1,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni",
    Level::Avx512,
    has_vnni()
);

// SAFETY of every block below: a value of `X86<L>` exists only where the processor has the instructions of `L` (and those of `Avx2`); what
// is loaded or stored lies within the array that is borrowed, and the instructions take any alignment.

impl<L: Copy> Codes for X86<L> {
    type Bytes = __m256i;

    #[inline(always)]
    fn load(self, bytes: &[u8; 32]) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn nibbles(self, bytes: &[u8; 16]) -> __m256i {
        // SAFETY: see above.
        unsafe {
            let low = _mm_loadu_si128(bytes.as_ptr().cast());
            _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(low), low), _mm256_set1_epi8(15))
        }
    }

    #[inline(always)]
    fn fifth_bits(self, bits: &[u8; 4]) -> __m256i {
        // SAFETY: see above.
        unsafe {
            let byte_of =
                _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
            let bit_of = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let spread = _mm256_shuffle_epi8(_mm256_set1_epi32(i32::from_le_bytes(*bits)), byte_of);
            let is_set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit_of), bit_of);
            _mm256_and_si256(is_set, _mm256_set1_epi8(16))
        }
    }

    #[inline(always)]
    fn field(self, bytes: __m256i, right: i32, mask: u8) -> __m256i {
        // SAFETY: see above.
        unsafe {
            let moved = if right < 0 {
                _mm256_sll_epi16(bytes, _mm_cvtsi32_si128(-right))
            } else {
                _mm256_srl_epi16(bytes, _mm_cvtsi32_si128(right))
            };
            _mm256_and_si256(moved, _mm256_set1_epi8(mask as i8))
        }
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_or_si256(a, b) }
    }

    #[inline(always)]
    fn add_128(self, bytes: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_xor_si256(bytes, _mm256_set1_epi8(i8::MIN)) }
    }

    #[inline(always)]
    fn f16(self, bytes: [u8; 2]) -> f32 {
        // SAFETY: see above.
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(u16::from_le_bytes(bytes))))) }
    }
}

impl Floats for X86<Avx512> {
    type Numbers = [__m512; 2];
    type Sums = __m512;

    #[inline(always)]
    fn integers(self, codes: __m256i, middle: u8) -> [__m512; 2] {
        // SAFETY: see above.
        unsafe {
            let q = _mm256_sub_epi8(codes, _mm256_set1_epi8(middle as i8));
            [_mm256_castsi256_si128(q), _mm256_extracti128_si256::<1>(q)]
                .map(|q| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)))
        }
    }

    #[inline(always)]
    fn f32s(self, bytes: &[u8; 4 * GROUP]) -> [__m512; 2] {
        // SAFETY: see above.
        unsafe { [0, 16].map(|i| _mm512_loadu_ps(bytes.as_ptr().cast::<f32>().add(i))) }
    }

    #[inline(always)]
    fn bf16s(self, bytes: &[u8; 2 * GROUP]) -> [__m512; 2] {
        // SAFETY: see above.
        unsafe {
            [0, 32].map(|at| {
                let half = _mm256_loadu_si256(bytes.as_ptr().add(at).cast());
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
            })
        }
    }

    #[inline(always)]
    fn f16s(self, bytes: &[u8; 2 * GROUP]) -> [__m512; 2] {
        // SAFETY: see above.
        unsafe { [0, 32].map(|at| _mm512_cvtph_ps(_mm256_loadu_si256(bytes.as_ptr().add(at).cast()))) }
    }

    #[inline(always)]
    fn store(self, q: [__m512; 2], scale: [f32; 2], offset: Option<f32>, out: &mut [f32; GROUP]) {
        // SAFETY: see above.
        unsafe {
            for i in 0..2 {
                let mut value = _mm512_mul_ps(q[i], _mm512_set1_ps(scale[i]));
                if let Some(offset) = offset {
                    value = _mm512_add_ps(value, _mm512_set1_ps(offset));
                }
                _mm512_storeu_ps(out.as_mut_ptr().add(16 * i), value);
            }
        }
    }

    #[inline(always)]
    fn zero(self) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    fn add(
        self,
        sums: __m512,
        q: [__m512; 2],
        x: &[f32; GROUP],
        scale: [f32; 2],
        halves_differ: bool,
    ) -> __m512 {
        // SAFETY: see above.
        unsafe {
            let x = [0, 16].map(|i| _mm512_loadu_ps(x.as_ptr().add(i)));
            let low = _mm512_mul_ps(q[0], x[0]);
            if halves_differ {
                let sums = _mm512_fmadd_ps(low, _mm512_set1_ps(scale[0]), sums);
                _mm512_fmadd_ps(_mm512_mul_ps(q[1], x[1]), _mm512_set1_ps(scale[1]), sums)
            } else {
                _mm512_fmadd_ps(_mm512_fmadd_ps(q[1], x[1], low), _mm512_set1_ps(scale[0]), sums)
            }
        }
    }

    #[inline(always)]
    fn add_sum(self, sums: __m512, x: &[f32; GROUP], offset: f32) -> __m512 {
        // SAFETY: see above.
        unsafe {
            let pairs = _mm512_add_ps(_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16)));
            _mm512_fmadd_ps(pairs, _mm512_set1_ps(offset), sums)
        }
    }

    #[inline(always)]
    fn total(self, sums: __m512) -> f32 {
        // SAFETY: see above.
        unsafe { _mm512_reduce_add_ps(sums) }
    }
}

impl Floats for X86<Avx2> {
    type Numbers = [__m256; 4];
    type Sums = __m256;

    #[inline(always)]
    fn integers(self, codes: __m256i, middle: u8) -> [__m256; 4] {
        // SAFETY: see above.
        unsafe {
            let q = _mm256_sub_epi8(codes, _mm256_set1_epi8(middle as i8));
            let (low, high) = (_mm256_castsi256_si128(q), _mm256_extracti128_si256::<1>(q));
            [low, _mm_srli_si128::<8>(low), high, _mm_srli_si128::<8>(high)]
                .map(|q| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)))
        }
    }

    #[inline(always)]
    fn f32s(self, bytes: &[u8; 4 * GROUP]) -> [__m256; 4] {
        // SAFETY: see above.
        unsafe { [0, 8, 16, 24].map(|i| _mm256_loadu_ps(bytes.as_ptr().cast::<f32>().add(i))) }
    }

    #[inline(always)]
    fn bf16s(self, bytes: &[u8; 2 * GROUP]) -> [__m256; 4] {
        // SAFETY: see above.
        unsafe {
            [0, 16, 32, 48].map(|at| {
                let part = _mm_loadu_si128(bytes.as_ptr().add(at).cast());
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(part)))
            })
        }
    }

    #[inline(always)]
    fn f16s(self, bytes: &[u8; 2 * GROUP]) -> [__m256; 4] {
        // SAFETY: see above.
        unsafe { [0, 16, 32, 48].map(|at| _mm256_cvtph_ps(_mm_loadu_si128(bytes.as_ptr().add(at).cast()))) }
    }

    #[inline(always)]
    fn store(self, q: [__m256; 4], scale: [f32; 2], offset: Option<f32>, out: &mut [f32; GROUP]) {
        // SAFETY: see above.
        unsafe {
            for i in 0..4 {
                let mut value = _mm256_mul_ps(q[i], _mm256_set1_ps(scale[i / 2]));
                if let Some(offset) = offset {
                    value = _mm256_add_ps(value, _mm256_set1_ps(offset));
                }
                _mm256_storeu_ps(out.as_mut_ptr().add(8 * i), value);
            }
        }
    }

    #[inline(always)]
    fn zero(self) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    fn add(
        self,
        sums: __m256,
        q: [__m256; 4],
        x: &[f32; GROUP],
        scale: [f32; 2],
        halves_differ: bool,
    ) -> __m256 {
        // SAFETY: see above.
        unsafe {
            let x = [0, 8, 16, 24].map(|i| _mm256_loadu_ps(x.as_ptr().add(i)));
            let low = _mm256_fmadd_ps(q[1], x[1], _mm256_mul_ps(q[0], x[0]));
            let high = _mm256_fmadd_ps(q[3], x[3], _mm256_mul_ps(q[2], x[2]));
            let first = _mm256_set1_ps(scale[0]);
            if halves_differ {
                _mm256_fmadd_ps(high, _mm256_set1_ps(scale[1]), _mm256_fmadd_ps(low, first, sums))
            } else {
                _mm256_fmadd_ps(_mm256_add_ps(low, high), first, sums)
            }
        }
    }

    #[inline(always)]
    fn add_sum(self, sums: __m256, x: &[f32; GROUP], offset: f32) -> __m256 {
        // SAFETY: see above.
        unsafe {
            let [a, b, c, d] = [0, 8, 16, 24].map(|i| _mm256_loadu_ps(x.as_ptr().add(i)));
            let four = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
            _mm256_fmadd_ps(four, _mm256_set1_ps(offset), sums)
        }
    }

    #[inline(always)]
    fn total(self, sums: __m256) -> f32 {
        // SAFETY: see above.
        unsafe { total(sums) }
    }
}

/// The sum of eight numbers, in pairs.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn total(sums: __m256) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// `sums + scale·dots`, with a scale for each half.
///
/// # Safety
/// The processor must have AVX2 and FMA.
#[inline(always)]
unsafe fn add_scaled(sums: __m256, dots: __m256i, scale: [f32; 2], halves_differ: bool) -> __m256 {
    // SAFETY: the caller's.
    unsafe {
        let low = _mm256_set1_ps(scale[0]);
        let scale = if halves_differ { _mm256_blend_ps::<0xf0>(low, _mm256_set1_ps(scale[1])) } else { low };
        _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, sums)
    }
}

/// `−middle·Σ x` of both halves in the first lanes of both, or the whole in the first.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn without_middle(middle: u8, x: &Group, halves_differ: bool) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        if middle == 0 {
            return _mm256_setzero_si256();
        }
        let [low, high] = x.negated_sums;
        let sums = if halves_differ {
            _mm256_set_m128i(_mm_cvtsi32_si128(high), _mm_cvtsi32_si128(low))
        } else {
            _mm256_zextsi128_si256(_mm_cvtsi32_si128(x.negated_sum))
        };
        _mm256_sll_epi32(sums, _mm_cvtsi32_si128(middle.trailing_zeros() as i32))
    }
}

impl Int8 for X86<Vnni> {
    type Sums = __m256;

    #[inline(always)]
    fn zero(self) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    fn add(
        self,
        sums: __m256,
        codes: __m256i,
        middle: u8,
        x: &Group,
        scale: [f32; 2],
        halves_differ: bool,
    ) -> __m256 {
        // SAFETY: see above.
        unsafe {
            let q = _mm256_loadu_si256(x.q.as_ptr().cast());
            let dots = _mm256_dpbusd_epi32(without_middle(middle, x, halves_differ), codes, q);
            add_scaled(sums, dots, scale, halves_differ)
        }
    }

    #[inline(always)]
    fn total(self, sums: __m256) -> f32 {
        // SAFETY: see above.
        unsafe { total(sums) }
    }
}

impl Int8 for X86<Avx2> {
    type Sums = __m256;

    #[inline(always)]
    fn zero(self) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_setzero_ps() }
    }

    /// Sums of two products fit 16 bits: `2·127·63`, or with the sign of `q` moved to `x`, `2·127·128`.
    #[inline(always)]
    fn add(
        self,
        sums: __m256,
        codes: __m256i,
        middle: u8,
        x: &Group,
        scale: [f32; 2],
        halves_differ: bool,
    ) -> __m256 {
        // SAFETY: see above.
        unsafe {
            let x_q = _mm256_loadu_si256(x.q.as_ptr().cast());
            let ones = _mm256_set1_epi16(1);
            let dots = if middle == 128 {
                let q = self.add_128(codes);
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x_q, q));
                _mm256_madd_epi16(pairs, ones)
            } else {
                let dots = _mm256_madd_epi16(_mm256_maddubs_epi16(codes, x_q), ones);
                _mm256_add_epi32(dots, without_middle(middle, x, halves_differ))
            };
            add_scaled(sums, dots, scale, halves_differ)
        }
    }

    #[inline(always)]
    fn total(self, sums: __m256) -> f32 {
        // SAFETY: see above.
        unsafe { total(sums) }
    }
}
