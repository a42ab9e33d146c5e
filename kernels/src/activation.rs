//! Plans of GELU, ReLU and SiLU, plain and gated (`cuda/activation.cu`).

use crate::data::DType;
use crate::error::{KernelError, Result};
use crate::plan::{Arg, Launch, Plan, Role, Target, to_i32};
use crate::source::File;

/// The function that an activation applies to each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationKind {
    /// `x·Φ(x)` with the normal distribution function (Hendrycks & Gimpel 2016).
    GeluErf,
    /// Its approximation `x·σ(2·√(2/π)·(x + 0.044715·x³))`.
    GeluTanh,
    /// The positive part, `max(x, 0)`.
    Relu,
    /// `x·σ(x)`, also called swish (Elfwing et al. 2018).
    Silu,
    /// `x·σ(1.702·x)`, the approximation of GELU by a sigmoid (Hendrycks & Gimpel 2016).
    QuickGelu,
}

impl ActivationKind {
    fn name(self) -> &'static str {
        match self {
            Self::GeluErf => "gelu_erf",
            Self::GeluTanh => "gelu_tanh",
            Self::Relu => "relu",
            Self::Silu => "silu",
            Self::QuickGelu => "quick_gelu",
        }
    }
}

/// Threads of a block.
const BLOCK: usize = 256;

/// Plans `y = f(x)`, element by element.
///
/// # Shapes
/// Buffers: `x (len)` and the result `y (len)`, both of the type.
///
/// # Errors
/// [`KernelError::Shape`] for a type that is not f32, bf16 or f16, or for more than 2³¹ − 1 accesses of 16 bytes.
pub fn plan_activation_forward(
    kind: ActivationKind,
    len: usize,
    dtype: DType,
    target: &Target,
) -> Result<Plan> {
    plain("activation forward", kind, len, dtype, target, false)
}

/// Plans the gradient `dx = dy·f′(x)` of [`plan_activation_forward`].
///
/// # Shapes
/// Buffers: `x (len)`, `dy (len)` and the result `dx (len)`.
///
/// # Errors
/// As [`plan_activation_forward`].
pub fn plan_activation_backward(
    kind: ActivationKind,
    len: usize,
    dtype: DType,
    target: &Target,
) -> Result<Plan> {
    plain("activation backward", kind, len, dtype, target, true)
}

/// What a gated activation works on: rows `[gate | up]` of `2·d` elements, which become rows of `d`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GatedShape {
    /// The function of the gate.
    pub kind: ActivationKind,
    /// Number of rows of `h` and of the result.
    pub rows: usize,
    /// Elements of a row of the result.
    pub d: usize,
    /// Type of all buffers: f32, bf16 or f16.
    pub dtype: DType,
}

/// Plans `y = f(gate)·up` (GEGLU, ReGLU and SwiGLU of Shazeer 2020).
///
/// # Shapes
/// Buffers: `h (rows, 2·d)`, its rows `[gate | up]`, and the result `y (rows, d)`.
///
/// # Errors
/// As [`plan_activation_forward`].
pub fn plan_gated_forward(shape: &GatedShape, target: &Target) -> Result<Plan> {
    gated("gated activation forward", shape, target, false)
}

/// Plans the gradient `dh = [dy·up·f′(gate) | dy·f(gate)]` of [`plan_gated_forward`].
///
/// # Shapes
/// Buffers: `h (rows, 2·d)`, `dy (rows, d)` and the result `dh (rows, 2·d)`.
///
/// # Errors
/// As [`plan_activation_forward`].
pub fn plan_gated_backward(shape: &GatedShape, target: &Target) -> Result<Plan> {
    gated("gated activation backward", shape, target, true)
}

fn plain(
    op: &'static str,
    kind: ActivationKind,
    len: usize,
    dtype: DType,
    target: &Target,
    backward: bool,
) -> Result<Plan> {
    check_dtype(op, dtype)?;
    let mut plan = Plan::new(op);
    let mut args = vec![plan.buffer("x", Role::Input, dtype, len)];
    if backward {
        args.push(plan.buffer("dy", Role::Input, dtype, len));
    }
    args.push(plan.buffer(if backward { "dx" } else { "y" }, Role::Output, dtype, len));
    args.push(Arg::I64(to_i64(op, len)?));
    let (direction, unroll) = if backward { ("backward", 2) } else { ("forward", 4) };
    let kernel = format!("activation_{direction}_{}_{}", kind.name(), dtype.suffix());
    // The elements that fill no pack are the first block's, so that there is one for fewer than a pack.
    let n_accesses = len.div_ceil(dtype.per_pack());
    push(&mut plan, kernel, n_accesses, unroll, args, target)?;
    Ok(plan)
}

