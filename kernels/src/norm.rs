//! Plans of layer norm and RMS norm (`cuda/norm.cu`).

use crate::data::DType;
use crate::error::{KernelError, Result};
use crate::plan::{Arg, Launch, Plan, Role, Target, round_up, to_grid, to_i32};
use crate::source::File;

/// The norm of a row `x`, with weights `w` and `b` of its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// `w·x/sqrt(mean x² + eps)` (Zhang & Sennrich 2019).
    Rms,
    /// `w·(x − mean x)/sqrt(var x + eps) + b` (Ba et al. 2016).
    Layer,
}

/// What is normalised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormShape {
    /// Layer norm or RMS norm.
    pub kind: NormKind,
    /// Number of rows that are normalised.
    pub rows: usize,
    /// Elements of a row, at most 16,384, and 4,096 unless a multiple of 4 (f32) or 8 (bf16, f16).
    pub d: usize,
    /// Added under the root.
    pub eps: f32,
    /// Type of rows and results: f32, bf16 or f16. Parameters are f32.
    pub dtype: DType,
}

/// Accesses of a thread; the kernel's `ITEMS`.
const ITEMS: usize = 4;

/// Plans `y = norm(x)`.
///
/// # Shapes
/// Buffers: `x (rows, d)`, `weight (d)`, for layer norm `bias (d)`, and the result `y (rows, d)`.
///
/// # Errors
/// [`KernelError::Shape`] for an empty or too long row, or a type that is not f32, bf16 or f16.
pub fn plan_norm_forward(shape: &NormShape) -> Result<Plan> {
    plan("norm forward", "norm_forward", shape, |plan, x| {
        let weight = plan.buffer("weight", Role::Input, DType::F32, shape.d);
        let bias = match shape.kind {
            NormKind::Layer => plan.buffer("bias", Role::Input, DType::F32, shape.d),
            NormKind::Rms => weight,
        };
        let y = plan.buffer("y", Role::Output, shape.dtype, shape.rows * shape.d);
        vec![x, weight, bias, y]
    })
}

/// Plans the gradient to the input of [`plan_norm_forward`].
///
/// # Shapes
/// Buffers: `x (rows, d)`, `weight (d)`, `dy (rows, d)`, and the result `dx (rows, d)`.
///
/// # Errors
/// As [`plan_norm_forward`].
pub fn plan_norm_backward(shape: &NormShape) -> Result<Plan> {
    plan("norm backward", "norm_backward", shape, |plan, x| {
        let weight = plan.buffer("weight", Role::Input, DType::F32, shape.d);
        let dy = plan.buffer("dy", Role::Input, shape.dtype, shape.rows * shape.d);
        let dx = plan.buffer("dx", Role::Output, shape.dtype, shape.rows * shape.d);
        vec![x, weight, dy, dx]
    })
}

/// Plans the gradients to the parameters of [`plan_norm_forward`]: `dw = Σ dy·x̂` with the normalised row `x̂`, and for layer norm
/// `db = Σ dy`, both over the rows, in f32 in a fixed order. Reads `x` twice and `dy` once.
///
/// # Shapes
/// Buffers: `x (rows, d)`, `dy (rows, d)`, and the results in f32, `d_weight (d)` and for layer norm `d_bias (d)`.
///
/// # Errors
/// As [`plan_norm_forward`].
pub fn plan_norm_weight_gradient(shape: &NormShape, target: &Target) -> Result<Plan> {
    const OP: &str = "norm weight gradient";
    let NormShape { kind, rows, d, dtype, .. } = *shape;
    let mut statistics = Arg::I32(0);
    let mut plan = plan(OP, "norm_statistics", shape, |plan, x| {
        statistics = plan.buffer("means and scales", Role::Scratch, DType::F32, 2 * rows);
        vec![x, statistics, Arg::I32(rows as i32)]
    })?;
    let sums = ColumnSums::new(OP, rows, d, dtype, target)?;
    let dy = plan.buffer("dy", Role::Input, dtype, rows * d);
    let d_weight = plan.buffer("d_weight", Role::Output, DType::F32, d);
    let d_bias = match kind {
        NormKind::Layer => plan.buffer("d_bias", Role::Output, DType::F32, d),
        NormKind::Rms => d_weight,
    };
    let layer = kind == NormKind::Layer;
    let to_weight = sums.partial(&mut plan, d_weight);
    let to_bias = if layer { sums.partial(&mut plan, d_bias) } else { to_weight };
    let mut args = vec![Arg::Buffer(0), dy, statistics, to_weight, to_bias];
    args.extend([sums.rows, sums.d, sums.rows_per_chunk, Arg::I32(layer.into())]);
    sums.push(&mut plan, "norm_parameters", 2, args);
    sums.merge(&mut plan, to_weight, d_weight, target)?;
    if layer {
        sums.merge(&mut plan, to_bias, d_bias, target)?;
    }
    Ok(plan)
}

