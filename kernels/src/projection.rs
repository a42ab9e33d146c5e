//! Plans of the signed low-rank update (`cuda/projection.cu`).

use crate::data::DType;
use crate::error::{KernelError, Result};
use crate::plan::{Arg, Launch, Plan, Role, Target, round_up, to_grid, to_i32};
use crate::source::File;

/// `Π(G) = δ·G + ((G B) ⊙ c) Bᵀ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectionShape {
    /// Number n of rows of G.
    pub rows: usize,
    /// Elements d of a row.
    pub d: usize,
    /// Number r of vectors of B.
    pub rank: usize,
    /// Whether δ is 1 (what lies outside of B is kept) or 0.
    pub keeps_rest: bool,
    /// Type of G, B and the result: f32, bf16 or f16. The coefficients c are f32.
    pub dtype: DType,
}

/// Plans `out = δ·g + ((g B) ⊙ c) Bᵀ`, 4·n·d·r operations on tensor cores.
///
/// # Shapes
/// Buffers: `g (n, d)`, `basis (r, d)`, the vectors of B one after the other, orthonormal, `c (r)` in f32, and the result `out (n, d)`;
/// all row-major.
///
/// Sums are f32. With f32 rows, each product is taken as three tf32 products, with a relative error of 2⁻¹⁹ at most and of 2⁻²² typically;
/// the error of a row of the result stays below `2⁻²⁴·(8 + sqrt(d + r))·(1 + max|c|)·‖g‖` in the tests, that of a sum in f32. With 16-bit
/// rows, the r coefficients of a row are rounded to their type, whose range must hold them. The result does not depend on the order
/// of threads.
///
/// # Cost
/// Few rows on a GPU with clusters (compute capability 9.0 on): one launch, in which 8 or 16 blocks share 16 or 32 rows, each with a slice of
/// d; B is read twice by each cluster. Otherwise two launches of tiled products, the first split over d if there are few tiles, and a
/// scratch of `n·r` f32 for each part of the split. Which it is depends on what fills the multiprocessors in one wave, and on shared memory.
///
/// # Errors
/// [`KernelError::Shape`] for a type that is not f32, bf16 or f16, sizes beyond a launch, or a GPU with too little shared memory.
pub fn plan_projection(shape: &ProjectionShape, target: &Target) -> Result<Plan> {
    let op = "projection";
    let ProjectionShape { rows, d, rank, keeps_rest, dtype } = *shape;
    if !matches!(dtype, DType::F32 | DType::Bf16 | DType::F16) {
        return Err(KernelError::shape(op, format!("rows are f32, bf16 or f16, not {}", dtype.suffix())));
    }
    let size = Size::new(op, rows, d, rank, dtype)?;
    let mut plan = Plan::new(op);
    let g = plan.buffer("g", Role::Input, dtype, size.elements);
    let basis = plan.buffer("basis", Role::Input, dtype, size.basis);
    let c = plan.buffer("c", Role::Input, DType::F32, rank);
    let out = plan.buffer("out", Role::Output, dtype, size.elements);
    if size.elements == 0 {
        return Ok(plan);
    }
    let delta = Arg::F32(f32::from(u8::from(keeps_rest)));
    let [n, d, r] = size.args;
    if let Some(cluster) = Cluster::choose(target, &size) {
        let kernel = format!("projection_cluster_{}_{}", cluster.blocks, dtype.suffix());
        let mut args = vec![g, basis, c, out, n, d, r, delta];
        args.extend(cluster.args(&size));
        plan.launches.push(cluster.launch(op, File::Projection, kernel, &size, args)?);
        return Ok(plan);
    }
    let tiled = Tiled::choose(target, op, &size)?;
    // Without vectors there are no coefficients to read.
    let a = if rank > 0 { tiled.scratch(&mut plan, &size) } else { g };
    tiled.coefficients(&mut plan, &size, [g, basis, c, a])?;
    let args = vec![g, a, basis, out, n, d, r, delta, tiled.splits(), size.packed()];
    let kernel = format!("projection_expand_{}", dtype.suffix());
    tiled.expand(&mut plan, File::Projection, kernel, &size, args)?;
    Ok(plan)
}

