//! How far adapters change a map, and how much two of them have to do with each other.

use crate::lora::Factors;
use fwd_linalg::{LinalgError, thin_svd};

/// `‖s·B·A‖`, the Frobenius norm of what an adapter adds to a weight, with all gates at 1 where it has experts. The product is not computed:
/// `‖B·A‖² = tr(BᵀB·AAᵀ)`.
pub fn change_norm(factors: Factors<'_>) -> f64 {
    let Factors { a, b, rank, scale, .. } = factors;
    let (n_in, n_out) = (a.len() / rank, b.len() / rank);
    let of_a = |i: usize, j: usize| -> f64 {
        let rows = a[i * n_in..][..n_in].iter().zip(&a[j * n_in..][..n_in]);
        rows.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let of_b = |i: usize, j: usize| -> f64 {
        (0..n_out).map(|o| f64::from(b[o * rank + i]) * f64::from(b[o * rank + j])).sum()
    };
    let squared: f64 =
        (0..rank).flat_map(|i| (0..rank).map(move |j| (i, j))).map(|(i, j)| of_a(i, j) * of_b(i, j)).sum();
    // Rounding may leave a little below 0.
    scale * squared.max(0.0).sqrt()
}

/// How much of the inputs that one adapter reads of a map another one reads too: the mean squared cosine of the angles between the row spaces of both
/// `A`, from 0 (orthogonal) to 1 (one lies in the other). Random row spaces have `rank/n_in`.
///
/// # Errors
/// Those of the decomposition.
pub fn shared_inputs(one: Factors<'_>, other: Factors<'_>) -> Result<f64, LinalgError> {
    let [one, other] = [orthonormal_rows(one)?, orthonormal_rows(other)?];
    let fewer = one.len().min(other.len());
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let squared: f64 = one.iter().flat_map(|x| other.iter().map(move |y| dot(x, y).powi(2))).sum();
    Ok(if fewer == 0 { 0.0 } else { squared / fewer as f64 })
}

/// An orthonormal basis of the rows of `A`.
fn orthonormal_rows(factors: Factors<'_>) -> Result<Vec<Vec<f64>>, LinalgError> {
    let dim = factors.a.len() / factors.rank;
    let rows: Vec<f64> = factors.a.iter().map(|x| f64::from(*x)).collect();
    let svd = thin_svd(&rows, dim)?;
    let least = 1e-6 * svd.singular_values.first().copied().unwrap_or(0.0);
    let kept = svd.right.chunks_exact(dim).zip(&svd.singular_values).filter(|(_, size)| **size > least);
    Ok(kept.map(|(row, _)| row.to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors<'a>(a: &'a [f32], b: &'a [f32], rank: usize) -> Factors<'a> {
        Factors { a, b, rank, scale: 1.5, router: &[] }
    }

    #[test]
    fn the_norm_is_that_of_the_product() {
        let a: Vec<f32> = (0..10).map(|i| (i as f32 * 1.3).sin()).collect();
        let b: Vec<f32> = (0..6).map(|i| (i as f32 * 0.7).cos()).collect();
        let mut squared = 0.0;
        for o in 0..3 {
            for i in 0..5 {
                let product: f64 = (0..2).map(|r| f64::from(b[o * 2 + r]) * f64::from(a[r * 5 + i])).sum();
                squared += (1.5 * product).powi(2);
            }
        }
        assert!((change_norm(factors(&a, &b, 2)) - squared.sqrt()).abs() < 1e-12);
        assert_eq!(change_norm(factors(&a, &[0.0; 6], 2)), 0.0);
    }

    #[test]
    fn row_spaces_share_what_lies_in_both() {
        let b = [1.0; 4];
        let rows = |rows: [[f32; 3]; 2]| rows.concat();
        let (xy, yz) = (rows([[1.0, 0.0, 0.0], [1.0, 2.0, 0.0]]), rows([[0.0, 3.0, 0.0], [0.0, 0.0, 1.0]]));
        let shared = |x: &[f32], y: &[f32]| shared_inputs(factors(x, &b, 2), factors(y, &b, 2)).unwrap();
        assert!((shared(&xy, &xy) - 1.0).abs() < 1e-12);
        assert!((shared(&xy, &yz) - 0.5).abs() < 1e-12);
        // A line in a plane, and nothing at all.
        let line = rows([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]]);
        assert!((shared(&line, &xy) - 1.0).abs() < 1e-12);
        assert_eq!(shared(&[0.0; 6], &xy), 0.0);
    }
}
