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
mod vector;
#[cfg(target_arch = "x86_64")]
mod widened;

use crate::element::sealed::Kernels;
use crate::element::{Element, PANEL};
use crate::level::{Cpu, Level};
use crate::lhs::Lhs;
pub(crate) use f32::{Dense, Tile};
use faer::{Accum, MatMut, MatRef};

/// How an element type is multiplied at a level. The functions may be called where the processor has the level, which a [`Cpu`] proves.
#[derive(Debug)]
pub struct Kernel<T: Element> {
    /// Rows of the tallest block.
    pub(crate) max_rows: usize,
    /// Steps that are taken at once, whole tiles: a part of a panel that stays in the second-level cache with the rows of a block.
    pub(crate) max_steps: usize,
    /// Packs the rows of a block, times alpha, into `rows · T::steps(depth) · DEPTH` elements of arbitrary content.
    pub(crate) pack_rows: unsafe fn(MatRef<'_, f32>, f32, &mut [T]),
    /// Packs up to [`PANEL`] rows as a panel of `T::steps(depth)` steps of arbitrary content; what is missing becomes zero.
    pub(crate) pack_panel: unsafe fn(MatRef<'_, f32>, &mut [T::Step]),
    /// Turns a square of [`PANEL`] columns and [`PANEL`] of depth: both slices have `T::steps(PANEL)` steps.
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
    /// Columns that are wanted, at most [`PANEL`].
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

/// `y = x·panel`, or `y += …`: the product of packed rows with the steps of a panel that starts at depth `from` of the rows.
///
/// The columns of `y` are those of the panel that are wanted; they must lie side by side in memory.
///
/// # Panics
/// If the panel reaches beyond the depth of the rows, starts or ends within a tile, or `y` does not fit.
#[allow(unsafe_code)]
pub fn multiply<T: Element>(
    cpu: Cpu,
    x: &Lhs<T>,
    from: usize,
    panel: &[T::Step],
    y: MatMut<'_, f32>,
    accum: Accum,
) {
    let _ = cpu;
    let all = T::steps(x.depth);
    let first = from / T::DEPTH;
    assert!(
        from.is_multiple_of(T::steps(1) * T::DEPTH) && panel.len().is_multiple_of(T::steps(1)),
        "a panel of whole tiles"
    );
    assert!(
        first <= all && panel.len() <= all - first,
        "the panel reaches beyond the depth of the rows"
    );
    assert!(
        y.nrows() == x.n_rows && y.ncols() <= PANEL && (y.ncols() <= 1 || y.col_stride() == 1),
        "a result of another shape"
    );
    let (n, c_stride, c) = (y.ncols(), y.row_stride(), y.as_ptr_mut());
    if n == 0 || x.n_rows == 0 {
        return;
    }
    let elements = x.elements();
    let mut done = 0;
    loop {
        let n_steps = x.kernel.max_steps.min(panel.len() - done);
        let b = &panel[done..][..n_steps];
        for (row, m) in x.blocks() {
            let at = (row * all + m * (first + done)) * T::DEPTH;
            let a = &elements[at..][..m * n_steps * T::DEPTH];
            // SAFETY: `row < n_rows`, so the pointer stays within `y`, whose rows and columns the block does not leave; nobody else has a
            // reference to `y`. The kernel was made for a level that the processor has (`Cpu`).
            unsafe {
                let c = c.offset(row as isize * c_stride);
                (x.kernel.block)(Block {
                    m,
                    n,
                    a,
                    b,
                    c,
                    c_stride,
                    accumulate: accum == Accum::Add || done > 0,
                });
            }
        }
        done += n_steps;
        if done >= panel.len() {
            return;
        }
    }
}