/// Sizes of a low-rank update, checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) d: usize,
    pub(crate) rank: usize,
    pub(crate) dtype: DType,
    /// Elements of G: n·d.
    pub(crate) elements: usize,
    /// Elements of the basis: r·d.
    pub(crate) basis: usize,
    /// n, d and r as the kernels take them.
    pub(crate) args: [Arg; 3],
}

impl Size {
    pub(crate) fn new(op: &'static str, rows: usize, d: usize, rank: usize, dtype: DType) -> Result<Self> {
        let product = |name: &str, n: usize| {
            let bytes = n.checked_mul(d).filter(|len| len.checked_mul(8).is_some());
            bytes.ok_or_else(|| KernelError::shape(op, format!("{n} {name} of {d} elements are too many")))
        };
        let (elements, basis) = (product("rows", rows)?, product("vectors", rank)?);
        // The kernels round sizes up to whole tiles.
        let arg = |name, value: usize| {
            to_i32(op, name, value.saturating_add(1024)).and(to_i32(op, name, value)).map(Arg::I32)
        };
        let args = [arg("rows", rows)?, arg("d", d)?, arg("rank", rank)?];
        Ok(Self { rows, d, rank, dtype, elements, basis, args })
    }

    /// Whether every row starts at a multiple of 16 bytes.
    pub(crate) fn packed(&self) -> Arg {
        Arg::I32(self.d.is_multiple_of(self.dtype.per_pack()).into())
    }

    /// Elements of a slab, 64 bytes of a row.
    fn slab(&self) -> usize {
        64 / self.dtype.size()
    }
}

/// Threads of a block, 8 warps; the kernels' `THREADS`.
pub(crate) const THREADS: usize = 256;

/// The launch in which each cluster of blocks does all for its rows (`Slice` in `lowrank.cuh`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(crate) blocks: usize,
    /// Rows of a cluster.
    tile: usize,
    /// Columns of a block.
    width: usize,
    /// Into how many parts the sums over a slice, and over r, are divided, so that all warps have work.
    k_parts: usize,
    r_parts: usize,
    shared_bytes: usize,
}

impl Cluster {
    /// The first of the choices that runs in one wave and fits shared memory. 16 blocks are more than every GPU with clusters has to
    /// offer; those with many multiprocessors do.
    pub(crate) fn choose(target: &Target, size: &Size) -> Option<Self> {
        if target.capability < 90 || size.rank == 0 {
            return None;
        }
        [(16, 16), (16, 32), (8, 16), (8, 32)].into_iter().find_map(|(blocks, tile)| {
            let multiprocessors = target.n_multiprocessors as usize;
            let one_wave = size.rows.div_ceil(tile).saturating_mul(blocks) <= multiprocessors;
            if !one_wave || (blocks == 16 && multiprocessors < 112) {
                return None;
            }
            let parts = |tiles: usize| (8 / tiles).max(1);
            let width = round_up(size.d.div_ceil(blocks), 32);
            let k_parts = parts(size.rank.div_ceil(32));
            let stride = round_up(size.rank, 32) + if size.dtype == DType::F32 { 4 } else { 8 };
            let slice = width / size.slab() * (tile + 1) * 64;
            let shared_bytes = slice + k_parts * tile * stride * 4 + 8 * 4 * 2560;
            let fits = shared_bytes <= target.shared_bytes as usize;
            fits.then(|| Self { blocks, tile, width, k_parts, r_parts: parts(width / 32), shared_bytes })
        })
    }

    /// The arguments `packed, rows, width, k_parts, r_parts`.
    pub(crate) fn args(&self, size: &Size) -> [Arg; 5] {
        let [tile, width, k, r] =
            [self.tile, self.width, self.k_parts, self.r_parts].map(|x| Arg::I32(x as i32));
        [size.packed(), tile, width, k, r]
    }

