//! Plans of the look-up of table rows and of its gradient (`cuda/embedding.cu`).

use crate::data::DType;
use crate::error::{KernelError, Result};
use crate::plan::{Arg, Launch, Plan, Role, round_up, to_grid, to_i32};
use crate::source::File;

/// A table and the ids that are looked up in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddingShape {
    /// Rows of the table.
    pub n_rows: usize,
    /// Elements of a row.
    pub d: usize,
    /// How many rows are looked up; the length of the ids.
    pub n_ids: usize,
    /// Type of the ids: u32 or i64.
    pub id_dtype: DType,
    /// Type of table, result and its gradient: f32, bf16 or f16.
    pub dtype: DType,
}

/// Threads of a block, of which in the forward direction 32 have an id.
const BLOCK: usize = 256;

/// Plans `y_i = table[ids_i]`.
///
/// # Shapes
/// Buffers: `table (n_rows, d)`, `ids (n_ids)`, and the results `y (n_ids, d)` in the type of the table and `first_outside (1)` in i64, the
/// first position whose id is not in `0..n_rows`, or −1. The row of such an id is NaN.
///
/// # Errors
/// [`KernelError::Shape`] for other types or more than 2³⁰ rows, elements of a row or ids.
pub fn plan_embedding_forward(shape: &EmbeddingShape) -> Result<Plan> {
    const OP: &str = "embedding forward";
    let EmbeddingShape { n_rows, d, n_ids, id_dtype, dtype } = *shape;
    let [rows, width, n] = check(OP, shape)?;
    let mut plan = Plan::new(OP);
    let table = plan.buffer("table", Role::Input, dtype, n_rows * d);
    let ids = plan.buffer("ids", Role::Input, id_dtype, n_ids);
    let y = plan.buffer("y", Role::Output, dtype, n_ids * d);
    let first_outside = plan.buffer("first_outside", Role::Output, DType::I64, 1);
    let blocks = n_ids.div_ceil(BLOCK / 32);
    if blocks > 0 && d > 0 {
        let kernel = kernel("forward", shape);
        let grid = [to_grid(OP, blocks)?, 1, 1];
        plan.launches.push(launch(kernel, grid, BLOCK, 0, vec![table, ids, y, n, rows, width]));
    }
    let block = round_up(n_ids, 32).clamp(32, 1024);
    let check = format!("embedding_check_{}", id_dtype.suffix());
    plan.launches.push(launch(check, [1, 1, 1], block, 32 * 8, vec![ids, first_outside, n, rows]));
    Ok(plan)
}

/// Plans the gradient to the table of [`plan_embedding_forward`], `d_table_r = Σ dy_i` over all `i` with `ids_i = r`, summed in f32 in
/// ascending order. Costs `n_rows·n_ids` comparisons.
///
/// # Shapes
/// Buffers: `ids (n_ids)`, `dy (n_ids, d)`, and the result `d_table (n_rows, d)` in f32.
///
/// # Errors
/// As [`plan_embedding_forward`].
pub fn plan_embedding_backward(shape: &EmbeddingShape) -> Result<Plan> {
    const OP: &str = "embedding backward";
    let EmbeddingShape { n_rows, d, n_ids, id_dtype, dtype } = *shape;
    let [_, width, n] = check(OP, shape)?;
    let mut plan = Plan::new(OP);
    let ids = plan.buffer("ids", Role::Input, id_dtype, n_ids);
    let dy = plan.buffer("dy", Role::Input, dtype, n_ids * d);
    let d_table = plan.buffer("d_table", Role::Output, DType::F32, n_rows * d);
    let tiles = d.div_ceil(BLOCK * access(shape));
    if tiles > 65_535 {
        return Err(KernelError::shape(OP, format!("rows of {d} are longer than a grid has blocks for")));
    }
    if n_rows > 0 && tiles > 0 {
        let grid = [to_grid(OP, n_rows)?, tiles as u32, 1];
        let args = vec![ids, dy, d_table, n, width];
        plan.launches.push(launch(kernel("backward", shape), grid, BLOCK, BLOCK / 32 * 4, args));
    }
    Ok(plan)
}

