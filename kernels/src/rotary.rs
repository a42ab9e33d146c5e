//! The plan of rotary positions (`cuda/rotary.cu`).

use crate::data::DType;
use crate::error::{KernelError, Result};
use crate::plan::{Arg, Launch, Plan, Role, Target, to_i32};
use crate::source::File;

/// Rows of heads that are turned by the angles of their tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotaryShape {
    /// Number of rows, one for each token of the batch.
    pub rows: usize,
    /// Elements of a row: the heads that are turned, and what stays as it is behind them.
    pub width: usize,
    /// Number of heads that are turned, from the beginning of the row.
    pub n_heads: usize,
    /// Elements of a head, an even number.
    pub d_head: usize,
    /// Whether they are turned back: the gradient.
    pub inverse: bool,
    /// Type of rows and results: f32, bf16 or f16. Cosines and sines are f32.
    pub dtype: DType,
}

/// Threads of a block.
const BLOCK: usize = 256;

/// Plans the rotation of pairs `(x_i, x_{i + d_head/2})` by the angle of each row (Su et al. 2021, half-split as in LLaMA).
///
/// # Shapes
/// Buffers: `x (rows, width)`, `cos` and `sin (rows, d_head/2)`, and the result `y (rows, width)`.
///
/// # Errors
/// [`KernelError::Shape`] for heads of odd width or that are wider than a row, a type that is not f32, bf16 or f16, or rows of more than
/// 2³¹ − 1 elements.
pub fn plan_rotary(shape: &RotaryShape, target: &Target) -> Result<Plan> {
    const OP: &str = "rotary";
    let RotaryShape { rows, width, n_heads, d_head, inverse, dtype } = *shape;
    if !matches!(dtype, DType::F32 | DType::Bf16 | DType::F16) {
        return Err(KernelError::shape(OP, format!("rows are f32, bf16 or f16, not {}", dtype.suffix())));
    }
    let turned = n_heads.checked_mul(d_head).filter(|&turned| turned <= width && d_head.is_multiple_of(2));
    let Some(turned) = turned else {
        return Err(KernelError::shape(OP, format!("{n_heads} heads of {d_head} in rows of {width}")));
    };
    let mut plan = Plan::new(OP);
    let half = d_head / 2;
    let x = plan.buffer("x", Role::Input, dtype, rows * width);
    let cos = plan.buffer("cos", Role::Input, DType::F32, rows * half);
    let sin = plan.buffer("sin", Role::Input, DType::F32, rows * half);
    let y = plan.buffer("y", Role::Output, dtype, rows * width);
    // A pair is one item, and so is an element behind the heads.
    let (n_pairs, per_row) = (turned / 2, width - turned / 2);
    let n_items = rows.checked_mul(per_row).and_then(|n| i64::try_from(n).ok());
    let n_items = n_items.ok_or_else(|| KernelError::shape(OP, format!("{rows} rows are too many")))?;
    let int = |what, value| Ok(Arg::I32(to_i32(OP, what, value)?));
    let args = vec![
        x,
        cos,
        sin,
        y,
        Arg::I64(n_items),
        int("items of a row", per_row)?,
        int("pairs of a row", n_pairs)?,
        int("elements of a row", width)?,
        int("pairs of a head", half)?,
        Arg::F32(if inverse { -1.0 } else { 1.0 }),
    ];
    let blocks = (n_items as u64).div_ceil(BLOCK as u64).min(8 * u64::from(target.n_multiprocessors));
    if blocks > 0 {
        plan.launches.push(Launch {
            file: File::Rotary,
            kernel: format!("rotary_{}", dtype.suffix()),
            grid: [blocks as u32, 1, 1],
            block: BLOCK as u32,
            cluster: 1,
            shared_bytes: 0,
            args,
        });
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_covers_pairs_and_what_is_behind_them() {
        let shape =
            RotaryShape { rows: 3, width: 96, n_heads: 4, d_head: 16, inverse: false, dtype: DType::F32 };
        let plan = plan_rotary(&shape, &Target::H100).unwrap();
        // 32 pairs and 32 elements of values in each of three rows.
        assert_eq!((plan.launches[0].grid[0], plan.launches[0].args[4]), (1, Arg::I64(192)));
        let many = plan_rotary(&RotaryShape { rows: 1 << 20, ..shape }, &Target::A100).unwrap();
        assert_eq!(many.launches[0].grid[0], 8 * 108);
        assert!(plan_rotary(&RotaryShape { rows: 0, ..shape }, &Target::A100).unwrap().launches.is_empty());
    }

    #[test]
    fn what_no_kernel_can_do_is_refused() {
        let shape =
            RotaryShape { rows: 3, width: 96, n_heads: 4, d_head: 16, inverse: false, dtype: DType::F32 };
        for wrong in [
            RotaryShape { d_head: 15, ..shape },
            RotaryShape { n_heads: 7, ..shape },
            RotaryShape { dtype: DType::F64, ..shape },
            RotaryShape { width: 1 << 32, ..shape },
        ] {
            assert!(
                matches!(plan_rotary(&wrong, &Target::H100), Err(KernelError::Shape { .. })),
                "{wrong:?}"
            );
        }
    }
}
