//! The innermost loops: a block of rows times a panel.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bf16;
#[cfg(target_arch = "x86_64")]
mod dot;
mod f32;
mod portable;
mod product;
mod vector;
#[cfg(target_arch = "x86_64")]
mod widened;

use crate::element::Element;
use crate::element::sealed::Kernels;
use crate::level::{Cpu, Level};
use faer::MatRef;

pub(crate) use f32::{DEPTH, Dense, Tile};
pub use product::{multiply, multiply_panels};

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
    /// Rows.
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

impl Kernels for ::core::primitive::f32 {
    fn kernel(cpu: Cpu) -> Kernel<Self> {
        match cpu.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Bf16 | Level::Amx => avx512::KERNEL,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::KERNEL,
            _ => portable::KERNEL,
        }
    }
}

/// How a level multiplies f32 in place.
pub(crate) fn dense(cpu: Cpu) -> &'static Dense {
    match cpu.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Bf16 | Level::Amx => &avx512::DENSE,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => &avx2::DENSE,
        _ => &portable::DENSE,
    }
}

impl Kernels for half::bf16 {
    fn kernel(cpu: Cpu) -> Kernel<Self> {
        bf16::kernel(cpu)
    }
}

/// First row and height of blocks of about equal height, at most `max_rows`.
pub(crate) fn blocks(n_rows: usize, max_rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let n_blocks = n_rows.div_ceil(max_rows);
    let (short, n_tall) = if n_blocks == 0 { (0, 0) } else { (n_rows / n_blocks, n_rows % n_blocks) };
    (0..n_blocks).map(move |i| (i * short + i.min(n_tall), short + usize::from(i < n_tall)))
}
