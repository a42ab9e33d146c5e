//! Plans of layer norm and RMS norm (`cuda/norm.cu`).

use crate::data::DType;
use crate::error::{KernelError, Result};
use crate::plan::{Arg, Launch, Plan, Role, round_up, to_grid, to_i32};
use crate::source::File;

/// Which norm.
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
    /// Which norm.
    pub kind: NormKind,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row, at most 16,384 (32,768 in half precision if a multiple of 8).
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
    if block > 1024 {
        return Err(KernelError::shape(op, format!("rows of {d} are longer than {}", 1024 * per_thread)));
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
            NormShape { dtype: DType::F64, ..shape },
            NormShape { rows: 1 << 32, ..shape },
        ] {
            assert!(matches!(plan_norm_backward(&wrong), Err(KernelError::Shape { .. })), "{wrong:?}");
        }
        assert!(plan_norm_forward(&NormShape { rows: 0, ..shape }).unwrap().launches.is_empty());
    }
}