    pub(crate) fn launch(
        &self,
        op: &'static str,
        file: File,
        kernel: String,
        size: &Size,
        args: Vec<Arg>,
    ) -> Result<Launch> {
        Ok(Launch {
            file,
            kernel,
            grid: [to_grid(op, size.rows.div_ceil(self.tile) * self.blocks)?, 1, 1],
            block: THREADS as u32,
            cluster: self.blocks as u32,
            shared_bytes: self.shared_bytes as u32,
            args,
        })
    }
}

/// Rows and columns of a block's tile, and stages of its pipeline; the kernels' `TILE_ROWS` …
const TILE: (usize, usize, usize) = (64, 128, 3);

/// Tiled products: coefficients, then expansion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tiled {
    /// Parts of the sums over d, and steps of 128 bytes of each.
    splits: usize,
    steps: usize,
}

impl Tiled {
    pub(crate) fn choose(target: &Target, op: &'static str, size: &Size) -> Result<Self> {
        let needed = coefficients_shared().max(expand_shared(size.dtype));
        if needed > target.shared_bytes as usize {
            let message =
                format!("needs {needed} bytes of shared memory a block, the GPU has {}", target.shared_bytes);
            return Err(KernelError::shape(op, message));
        }
        let blocks = size.rows.div_ceil(TILE.0) * size.rank.div_ceil(TILE.1).max(1);
        let steps = size.d.div_ceil(2 * size.slab());
        // Each block of a split has at least four steps, and the expansion reads no more than eight parts.
        let splits = (target.n_multiprocessors as usize / blocks).min(8).min(steps / 4).max(1);
        let steps = steps.div_ceil(splits);
        Ok(Self { splits: size.d.div_ceil(2 * size.slab()).div_ceil(steps), steps })
    }

    pub(crate) fn splits(&self) -> Arg {
        Arg::I32(self.splits as i32)
    }

    /// The coefficients `(splits, n, r rounded up to 32)`.
    pub(crate) fn scratch(&self, plan: &mut Plan, size: &Size) -> Arg {
        let len = self.splits * size.rows * round_up(size.rank, 32);
        plan.buffer("coefficients", Role::Scratch, DType::F32, len)
    }

    /// Adds the launch for `a = (x Bᵀ) ⊙ c`; `buffers` are x, the basis, c and a.
    pub(crate) fn coefficients(&self, plan: &mut Plan, size: &Size, buffers: [Arg; 4]) -> Result<()> {
        if size.rank == 0 {
            return Ok(());
        }
        let mut args = buffers.to_vec();
        args.extend(size.args);
        args.extend([Arg::I32(self.steps as i32), size.packed()]);
        let vectors = to_second(plan.op, size.rank.div_ceil(TILE.1))?;
        plan.launches.push(Launch {
            file: File::Projection,
            kernel: format!("projection_coefficients_{}", size.dtype.suffix()),
            grid: [to_grid(plan.op, size.rows.div_ceil(TILE.0))?, vectors, self.splits as u32],
            block: THREADS as u32,
            cluster: 1,
            shared_bytes: coefficients_shared() as u32,
            args,
        });
        Ok(())
    }

    /// Adds a launch that expands coefficients.
    pub(crate) fn expand(
        &self,
        plan: &mut Plan,
        file: File,
        kernel: String,
        size: &Size,
        args: Vec<Arg>,
    ) -> Result<()> {
        let columns = to_second(plan.op, size.d.div_ceil(TILE.1))?;
        plan.launches.push(Launch {
            file,
            kernel,
            grid: [to_grid(plan.op, size.rows.div_ceil(TILE.0))?, columns, 1],
            block: THREADS as u32,
            cluster: 1,
            shared_bytes: expand_shared(size.dtype) as u32,
            args,
        });
        Ok(())
    }
}

/// Two slabs of the rows and of the vectors of a tile, each with 64 bytes to spare.
fn coefficients_shared() -> usize {
    TILE.2 * 2 * (TILE.0 + 1 + TILE.1 + 1) * 64
}

