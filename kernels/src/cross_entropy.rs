//! Plans of the cross entropy over a vocabulary (`cuda/cross_entropy.cu`).

use crate::data::DType;
use crate::error::{KernelError, Result};
use crate::plan::{Arg, Launch, Plan, Role, round_up, to_grid, to_i32};
use crate::source::File;

/// Rows of logits, of which each has a label; a label of −100 does not count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrossEntropyShape {
    /// Number of rows of logits, and of labels.
    pub rows: usize,
    /// Logits of a row; labels are below it.
    pub n_classes: usize,
    /// Type of the logits: f32, bf16 or f16.
    pub dtype: DType,
}

/// Plans the negative log-likelihood of each label and its mean over the labels that count.
///
/// Reads the logits of the rows that count once. The mean is summed in f64 in a fixed order.
///
/// # Shapes
/// Buffers: `logits (rows, n_classes)`, `labels (rows)` in i64, and the results `nll (rows)` in f32, 0 where the label is −100;
/// `statistics (2, rows)` in f32, the maximum and the sum of exponentials that [`plan_cross_entropy_backward`] takes; `loss (1)` in f32;
/// `counts (2)` in i64, the number of labels that count and the first row whose label is outside the classes, or −1.
/// Without a label that counts the loss is NaN, with one outside the classes the loss and the likelihood of its row are.
///
/// # Errors
/// [`KernelError::Shape`] if there are no classes, more rows than a grid has blocks, or a type that is not f32, bf16 or f16.
pub fn plan_cross_entropy_forward(shape: &CrossEntropyShape) -> Result<Plan> {
    const OP: &str = "cross entropy forward";
    let mut plan = Plan::new(OP);
    let sizes = check(OP, shape)?;
    let rows = shape.rows;
    let logits = plan.buffer("logits", Role::Input, shape.dtype, rows * shape.n_classes);
    let labels = plan.buffer("labels", Role::Input, DType::I64, rows);
    let nll = plan.buffer("nll", Role::Output, DType::F32, rows);
    let statistics = plan.buffer("statistics", Role::Output, DType::F32, 2 * rows);
    let loss = plan.buffer("loss", Role::Output, DType::F32, 1);
    let counts = plan.buffer("counts", Role::Output, DType::I64, 2);
    let mut args = vec![logits, labels, nll, statistics];
    args.extend(sizes);
    push_rows(&mut plan, shape, "cross_entropy_forward", 64 * 4, args)?;
    let mut args = vec![nll, labels, loss, counts];
    args.extend(sizes);
    plan.launches.push(Launch {
        file: File::CrossEntropy,
        kernel: "cross_entropy_mean".to_owned(),
        grid: [1, 1, 1],
        block: round_up(rows, 32).clamp(32, 1024) as u32,
        cluster: 1,
        shared_bytes: 96 * 8,
        args,
    });
    Ok(plan)
}

/// Plans the gradient of the mean of [`plan_cross_entropy_forward`] to the logits, `(softmax − onehot)·d_loss/n`, 0 in rows whose label
/// is −100.
///
/// # Shapes
/// Buffers: `logits`, `labels`, `statistics` and `counts` as of the forward plan, `d_loss (1)` in f32, and the result
/// `d_logits (rows, n_classes)` in the type of the logits.
///
/// # Errors
/// As [`plan_cross_entropy_forward`].
pub fn plan_cross_entropy_backward(shape: &CrossEntropyShape) -> Result<Plan> {
    const OP: &str = "cross entropy backward";
    let mut plan = Plan::new(OP);
    let sizes = check(OP, shape)?;
    let rows = shape.rows;
    let mut args = vec![
        plan.buffer("logits", Role::Input, shape.dtype, rows * shape.n_classes),
        plan.buffer("labels", Role::Input, DType::I64, rows),
        plan.buffer("statistics", Role::Input, DType::F32, 2 * rows),
        plan.buffer("counts", Role::Input, DType::I64, 2),
        plan.buffer("d_loss", Role::Input, DType::F32, 1),
        plan.buffer("d_logits", Role::Output, shape.dtype, rows * shape.n_classes),
    ];
    args.extend(sizes);
    push_rows(&mut plan, shape, "cross_entropy_backward", 0, args)?;
    Ok(plan)
}

/// The two sizes as arguments.
fn check(op: &'static str, shape: &CrossEntropyShape) -> Result<[Arg; 2]> {
    let CrossEntropyShape { rows, n_classes, dtype } = *shape;
    if !matches!(dtype, DType::F32 | DType::Bf16 | DType::F16) {
        return Err(KernelError::shape(op, format!("logits are f32, bf16 or f16, not {}", dtype.suffix())));
    }
    if n_classes == 0 {
        return Err(KernelError::shape(op, "there are no classes"));
    }
    // The last threads count on beyond the row, by less than a million.
    to_i32(op, "the number of classes", n_classes.saturating_add(1 << 20))?;
    let [rows, n_classes] = [to_i32(op, "the number of rows", rows)?, to_i32(op, "n_classes", n_classes)?];
    Ok([Arg::I32(rows), Arg::I32(n_classes)])
}

/// Adds a launch with a block for each row, two accesses of 16 bytes for a thread, or more if the row is long.
fn push_rows(
    plan: &mut Plan,
    shape: &CrossEntropyShape,
    kernel: &str,
    shared_bytes: u32,
    args: Vec<Arg>,
) -> Result<()> {
    if shape.rows > 0 {
        let threads = shape.n_classes.div_ceil(2 * shape.dtype.per_pack());
        plan.launches.push(Launch {
            file: File::CrossEntropy,
            kernel: format!("{kernel}_{}", shape.dtype.suffix()),
            grid: [to_grid(plan.op, shape.rows)?, 1, 1],
            block: round_up(threads, 32).min(512) as u32,
            cluster: 1,
            shared_bytes,
            args,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_a_row() {
        let shape = CrossEntropyShape { rows: 30, n_classes: 32_128, dtype: DType::Bf16 };
        let plan = plan_cross_entropy_forward(&shape).unwrap();
        let launches: Vec<_> =
            plan.launches.iter().map(|l| (l.kernel.as_str(), l.grid[0], l.block)).collect();
        assert_eq!(launches, [("cross_entropy_forward_bf16", 30, 512), ("cross_entropy_mean", 1, 32)]);
        let few = CrossEntropyShape { n_classes: 10, ..shape };
        assert_eq!(plan_cross_entropy_backward(&few).unwrap().launches[0].block, 32);
    }

    #[test]
    fn without_rows_there_is_still_a_mean() {
        let shape = CrossEntropyShape { rows: 0, n_classes: 5, dtype: DType::F32 };
        assert_eq!(plan_cross_entropy_forward(&shape).unwrap().launches.len(), 1);
        assert!(plan_cross_entropy_backward(&shape).unwrap().launches.is_empty());
    }

    #[test]
    fn what_no_kernel_can_do_is_refused() {
        let shape = CrossEntropyShape { rows: 3, n_classes: 5, dtype: DType::F32 };
        for wrong in [
            CrossEntropyShape { n_classes: 0, ..shape },
            CrossEntropyShape { n_classes: (1 << 31) - 1, ..shape },
            CrossEntropyShape { rows: 1 << 31, ..shape },
            CrossEntropyShape { dtype: DType::U32, ..shape },
        ] {
            assert!(
                matches!(plan_cross_entropy_forward(&wrong), Err(KernelError::Shape { .. })),
                "{wrong:?}"
            );
        }
    }
}
