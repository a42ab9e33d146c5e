//! Whether stored rows hold finite numbers alone.

use super::{Format, StoredRows};
use crate::cpu::simd;
use rayon::prelude::*;

/// The first row with a NaN or an infinity. Of blocks only the scales are read: what they scale is always finite.
pub(crate) fn first_non_finite_row(rows: &StoredRows<'_>) -> Option<usize> {
    /// Enough bytes to be worth a task.
    const TASK_BYTES: usize = 1 << 18;
    let row_bytes = rows.row_bytes();
    if row_bytes == 0 {
        return None;
    }
    let per_task = (TASK_BYTES / row_bytes).max(1);
    let first = |(i, task): (usize, &[u8])| {
        if are_finite(rows.format, task) {
            return None;
        }
        let within = task.chunks_exact(row_bytes).position(|row| !are_finite(rows.format, row))?;
        Some(i * per_task + within)
    };
    rows.bytes.par_chunks(per_task * row_bytes).enumerate().find_map_first(first)
}

/// The bits of a magnitude order numbers, infinity after all finite ones and NaN last: the largest of all is looked for, because a loop
/// without a way out is compiled to vector instructions.
fn are_finite(format: Format, bytes: &[u8]) -> bool {
    const INFINITE_F16: u16 = 0x7c00;
    simd(
        #[inline(always)]
        || match format {
            Format::F32 => {
                let bits = bytes.as_chunks::<4>().0.iter().map(|&b| u32::from_le_bytes(b) & 0x7fff_ffff);
                bits.fold(0, u32::max) < 0x7f80_0000
            }
            Format::Bf16 => largest_u16(bytes) < 0x7f80,
            Format::F16 => largest_u16(bytes) < INFINITE_F16,
            _ => {
                let blocks = bytes.chunks_exact(format.block_bytes());
                let largest = |at: usize| {
                    let scales = blocks.clone().map(|b| u16::from_le_bytes([b[at], b[at + 1]]) & 0x7fff);
                    scales.fold(0, u16::max)
                };
                format.scale_places().iter().all(|&at| largest(at) < INFINITE_F16)
            }
        },
    )
}

#[inline(always)]
fn largest_u16(bytes: &[u8]) -> u16 {
    bytes.as_chunks::<2>().0.iter().map(|&b| u16::from_le_bytes(b) & 0x7fff).fold(0, u16::max)
}