/// 32 coefficients of the rows, and 32 vectors of a tile, padded.
fn expand_shared(dtype: DType) -> usize {
    let pad = if dtype == DType::F32 { 4 } else { 8 };
    TILE.2 * (TILE.0 * (32 + pad) * 4 + 32 * (TILE.1 + 8) * dtype.size())
}

/// A number of blocks along the second dimension of a grid.
fn to_second(op: &'static str, blocks: usize) -> Result<u32> {
    match u32::try_from(blocks) {
        Ok(n) if n <= 65_535 => Ok(n),
        _ => Err(KernelError::shape(op, format!("{blocks} tiles of columns are more than a grid has"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(rows: usize, d: usize, rank: usize) -> ProjectionShape {
        ProjectionShape { rows, d, rank, keeps_rest: true, dtype: DType::F32 }
    }

    #[test]
    fn few_rows_take_one_launch_of_clusters_and_many_take_two() {
        for (target, rows, d, rank, launches) in [
            (Target::H100, 50, 768, 64, &[("projection_cluster_16_f32", 64)][..]),
            (Target::H100, 200, 2048, 512, &[("projection_cluster_16_f32", 112)]),
            (Target::H100, 500, 2048, 512, &[("projection_cluster_8_f32", 128)]),
            (Target::H100, 200, 2048, 2048, &[("projection_cluster_8_f32", 104)]),
            (
                Target::H100,
                1000,
                4096,
                1024,
                &[("projection_coefficients_f32", 16 * 8), ("projection_expand_f32", 16 * 32)],
            ),
            (
                Target::A100,
                200,
                2048,
                512,
                &[("projection_coefficients_f32", 4 * 4 * 6), ("projection_expand_f32", 4 * 16)],
            ),
            (Target::H100, 200, 2048, 0, &[("projection_expand_f32", 4 * 16)]),
        ] {
            let plan = plan_projection(&shape(rows, d, rank), &target).unwrap();
            let found: Vec<_> =
                plan.launches.iter().map(|l| (l.kernel.as_str(), l.grid.iter().product::<u32>())).collect();
            assert_eq!(found, launches, "{rows} × {d}, rank {rank}");
            for launch in &plan.launches {
                assert!(launch.shared_bytes <= target.shared_bytes && launch.grid[0] % launch.cluster == 0);
            }
        }
    }

    #[test]
    fn every_shape_of_use_has_a_plan_within_shared_memory() {
        for target in [Target::H100, Target::A100, Target { n_multiprocessors: 20, ..Target::H100 }] {
            for rows in [1, 50, 200, 1000, 4000] {
                for d in [1, 768, 2048, 4096, 4099] {
                    for rank in [1, 64, 512, 2048] {
                        for dtype in [DType::F32, DType::Bf16] {
                            let shape = ProjectionShape { dtype, ..shape(rows, d, rank) };
                            let plan = plan_projection(&shape, &target).unwrap();
                            let most = plan.launches.iter().map(|l| l.shared_bytes).max();
                            assert!(most <= Some(target.shared_bytes), "{shape:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_no_kernel_can_do_is_refused() {
        let small = shape(3, 8, 2);
        for wrong in [
            ProjectionShape { dtype: DType::F64, ..small },
            ProjectionShape { rows: 1 << 32, ..small },
            ProjectionShape { d: 1 << 62, ..small },
            ProjectionShape { d: 1 << 30, ..small },
        ] {
            assert!(
                matches!(plan_projection(&wrong, &Target::A100), Err(KernelError::Shape { .. })),
                "{wrong:?}"
            );
        }
        let tiny = Target { shared_bytes: 48 * 1024, ..Target::A100 };
        assert!(matches!(plan_projection(&small, &tiny), Err(KernelError::Shape { .. })));
        for empty in [shape(0, 8, 2), shape(3, 0, 0)] {
            assert!(plan_projection(&empty, &Target::H100).unwrap().launches.is_empty());
        }
    }
}
