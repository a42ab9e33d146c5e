//! The element types of the slice kernels, with the functions that LLVM can vectorise.
//!
//! `f32` gets polynomial `exp` and `erf` without branches or table look-ups (relative error of `exp` below 2.4e-7, absolute
//! error of `erf` below 4.8e-7); `f64` calls the system's functions, because it serves as the reference in gradient checks.

use candle_core::WithDType;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use fwd_simd::Cpu;
use std::cell::RefCell;
use std::ops::Neg;

/// The buffers of one element type that a thread keeps, for `Scratch` buffers.
pub(crate) type Pool<E> = RefCell<Vec<Vec<E>>>;

/// A floating-point element: `f32` to compute with, `f64` to check against.
pub(crate) trait Elem: WithDType + Neg<Output = Self> + std::iter::Sum + Default {
    const NEG_INFINITY: Self;

    /// A constant, rounded to this type.
    fn of(value: f64) -> Self;
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn sqrt(self) -> Self;
    fn erf(self) -> Self;
    fn is_nan(self) -> bool;

    /// The larger of two; NaN if either is.
    #[inline(always)]
    fn max_or_nan(self, other: Self) -> Self {
        if other > self || other.is_nan() { other } else { self }
    }

    /// `dst = lhs·rhs·alpha`, or `dst += …`, on one thread.
    fn gemm(dst: MatMut<'_, Self>, accum: Accum, lhs: MatRef<'_, Self>, rhs: MatRef<'_, Self>, alpha: Self);

    /// The buffers of this type that this thread keeps.
    fn with_pool<R>(body: impl FnOnce(&Pool<Self>) -> R) -> R;

    /// The slice itself if this type is `f32`.
    fn as_f32s(slice: &[Self]) -> Option<&[f32]>;

    /// The view itself if this type is `f32`.
    fn as_f32(view: MatRef<'_, Self>) -> Option<MatRef<'_, f32>>;

    /// The view itself if this type is `f32`.
    fn as_f32_mut(view: MatMut<'_, Self>) -> Option<MatMut<'_, f32>>;
}

impl Elem for f32 {
    const NEG_INFINITY: Self = f32::NEG_INFINITY;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value as f32
    }

    /// `exp(x) = 2ⁿ·exp(r)` with `|r| ≤ ln(2)/2`; below −87.3 the result is exactly 0, above 88.3 infinite, NaN stays NaN.
    #[inline(always)]
    fn exp(self) -> Self {
        // Adding 1.5·2²³ rounds to an integer and leaves it in the low bits of the mantissa.
        const ROUND: f32 = 12_582_912.0;
        const LN2_HI: f32 = 0.693_359_4;
        const LN2_LO: f32 = -2.121_944_4e-4;
        let x = self;
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = (x - n * LN2_HI) - n * LN2_LO;
        let mut p = 1.987_569_1e-4;
        p = p * r + 1.398_199_9e-3;
        p = p * r + 8.333_452e-3;
        p = p * r + 4.166_579_6e-2;
        p = p * r + 1.666_666_5e-1;
        p = p * r + 5.0e-1;
        let value = p * (r * r) + r + 1.0;
        let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
        let value = if x > 88.3 { f32::INFINITY } else { value * scale };
        if x < -87.3 { 0.0 } else { value }
    }

    #[inline(always)]
    fn ln(self) -> Self {
        self.ln()
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn is_nan(self) -> bool {
        self.is_nan()
    }

    /// `erf(x) ≈ x·P(x²)/Q(x²)`; exactly ±1 from 3.95 on, where it is 1 to the last bit of an `f32`.
    #[inline(always)]
    fn erf(self) -> Self {
        let x = if self > 4.0 { 4.0 } else { self };
        let x = if x < -4.0 { -4.0 } else { x };
        let s = x * x;
        let mut p = -2.726_142_3e-10;
        p = p * s + 2.770_681_4e-8;
        p = p * s - 2.101_024e-6;
        p = p * s - 5.692_506_4e-5;
        p = p * s - 7.349_906_3e-4;
        p = p * s - 2.954_6e-3;
        p = p * s - 1.609_603_3e-2;
        let mut q = -1.456_607_2e-5;
        q = q * s - 2.133_740_6e-4;
        q = q * s - 1.682_827e-3;
        q = q * s - 7.373_329_3e-3;
        q = q * s - 1.426_473_9e-2;
        let value = x * p / q;
        let value = if x > 3.95 { 1.0 } else { value };
        if x < -3.95 { -1.0 } else { value }
    }

    fn gemm(dst: MatMut<'_, Self>, accum: Accum, lhs: MatRef<'_, Self>, rhs: MatRef<'_, Self>, alpha: Self) {
        fwd_simd::gemm(Cpu::current(), dst, accum, lhs, rhs, alpha);
    }

    fn with_pool<R>(body: impl FnOnce(&Pool<Self>) -> R) -> R {
        thread_local!(static POOL: Pool<f32> = const { RefCell::new(Vec::new()) });
        POOL.with(body)
    }

    fn as_f32s(slice: &[Self]) -> Option<&[f32]> {
        Some(slice)
    }

    fn as_f32(view: MatRef<'_, Self>) -> Option<MatRef<'_, f32>> {
        Some(view)
    }

    fn as_f32_mut(view: MatMut<'_, Self>) -> Option<MatMut<'_, f32>> {
        Some(view)
    }
}

impl Elem for f64 {
    const NEG_INFINITY: Self = f64::NEG_INFINITY;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn exp(self) -> Self {
        self.exp()
    }

    #[inline(always)]
    fn ln(self) -> Self {
        self.ln()
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn is_nan(self) -> bool {
        self.is_nan()
    }

    #[inline(always)]
    fn erf(self) -> Self {
        libm::erf(self)
    }

    fn gemm(dst: MatMut<'_, Self>, accum: Accum, lhs: MatRef<'_, Self>, rhs: MatRef<'_, Self>, alpha: Self) {
        matmul(dst, accum, lhs, rhs, alpha, Par::Seq);
    }

    fn with_pool<R>(body: impl FnOnce(&Pool<Self>) -> R) -> R {
        thread_local!(static POOL: Pool<f64> = const { RefCell::new(Vec::new()) });
        POOL.with(body)
    }

    fn as_f32s(_: &[Self]) -> Option<&[f32]> {
        None
    }

    fn as_f32(_: MatRef<'_, Self>) -> Option<MatRef<'_, f32>> {
        None
    }

    fn as_f32_mut(_: MatMut<'_, Self>) -> Option<MatMut<'_, f32>> {
        None
    }
}

/// `Σ_i f(i)` over `0..n`, summed in lanes so that it vectorises; the order depends on `n` alone.
#[inline(always)]
pub(crate) fn sum_of<E: Elem>(n: usize, f: impl Fn(usize) -> E) -> E {
    const LANES: usize = 16;
    // Four independent sums while there is enough: additions that wait for each other take four times as long.
    let mut chains = [[E::zero(); LANES]; 4];
    let whole = n / LANES * LANES;
    let mut start = 0;
    while start + 4 * LANES <= whole {
        for (i, lanes) in chains.iter_mut().enumerate() {
            for (lane, sum) in lanes.iter_mut().enumerate() {
                *sum += f(start + i * LANES + lane);
            }
        }
        start += 4 * LANES;
    }
    let [mut lanes, second, third, fourth] = chains;
    for lane in 0..LANES {
        lanes[lane] = (lanes[lane] + second[lane]) + (third[lane] + fourth[lane]);
    }
    while start < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
        start += LANES;
    }
    let mut tail = E::zero();
    for i in whole..n {
        tail += f(i);
    }
    let mut width = LANES / 2;
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        low.iter_mut().zip(high).for_each(|(l, h)| *l += *h);
        width /= 2;
    }
    lanes[0] + tail
}

/// `Σ_i a_i·b_i`, in the lanes of [`sum_of`].
#[inline(always)]
pub(crate) fn dot<E: Elem>(a: &[E], b: &[E]) -> E {
    let b = &b[..a.len()];
    sum_of(a.len(), |i| a[i] * b[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_of_f32_is_within_two_ulp_and_keeps_the_special_values() {
        let mut worst = 0f64;
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3;
            let want = (x as f64).exp();
            worst = worst.max(((Elem::exp(x) as f64 - want) / want).abs());
        }
        assert!(worst < 2.4e-7, "worst relative error {worst:e}");
        assert_eq!(Elem::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(Elem::exp(f32::MIN), 0.0);
        assert!(Elem::exp(f32::NAN).is_nan());
        assert_eq!(Elem::exp(f32::INFINITY), f32::INFINITY);
    }

    #[test]
    fn erf_of_f32_is_within_four_ulp_of_one() {
        let mut worst = 0f64;
        for i in -6_000..6_000 {
            let x = i as f32 * 1e-3;
            worst = worst.max((Elem::erf(x) as f64 - libm::erf(x as f64)).abs());
        }
        assert!(worst < 4.0 * f32::EPSILON as f64, "worst absolute error {worst:e}");
        assert!(Elem::erf(f32::NAN).is_nan());
    }

    #[test]
    fn sum_of_covers_every_index_once() {
        for n in [0usize, 1, 15, 16, 17, 33, 63, 64, 100, 130, 200] {
            assert_eq!(sum_of::<f64>(n, |i| i as f64), (0..n).sum::<usize>() as f64);
        }
    }
}
