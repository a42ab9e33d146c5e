//! Plans of softmax and of what attention adds to its scores before it (`cuda/softmax.cu`).

use crate::data::DType;
use crate::error::{KernelError, Result};
use crate::norm::push_sum_rows;
use crate::plan::{Arg, Launch, Plan, Role, Target, round_up, to_grid, to_i32};
use crate::source::File;

/// Scores `(batch, n_heads, t_q, t_k)` and what happens to them before the softmax.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoftmaxShape {
    /// Entries of the batch; each has keys of its own.
    pub batch: usize,
    /// Attention heads of an entry.
    pub n_heads: usize,
    /// Queries of a head, each a row of `t_k` scores.
    pub t_q: usize,
    /// Keys, the elements of a row: at most 16,384.
    pub t_k: usize,
    /// Type of scores and probabilities: f32, bf16 or f16.
    pub dtype: DType,
    /// Multiplies the scores.
    pub scale: f32,
    /// Whether `position (n_heads, t_q, t_k)` in f32 is added to the scores of every batch entry.
    pub position: bool,
    /// Where the result goes.
    pub place: Place,
    /// Whether `keys (batch, t_k)` in f32 is added: 0, or −∞ for padding.
    pub keys: bool,
    /// Which keys a query sees.
    pub order: Order,
}

/// Where a result goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A buffer of its own.
    Separate,
    /// Over the input that has its shape.
    InPlace,
}

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Every query sees all keys.
    All,
    /// Query `i` sees keys `0 ..= i + t_k − t_q`: the queries are the last ones of the keys, as with a cache of keys and values.
    Causal,
}

impl SoftmaxShape {
    /// A plain softmax of each of `rows` rows of `d` elements.
    pub fn rows(rows: usize, d: usize, dtype: DType) -> Self {
        Self {
            batch: 1,
            n_heads: 1,
            t_q: rows,
            t_k: d,
            dtype,
            scale: 1.0,
            position: false,
            place: Place::Separate,
            keys: false,
            order: Order::All,
        }
    }

    fn len(&self) -> usize {
        self.batch * self.per_entry()
    }

    fn per_entry(&self) -> usize {
        self.n_heads * self.t_q * self.t_k
    }
}

/// Threads of a block of which `2^shift` share a row.
const BLOCK: usize = 128;
/// Most threads of a block that has one row.
const WIDE_BLOCK: usize = 512;
/// Most elements of a thread.
const PER_THREAD: usize = 32;

/// Plans `p = softmax(scale·scores + position + keys)` over the last dimension.
///
/// A row whose keys are all hidden gets zeros. Reads the scores once and writes the probabilities once.
///
/// # Shapes
/// Buffers: `scores (batch, n_heads, t_q, t_k)`, overwritten if in place; with a position bias `position (n_heads, t_q, t_k)` in f32;
/// with a mask of keys `keys (batch, t_k)` in f32; unless in place the result `probs`, shaped as the scores.
///
/// # Errors
/// [`KernelError::Shape`] for too long a row, too many rows, a scale that is not finite, or a type that is not f32, bf16 or f16.
pub fn plan_softmax_forward(shape: &SoftmaxShape) -> Result<Plan> {
    const OP: &str = "softmax forward";
    let rows = Rows::of(OP, shape)?;
    let mut plan = Plan::new(OP);
    let in_place = shape.place == Place::InPlace;
    let role = if in_place { Role::InOut } else { Role::Input };
    let scores = plan.buffer("scores", role, shape.dtype, shape.len());
    let position = match shape.position {
        true => plan.buffer("position", Role::Input, DType::F32, shape.per_entry()),
        false => scores,
    };
    let keys = match shape.keys {
        true => plan.buffer("keys", Role::Input, DType::F32, shape.batch * shape.t_k),
        false => scores,
    };
    let probs = match in_place {
        true => scores,
        false => plan.buffer("probs", Role::Output, shape.dtype, shape.len()),
    };
    let causal = shape.order == Order::Causal;
    let flags = i32::from(shape.position) + 2 * i32::from(shape.keys) + 4 * i32::from(causal);
    let mut args = vec![scores, position, keys, probs, rows.count];
    for (name, value) in [("n_heads", shape.n_heads), ("t_q", shape.t_q), ("t_k", shape.t_k)] {
        args.push(Arg::I32(to_i32(OP, name, value)?));
    }
    args.extend([Arg::I32(flags), Arg::I32(rows.shift), Arg::F32(shape.scale)]);
    rows.push(&mut plan, "softmax_forward", args);
    Ok(plan)
}

