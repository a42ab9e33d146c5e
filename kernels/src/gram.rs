//! Plans of the streaming Gram matrix `C += ZᵀZ` (`cuda/gram.cu`).
//!
//! # Rounding
//! `C` is f64. Rows are cut into ranges of at most [`MAX_RANGE`] rows, each range's product is a f32 sum, and the ranges are added in f64,
//! in order. Products of 16-bit rows are exact and f32 sums of tensor cores are truncated, once for 16 rows: an entry of a range
//! of R rows is off by at most `2⁻²³·(R/16 + 32)·Σ|z_i z_j|`, of which truncation makes a shrinking by about R·1e-9, alike for
//! all entries. That lies below what 16 bits left of the rows. Rows in f32 are split in two tf32 numbers (22 bits) and truncated sums are
//! kept to 16 rows, so there the error is that of an f32 sum rounded to nearest, however long the range.
//!
//! # Speed: 200,000 × 2048 in bf16 on an H100, by arithmetic
//! Nothing of this is measured yet.
//!
//! - Work: 2·N·d·(d+1)/2 = 0.84 Tflop; 72 tiles of 256×128, less the warps above the diagonal, multiply 0.87 Tflop. The plan makes 11 ranges:
//!   792 blocks are 6 full waves of 132 multiprocessors.
//! - Tensor cores: `mma.sync` reaches about 62 % of the 989 Tflop/s of `wgmma` (Luo et al. 2024, microbenchmarks): 1.4 ms.
//! - Shared memory: a warp's 64×64 take (64 + 64)·16 elements from it for 64·64·16 multiply-adds: for the block and 16 rows 256
//!   cycles of reads at 128 bytes each and 96 of copies, against about 415 of arithmetic.
//! - L2: a block loads 384 columns (256 on the diagonal) for its 256×128: 10.2 GB, at about 5.5 TB/s 1.9 ms. This is the narrowest place:
//!   128×128 tiles would need 3.1 ms. Sharing panels between the blocks of a cluster, which needs bulk copies with multicast, is the next
//!   step; with it `wgmma` pays.
//! - Device memory: Z once, 0.82 GB, 0.25 ms; partial tiles 104 MB written and read, 0.06 ms.
//! - Occupancy: 1 block of 8 warps on a multiprocessor (12.5 %), bounded by the 128 accumulators of a thread; latency is hidden by the four
//!   stages and by loading the next fragments during 32 products, not by more warps.
//!
//! | kernel | registers sm_80 / sm_90a / sm_100 | spilled | shared memory |
//! |---|---|---|---|
//! | `gram_partial_bf16`, `_f16` | 228 / 228 / 250 | 0 | 96 KB |
//! | `gram_partial_f32` | 229 / 229 / 241 | 0 | 64 KB |
//! | `gram_partial_single_bf16`, `_f16` | 255 / 254 / 253 | 0 | 96 KB |
//! | `gram_partial_single_f32` | 235 / 233 / 241 | 0 | 64 KB |
//! | `gram_merge` | 34 / 32 / 34 | 0 | 0 |
//! | `gram_mirror` | 26 / 28 / 18 | 0 | 8.25 KB |
//!
//! (nvcc 13.0.88, `-O3`.)

use crate::data::DType;
use crate::error::{KernelError, Result};
use crate::plan::{Arg, Launch, Plan, Role, Target, round_up, to_grid, to_i32};
use crate::source::File;

/// A block of rows to be added to a Gram matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GramShape {
    /// Number of rows N.
    pub rows: usize,
    /// Elements of a row.
    pub d: usize,
    /// Type of the rows: f32, bf16 or f16.
    pub dtype: DType,
}

/// Most rows of a range, whose product is one f32 sum.
const MAX_RANGE: usize = 20_480;
/// Columns of a tile, and of a panel in shared memory; the kernel's `PANEL`.
const PANEL: usize = 128;
/// Bytes of a panel in a stage, and stages; the kernel's `PANEL_BYTES` and `STAGES`.
const PANEL_BYTES: usize = 8192;
const STAGES: usize = 4;
const THREADS: u32 = 256;
/// What a block costs beside its rows, in rows: filling the pipeline, writing its tile, and merging it. No range is shorter unless
/// all rows are.
const OVERHEAD: usize = 512;