/// Elements of an access.
fn access(shape: &EmbeddingShape) -> usize {
    if shape.d.is_multiple_of(shape.dtype.per_pack()) { shape.dtype.per_pack() } else { 1 }
}

fn kernel(direction: &str, shape: &EmbeddingShape) -> String {
    let single = if access(shape) == 1 { "single_" } else { "" };
    format!("embedding_{direction}_{}_{single}{}", shape.id_dtype.suffix(), shape.dtype.suffix())
}

fn launch(kernel: String, grid: [u32; 3], block: usize, shared_bytes: usize, args: Vec<Arg>) -> Launch {
    let (block, shared_bytes) = (block as u32, shared_bytes as u32);
    Launch { file: File::Embedding, kernel, grid, block, cluster: 1, shared_bytes, args }
}

/// Rows, elements of a row and ids as arguments.
fn check(op: &'static str, shape: &EmbeddingShape) -> Result<[Arg; 3]> {
    let EmbeddingShape { n_rows, d, n_ids, id_dtype, dtype } = *shape;
    if !matches!(dtype, DType::F32 | DType::Bf16 | DType::F16) {
        return Err(KernelError::shape(op, format!("tables are f32, bf16 or f16, not {}", dtype.suffix())));
    }
    if !matches!(id_dtype, DType::U32 | DType::I64) {
        return Err(KernelError::shape(op, format!("ids are u32 or i64, not {}", id_dtype.suffix())));
    }
    let size = |name: &str, value: usize| match value {
        0..=0x4000_0000 => Ok(Arg::I32(to_i32(op, name, value)?)),
        _ => Err(KernelError::shape(op, format!("{name} = {value} is more than 2³⁰"))),
    };
    Ok([size("n_rows", n_rows)?, size("d", d)?, size("n_ids", n_ids)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: EmbeddingShape =
        EmbeddingShape { n_rows: 32_128, d: 768, n_ids: 100, id_dtype: DType::I64, dtype: DType::Bf16 };

    #[test]
    fn a_warp_has_an_id_and_a_block_a_row_of_the_gradient() {
        let forward = plan_embedding_forward(&SHAPE).unwrap();
        let launches: Vec<_> = forward.launches.iter().map(|l| (l.kernel.as_str(), l.grid[0])).collect();
        assert_eq!(launches, [("embedding_forward_i64_bf16", 13), ("embedding_check_i64", 1)]);
        let odd = EmbeddingShape { d: 767, id_dtype: DType::U32, ..SHAPE };
        let backward = plan_embedding_backward(&odd).unwrap();
        assert_eq!(backward.launches[0].kernel, "embedding_backward_u32_single_bf16");
        assert_eq!(backward.launches[0].grid, [32_128, 3, 1]);
    }

    #[test]
    fn what_no_kernel_can_do_is_refused() {
        for wrong in [
            EmbeddingShape { dtype: DType::F64, ..SHAPE },
            EmbeddingShape { id_dtype: DType::F32, ..SHAPE },
            EmbeddingShape { n_ids: (1 << 30) + 1, ..SHAPE },
        ] {
            assert!(matches!(plan_embedding_forward(&wrong), Err(KernelError::Shape { .. })), "{wrong:?}");
            assert!(matches!(plan_embedding_backward(&wrong), Err(KernelError::Shape { .. })), "{wrong:?}");
        }
        let none = EmbeddingShape { n_ids: 0, ..SHAPE };
        assert_eq!(plan_embedding_forward(&none).unwrap().launches.len(), 1, "the check alone");
        assert!(plan_embedding_backward(&EmbeddingShape { d: 0, ..SHAPE }).unwrap().launches.is_empty());
    }
}
