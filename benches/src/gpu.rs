//! What is timed on a GPU: one plan for each operation, shape and type, with the work that it cannot avoid. `gpu_torch.py` does the same.

use anyhow::Result;
use fwd_kernels::{
    ActivationKind, AdamWShape, AdamWStep, CrossEntropyShape, DType, GatedShape, GramShape, NormKind,
    NormShape, Plan, ProjectAt, ProjectionShape, SelectionShape, SoftmaxShape, Target, plan_adamw,
    plan_cross_entropy_backward, plan_cross_entropy_forward, plan_gated_backward, plan_gated_forward,
    plan_gram, plan_norm_backward, plan_norm_forward, plan_projection, plan_selection, plan_softmax_backward,
    plan_softmax_forward,
};

/// An operation on one shape and type, which is timed.
#[derive(Debug)]
pub struct Case {
    /// Operation, shape and type: the name that the PyTorch side uses too.
    pub name: String,
    /// The launch that is timed, with its grid and arguments.
    pub plan: Plan,
    /// Bytes that have to be read and written at least; 0 where arithmetic is the bound.
    pub bytes: u64,
    /// Floating-point operations of the products; 0 where memory is the bound.
    pub flop: u64,
}

/// Prompt tokens × model width × rank of the protected space.
pub const PROJECTIONS: [(usize, usize, usize); 4] =
    [(50, 768, 64), (200, 2048, 512), (1000, 4096, 1024), (4000, 4096, 2048)];

/// Matrices × side of symmetric eigenproblems.
pub const EIGEN: [(usize, usize); 2] = [(2, 768), (16, 2048)];

/// Matrices × rows × columns of SVDs.
pub const SVD: [(usize, usize, usize); 3] = [(64, 32, 32), (64, 512, 64), (8, 2048, 512)];

/// Rows × width of activations.
const ROWS: [(usize, usize); 3] = [(8192, 768), (8192, 2048), (8192, 4096)];

/// Every case that the target has a plan for.
///
/// # Errors
/// An error of a plan.
pub fn cases(target: &Target) -> Result<Vec<Case>> {
    let mut all = Vec::new();
    products(target, &mut all)?;
    for dtype in [DType::F32, DType::Bf16] {
        elementwise(target, dtype, &mut all)?;
    }
    Ok(all)
}

fn products(target: &Target, all: &mut Vec<Case>) -> Result<()> {
    for (rows, d, rank) in PROJECTIONS {
        let flop = 4 * (rows * d * rank) as u64;
        for dtype in [DType::F32, DType::Bf16] {
            let name = format!("projection {rows}x{d}x{rank} {}", dtype.suffix());
            let shape = ProjectionShape { rows, d, rank, keeps_rest: true, dtype };
            all.push(Case { name, plan: plan_projection(&shape, target)?, bytes: 0, flop });
        }
        let shape = AdamWShape { rows, d, rank, keeps_rest: true, at: ProjectAt::Both };
        let step = AdamWStep {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            gradient_scale: 1.0,
            step: 1,
        };
        let plan = plan_adamw(&shape, &step, target)?;
        all.push(Case {
            name: format!("projected_adamw {rows}x{d}x{rank} f32"),
            plan,
            bytes: 0,
            flop: 2 * flop,
        });
    }
    for (rows, d, dtype) in [(50_000, 768, DType::F32), (200_000, 2048, DType::Bf16)] {
        let name = format!("gram {rows}x{d} {}", dtype.suffix());
        let plan = plan_gram(&GramShape { rows, d, dtype }, target)?;
        // The symmetric half alone counts.
        all.push(Case { name, plan, bytes: 0, flop: (rows * d * (d + 1)) as u64 });
    }
    for (batch, prompts, d) in [(64, 100, 768), (512, 4096, 768)] {
        let shape = SelectionShape { batch, d_image: d, d_text: d, prompts, among: 0..prompts, top_k: 5 };
        let bytes = 4 * (2 * (batch + prompts) * d) as u64;
        all.push(Case {
            name: format!("selection {batch}x{prompts}x{d}"),
            plan: plan_selection(&shape, target)?,
            bytes,
            flop: 0,
        });
    }
    Ok(())
}

fn elementwise(target: &Target, dtype: DType, all: &mut Vec<Case>) -> Result<()> {
    let (size, suffix) = (dtype.size() as u64, dtype.suffix());
    let mut add = |name: String, plan: Plan, elements: usize| {
        all.push(Case { name: format!("{name} {suffix}"), plan, bytes: elements as u64 * size, flop: 0 });
    };
    for (rows, d) in ROWS {
        for (kind, op) in [(NormKind::Rms, "rms_norm"), (NormKind::Layer, "layer_norm")] {
            let shape = NormShape { kind, rows, d, eps: 1e-6, dtype };
            add(format!("{op} {rows}x{d}"), plan_norm_forward(&shape)?, 2 * rows * d);
            add(format!("{op}_backward {rows}x{d}"), plan_norm_backward(&shape)?, 3 * rows * d);
        }
    }
    for (rows, d) in [(8192, 2048), (8192, 5120)] {
        let shape = GatedShape { kind: ActivationKind::GeluTanh, rows, d, dtype };
        add(format!("gated_gelu {rows}x{d}"), plan_gated_forward(&shape, target)?, 3 * rows * d);
        add(format!("gated_gelu_backward {rows}x{d}"), plan_gated_backward(&shape, target)?, 5 * rows * d);
    }
    for (batch, n_heads, t) in [(16, 32, 256), (4, 32, 1024)] {
        let elements = batch * n_heads * t * t;
        let plain = SoftmaxShape::rows(batch * n_heads * t, t, dtype);
        let biased = SoftmaxShape { batch, n_heads, t_q: t, t_k: t, position: true, keys: true, ..plain };
        let name = format!("{batch}x{n_heads}x{t}x{t}");
        add(format!("softmax {name}"), plan_softmax_forward(&biased)?, 2 * elements);
        add(format!("softmax_backward {name}"), plan_softmax_backward(&plain, false, target)?, 3 * elements);
    }
    let (rows, n_classes) = (1024, 32_128);
    let shape = CrossEntropyShape { rows, n_classes, dtype };
    let name = format!("{rows}x{n_classes}");
    add(format!("cross_entropy {name}"), plan_cross_entropy_forward(&shape)?, rows * n_classes);
    add(format!("cross_entropy_backward {name}"), plan_cross_entropy_backward(&shape)?, 2 * rows * n_classes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::cases;
    use fwd_kernels::Target;
    use std::collections::BTreeSet;

    #[test]
    fn every_target_has_all_cases_and_names_are_unique() {
        for target in [Target::A100, Target::H100] {
            let all = cases(&target).unwrap();
            let names: BTreeSet<&str> = all.iter().map(|case| case.name.as_str()).collect();
            assert_eq!(names.len(), all.len());
            assert!(
                all.iter().all(|case| (case.bytes > 0) != (case.flop > 0) && !case.plan.launches.is_empty())
            );
        }
    }

    #[test]
    fn pytorch_times_the_same_operations() {
        let script = include_str!("../gpu_torch.py");
        for case in cases(&Target::H100).unwrap() {
            let op = case.name.split(' ').next().unwrap();
            let norm = op.strip_suffix("_backward").filter(|op| op.ends_with("norm"));
            let written = norm.map_or_else(|| format!("\"{op} {{"), |_| "{norm}_backward {".to_owned());
            assert!(script.contains(&written), "{op} is not in gpu_torch.py");
        }
    }
}
