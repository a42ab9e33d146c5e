//! Products of two matrices that are used once: attention, gradients of trained weights.

use crate::buffer::Buffer;
use crate::element::PANEL;
use crate::kernel::{DEPTH, Dense, Tile, dense};
use crate::level::Cpu;
use crate::split::blocks;
use faer::{Accum, MatMut, MatRef};

/// Rows whose packed parts of the depth stay in the second-level cache.
const ROWS: usize = 252;
/// A right factor with its columns side by side is read in place up to this many elements …
const MAX_IN_PLACE: usize = 1 << 14;
/// … or by up to this many rows, which repay no packing.
const FEW_ROWS: usize = 16;
/// A left factor is read in place for up to this many columns, which repay no packing.
const FEW_COLUMNS: usize = 256;

/// `dst = alpha·lhs·rhs`, or `dst += …`, in f32 on the calling thread, for operands with any strides. The columns of `dst` or its rows must
/// lie side by side in memory.
///
/// Each element is summed in the order of the depth, whatever the shape.
///
/// # Panics
/// If the shapes do not fit together.
pub fn gemm(
    cpu: Cpu,
    dst: MatMut<'_, f32>,
    accum: Accum,
    lhs: MatRef<'_, f32>,
    rhs: MatRef<'_, f32>,
    alpha: f32,
) {
    assert!(
        dst.nrows() == lhs.nrows() && dst.ncols() == rhs.ncols() && lhs.ncols() == rhs.nrows(),
        "shapes do not fit"
    );
    if dst.nrows() == 0 || dst.ncols() == 0 {
        return;
    }
    let (dst, lhs, rhs) = if dst.ncols() == 1 || dst.col_stride() == 1 {
        (dst, lhs, rhs)
    } else {
        (dst.transpose_mut(), rhs.transpose(), lhs.transpose())
    };
    assert!(
        dst.ncols() == 1 || dst.col_stride() == 1,
        "neither rows nor columns of the result lie side by side"
    );
    let product = Product { dense: dense(cpu), lhs, rhs, alpha };
    product.compute(dst, accum);
}

/// The operands of a product.
struct Product<'a> {
    dense: &'static Dense,
    lhs: MatRef<'a, f32>,
    rhs: MatRef<'a, f32>,
    alpha: f32,
}

/// Memory for operands that are not read in place.
struct Memory {
    rows: Option<Buffer<f32>>,
    panel: Option<Buffer<f32>>,
}

impl Product<'_> {
    /// Rows in groups, depth in parts: what is packed of both stays in the second-level cache.
    fn compute(&self, mut dst: MatMut<'_, f32>, accum: Accum) {
        let (m, n, depth) = (dst.nrows(), dst.ncols(), self.lhs.ncols());
        let rhs_in_place =
            self.rhs.col_stride() == 1 && (m <= FEW_ROWS || n * depth.min(DEPTH) <= MAX_IN_PLACE);
        let lhs_in_place = n <= FEW_COLUMNS && (self.lhs.row_stride() == 1 || self.lhs.col_stride() == 1);
        let n_steps = (m.min(ROWS) * depth.min(DEPTH)).div_ceil(PANEL);
        let mut memory = Memory {
            rows: (!lhs_in_place).then(|| Buffer::new(n_steps)),
            panel: (!rhs_in_place)
                .then(|| Buffer::new((depth.min(DEPTH) * self.panel_width(n, lhs_in_place)).div_ceil(PANEL))),
        };
        for first_row in (0..m).step_by(ROWS) {
            let n_rows = ROWS.min(m - first_row);
            let mut dst = dst.as_mut().subrows_mut(first_row, n_rows);
            let mut from = 0;
            loop {
                let here = DEPTH.min(depth - from);
                let lhs = self.lhs.submatrix(first_row, from, n_rows, here);
                let accumulate = from > 0 || accum == Accum::Add;
                self.part(dst.as_mut(), lhs, self.rhs.subrows(from, here), accumulate, &mut memory);
                from += here;
                if from >= depth {
                    break;
                }
            }
        }
    }

    /// Columns that are packed at once: all if there are few.
    fn panel_width(&self, n: usize, lhs_in_place: bool) -> usize {
        if lhs_in_place { self.dense.width(n) } else { PANEL }
    }

    /// A group of rows times a part of the depth.
    #[allow(unsafe_code)]
    fn part(
        &self,
        to: MatMut<'_, f32>,
        lhs: MatRef<'_, f32>,
        rhs: MatRef<'_, f32>,
        accumulate: bool,
        memory: &mut Memory,
    ) {
        let ((m, n), depth) = (to.shape(), lhs.ncols());
        let c_row = to.row_stride();
        let c = to.as_ptr_mut();
        let rows = memory.rows.as_mut().map(|rows| {
            let rows = &mut rows.elements_mut()[..m * depth];
            for (first, n) in blocks(m, self.dense.max_rows()) {
                // SAFETY: the level is that of a `Cpu`.
                unsafe {
                    (self.dense.pack_rows)(
                        lhs.subrows(first, n),
                        1.0,
                        &mut rows[first * depth..][..n * depth],
                    )
                };
            }
            rows.as_ptr()
        });
        let width = self.panel_width(n, rows.is_none());
        for first in (0..n).step_by(width) {
            let n = width.min(n - first);
            let rhs = rhs.subcols(first, n);
            let (b, b_step) = match &mut memory.panel {
                Some(panel) => {
                    let panel = &mut panel.elements_mut()[..depth * width];
                    // SAFETY: the level is that of a `Cpu`.
                    unsafe { (self.dense.pack_columns)(rhs.transpose(), width, panel) };
                    (panel.as_ptr(), width as isize)
                }
                None => (rhs.as_ptr(), rhs.row_stride()),
            };
            let c = c.wrapping_add(first);
            let tile = |a, a_row, a_step, c| Tile {
                depth,
                a,
                a_row,
                a_step,
                b,
                b_step,
                c,
                c_row,
                n,
                alpha: self.alpha,
                accumulate,
            };
            match rows {
                None => {
                    let tile = tile(lhs.as_ptr(), lhs.row_stride(), lhs.col_stride(), c);
                    // SAFETY: strides and sizes are those of the operands, whose rows or depth lie side by side, and of the result, of
                    // which nobody else has a reference. The level is that of a `Cpu`.
                    unsafe { self.dense.product(m, tile) };
                }
                Some(rows) => {
                    for (first, m) in blocks(m, self.dense.max_rows()) {
                        let a = rows.wrapping_add(first * depth);
                        let tile = tile(a, 1, m as isize, c.wrapping_offset(first as isize * c_row));
                        // SAFETY: as above; the rows of a block lie side by side.
                        unsafe { self.dense.block(m, tile) };
                    }
                }
            }
        }
    }
}