/// Plans the sum over rows, `sums_j = Σ_i x_ij`, in f32 in a fixed order: the gradient to whatever was added to every row.
///
/// # Shapes
/// Buffers: `x (rows, d)` in the type, and the result `sums (d)` in f32.
///
/// # Errors
/// [`KernelError::Shape`] for a type that is not f32, bf16 or f16, or more than 2³¹ − 1 rows or elements of a row.
pub fn plan_sum_rows(rows: usize, d: usize, dtype: DType, target: &Target) -> Result<Plan> {
    let mut plan = Plan::new("sum of rows");
    let x = plan.buffer("x", Role::Input, dtype, rows * d);
    let sums = plan.buffer("sums", Role::Output, DType::F32, d);
    push_sum_rows(&mut plan, (rows, d, dtype), x, sums, 1.0, target)?;
    Ok(plan)
}

/// Adds launches for `sums = factor·Σ_i x_i` over the rows of `x (rows, d)`.
pub(crate) fn push_sum_rows(
    plan: &mut Plan,
    (rows, d, dtype): (usize, usize, DType),
    x: Arg,
    to: Arg,
    factor: f32,
    target: &Target,
) -> Result<()> {
    let sums = ColumnSums::new(plan.op, rows, d, dtype, target)?;
    let partial = sums.partial(plan, to);
    let args = vec![x, partial, sums.rows, sums.d, sums.rows_per_chunk, Arg::F32(factor)];
    sums.push(plan, "sum_rows", 1, args);
    sums.merge(plan, partial, to, target)
}

/// Sums over the rows of a matrix, by chunks of rows where its columns alone would not keep the GPU busy.
struct ColumnSums {
    dtype: DType,
    width: usize,
    chunks: usize,
    n_columns: usize,
    rows: Arg,
    d: Arg,
    rows_per_chunk: Arg,
}

impl ColumnSums {
    /// Warps of a block.
    const WARPS: usize = 8;
    /// Most chunks; the second launch reads one number of each for a column.
    const MOST_CHUNKS: usize = 128;

    fn new(op: &'static str, rows: usize, d: usize, dtype: DType, target: &Target) -> Result<Self> {
        if !matches!(dtype, DType::F32 | DType::Bf16 | DType::F16) {
            return Err(KernelError::shape(op, format!("rows are f32, bf16 or f16, not {}", dtype.suffix())));
        }
        let width = if d.is_multiple_of(dtype.per_pack()) { dtype.per_pack() } else { 1 };
        let tiles = d.div_ceil(32 * width);
        // Four blocks a multiprocessor, but at least four rows for each warp.
        let wanted = (4 * target.n_multiprocessors as usize).div_ceil(tiles.max(1));
        let chunks = wanted.min(rows.div_ceil(4 * Self::WARPS)).clamp(1, Self::MOST_CHUNKS);
        // The last block's threads count on beyond the row and the rows.
        to_i32(op, "the number of rows", rows.saturating_add(1 << 20))?;
        to_i32(op, "d", d.saturating_add(1 << 20))?;
        Ok(Self {
            dtype,
            width,
            chunks,
            n_columns: d,
            rows: Arg::I32(to_i32(op, "the number of rows", rows)?),
            d: Arg::I32(to_i32(op, "d", d)?),
            rows_per_chunk: Arg::I32(to_i32(op, "rows of a chunk", rows.div_ceil(chunks))?),
        })
    }

    /// Where the sums of the chunks go: the result itself if there is one chunk.
    fn partial(&self, plan: &mut Plan, result: Arg) -> Arg {
        match self.chunks {
            1 => result,
            n => plan.buffer("sums of chunks", Role::Scratch, DType::F32, n * self.n_columns),
        }
    }

    fn push(&self, plan: &mut Plan, kernel: &str, n_sums: usize, args: Vec<Arg>) {
        if self.n_columns > 0 {
            let access = if self.width == 1 { "single_" } else { "" };
            plan.launches.push(Launch {
                file: File::Norm,
                kernel: format!("{kernel}_{access}{}", self.dtype.suffix()),
                grid: [self.n_columns.div_ceil(32 * self.width) as u32, self.chunks as u32, 1],
                block: 32 * Self::WARPS as u32,
                cluster: 1,
                shared_bytes: (n_sums * Self::WARPS * 32 * self.width * 4) as u32,
                args,
            });
        }
    }

    /// Adds up the chunks, if there are several.
    fn merge(&self, plan: &mut Plan, partial: Arg, result: Arg, target: &Target) -> Result<()> {
        if self.chunks == 1 {
            return Ok(());
        }
        let sums = Self { chunks: 1, ..Self::new(plan.op, self.chunks, self.n_columns, DType::F32, target)? };
        let args = vec![partial, result, sums.rows, sums.d, sums.rows, Arg::F32(1.0)];
        sums.push(plan, "sum_rows", 1, args);
        Ok(())
    }
}

