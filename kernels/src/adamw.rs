//! Plans of the projected AdamW step (`cuda/adamw.cu`).

use crate::data::DType;
use crate::error::{KernelError, Result};
use crate::plan::{Arg, Launch, Plan, Role, Target, to_grid};
use crate::projection::{Cluster, Size, THREADS, Tiled};
use crate::source::File;

/// Where Π stands in the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProjectAt {
    /// `u = Π(adamw(Π(g)))`
    Both,
    /// `u = Π(adamw(g))`
    Update,
    /// `u = adamw(Π(g))`; u leaves the allowed space.
    Gradient,
}

/// What is updated, and Π as in [`ProjectionShape`](crate::ProjectionShape).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdamWShape {
    /// Number n of rows of the parameter.
    pub rows: usize,
    /// Elements d of a row.
    pub d: usize,
    /// Number r of vectors of the basis.
    pub rank: usize,
    /// Whether Π keeps what lies outside of the basis.
    pub keeps_rest: bool,
    /// Where Π is applied.
    pub at: ProjectAt,
}

/// The numbers of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Step size η, which also scales the weight decay.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay w.
    pub weight_decay: f64,
    /// The gradient is multiplied by this first.
    pub gradient_scale: f64,
    /// The number t of this step, from 1 on.
    pub step: u32,
}

impl AdamWStep {
    /// The kernels' `scale, beta1, beta2, rest1, rest2, step, root, eps, decay`. Corrections are folded into factors in f64: 1 − β₂ᵗ is
    /// small in the first steps.
    fn args(&self) -> [Arg; 9] {
        let t = f64::from(self.step);
        [
            self.gradient_scale,
            self.beta1,
            self.beta2,
            1.0 - self.beta1,
            1.0 - self.beta2,
            self.lr / (1.0 - self.beta1.powf(t)),
            (1.0 - self.beta2.powf(t)).sqrt().recip(),
            self.eps,
            self.lr * self.weight_decay,
        ]
        .map(|x| Arg::F32(x as f32))
    }
}

/// Plans one step of AdamW whose gradient, update, or both are projected:
///
/// ```text
/// x = s·Π(g)      m ← β₁·m + (1−β₁)·x      v ← β₂·v + (1−β₂)·x²
/// p ← p − Π( η·m/(1−β₁ᵗ) / (sqrt(v/(1−β₂ᵗ)) + eps) + η·w·p )
/// ```
///
/// # Shapes
/// Buffers: `p (n, d)`, `g (n, d)`, the moments `m (n, d)` and `v (n, d)`, `basis (r, d)` and `c (r)` as for
/// [`plan_projection`](crate::plan_projection); all f32, row-major. p, m and v are updated in place. Accuracy as there. A NaN in the
/// gradient spreads over its row: look for it before the step.
///
/// # Cost
/// Few rows on a GPU with clusters: one launch, in which the rows of g stay in shared memory until p has moved. Otherwise two launches for each
/// Π, with moments, direction and p in the last part of the second; one more for [`ProjectAt::Update`]; and a scratch of `n·(d + r)` f32.
/// Without a basis: one launch.
///
/// # Errors
/// [`KernelError::Shape`] for sizes beyond a launch, a GPU with too little shared memory, or step 0.
///
/// # Source
/// Loshchilov & Hutter 2019, algorithm 2, with the step size also on the decay; Π stands where [`ProjectAt`] says.
pub fn plan_adamw(shape: &AdamWShape, step: &AdamWStep, target: &Target) -> Result<Plan> {
    let op = "projected AdamW";
    let AdamWShape { rows, d, rank, keeps_rest, at } = *shape;
    if step.step == 0 {
        return Err(KernelError::shape(op, "steps are counted from 1"));
    }
    let size = Size::new(op, rows, d, rank, DType::F32)?;
    let mut plan = Plan::new(op);
    let p = plan.buffer("p", Role::InOut, DType::F32, size.elements);
    let g = plan.buffer("g", Role::Input, DType::F32, size.elements);
    let m = plan.buffer("m", Role::InOut, DType::F32, size.elements);
    let v = plan.buffer("v", Role::InOut, DType::F32, size.elements);
    let basis = plan.buffer("basis", Role::Input, DType::F32, size.basis);
    let c = plan.buffer("c", Role::Input, DType::F32, rank);
    if size.elements == 0 {
        return Ok(plan);
    }
    let (before, after) = (at != ProjectAt::Update, at != ProjectAt::Gradient);
    let delta = f32::from(u8::from(keeps_rest));
    let [n, d, r] = size.args;
    if rank == 0 {
        let factor = |projects: bool| Arg::F32(if projects { delta } else { 1.0 });
        let mut args =
            vec![p, g, m, v, p, Arg::I64(size.elements as i64), factor(before), factor(after), Arg::I32(0)];
        args.extend(step.args());
        plan.launches.push(each_element(op, &size, args)?);
        return Ok(plan);
    }
    let delta = Arg::F32(delta);
    if let Some(cluster) = Cluster::choose(target, &size) {
        let mut args =
            vec![p, g, m, v, basis, c, n, d, r, delta, Arg::I32(before.into()), Arg::I32(after.into())];
        args.extend(step.args());
        args.extend(cluster.args(&size));
        let kernel = format!("adamw_cluster_{}", cluster.blocks);
        plan.launches.push(cluster.launch(op, File::Adamw, kernel, &size, args)?);
        return Ok(plan);
    }
    let tiled = Tiled::choose(target, op, &size)?;
    let a = tiled.scratch(&mut plan, &size);
    let u = if after { plan.buffer("update", Role::Scratch, DType::F32, size.elements) } else { p };
    if before {
        tiled.coefficients(&mut plan, &size, [g, basis, c, a])?;
        let mut args = vec![p, g, m, v, u, a, basis, n, d, r, delta, Arg::I32(after.into())];
        args.extend(step.args());
        args.extend([tiled.splits(), size.packed()]);
        tiled.expand(&mut plan, File::Adamw, "adamw_direction".to_owned(), &size, args)?;
    } else {
        let mut args =
            vec![p, g, m, v, u, Arg::I64(size.elements as i64), Arg::F32(1.0), Arg::F32(1.0), Arg::I32(1)];
        args.extend(step.args());
        plan.launches.push(each_element(op, &size, args)?);
    }
    if after {
        tiled.coefficients(&mut plan, &size, [u, basis, c, a])?;
        let args = vec![p, u, a, basis, n, d, r, delta, tiled.splits(), size.packed()];
        tiled.expand(&mut plan, File::Adamw, "adamw_update".to_owned(), &size, args)?;
    }
    Ok(plan)
}