fn gated(op: &'static str, shape: &GatedShape, target: &Target, backward: bool) -> Result<Plan> {
    let GatedShape { kind, rows, d, dtype } = *shape;
    check_dtype(op, dtype)?;
    let mut plan = Plan::new(op);
    let mut args = vec![plan.buffer("h", Role::Input, dtype, rows * 2 * d)];
    if backward {
        args.push(plan.buffer("dy", Role::Input, dtype, rows * d));
        args.push(plan.buffer("dh", Role::Output, dtype, rows * 2 * d));
    } else {
        args.push(plan.buffer("y", Role::Output, dtype, rows * d));
    }
    let packed = d.is_multiple_of(dtype.per_pack());
    let (access, width) = if packed { ("", dtype.per_pack()) } else { ("single_", 1) };
    let n_accesses = rows * (d / width);
    args.push(Arg::I32(to_i32(op, "the number of accesses", n_accesses)?));
    args.push(Arg::I32(to_i32(op, "d", d)?));
    let direction = if backward { "backward" } else { "forward" };
    let kernel = format!("gated_{direction}_{access}{}_{}", kind.name(), dtype.suffix());
    push(&mut plan, kernel, n_accesses, 2, args, target)?;
    Ok(plan)
}

/// Adds a launch in which each thread makes `unroll` accesses at a time and the blocks, eight for a multiprocessor, go on until all are
/// made.
fn push(
    plan: &mut Plan,
    kernel: String,
    n_accesses: usize,
    unroll: usize,
    args: Vec<Arg>,
    target: &Target,
) -> Result<()> {
    to_i32(plan.op, "the number of accesses", n_accesses)?;
    let blocks = n_accesses.div_ceil(BLOCK * unroll).min(8 * target.n_multiprocessors as usize);
    if blocks > 0 {
        plan.launches.push(Launch {
            file: File::Activation,
            kernel,
            grid: [blocks as u32, 1, 1],
            block: BLOCK as u32,
            cluster: 1,
            shared_bytes: 0,
            args,
        });
    }
    Ok(())
}

fn check_dtype(op: &'static str, dtype: DType) -> Result<()> {
    match dtype {
        DType::F32 | DType::Bf16 | DType::F16 => Ok(()),
        _ => Err(KernelError::shape(op, format!("activations are f32, bf16 or f16, not {}", dtype.suffix()))),
    }
}

fn to_i64(op: &'static str, len: usize) -> Result<i64> {
    i64::try_from(len).map_err(|_| KernelError::shape(op, format!("{len} elements are too many")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_small_inputs_and_loop_over_large_ones() {
        let grid = |len| {
            let plan =
                plan_activation_forward(ActivationKind::Relu, len, DType::Bf16, &Target::H100).unwrap();
            plan.launches.first().map(|launch| launch.grid[0])
        };
        assert_eq!(grid(0), None);
        assert_eq!(grid(1), Some(1));
        assert_eq!(grid(8 * 256 * 4), Some(1));
        assert_eq!(grid(8 * 256 * 4 + 1), Some(2));
        assert_eq!(grid(1 << 30), Some(8 * 132));
    }

    #[test]
    fn rows_that_are_not_aligned_go_by_single_elements() {
        let shape = GatedShape { kind: ActivationKind::GeluErf, rows: 3, d: 12, dtype: DType::F32 };
        let kernel = |shape| plan_gated_backward(&shape, &Target::A100).unwrap().launches[0].kernel.clone();
        assert_eq!(kernel(shape), "gated_backward_gelu_erf_f32");
        let half = GatedShape { dtype: DType::F16, kind: ActivationKind::GeluTanh, ..shape };
        assert_eq!(kernel(half), "gated_backward_single_gelu_tanh_f16");
    }

    #[test]
    fn what_no_kernel_can_do_is_refused() {
        let shape = GatedShape { kind: ActivationKind::Relu, rows: 1, d: 8, dtype: DType::F32 };
        for wrong in [GatedShape { dtype: DType::I64, ..shape }, GatedShape { rows: 1 << 31, ..shape }] {
            assert!(matches!(plan_gated_forward(&wrong, &Target::H100), Err(KernelError::Shape { .. })));
        }
        let long = plan_activation_backward(ActivationKind::Relu, 1 << 35, DType::F32, &Target::H100);
        assert!(matches!(long, Err(KernelError::Shape { .. })));
        let empty = GatedShape { d: 0, ..shape };
        assert!(plan_gated_forward(&empty, &Target::H100).unwrap().launches.is_empty());
    }
}
