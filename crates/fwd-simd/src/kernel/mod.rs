//! The innermost loops: a block of rows times a panel.

mod bf16;
mod portable;

use crate::element::sealed::Kernels;
use crate::element::{Element, PANEL};
use crate::level::Cpu;
use crate::lhs::Lhs;
use faer::{Accum, MatMut, MatRef};

/// How an element type is multiplied at a level. The functions may be called where the processor has the level, which a [`Cpu`] proves.
#[derive(Debug)]
pub struct Kernel<T: Element> {
    /// Rows of the tallest block.
    pub(crate) max_rows: usize,
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

impl Kernels for f32 {
    fn kernel(_: Cpu) -> Kernel<Self> {
        portable::kernel()
    }
}

impl Kernels for half::bf16 {
    fn kernel(cpu: Cpu) -> Kernel<Self> {
        bf16::kernel(cpu)
    }
}

/// Steps that are taken at once: a part of a panel that stays in the second-level cache with the rows of all blocks.
const STEPS: usize = 512;

/// `y = x·panel`, or `y += …`: the product of packed rows with the steps of a panel that starts at depth `from` of the rows.
///
/// The columns of `y` are those of the panel that are wanted; they must lie side by side in memory.
///
/// # Panics
/// If the panel reaches beyond the depth of the rows, starts within a tile, or `y` does not fit.
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
        from.is_multiple_of(T::steps(1) * T::DEPTH) && first + panel.len() <= all,
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
        let n_steps = STEPS.min(panel.len() - done);
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
