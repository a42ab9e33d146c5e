//! The activations of BERT, EVA, CLIP, T5 and LLaMA: exact (erf) GELU, tanh GELU, ReLU, SiLU, quick GELU, and their gated forms.
//!
//! ```text
//! gelu(x)      = x·Φ(x) = x·(1 + erf(x/√2))/2
//! gelu_tanh(x) = x·σ(2u),  u = √(2/π)·(x + 0.044715·x³)
//! silu(x)      = x·σ(x),   quick_gelu(x) = x·σ(1.702·x)
//! ```

use super::elem::Elem;

/// Which activation a feed-forward layer applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x·Φ(x)` with the exact normal distribution function (`gelu` of Hugging Face).
    GeluErf,
    /// The tanh approximation (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// `max(x, 0)`; NaN stays NaN.
    Relu,
    /// `x·σ(x)`, also called swish (`silu`; the gate of LLaMA).
    Silu,
    /// `x·σ(1.702·x)`, the approximation of GELU that CLIP was trained with (`quick_gelu`).
    QuickGelu,
}

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const CUBIC: f64 = 0.044_715;
const INV_SQRT_2PI: f64 = 0.398_942_280_401_432_7;
const QUICK: f64 = 1.702;

/// An activation as a type, so that the choice is made once per slice and the loop vectorises.
pub(crate) trait Act {
    /// The activation, `f(x)`.
    fn value<E: Elem>(x: E) -> E;
    /// `(f(x), f′(x))`.
    fn value_and_slope<E: Elem>(x: E) -> (E, E);
}

pub(crate) struct GeluErf;
pub(crate) struct GeluTanh;
pub(crate) struct Relu;
pub(crate) struct Silu;
pub(crate) struct QuickGelu;

impl Act for GeluErf {
    #[inline(always)]
    fn value<E: Elem>(x: E) -> E {
        Self::value_and_slope(x).0
    }

    #[inline(always)]
    fn value_and_slope<E: Elem>(x: E) -> (E, E) {
        let cdf = E::of(0.5) * (E::one() + Elem::erf(x * E::of(std::f64::consts::FRAC_1_SQRT_2)));
        let pdf = E::of(INV_SQRT_2PI) * Elem::exp(-E::of(0.5) * x * x);
        (x * cdf, cdf + x * pdf)
    }
}

impl Act for GeluTanh {
    #[inline(always)]
    fn value<E: Elem>(x: E) -> E {
        let u = E::of(SQRT_2_OVER_PI) * (x + E::of(CUBIC) * x * x * x);
        x / (E::one() + Elem::exp(-(u + u)))
    }

    #[inline(always)]
    fn value_and_slope<E: Elem>(x: E) -> (E, E) {
        // σ is 0 or 1 to the last bit from 20 on; without the bound the powers of x would overflow to 0·∞.
        let t = if x > E::of(20.0) { E::of(20.0) } else { x };
        let t = if t < E::of(-20.0) { E::of(-20.0) } else { t };
        let u = E::of(SQRT_2_OVER_PI) * (t + E::of(CUBIC) * t * t * t);
        let du = E::of(SQRT_2_OVER_PI) * (E::one() + E::of(3.0 * CUBIC) * t * t);
        let s = E::one() / (E::one() + Elem::exp(-(u + u)));
        (x * s, s + t * s * (E::one() - s) * (du + du))
    }
}

impl Act for Relu {
    #[inline(always)]
    fn value<E: Elem>(x: E) -> E {
        // Written so that NaN stays NaN.
        if x < E::zero() { E::zero() } else { x }
    }

    #[inline(always)]
    fn value_and_slope<E: Elem>(x: E) -> (E, E) {
        (Self::value(x), if x > E::zero() { E::one() } else { E::zero() })
    }
}

/// `x·σ(a·x)` with its slope `σ·(1 + a·x·(1 − σ))`.
#[inline(always)]
fn sigmoid_gated<E: Elem>(x: E, a: E) -> (E, E) {
    let e = Elem::exp(-(a * x));
    let s = E::one() / (E::one() + e);
    // Without cancellation for large x; for very negative x, e·s would be ∞·0.
    let rest = if x > E::zero() { e * s } else { E::one() - s };
    // σ is 0 or 1 to the last bit from 40 on; without the bound an infinite x would give ∞·0.
    let t = if x > E::of(40.0) { E::of(40.0) } else { x };
    let t = if t < E::of(-40.0) { E::of(-40.0) } else { t };
    (x * s, s + a * t * s * rest)
}

impl Act for Silu {
    #[inline(always)]
    fn value<E: Elem>(x: E) -> E {
        x / (E::one() + Elem::exp(-x))
    }

    #[inline(always)]
    fn value_and_slope<E: Elem>(x: E) -> (E, E) {
        sigmoid_gated(x, E::one())
    }
}

impl Act for QuickGelu {
    #[inline(always)]
    fn value<E: Elem>(x: E) -> E {
        x / (E::one() + Elem::exp(-(E::of(QUICK) * x)))
    }

    #[inline(always)]
    fn value_and_slope<E: Elem>(x: E) -> (E, E) {
        sigmoid_gated(x, E::of(QUICK))
    }
}

/// Calls `$body` with `$A` bound to the activation type.
macro_rules! with_act {
    ($act:expr, $A:ident => $body:expr) => {
        match $act {
            $crate::cpu::activation::Activation::GeluErf => {
                type $A = $crate::cpu::activation::GeluErf;
                $body
            }
            $crate::cpu::activation::Activation::GeluTanh => {
                type $A = $crate::cpu::activation::GeluTanh;
                $body
            }
            $crate::cpu::activation::Activation::Relu => {
                type $A = $crate::cpu::activation::Relu;
                $body
            }
            $crate::cpu::activation::Activation::Silu => {
                type $A = $crate::cpu::activation::Silu;
                $body
            }
            $crate::cpu::activation::Activation::QuickGelu => {
                type $A = $crate::cpu::activation::QuickGelu;
                $body
            }
        }
    };
}
pub(crate) use with_act;

/// The activation of every element, `y = f(x)`.
#[inline(always)]
pub(crate) fn activate<A: Act, E: Elem>(x: &[E], y: &mut [E]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = A::value(x);
    }
}

/// The gradient of [`activate`], `dx = dy·f′(x)`.
#[inline(always)]
pub(crate) fn activate_backward<A: Act, E: Elem>(x: &[E], dy: &[E], dx: &mut [E]) {
    for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
        *dx = dy * A::value_and_slope(x).1;
    }
}

/// `y = f(h[..n])·h[n..]` for one row `h = [gate | up]` of width `2n`.
#[inline(always)]
pub(crate) fn gate<A: Act, E: Elem>(h: &[E], y: &mut [E]) {
    let (gate, up) = h.split_at(y.len());
    for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
        *y = A::value(g) * u;
    }
}

/// The gradient of [`gate`] for one row: `dh = [dy·u·f′(g) | dy·f(g)]`.
#[inline(always)]
pub(crate) fn gate_backward<A: Act, E: Elem>(h: &[E], dy: &[E], dh: &mut [E]) {
    let n = dy.len();
    let (gate, up) = h.split_at(n);
    let (dgate, dup) = dh.split_at_mut(n);
    for i in 0..n {
        let (value, slope) = A::value_and_slope(gate[i]);
        dgate[i] = dy[i] * up[i] * slope;
        dup[i] = dy[i] * value;
    }
}
