//! How KeepLoRA begins an adapter (Luo et al. 2026, "KeepLoRA: Continual Learning with Residual Gradient Adaptation", ICLR, arXiv 2601.19659).
//!
//! ```text
//! G = dL/dW of a map over samples of the task, at the model as it is
//! Π = what is left beside the principal directions of W's rows and what older tasks' inputs lie in
//! G·Π = U Σ Vᵀ,   A = the first rows of Vᵀ, which stay,   B = 0, which is trained
//! ```
//! The first singular vectors come from a randomised range finder with two iterations (Halko et al. 2011), as in the authors' code. Its products
//! are gradients of the adapter itself, so that no `G` is ever in memory: with `A = 0`, `dL/dA = s·Bᵀ·G`; with `B = 0`, `dL/dB = s·G·Aᵀ`.

use crate::lora::Lora;
use crate::model::AdaptableModel;
use fwd_continual::{Failure, stream};
use fwd_linalg::{LinalgError, Projection, thin_svd};
use rand::Rng;
use rand_distr::StandardNormal;

/// Of the range finder; each is two passes over the samples more.
const N_ITERATIONS: usize = 2;

/// Passes over the samples.
pub(crate) const N_PASSES: usize = 2 * N_ITERATIONS + 1;

/// Makes `A` of an adapter the directions that the mean loss of some samples wants changed most, as far as each map's projection allows, and `B` zero.
/// `is_stopped` is asked after each sample, with their number so far over all passes; `None` if it says so.
///
/// # Errors
/// Those of the model and of the decompositions.
pub(crate) fn begun<M: AdaptableModel>(
    model: &M,
    samples: &[&M::Sample],
    older: &[Lora],
    mut sketch: Lora,
    projections: &[Projection],
    (seed, number): (u64, u64),
    mut is_stopped: impl FnMut(usize) -> bool,
) -> Result<Option<Lora>, Failure> {
    for (i, [a, b, _]) in sketch.factors_mut().enumerate() {
        let mut rng = stream(seed, "keep-lora", [number, i as u64]);
        a.fill(0.0);
        b.iter_mut().for_each(|x| *x = rng.sample(StandardNormal));
    }
    for pass in 0..N_PASSES {
        let mut gradient = vec![0f64; sketch.values().len()];
        // One by one: a step may have no room for more.
        for (i, sample) in samples.iter().enumerate() {
            let adapters: Vec<&Lora> = older.iter().chain([&sketch]).collect();
            let found = model.adapter_gradient(&[sample], &adapters)?.gradient;
            gradient.iter_mut().zip(found).for_each(|(sum, g)| *sum += f64::from(g) / samples.len() as f64);
            if is_stopped(pass * samples.len() + i + 1) {
                return Ok(None);
            }
        }
        let mut rest = &gradient[..];
        for ([a, b, _], projection) in sketch.factors_mut().zip(projections) {
            let (of_a, behind) = rest.split_at(a.len());
            let (of_b, behind) = behind.split_at(b.len());
            rest = behind;
            let rank = a.len() / projection.dim();
            if pass.is_multiple_of(2) {
                let mut rows: Vec<f32> = of_a.iter().map(|g| *g as f32).collect();
                projection.apply(&mut rows)?;
                a.copy_from_slice(&directions(&rows, projection.dim())?);
                b.fill(0.0);
            } else {
                let n_out = b.len() / rank;
                let columns: Vec<f32> = transposed(of_b, rank).map(|g| g as f32).collect();
                let found: Vec<f64> = directions(&columns, n_out)?.into_iter().map(f64::from).collect();
                b.iter_mut().zip(transposed(&found, n_out)).for_each(|(x, found)| *x = found as f32);
                a.fill(0.0);
            }
        }
    }
    Ok(Some(sketch))
}

/// The right singular vectors of some rows, in their order; zeros in the place of those that are rounding error.
fn directions(rows: &[f32], dim: usize) -> Result<Vec<f32>, LinalgError> {
    let rows: Vec<f64> = rows.iter().map(|x| f64::from(*x)).collect();
    let svd = thin_svd(&rows, dim)?;
    let least = 1e-5 * svd.singular_values.first().copied().unwrap_or(0.0);
    let mut found = vec![0f32; rows.len()];
    for ((to, from), size) in
        found.chunks_exact_mut(dim).zip(svd.right.chunks_exact(dim)).zip(&svd.singular_values)
    {
        if *size > least {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from as f32);
        }
    }
    Ok(found)
}

/// The elements of a row-major matrix column by column.
fn transposed(values: &[f64], n_columns: usize) -> impl Iterator<Item = f64> + '_ {
    (0..n_columns).flat_map(move |j| values.iter().skip(j).step_by(n_columns).copied())
}