/// Plans the gradient to the scores of [`plan_softmax_forward`], `ds = scale·p·(dp − Σ p·dp)`, and if `position_gradient` that to the
/// position bias, which is the sum of `ds/scale` over the batch.
///
/// # Shapes
/// Buffers: `probs` and `d_probs (batch, n_heads, t_q, t_k)`, the latter overwritten if in place; unless in place `d_scores`, shaped as
/// they; for the position's gradient `d_position (n_heads, t_q, t_k)` in f32.
///
/// # Errors
/// As [`plan_softmax_forward`], and for the gradient to a position bias that is not there or under a scale of 0.
pub fn plan_softmax_backward(shape: &SoftmaxShape, position_gradient: bool, target: &Target) -> Result<Plan> {
    const OP: &str = "softmax backward";
    let rows = Rows::of(OP, shape)?;
    if position_gradient && (!shape.position || shape.scale == 0.0) {
        return Err(KernelError::shape(
            OP,
            "there is no position bias with a gradient (none, or a scale of 0)",
        ));
    }
    let mut plan = Plan::new(OP);
    let in_place = shape.place == Place::InPlace;
    let probs = plan.buffer("probs", Role::Input, shape.dtype, shape.len());
    let role = if in_place { Role::InOut } else { Role::Input };
    let d_probs = plan.buffer("d_probs", role, shape.dtype, shape.len());
    let d_scores = match in_place {
        true => d_probs,
        false => plan.buffer("d_scores", Role::Output, shape.dtype, shape.len()),
    };
    let t_k = Arg::I32(to_i32(OP, "t_k", shape.t_k)?);
    let args = vec![probs, d_probs, d_scores, rows.count, t_k, Arg::I32(rows.shift), Arg::F32(shape.scale)];
    rows.push(&mut plan, "softmax_backward", args);
    if position_gradient {
        let d_position = plan.buffer("d_position", Role::Output, DType::F32, shape.per_entry());
        let sum = (shape.batch, shape.per_entry(), shape.dtype);
        push_sum_rows(&mut plan, sum, d_scores, d_position, shape.scale.recip(), target)?;
    }
    Ok(plan)
}

/// How rows are laid out over threads.
struct Rows {
    kernel: String,
    count: Arg,
    shift: i32,
    grid: u32,
    block: usize,
    shared_bytes: u32,
}

impl Rows {
    fn of(op: &'static str, shape: &SoftmaxShape) -> Result<Self> {
        let SoftmaxShape { batch, n_heads, t_q, t_k, dtype, scale, .. } = *shape;
        if !matches!(dtype, DType::F32 | DType::Bf16 | DType::F16) {
            return Err(KernelError::shape(
                op,
                format!("scores are f32, bf16 or f16, not {}", dtype.suffix()),
            ));
        }
        if !scale.is_finite() {
            return Err(KernelError::shape(op, format!("the scale must be finite, not {scale}")));
        }
        let n_rows = batch.checked_mul(n_heads).and_then(|n| n.checked_mul(t_q));
        let n_rows = n_rows.ok_or_else(|| KernelError::shape(op, "more rows than can be counted"))?;
        let packed = t_k.is_multiple_of(dtype.per_pack());
        let width = if packed { dtype.per_pack() } else { 1 };
        let most = WIDE_BLOCK * PER_THREAD;
        if t_k > most {
            return Err(KernelError::shape(op, format!("rows of {t_k} are longer than {most}")));
        }
        // Two accesses a thread, then more.
        let threads = t_k.div_ceil(2 * width).max(1);
        let wide = t_k > 32 * PER_THREAD;
        let shift = threads.next_power_of_two().min(32).ilog2();
        let block = if wide { round_up(threads, 32).min(WIDE_BLOCK) } else { BLOCK };
        let per_block = if wide { 1 } else { BLOCK >> shift };
        // The last block's threads count on beyond the rows.
        to_i32(op, "the number of rows", n_rows.saturating_add(BLOCK))?;
        let kind = if wide { "wide_" } else { "" };
        let access = if packed { "" } else { "single_" };
        Ok(Self {
            kernel: format!("{kind}{access}{}", dtype.suffix()),
            count: Arg::I32(to_i32(op, "the number of rows", n_rows)?),
            shift: shift as i32,
            grid: if t_k == 0 { 0 } else { to_grid(op, n_rows.div_ceil(per_block))? },
            block,
            shared_bytes: if wide { 64 * 4 } else { 0 },
        })
    }

