//! Whether stored rows hold finite numbers alone.

use super::{Format, StoredRows};
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
    let all_finite = |task: &[u8]| match rows.format {
        Format::F32 => floats_are_finite::<4>(task, |b| u32::from_le_bytes(b) & 0x7f80_0000 != 0x7f80_0000),
        Format::Bf16 => floats_are_finite::<2>(task, |b| u16::from_le_bytes(b) & 0x7f80 != 0x7f80),
        Format::F16 => floats_are_finite::<2>(task, is_finite_f16),
        format => task
            .chunks_exact(format.block_bytes())
            .all(|block| scale_places(format).iter().all(|&at| is_finite_f16([block[at], block[at + 1]]))),
    };
    let first = |(i, task): (usize, &[u8])| {
        if all_finite(task) {
            return None;
        }
        let within = task.chunks_exact(row_bytes).position(|row| !all_finite(row))?;
        Some(i * per_task + within)
    };
    rows.bytes.par_chunks(per_task * row_bytes).enumerate().find_map_first(first)
}

fn is_finite_f16(bytes: [u8; 2]) -> bool {
    u16::from_le_bytes(bytes) & 0x7c00 != 0x7c00
}

/// Not short-circuited, so that it vectorises.
fn floats_are_finite<const N: usize>(bytes: &[u8], is_finite: impl Fn([u8; N]) -> bool) -> bool {
    bytes.as_chunks::<N>().0.iter().fold(true, |all, &b| all & is_finite(b))
}

/// Where a block's f16 scales lie.
fn scale_places(format: Format) -> &'static [usize] {
    match format {
        Format::F32 | Format::Bf16 | Format::F16 => &[],
        Format::Q4_0 | Format::Q5_0 | Format::Q8_0 => &[0],
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q6K => &[208],
    }
}
