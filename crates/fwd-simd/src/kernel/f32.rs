//! Products and packing of f32, written once for the vector registers of every level.
#![allow(unsafe_code)]

use super::vector::Vector;
use crate::element::{Block, PANEL, Step};
use crate::split::blocks;
use faer::MatRef;

/// Steps that are taken at once: 64 KiB of a panel, which the second-level cache holds beside packed rows.
pub(crate) const DEPTH: usize = 512;

/// A block of rows times some columns in f32, operands in place: `c = alpha·a·b`, or `c += …`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) depth: usize,
    /// Element `(i, k)` of the left factor is `a[i·a_row + k·a_step]`.
    pub(crate) a: *const f32,
    pub(crate) a_row: isize,
    pub(crate) a_step: isize,
    /// Element `(k, j)` of the right factor is `b[k·b_step + j]`.
    pub(crate) b: *const f32,
    pub(crate) b_step: isize,
    /// Element `(i, j)` of the result is `c[i·c_row + j]`.
    pub(crate) c: *mut f32,
    pub(crate) c_row: isize,
    pub(crate) n: usize,
    pub(crate) alpha: f32,
    pub(crate) accumulate: bool,
}

/// How a level multiplies operands in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dense {
    /// Elements of a register.
    pub(super) lanes: usize,
    /// The kernels for `a_row == 1`, by the number of registers that the columns fill less one, and the number of rows less one.
    pub(super) packed: [&'static [TileFn]; 4],
    /// The kernels for `a_step == 1`. They have fewer rows, because each takes a pointer.
    pub(super) along: [&'static [TileFn]; 4],
    pub(crate) pack_rows: unsafe fn(MatRef<'_, f32>, f32, &mut [f32]),
    /// Packs rows as columns `0 ..` of a matrix with this width, which is filled up with zeros.
    pub(crate) pack_columns: unsafe fn(MatRef<'_, f32>, usize, &mut [f32]),
}

pub(super) type TileFn = unsafe fn(&Tile);

impl Dense {
    /// The product of `m` rows, of which `tile` is the first; `tile.n` may be any number of columns.
    ///
    /// # Safety
    /// The processor has the level, the strides stay within the operands for `m` rows, and `c` is nobody else's. Either `tile.a_row` or
    /// `tile.a_step` is 1.
    pub(crate) unsafe fn product(&self, m: usize, tile: Tile) {
        let kernels = if tile.a_row == 1 { &self.packed } else { &self.along };
        let wanted = tile.n.div_ceil(self.lanes).clamp(1, 4);
        // A step of a block takes a multiply-add for each row and register, and reads as many registers of the right factor.
        let cost = |n_vectors: usize| {
            let n_passes = tile.n.div_ceil(n_vectors * self.lanes);
            n_passes * n_vectors * (m + m.div_ceil(kernels[n_vectors - 1].len()))
        };
        let n_vectors = (1..=wanted).rev().min_by_key(|&n_vectors| cost(n_vectors)).unwrap_or(1);
        // SAFETY: the caller says what this one needs.
        unsafe { self.passes(m, n_vectors, kernels, tile) }
    }

    /// The width of a packed matrix with this many columns: whole registers.
    pub(crate) fn width(&self, n: usize) -> usize {
        n.next_multiple_of(self.lanes)
    }

    /// Rows of the tallest packed block.
    pub(crate) const fn max_rows(&self) -> usize {
        self.packed[1].len()
    }

    /// The product of at most [`Self::max_rows`] rows that lie side by side.
    ///
    /// # Safety
    /// As for [`Self::product`].
    pub(crate) unsafe fn block(&self, m: usize, tile: Tile) {
        // The fewest passes whose kernels are tall enough: a panel is read as often as there are passes.
        let wanted = tile.n.div_ceil(self.lanes).min(4);
        let n_vectors =
            (1..=wanted).rev().find(|&n_vectors| self.packed[n_vectors - 1].len() >= m).unwrap_or(1);
        // SAFETY: the caller says what this one needs.
        unsafe { self.passes(m, n_vectors, &self.packed, tile) }
    }

    /// Columns in passes of `n_vectors` registers, and in each the rows in blocks of about equal height.
    #[inline(always)]
    unsafe fn passes(&self, m: usize, n_vectors: usize, kernels: &[&[TileFn]; 4], tile: Tile) {
        let mut from = 0;
        while from < tile.n {
            let n = (n_vectors * self.lanes).min(tile.n - from);
            let kernels = kernels[n.div_ceil(self.lanes) - 1];
            for (first, rows) in blocks(m, kernels.len()) {
                // SAFETY: `first < m` and `from < n`, so the pointers stay within the operands.
                unsafe {
                    let tile = Tile {
                        a: tile.a.offset(first as isize * tile.a_row),
                        b: tile.b.add(from),
                        c: tile.c.offset(first as isize * tile.c_row).add(from),
                        n,
                        ..tile
                    };
                    kernels[rows - 1](&tile);
                }
            }
            from += n;
        }
    }
}

/// A block of packed rows times a panel.
pub(super) unsafe fn block(dense: &Dense, block: Block<'_, f32>) {
    let Block { m, n, a, b, c, c_stride, accumulate } = block;
    let (a, b, depth) = (a.as_ptr(), b.as_ptr().cast(), b.len());
    let (a_row, a_step, b_step, c_row) = (1, m as isize, PANEL as isize, c_stride);
    let tile = Tile { depth, a, a_row, a_step, b, b_step, c, c_row, n, alpha: 1.0, accumulate };
    // SAFETY: the caller says that the operands have these sizes and that the processor has the level.
    unsafe { dense.block(m, tile) }
}

/// `M` rows × `NV` registers, of which the last one may be filled in part; each sum is taken in the order of the depth.
#[inline(always)]
pub(super) unsafe fn tile<V: Vector, const M: usize, const NV: usize, const ALONG: bool>(tile: &Tile) {
    // SAFETY: the caller says that the operands have these sizes; masks keep the last register within them.
    unsafe {
        let mask = V::mask(tile.n - (NV - 1) * V::LANES);
        let mut sums = [[V::splat(0.0); NV]; M];
        let (mut a, mut b) = (tile.a, tile.b);
        let mut rows = [tile.a; M];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = tile.a.offset(i as isize * tile.a_row);
        }
        for k in 0..tile.depth {
            let mut right = [V::splat(0.0); NV];
            for (j, right) in right.iter_mut().enumerate() {
                let from = b.add(j * V::LANES);
                *right = if j + 1 < NV { V::load(from) } else { V::load_masked(from, mask) };
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = V::splat(if ALONG { *rows[i].add(k) } else { *a.add(i) });
                for (sum, &right) in sums.iter_mut().zip(&right) {
                    *sum = left.mul_add(right, *sum);
                }
            }
            b = b.wrapping_offset(tile.b_step);
            if !ALONG {
                a = a.wrapping_offset(tile.a_step);
            }
        }
        let alpha = V::splat(tile.alpha);
        for (i, sums) in sums.iter().enumerate() {
            let c = tile.c.offset(i as isize * tile.c_row);
            for (j, sum) in sums.iter().enumerate() {
                let c = c.add(j * V::LANES);
                if j + 1 < NV || tile.n == NV * V::LANES {
                    let sum = if tile.accumulate { sum.mul_add(alpha, V::load(c)) } else { sum.mul(alpha) };
                    sum.store(c);
                } else {
                    let sum = if tile.accumulate {
                        sum.mul_add(alpha, V::load_masked(c, mask))
                    } else {
                        sum.mul(alpha)
                    };
                    sum.store_masked(c, mask);
                }
            }
        }
    }
}

/// Writes column `k` of `x (m, depth)`, times alpha, to `out[k·stride ..][.. lanes]`; rows that `x` lacks become zero.
#[inline(always)]
unsafe fn columns<V: Vector>(x: MatRef<'_, f32>, alpha: f32, out: *mut f32, stride: usize, lanes: usize) {
    let (m, depth) = x.shape();
    let from = x.as_ptr();
    // SAFETY: the caller says that `out` holds `(depth − 1)·stride + lanes` elements. Elements of `x` are read within its shape; masks
    // leave out rows and columns beyond it.
    unsafe {
        let scale = V::splat(alpha);
        for first in (0..lanes).step_by(V::LANES) {
            let here = m.saturating_sub(first).min(V::LANES);
            let mask = V::mask(lanes - first);
            let out = out.add(first);
            let write = |k: usize, column: V| {
                let to = out.add(k * stride);
                if lanes - first >= V::LANES { column.store(to) } else { column.store_masked(to, mask) }
            };
            if here == 0 {
                (0..depth).for_each(|k| write(k, V::splat(0.0)));
            } else if x.row_stride() == 1 {
                let from = from.add(first);
                let mask = V::mask(here);
                for k in 0..depth {
                    write(k, V::load_masked(from.offset(k as isize * x.col_stride()), mask).mul(scale));
                }
            } else if x.col_stride() == 1 {
                let from = from.offset(first as isize * x.row_stride());
                for start in (0..depth).step_by(V::LANES) {
                    let width = (depth - start).min(V::LANES);
                    let mask = V::mask(width);
                    let none = V::mask(0);
                    let row = |i: usize| {
                        let (i, mask) = if i < here { (i, mask) } else { (0, none) };
                        V::load_masked(from.offset(i as isize * x.row_stride()).add(start), mask).mul(scale)
                    };
                    V::transpose(row, |j, column| {
                        if j < width {
                            write(start + j, column);
                        }
                    });
                }
            } else {
                for k in 0..depth {
                    for i in 0..V::LANES.min(lanes - first) {
                        *out.add(k * stride + i) = if i < here { alpha * x[(first + i, k)] } else { 0.0 };
                    }
                }
            }
        }
    }
}

/// Of each column all rows, one after the other.
#[inline(always)]
pub(super) unsafe fn pack_rows<V: Vector>(x: MatRef<'_, f32>, alpha: f32, out: &mut [f32]) {
    assert_eq!(out.len(), x.nrows() * x.ncols(), "a block of another size");
    // SAFETY: `out` has one element for each of `x`.
    unsafe { columns::<V>(x, alpha, out.as_mut_ptr(), x.nrows(), x.nrows()) }
}

#[inline(always)]
pub(super) unsafe fn pack_panel<V: Vector>(rows: MatRef<'_, f32>, out: &mut [Step<f32, 32>]) {
    assert_eq!(out.len(), rows.ncols(), "a panel of another size");
    // SAFETY: a step has `PANEL` elements, and there is one for each column.
    unsafe { columns::<V>(rows, 1.0, out.as_mut_ptr().cast(), PANEL, PANEL) }
}

/// Column `k` of the rows at `out[k·width ..][.. width]`.
#[inline(always)]
pub(super) unsafe fn pack_columns<V: Vector>(rows: MatRef<'_, f32>, width: usize, out: &mut [f32]) {
    assert!(rows.nrows() <= width && out.len() == rows.ncols() * width, "a matrix of another size");
    // SAFETY: `out` has `width` elements for each column.
    unsafe { columns::<V>(rows, 1.0, out.as_mut_ptr(), width, width) }
}

/// Lane `j` of step `i` becomes lane `i` of step `j`.
#[inline(always)]
pub(super) unsafe fn turn<V: Vector>(from: &[Step<f32, 32>], to: &mut [Step<f32, 32>]) {
    assert!(from.len() == PANEL && to.len() == PANEL, "no whole square");
    let (from, to) = (from.as_ptr().cast::<f32>(), to.as_mut_ptr().cast::<f32>());
    for i in (0..PANEL).step_by(V::LANES) {
        for j in (0..PANEL).step_by(V::LANES) {
            // SAFETY: both squares have `PANEL·PANEL` elements.
            unsafe {
                V::transpose(
                    |row| V::load(from.add((i + row) * PANEL + j)),
                    |column, v| v.store(to.add((j + column) * PANEL + i)),
                );
            }
        }
    }
}

/// The functions of a level: from its register, the instructions to enable, and the heights of blocks that there are kernels for, with
/// columns in one, two, three and four registers; `packed` has the rows of the left factor side by side, `along` its depth.
macro_rules! level {
    (
        $vector:ty $(, $feature:literal)?;
        packed [$($p1:literal)*] [$($p2:literal)*] [$($p3:literal)*] [$($p4:literal)*];
        along [$($a1:literal)*] [$($a2:literal)*] [$($a3:literal)*] [$($a4:literal)*];
    ) => {
        pub(super) const KERNEL: $crate::element::Kernel<f32> = $crate::element::Kernel {
            max_rows: [$($p2),*].len(),
            max_steps: $crate::kernel::f32::DEPTH,
            pack_rows,
            pack_panel,
            turn,
            block,
        };

        pub(super) static DENSE: $crate::kernel::f32::Dense = $crate::kernel::f32::Dense {
            lanes: <$vector as $crate::kernel::vector::Vector>::LANES,
            packed: [
                &[$(tile::<$p1, 1, false>),*],
                &[$(tile::<$p2, 2, false>),*],
                &[$(tile::<$p3, 3, false>),*],
                &[$(tile::<$p4, 4, false>),*],
            ],
            along: [
                &[$(tile::<$a1, 1, true>),*],
                &[$(tile::<$a2, 2, true>),*],
                &[$(tile::<$a3, 3, true>),*],
                &[$(tile::<$a4, 4, true>),*],
            ],
            pack_rows,
            pack_columns,
        };

        $(#[target_feature(enable = $feature)])?
        unsafe fn tile<const M: usize, const NV: usize, const ALONG: bool>(tile: &$crate::kernel::f32::Tile) {
            // SAFETY: the caller says what this one needs; so in the functions below.
            unsafe { $crate::kernel::f32::tile::<$vector, M, NV, ALONG>(tile) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn pack_rows(x: faer::MatRef<'_, f32>, alpha: f32, out: &mut [f32]) {
            // SAFETY: as above.
            unsafe { $crate::kernel::f32::pack_rows::<$vector>(x, alpha, out) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn pack_panel(rows: faer::MatRef<'_, f32>, out: &mut [$crate::element::Step<f32, 32>]) {
            // SAFETY: as above.
            unsafe { $crate::kernel::f32::pack_panel::<$vector>(rows, out) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn pack_columns(rows: faer::MatRef<'_, f32>, width: usize, out: &mut [f32]) {
            // SAFETY: as above.
            unsafe { $crate::kernel::f32::pack_columns::<$vector>(rows, width, out) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn turn(from: &[$crate::element::Step<f32, 32>], to: &mut [$crate::element::Step<f32, 32>]) {
            // SAFETY: as above.
            unsafe { $crate::kernel::f32::turn::<$vector>(from, to) }
        }

        unsafe fn block(block: $crate::element::Block<'_, f32>) {
            // SAFETY: as above.
            unsafe { $crate::kernel::f32::block(&DENSE, block) }
        }
    };
}
pub(super) use level;