    /// Adds the launch, unless there is nothing to do.
    fn push(&self, plan: &mut Plan, kernel: &str, args: Vec<Arg>) {
        if self.grid > 0 {
            plan.launches.push(Launch {
                file: File::Softmax,
                kernel: format!("{kernel}_{}", self.kernel),
                grid: [self.grid, 1, 1],
                block: self.block as u32,
                cluster: 1,
                shared_bytes: self.shared_bytes,
                args,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gets_as_many_threads_as_it_needs() {
        for (t_k, dtype, kernel, grid, block, shift) in [
            (1, DType::F32, "softmax_forward_single_f32", 1, 128, 0),
            (32, DType::Bf16, "softmax_forward_bf16", 2, 128, 1),
            (257, DType::F16, "softmax_forward_single_f16", 25, 128, 5),
            (1024, DType::F32, "softmax_forward_f32", 25, 128, 5),
            (2048, DType::Bf16, "softmax_forward_wide_bf16", 100, 128, 5),
            (8191, DType::F32, "softmax_forward_wide_single_f32", 100, 512, 5),
        ] {
            let plan = plan_softmax_forward(&SoftmaxShape::rows(100, t_k, dtype)).unwrap();
            let launch = &plan.launches[0];
            assert_eq!((launch.kernel.as_str(), launch.grid[0], launch.block), (kernel, grid, block));
            assert_eq!(launch.args[9], Arg::I32(shift), "{kernel}");
            let width = if kernel.contains("single") { 1 } else { dtype.per_pack() };
            let lanes = if kernel.contains("wide") { block as usize } else { 1 << shift };
            assert!(lanes * PER_THREAD.max(width) >= t_k, "{kernel}: {lanes} threads for {t_k}");
        }
    }

    #[test]
    fn in_place_there_is_one_buffer_less() {
        let shape = SoftmaxShape {
            position: true,
            keys: true,
            place: Place::InPlace,
            ..SoftmaxShape::rows(3, 8, DType::F32)
        };
        let names = |plan: Plan| plan.bound().map(|b| b.name).collect::<Vec<_>>();
        assert_eq!(names(plan_softmax_forward(&shape).unwrap()), ["scores", "position", "keys"]);
        let backward = plan_softmax_backward(&shape, true, &Target::H100).unwrap();
        assert_eq!(names(backward), ["probs", "d_probs", "d_position"]);
    }

    #[test]
    fn what_no_kernel_can_do_is_refused() {
        let shape = SoftmaxShape::rows(4, 8, DType::F32);
        for wrong in [
            SoftmaxShape { t_k: 16_388, ..shape },
            SoftmaxShape { t_k: 16_385, ..shape },
            SoftmaxShape { dtype: DType::F64, ..shape },
            SoftmaxShape { scale: f32::NAN, ..shape },
            SoftmaxShape { batch: 1 << 30, ..shape },
            SoftmaxShape { batch: usize::MAX, ..shape },
        ] {
            assert!(matches!(plan_softmax_forward(&wrong), Err(KernelError::Shape { .. })), "{wrong:?}");
        }
        assert!(plan_softmax_backward(&shape, true, &Target::H100).is_err());
        for empty in [SoftmaxShape { t_k: 0, ..shape }, SoftmaxShape { batch: 0, ..shape }] {
            assert!(plan_softmax_forward(&empty).unwrap().launches.is_empty());
        }
    }
}
