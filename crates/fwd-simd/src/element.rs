//! The element types of packed operands.

use half::bf16;

/// Columns of a result that one panel gives.
pub const PANEL: usize = 32;

/// One step of depth of a panel, 128 bytes: an element (f32) or a pair of them (bf16) for each of [`PANEL`] columns.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Step<T, const N: usize>(pub [T; N]);

/// An element type of packed operands: `f32`, or `bf16` whose products are summed in f32.
pub trait Element: Copy + Default + Send + Sync + std::fmt::Debug + sealed::Kernels + 'static {
    /// One step of depth of a panel.
    type Step: Copy + Send + Sync + std::fmt::Debug;
    /// Elements of depth in a step.
    const DEPTH: usize;
    /// Zeros.
    const ZERO: Self::Step;

    /// The steps of a panel of this depth: whole tiles, the last ones filled up with zeros.
    fn steps(depth: usize) -> usize;

    /// The nearest value of this type.
    fn round(value: f32) -> Self;

    /// The value itself.
    fn widen(self) -> f32;

    /// The elements of a step: column `j` at depth `i` is element `j * DEPTH + i`.
    fn elements(step: &Self::Step) -> &[Self];

    /// [`Self::elements`], to be written.
    fn elements_mut(step: &mut Self::Step) -> &mut [Self];
}

impl Element for f32 {
    type Step = Step<f32, 32>;
    const DEPTH: usize = 1;
    const ZERO: Self::Step = Step([0.0; 32]);

    fn steps(depth: usize) -> usize {
        depth
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn elements(step: &Self::Step) -> &[Self] {
        &step.0
    }

    #[inline(always)]
    fn elements_mut(step: &mut Self::Step) -> &mut [Self] {
        &mut step.0
    }
}

impl Element for bf16 {
    type Step = Step<bf16, 64>;
    const DEPTH: usize = 2;
    const ZERO: Self::Step = Step([bf16::ZERO; 64]);

    /// A tile is 16 pairs deep.
    fn steps(depth: usize) -> usize {
        depth.div_ceil(32) * 16
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        // To nearest, ties to even; a NaN keeps its upper bits and becomes a quiet one. `from_f32` branches.
        let bits = value.to_bits();
        let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        Self::from_bits(if value.is_nan() { bits >> 16 | 0x40 } else { nearest } as u16)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn elements(step: &Self::Step) -> &[Self] {
        &step.0
    }

    #[inline(always)]
    fn elements_mut(step: &mut Self::Step) -> &mut [Self] {
        &mut step.0
    }
}

pub(crate) mod sealed {
    use crate::kernel::Kernel;
    use crate::level::Cpu;

    /// The kernel of an element type at a level. Nobody else implements it.
    pub trait Kernels: Sized {
        #[doc(hidden)]
        fn kernel(cpu: Cpu) -> Kernel<Self>
        where
            Self: crate::Element;
    }
}
