//! O-LoRA's penalty on the overlap of an adapter's row spaces with those of older ones (Wang et al. 2023, "Orthogonal Subspace Learning for
//! Language Model Continual Learning", EMNLP Findings, arXiv 2310.14152).
//!
//! ```text
//! L = Σ_maps Σ_old Σ |M|,   M = A_old·Aᵀ,   dL/dA = sgn(M)ᵀ·A_old
//! ```
//! The paper writes the sum of squares (equation 6); the authors' code, which made its figures, adds magnitudes, and so does this.

use crate::lora::Lora;

/// O-LoRA's penalty of an adapter on the overlap of its row spaces with those of older adapters of the same maps, `Σ |A_old·Aᵀ|`.
/// `weight` times its gradient is added to `gradient`, which has the order of [`Lora::values`].
///
/// # Panics
/// If `gradient` is shorter than the adapter's values.
pub fn add_overlap(adapter: &Lora, older: &[&Lora], weight: f64, gradient: &mut [f32]) -> f64 {
    let mut penalty = 0.0;
    for (module, place, factors) in adapter.all_factors() {
        let d = module.n_in;
        let of_a = &mut gradient[place.start..][..factors.a.len()];
        for old in older.iter().filter_map(|old| old.factors(&module.name)) {
            for old_row in old.a.chunks_exact(d) {
                for (row, of_row) in factors.a.chunks_exact(d).zip(of_a.chunks_exact_mut(d)) {
                    let m: f64 = old_row.iter().zip(row).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                    penalty += m.abs();
                    // The sign of 0 is 0.
                    let sign = if m == 0.0 { 0.0 } else { m.signum() };
                    let factor = (weight * sign) as f32;
                    of_row.iter_mut().zip(old_row).for_each(|(g, x)| *g += factor * x);
                }
            }
        }
    }
    penalty
}
