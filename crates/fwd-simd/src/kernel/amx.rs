//! Products of bf16 by tiles (AMX-BF16): `C (16, 16) += A (16, 32)·B (32, 16)` in one instruction, of which a block of up to 32 rows and
//! 32 columns takes four for each 32 elements of depth.
//!
//! `tdpbf16ps` sums the products of the first and of the second elements of the pairs apart from each other, in f32 and rounded once each,
//! adds the two sums, and adds that to the tile; subnormals count as zeros (Intel 64 and IA-32 Architectures Software Developer's Manual,
//! volume 2, TDPBF16PS). At most 16 + 1 + ⌈k/32⌉ roundings lie on the way of a product into its sum.
//!
//! Stable Rust has no types for tiles, so the whole product of a block is one piece of assembly, which configures the tiles and releases
//! them: nothing of their state outlives a call. The configuration takes about 200 cycles, hence the long runs of steps.
#![allow(unsafe_code)]

use super::dot;
use crate::element::{Block, Kernel, PANEL};
use half::bf16;
use std::arch::asm;

/// Rows of a tile, and steps of a panel that make one.
const ROWS: usize = 16;

pub(super) fn kernel() -> Kernel<bf16> {
    Kernel {
        max_rows: 2 * ROWS,
        max_steps: 1024,
        pack_rows: dot::pack_tiles,
        pack_panel: dot::pack_panel,
        turn: dot::turn,
        block,
    }
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row of each tile.
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Config {
    /// Tiles 0 and 1 are the upper rows of the result, 2 and 3 the lower ones, 4 and 5 those of the left factor, 6 and 7 a step of 32
    /// elements of depth of the panel. A tile must have a row, even if it is not used.
    fn new(upper: usize, lower: usize) -> Self {
        let (upper, lower) = (upper as u8, lower.max(1) as u8);
        let mut rows = [0; 16];
        rows[..8].copy_from_slice(&[upper, upper, lower, lower, upper, lower, ROWS as u8, ROWS as u8]);
        let mut row_bytes = [0; 16];
        row_bytes[..8].fill(64);
        Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    }
}

/// # Safety
/// The processor and the operating system have AMX-BF16, and `m` rows of `n` columns lie at `c`, which nobody else reads or writes.
unsafe fn block(block: Block<'_, bf16>) {
    let Block { m, n, a, b, c, c_stride, accumulate } = block;
    assert!(
        (1..=2 * ROWS).contains(&m) && b.len().is_multiple_of(ROWS) && a.len() == 2 * m * b.len(),
        "whole tiles"
    );
    if n == PANEL {
        // SAFETY: as the caller says, and the lengths were checked.
        return unsafe { product(m, a, b.as_ptr().cast(), b.len() / ROWS, c, c_stride, accumulate) };
    }
    let mut whole = [0f32; 2 * ROWS * PANEL];
    // SAFETY: `whole` holds 32 rows of 32 columns; of the result, `m` rows of `n` columns are read and written.
    unsafe {
        let rows = |i: usize| c.offset(i as isize * c_stride);
        if accumulate {
            for (i, row) in whole.chunks_exact_mut(PANEL).take(m).enumerate() {
                row[..n].copy_from_slice(std::slice::from_raw_parts(rows(i), n));
            }
        }
        product(m, a, b.as_ptr().cast(), b.len() / ROWS, whole.as_mut_ptr(), PANEL as isize, accumulate);
        for (i, row) in whole.chunks_exact(PANEL).take(m).enumerate() {
            std::slice::from_raw_parts_mut(rows(i), n).copy_from_slice(&row[..n]);
        }
    }
}

/// `c (m, 32) (+)= a·b`, with `n_tiles` tiles of depth.
///
/// # Safety
/// As [`block`] with 32 columns, and `a` and `b` hold `n_tiles` tiles of `m` rows and of 32 columns.
unsafe fn product(
    m: usize,
    a: &[bf16],
    b: *const bf16,
    n_tiles: usize,
    c: *mut f32,
    c_stride: isize,
    accumulate: bool,
) {
    let upper = m.min(ROWS);
    let config = Config::new(upper, m - upper);
    // Null if there are no lower rows.
    let lower = if m > ROWS { c.wrapping_offset(ROWS as isize * c_stride) } else { std::ptr::null_mut() };
    // SAFETY: the tiles are as large as configured: rows of 64 bytes, `c_stride` values apart in the result, 64 bytes in `a` and 128 in
    // `b`; the lower ones are touched only if there are lower rows. The tiles are declared as overwritten and are released at the end.
    unsafe {
        asm!(
            "ldtilecfg [{config}]",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "test {accumulate:e}, {accumulate:e}",
            "jz 2f",
            "tileloadd tmm0, [{c} + {c_stride}*4]",
            "tileloadd tmm1, [{c} + {c_stride}*4 + 64]",
            "test {lower}, {lower}",
            "jz 2f",
            "tileloadd tmm2, [{lower} + {c_stride}*4]",
            "tileloadd tmm3, [{lower} + {c_stride}*4 + 64]",
            "2:",
            "test {n_tiles}, {n_tiles}",
            "jz 5f",
            "3:",
            "tileloadd tmm6, [{b} + {row}*2]",
            "tileloadd tmm4, [{a} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {row}*2 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "test {lower}, {lower}",
            "jz 4f",
            "tileloadd tmm5, [{a} + {row}*1 + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "4:",
            "add {a}, {a_step}",
            "add {b}, 2048",
            "dec {n_tiles}",
            "jnz 3b",
            "5:",
            "tilestored [{c} + {c_stride}*4], tmm0",
            "tilestored [{c} + {c_stride}*4 + 64], tmm1",
            "test {lower}, {lower}",
            "jz 6f",
            "tilestored [{lower} + {c_stride}*4], tmm2",
            "tilestored [{lower} + {c_stride}*4 + 64], tmm3",
            "6:",
            "tilerelease",
            config = in(reg) &raw const config,
            accumulate = in(reg) u32::from(accumulate),
            a = inout(reg) a.as_ptr() => _,
            b = inout(reg) b => _,
            n_tiles = inout(reg) n_tiles => _,
            c = in(reg) c,
            c_stride = in(reg) c_stride,
            lower = in(reg) lower,
            row = in(reg) 64usize,
            a_step = in(reg) 64 * m,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