/// Plans `C += ZᵀZ`, the lower triangle.
///
/// # Shapes
/// Buffers: `z (rows, d)` row-major, finite, its address a multiple of 16 bytes; `c (d, d)` row-major f64, read and written where
/// column ≤ row and left alone elsewhere ([`plan_gram_mirror`] fills it). Scratch: a f32 tile for each block, about 2·d² bytes for
/// each range of rows; cutting the rows into several calls makes it smaller.
///
/// # Cost
/// About `rows·d²/2` multiply-adds; f32 rows take three tf32 products each, a sixth of the speed of 16-bit ones. Rows of d elements
/// that are not whole 16 bytes are loaded one element at a time.
///
/// # Errors
/// [`KernelError::Shape`] for a type that is not f32, bf16 or f16, a size beyond 2³¹ − 1, or a GPU with less shared memory than a
/// block needs.
///
/// # Source
/// Uncentred second moments as in GPM (Saha et al. 2021); two-term splitting of f32 for tensor cores after Ootomo and Yokota (2022).
///
/// # Examples
/// ```
/// use fwd_kernels::{DType, GramShape, Target, plan_gram};
/// let plan = plan_gram(&GramShape { rows: 200_000, d: 2048, dtype: DType::Bf16 }, &Target::H100)?;
/// assert_eq!(plan.launches[0].grid[0], 6 * 132); // six full waves
/// # Ok::<(), fwd_kernels::KernelError>(())
/// ```
pub fn plan_gram(shape: &GramShape, target: &Target) -> Result<Plan> {
    let op = "gram";
    let GramShape { rows, d, dtype } = *shape;
    // Panels of the left operand: a tile has 128 rows each.
    let ratio = match dtype {
        DType::Bf16 | DType::F16 => 2,
        DType::F32 => 1,
        _ => {
            return Err(KernelError::shape(op, format!("rows are f32, bf16 or f16, not {}", dtype.suffix())));
        }
    };
    let (n_arg, d_arg) = (to_i32(op, "rows", rows)?, to_i32(op, "d", d)?);
    let area = area(op, d)?;
    let mut plan = Plan::new(op);
    let z = plan.buffer("z", Role::Input, dtype, rows * d);
    let c = plan.buffer("c", Role::InOut, DType::F64, area);
    if rows == 0 || d == 0 {
        return Ok(plan);
    }
    let shared = STAGES * (ratio + 1) * PANEL_BYTES;
    if shared > target.shared_bytes as usize {
        let message = format!("needs {shared} bytes of shared memory, a block has {}", target.shared_bytes);
        return Err(KernelError::shape(op, message));
    }
    let n_tiles = n_tiles(d, ratio);
    let stage = PANEL_BYTES / (PANEL * dtype.size());
    let range = range(rows, n_tiles, stage, target.n_multiprocessors as usize);
    let n_ranges = rows.div_ceil(range);
    let blocks = to_grid(op, n_tiles * n_ranges)?;
    let tiles = plan.buffer("tiles", Role::Scratch, DType::F32, n_tiles * n_ranges * ratio * PANEL * PANEL);
    let tiles_arg = Arg::I32(to_i32(op, "tiles", n_tiles)?);
    let access = if d.is_multiple_of(dtype.per_pack()) { "" } else { "single_" };
    plan.launches.push(Launch {
        file: File::Gram,
        kernel: format!("gram_partial_{access}{}", dtype.suffix()),
        grid: [blocks, 1, 1],
        block: THREADS,
        cluster: 1,
        shared_bytes: shared as u32,
        args: vec![
            z,
            tiles,
            Arg::I32(n_arg),
            Arg::I32(d_arg),
            Arg::I32(to_i32(op, "range", range)?),
            tiles_arg,
        ],
    });
    let n_ranges = to_i32(op, "ranges", n_ranges)?;
    plan.launches.push(Launch {
        file: File::Gram,
        kernel: "gram_merge".to_owned(),
        grid: [to_grid(op, n_tiles * ratio * PANEL * PANEL / (4 * THREADS as usize))?, 1, 1],
        block: THREADS,
        cluster: 1,
        shared_bytes: 0,
        args: vec![tiles, c, Arg::I32(d_arg), tiles_arg, Arg::I32(n_ranges), Arg::I32(ratio as i32)],
    });
    Ok(plan)
}

/// Plans the copy of the lower triangle of a square matrix to the upper one: `C[j][i] = C[i][j]`, j < i.
///
/// # Shapes
/// Buffer: `c (d, d)` row-major f64. d² reads and writes of 4 bytes on average.
///
/// # Errors
/// [`KernelError::Shape`] for a size beyond 2³¹ − 1.
pub fn plan_gram_mirror(d: usize) -> Result<Plan> {
    let op = "gram mirror";
    let d_arg = to_i32(op, "d", d)?;
    let mut plan = Plan::new(op);
    let c = plan.buffer("c", Role::InOut, DType::F64, area(op, d)?);
    if d > 1 {
        let side = d.div_ceil(32);
        plan.launches.push(Launch {
            file: File::Gram,
            kernel: "gram_mirror".to_owned(),
            grid: [to_grid(op, side * (side + 1) / 2)?, 1, 1],
            block: THREADS,
            cluster: 1,
            shared_bytes: 32 * 33 * 8,
            args: vec![c, Arg::I32(d_arg)],
        });
    }
    Ok(plan)
}

/// d², for matrices that a GPU may hold.
fn area(op: &'static str, d: usize) -> Result<usize> {
    d.checked_mul(d)
        .filter(|&area| area < 1 << 40)
        .ok_or_else(|| KernelError::shape(op, format!("a matrix of {d} × {d} is larger than any memory")))
}