fn plan(
    op: &'static str,
    kernel: &str,
    shape: &NormShape,
    buffers: impl FnOnce(&mut Plan, Arg) -> Vec<Arg>,
) -> Result<Plan> {
    let NormShape { kind, rows, d, eps, dtype } = *shape;
    if !matches!(dtype, DType::F32 | DType::Bf16 | DType::F16) {
        return Err(KernelError::shape(op, format!("rows are f32, bf16 or f16, not {}", dtype.suffix())));
    }
    if d == 0 {
        return Err(KernelError::shape(op, "rows of no elements have no norm"));
    }
    let packed = d.is_multiple_of(dtype.per_pack());
    let per_thread = ITEMS * if packed { dtype.per_pack() } else { 1 };
    let block = round_up(d.div_ceil(per_thread), 32);
    // With 32 numbers a thread, 64 registers would not do.
    let most = if per_thread == 32 { 512 } else { 1024 };
    if block > most {
        return Err(KernelError::shape(op, format!("rows of {d} are longer than {}", most * per_thread)));
    }
    let mut plan = Plan::new(op);
    let x = plan.buffer("x", Role::Input, dtype, rows * d);
    let mut args = buffers(&mut plan, x);
    args.extend([Arg::I32(to_i32(op, "d", d)?), Arg::I32((kind == NormKind::Layer).into()), Arg::F32(eps)]);
    if rows > 0 {
        let access = if packed { "" } else { "single_" };
        plan.launches.push(Launch {
            file: File::Norm,
            kernel: format!("{kernel}_{access}{}", dtype.suffix()),
            grid: [to_grid(op, rows)?, 1, 1],
            block: block as u32,
            cluster: 1,
            shared_bytes: 64 * 4,
            args,
        });
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_covers_the_row() {
        for (d, dtype, block, kernel) in [
            (768, DType::F32, 64, "norm_forward_f32"),
            (4096, DType::Bf16, 128, "norm_forward_bf16"),
            (5, DType::F16, 32, "norm_forward_single_f16"),
            (16_384, DType::F32, 1024, "norm_forward_f32"),
        ] {
            let shape = NormShape { kind: NormKind::Rms, rows: 3, d, eps: 1e-6, dtype };
            let plan = plan_norm_forward(&shape).unwrap();
            assert_eq!((plan.launches[0].block, plan.launches[0].kernel.as_str()), (block, kernel));
        }
    }

    #[test]
    fn what_no_kernel_can_do_is_refused() {
        let shape = NormShape { kind: NormKind::Rms, rows: 3, d: 8, eps: 1e-6, dtype: DType::F32 };
        for wrong in [
            NormShape { d: 0, ..shape },
            NormShape { d: 16_388, ..shape },
            NormShape { d: 16_392, dtype: DType::F16, ..shape },
            NormShape { d: 4_097, ..shape },
            NormShape { dtype: DType::F64, ..shape },
            NormShape { rows: 1 << 32, ..shape },
        ] {
            assert!(matches!(plan_norm_backward(&wrong), Err(KernelError::Shape { .. })), "{wrong:?}");
        }
        assert!(plan_norm_forward(&NormShape { rows: 0, ..shape }).unwrap().launches.is_empty());
        for (rows, d, dtype) in [(1 << 31, 1, DType::F32), (1, 1 << 31, DType::F32), (1, 1, DType::I64)] {
            let refused = plan_sum_rows(rows, d, dtype, &Target::H100);
            assert!(matches!(refused, Err(KernelError::Shape { .. })), "{rows} × {d}");
        }
    }

    #[test]
    fn rows_are_summed_in_chunks_where_columns_are_few() {
        let grids = |rows, d| {
            let plan = plan_sum_rows(rows, d, DType::Bf16, &Target::H100).unwrap();
            plan.launches.iter().map(|l| (l.kernel.clone(), l.grid)).collect::<Vec<_>>()
        };
        let one = |kernel: &str, grid| (kernel.to_owned(), grid);
        assert_eq!(grids(16, 1 << 20), [one("sum_rows_bf16", [4096, 1, 1])]);
        assert_eq!(grids(4096, 768), [one("sum_rows_bf16", [3, 128, 1]), one("sum_rows_f32", [6, 1, 1])]);
        assert_eq!(
            grids(100, 7),
            [one("sum_rows_single_bf16", [1, 4, 1]), one("sum_rows_single_f32", [1, 1, 1])]
        );
        assert_eq!(grids(0, 8), [one("sum_rows_bf16", [1, 1, 1])], "the sum over no rows is 0");
        assert!(grids(8, 0).is_empty());
        let shape = NormShape { kind: NormKind::Layer, rows: 1000, d: 64, eps: 1e-5, dtype: DType::F32 };
        let plan = plan_norm_weight_gradient(&shape, &Target::A100).unwrap();
        assert_eq!(plan.launches.len(), 4);
        assert_eq!(plan.launches[1].shared_bytes, 2 * 8 * 32 * 4 * 4);
    }
}
