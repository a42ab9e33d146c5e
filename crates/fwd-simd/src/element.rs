//! The element types of packed operands, and what a level does with them: its kernel.

use faer::MatRef;
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
    /// A step of zeros.
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

/// How an element type is multiplied at a level. The functions may be called where the processor has the level, which a [`Cpu`] proves.
#[derive(Debug)]
pub struct Kernel<T: Element> {
    /// Rows of the tallest block.
    pub(crate) max_rows: usize,
    /// Steps that are taken at once, whole tiles: a part of a panel that stays in the second-level cache with the rows of a block.
    pub(crate) max_steps: usize,
    /// Packs the rows of a block, times alpha, into `rows · T::steps(depth) · DEPTH` elements of arbitrary content.
    pub(crate) pack_rows: unsafe fn(MatRef<'_, f32>, f32, &mut [T]),
    /// Packs up to [`PANEL`](crate::PANEL) rows as a panel of `T::steps(depth)` steps of arbitrary content; what is missing becomes zero.
    pub(crate) pack_panel: unsafe fn(MatRef<'_, f32>, &mut [T::Step]),
    /// Turns a square of [`PANEL`](crate::PANEL) columns and [`PANEL`](crate::PANEL) of depth: both slices have `T::steps(PANEL)` steps.
    pub(crate) turn: unsafe fn(&[T::Step], &mut [T::Step]),
    /// Multiplies a block with a panel.
    pub(crate) block: unsafe fn(Block<'_, T>),
}

impl<T: Element> Clone for Kernel<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Element> Copy for Kernel<T> {}

/// A block of packed rows times some steps of a panel: `c (+)= a·b`.
#[derive(Debug)]
pub(crate) struct Block<'a, T: Element> {
    /// Rows of the block.
    pub(crate) m: usize,
    /// Columns that are wanted, at most [`PANEL`](crate::PANEL).
    pub(crate) n: usize,
    /// The packed rows for these steps: `m · DEPTH · b.len()` elements.
    pub(crate) a: &'a [T],
    pub(crate) b: &'a [T::Step],
    /// The first element of the result; its columns lie side by side, and its rows `c_stride` apart.
    pub(crate) c: *mut f32,
    pub(crate) c_stride: isize,
    /// Whether to add to the result.
    pub(crate) accumulate: bool,
}

pub(crate) mod sealed {
    use super::{Element, Kernel};
    use crate::level::Cpu;

    /// The kernel of an element type at a level. Nobody else implements it.
    pub trait Kernels: Sized {
        #[doc(hidden)]
        fn kernel(cpu: Cpu) -> Kernel<Self>
        where
            Self: Element;
    }
}