/// Tiles of `ratio`·128 × 128 that touch the lower triangle.
fn n_tiles(d: usize, ratio: usize) -> usize {
    let (rows, columns) = (d.div_ceil(ratio * PANEL), d.div_ceil(PANEL));
    ratio * rows * (rows + 1) / 2 - (ratio * rows - columns)
}

/// Rows of a range, whole stages: what keeps all multiprocessors busy to the end, counted in rows that one block works on.
fn range(rows: usize, n_tiles: usize, stage: usize, n_multiprocessors: usize) -> usize {
    let candidate = |n_ranges: usize| round_up(rows.div_ceil(n_ranges), stage);
    let cost = |range: usize| {
        let blocks = n_tiles * rows.div_ceil(range);
        blocks.div_ceil(n_multiprocessors.max(1)) * (range + OVERHEAD)
    };
    let least = rows.div_ceil(MAX_RANGE);
    let most = least.max((rows / OVERHEAD).min(4 * n_multiprocessors));
    // The first of equals: fewer ranges need less scratch.
    (least..=most).map(candidate).min_by_key(|&range| cost(range)).unwrap_or(stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(rows: usize, d: usize, dtype: DType) -> GramShape {
        GramShape { rows, d, dtype }
    }

    #[test]
    fn tiles_are_those_that_touch_the_triangle() {
        for d in [1usize, 100, 128, 129, 256, 257, 700, 2048, 4096] {
            for ratio in [1, 2] {
                let (rows, columns) = (d.div_ceil(ratio * 128), d.div_ceil(128));
                let touching = (0..rows)
                    .map(|i| (0..columns).filter(|j| j * 128 < (i + 1) * ratio * 128).count())
                    .sum::<usize>();
                assert_eq!(n_tiles(d, ratio), touching, "{d} {ratio}");
            }
        }
        assert_eq!((n_tiles(2048, 2), n_tiles(2048, 1)), (72, 136));
    }

    #[test]
    fn multiprocessors_are_busy_to_the_end() {
        for d in [768, 2048, 4096] {
            for dtype in [DType::Bf16, DType::F32] {
                let plan = plan_gram(&shape(200_000, d, dtype), &Target::H100).unwrap();
                let blocks = plan.launches[0].grid[0] as usize;
                let share = blocks as f64 / round_up(blocks, 132) as f64;
                assert!(share > 0.96, "{d} {dtype:?}: {blocks} blocks, {share}");
            }
        }
    }

    #[test]
    fn ranges_cover_the_rows_and_none_is_empty() {
        for rows in [1, 31, 32, 33, 4096, 100_003, 5_000_000] {
            for (n_tiles, stage) in [(1, 32), (3, 16), (72, 32), (2080, 16)] {
                let range = range(rows, n_tiles, stage, 132);
                assert!(range.is_multiple_of(stage) && range <= MAX_RANGE, "{rows} {n_tiles}: {range}");
                assert!(range >= OVERHEAD.min(rows), "{rows} {n_tiles}: {range}");
                assert!((rows.div_ceil(range) - 1) * range < rows);
            }
        }
    }

    #[test]
    fn each_type_and_alignment_has_its_kernel() {
        for (d, dtype, kernel, shared) in [
            (768, DType::Bf16, "gram_partial_bf16", 96 * 1024),
            (12, DType::F16, "gram_partial_single_f16", 96 * 1024),
            (12, DType::F32, "gram_partial_f32", 64 * 1024),
            (7, DType::F32, "gram_partial_single_f32", 64 * 1024),
        ] {
            let plan = plan_gram(&shape(9, d, dtype), &Target::A100).unwrap();
            assert_eq!((plan.launches[0].kernel.as_str(), plan.launches[0].shared_bytes), (kernel, shared));
            assert_eq!(plan.launches[1].kernel, "gram_merge");
            assert_eq!(plan.bound().count(), 2);
        }
    }

    #[test]
    fn what_no_kernel_can_do_is_refused() {
        for wrong in [
            shape(1, 8, DType::F64),
            shape(1 << 31, 8, DType::Bf16),
            shape(1, 1 << 31, DType::Bf16),
            shape(1, 1 << 20, DType::Bf16),
        ] {
            assert!(matches!(plan_gram(&wrong, &Target::H100), Err(KernelError::Shape { .. })), "{wrong:?}");
        }
        let small = Target { shared_bytes: 48 * 1024, ..Target::H100 };
        assert!(plan_gram(&shape(8, 8, DType::F32), &small).is_err());
        assert!(plan_gram_mirror(1 << 31).is_err());
    }

    #[test]
    fn nothing_to_do_is_no_launch() {
        for nothing in [shape(0, 64, DType::Bf16), shape(64, 0, DType::F32)] {
            assert!(plan_gram(&nothing, &Target::H100).unwrap().launches.is_empty());
        }
        assert!(plan_gram_mirror(1).unwrap().launches.is_empty());
    }
}
