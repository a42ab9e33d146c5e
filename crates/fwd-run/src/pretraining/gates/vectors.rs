//! Sums over vectors, in f64.

/// Euclidean length.
pub(super) fn norm(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// The mean of rows of width `d`.
pub(super) fn mean_of<'t>(rows: impl Iterator<Item = &'t [f32]>, d: usize) -> Vec<f64> {
    let (mut sum, mut n) = (vec![0f64; d], 0f64);
    for row in rows {
        sum.iter_mut().zip(row).for_each(|(s, &x)| *s += f64::from(x));
        n += 1.0;
    }
    sum.iter_mut().for_each(|s| *s /= n.max(1.0));
    sum
}

/// `‖row − mean‖²`.
pub(super) fn square_distance(row: &[f32], mean: &[f64]) -> f64 {
    row.iter().zip(mean).map(|(&x, m)| (f64::from(x) - m).powi(2)).sum()
}
