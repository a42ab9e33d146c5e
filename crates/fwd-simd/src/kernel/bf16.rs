//! What the bf16 kernels of x86-64 have in common.
//!
//! A pair of bf16 that follow each other in depth is one dword, the earlier one in its lower half.

use faer::MatRef;

/// Elements of depth that are packed at once: those of a tile.
pub(super) const DEPTH: usize = 32;

/// Up to [`DEPTH`] elements of a row, from column `from`; zeros follow the last column.
#[inline(always)]
pub(super) fn read(x: MatRef<'_, f32>, row: usize, from: usize) -> [f32; DEPTH] {
    let mut out = [0f32; DEPTH];
    let n = DEPTH.min(x.ncols() - from);
    let x = x.row(row).subcols(from, n);
    match x.try_as_row_major() {
        Some(x) if n == DEPTH => out.copy_from_slice(x.as_slice()),
        Some(x) => out[..n].copy_from_slice(x.as_slice()),
        None => out.iter_mut().zip(x.iter()).for_each(|(out, &x)| *out = x),
    }
    out
}
