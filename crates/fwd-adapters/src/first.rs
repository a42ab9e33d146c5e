//! How the factors of a task and their optimiser begin.

use crate::lora::Lora;
use fwd_linalg::{AdamWState, LinalgError, Projection};

/// Projects the first values of an `A`, whose rows keep their lengths: what is left of them may be little, and its rounding error would be as
/// large as before.
pub(crate) fn project_first(a: &mut [f32], projection: &Projection) -> Result<(), LinalgError> {
    if projection.is_identity() {
        return Ok(());
    }
    let length = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let before: Vec<f64> = a.chunks_exact(projection.dim()).map(length).collect();
    for _ in 0..2 {
        projection.apply(a)?;
        for (row, before) in a.chunks_exact_mut(projection.dim()).zip(&before) {
            let now = length(row);
            // Nothing but rounding error is left of a row whose space is forbidden as a whole.
            let factor = if now > 1e-5 * before { (before / now) as f32 } else { 0.0 };
            row.iter_mut().for_each(|x| *x *= factor);
        }
    }
    Ok(())
}

/// Moments before the first step, for the factors of each map.
pub(crate) fn fresh_states(adapter: &Lora) -> Vec<[AdamWState; 3]> {
    adapter
        .all_factors()
        .map(|(_, _, factors)| [factors.a, factors.b, factors.router].map(|f| AdamWState::new(f.len())))
        .collect()
}
