//! Products of packed rows with panels, in the order that keeps both in cache.

use crate::element::{Block, Element, PANEL};
use crate::lhs::Lhs;
use crate::split::blocks;
use faer::{Accum, MatMut};

/// Bytes of packed rows that stay in the second-level cache beside a part of a panel.
const ROW_BYTES: usize = 512 << 10;

/// `y = x·panel`, or `y += …`: the product of packed rows with the steps of a panel that starts at depth `from` of the rows.
///
/// The columns of `y` are those of the panel that are wanted; they must lie side by side in memory. Each element is summed in parts of
/// the depth that do not depend on the number of rows.
///
/// # Panics
/// If the panel reaches beyond the depth of the rows, starts or ends within a tile, or `y` does not fit.
pub fn multiply<T: Element>(
    x: &Lhs<T>,
    from: usize,
    panel: &[T::Step],
    mut y: MatMut<'_, f32>,
    accum: Accum,
) {
    assert!(from.is_multiple_of(T::steps(1) * T::DEPTH), "a panel that starts within a tile");
    let part = Part { x, from: from / T::DEPTH, rows: (0, x.n_rows) };
    part.check(panel, &y);
    let mut done = 0;
    loop {
        let n_steps = x.kernel.max_steps.min(panel.len() - done);
        let part = Part { from: part.from + done, ..part };
        part.multiply(&panel[done..][..n_steps], y.as_mut(), accum == Accum::Add || done > 0);
        done += n_steps;
        if done >= panel.len() {
            return;
        }
    }
}

/// [`multiply`] with many panels of one depth, each with its columns of the result: what is to be multiplied with many rows is read in parts
/// of the depth, which stay in cache for all panels.
///
/// # Panics
/// As [`multiply`], or if the panels differ in depth.
pub fn multiply_panels<T: Element>(
    x: &Lhs<T>,
    from: usize,
    panels: &mut [(&[T::Step], MatMut<'_, f32>)],
    accum: Accum,
) {
    let n_steps = panels.first().map_or(0, |(panel, _)| panel.len());
    assert!(panels.iter().all(|(panel, _)| panel.len() == n_steps), "panels of one depth");
    let step_bytes = size_of::<T>() * T::DEPTH;
    if x.n_rows * n_steps * step_bytes <= ROW_BYTES {
        for (panel, y) in panels {
            multiply(x, from, panel, y.as_mut(), accum);
        }
        return;
    }
    assert!(from.is_multiple_of(T::steps(1) * T::DEPTH), "panels that start within a tile");
    let (first, max_steps) = (from / T::DEPTH, x.kernel.max_steps);
    // As many rows as stay in cache, but enough to repay reading the panels once more.
    let max_rows = (ROW_BYTES / (max_steps * step_bytes)).max(128);
    for rows in blocks(x.n_rows, max_rows) {
        for done in (0..n_steps).step_by(max_steps) {
            let part = Part { x, from: first + done, rows };
            for (panel, y) in &mut *panels {
                let panel = &panel[done..][..max_steps.min(n_steps - done)];
                part.multiply(panel, y.as_mut(), accum == Accum::Add || done > 0);
            }
        }
    }
}

/// Some blocks of rows from one step of their depth on.
#[derive(Debug)]
struct Part<'a, T: Element> {
    x: &'a Lhs<T>,
    /// The first step.
    from: usize,
    /// The first row, and their number: the blocks that begin there are meant.
    rows: (usize, usize),
}

impl<T: Element> Clone for Part<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Element> Copy for Part<'_, T> {}

impl<T: Element> Part<'_, T> {
    fn check(&self, panel: &[T::Step], y: &MatMut<'_, f32>) {
        let all = T::steps(self.x.depth);
        assert!(panel.len().is_multiple_of(T::steps(1)), "a panel that ends within a tile");
        assert!(
            self.from <= all && panel.len() <= all - self.from,
            "the panel reaches beyond the depth of the rows"
        );
        assert!(
            y.nrows() == self.x.n_rows && y.ncols() <= PANEL && (y.ncols() <= 1 || y.col_stride() == 1),
            "a result of another shape"
        );
    }

    /// The product with some steps of a panel. `y` has all rows of `x`; only those of this part are written.
    #[allow(unsafe_code)]
    fn multiply(&self, b: &[T::Step], y: MatMut<'_, f32>, accumulate: bool) {
        self.check(b, &y);
        let x = self.x;
        let (n, c_stride, c) = (y.ncols(), y.row_stride(), y.as_ptr_mut());
        if n == 0 {
            return;
        }
        let (elements, all) = (x.elements(), T::steps(x.depth));
        let (first, end) = (self.rows.0, self.rows.0 + self.rows.1);
        for (row, m) in x.blocks().skip_while(|&(row, _)| row < first).take_while(|&(row, _)| row < end) {
            let at = (row * all + m * self.from) * T::DEPTH;
            let a = &elements[at..][..m * b.len() * T::DEPTH];
            // SAFETY: `row < n_rows`, so the pointer stays within `y`, whose rows and columns the block does not leave; nobody else has
            // a reference to `y`. The kernel was made for a level that the processor has (`Cpu`).
            unsafe {
                let c = c.offset(row as isize * c_stride);
                (x.kernel.block)(Block { m, n, a, b, c, c_stride, accumulate });
            }
        }
    }
}