/// The step without products, four elements a thread.
fn each_element(op: &'static str, size: &Size, args: Vec<Arg>) -> Result<Launch> {
    Ok(Launch {
        file: File::Adamw,
        kernel: "adamw_rows".to_owned(),
        grid: [to_grid(op, size.elements.div_ceil(4 * THREADS))?, 1, 1],
        block: THREADS as u32,
        cluster: 1,
        shared_bytes: 0,
        args,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: AdamWStep = AdamWStep {
        lr: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.5,
        gradient_scale: 1.0,
        step: 1,
    };

    fn kernels(target: Target, rows: usize, rank: usize, at: ProjectAt) -> Vec<String> {
        let shape = AdamWShape { rows, d: 2048, rank, keeps_rest: true, at };
        let plan = plan_adamw(&shape, &STEP, &target).unwrap();
        plan.launches.into_iter().map(|launch| launch.kernel).collect()
    }

    #[test]
    fn launches_are_as_few_as_the_shape_allows() {
        use ProjectAt::{Both, Gradient, Update};
        let (a, b, c) = ("projection_coefficients_f32", "adamw_direction", "adamw_update");
        for at in [Both, Gradient, Update] {
            assert_eq!(kernels(Target::H100, 200, 512, at), ["adamw_cluster_16"]);
            assert_eq!(kernels(Target::H100, 200, 0, at), ["adamw_rows"]);
        }
        assert_eq!(kernels(Target::A100, 200, 512, Both), [a, b, a, c]);
        assert_eq!(kernels(Target::H100, 4000, 512, Gradient), [a, b]);
        assert_eq!(kernels(Target::H100, 4000, 512, Update), ["adamw_rows", a, c]);
    }

    #[test]
    fn the_corrections_of_the_first_step_undo_its_decay() {
        let numbers = STEP.args().map(|arg| if let Arg::F32(x) = arg { x } else { f32::NAN });
        let expected = [1.0, 0.9, 0.999, 0.1, 1e-3, 1e-2, 31.622_776, 1e-8, 5e-4];
        for (x, y) in numbers.into_iter().zip(expected) {
            assert!((x - y).abs() <= 1e-6 * y, "{numbers:?}");
        }
    }

    #[test]
    fn empty_and_too_large_shapes() {
        let shape = AdamWShape { rows: 0, d: 8, rank: 2, keeps_rest: true, at: ProjectAt::Both };
        assert!(plan_adamw(&shape, &STEP, &Target::H100).unwrap().launches.is_empty());
        let large = AdamWShape { rows: 1 << 31, ..shape };
        assert!(matches!(plan_adamw(&large, &STEP, &Target::H100), Err(KernelError::Shape { .. })));
        let never = AdamWStep { step: 0, ..STEP };
        assert!(matches!(plan_adamw(&shape, &never, &Target::H100), Err(KernelError::Shape { .. })));
    }
}
