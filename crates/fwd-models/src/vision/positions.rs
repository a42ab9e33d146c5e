//! Position embeddings for images of another size than the trained one.
//!
//! The table of the patches is a picture of `side × side` vectors. It is resampled as PyTorch does it (`bicubic`, half-pixel centres, no
//! antialiasing, the scale from the two sizes): in each direction
//!
//! ```text
//! s = (i + ½)·side/n − ½,   out[i] = Σ_{j = −1..2} k(s − ⌊s⌋ − j)·in[clamp(⌊s⌋ + j)]
//! k(t) = (a + 2)|t|³ − (a + 3)|t|² + 1                 |t| ≤ 1
//!        a|t|³ − 5a|t|² + 8a|t| − 4a                   1 < |t| < 2,   a = −¾
//! ```
//!
//! # Source
//! Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = −½; the other value is PyTorch's.

use crate::error::{ModelError, Result};
use candle_core::{Device, Tensor};

const A: f64 = -0.75;

/// The position embeddings of a vision transformer for images of another size, resampled as PyTorch's `interpolate` does it (`bicubic`,
/// half-pixel centres, no antialiasing): the table `(1, 1 + side², d)` for a grid of `(rows, columns)`, `(1, 1 + rows·columns, d)`. The class
/// token's position, the first, stays.
///
/// # Errors
/// [`ModelError`](crate::ModelError) for a table of another shape.
pub fn interpolated_positions(positions: &Tensor, side: usize, grid: (usize, usize)) -> Result<Tensor> {
    let (n_rows, n_columns) = grid;
    let (_, n, d) = positions.dims3()?;
    if n != 1 + side * side {
        let what = format!("{n} positions for a class token and {side}×{side} patches");
        return Err(ModelError::input("position embeddings", what));
    }
    let device = positions.device();
    let patches = positions.narrow(1, 1, side * side)?.reshape((side, side * d))?;
    let rows = resampling(side, n_rows, device)?.matmul(&patches)?.reshape((n_rows, side, d))?;
    let across = resampling(side, n_columns, device)?.broadcast_left(n_rows)?.contiguous()?;
    let resampled = across.matmul(&rows)?.reshape((1, n_rows * n_columns, d))?;
    Ok(Tensor::cat(&[&positions.narrow(1, 0, 1)?, &resampled], 1)?)
}

/// The map from `n_in` samples in a line to `n_out`, `(n_out, n_in)`.
fn resampling(n_in: usize, n_out: usize, device: &Device) -> Result<Tensor> {
    let mut map = vec![0f32; n_out * n_in];
    for (i, row) in map.chunks_exact_mut(n_in).enumerate() {
        let source = (i as f64 + 0.5) * n_in as f64 / n_out as f64 - 0.5;
        let first = source.floor();
        for offset in -1..=2 {
            let at = (first + f64::from(offset)).clamp(0.0, (n_in - 1) as f64) as usize;
            row[at] += cubic(source - first - f64::from(offset)) as f32;
        }
    }
    Ok(Tensor::from_vec(map, (n_out, n_in), device)?)
}

/// The kernel `k(t)` of the module's head.
fn cubic(t: f64) -> f64 {
    let t = t.abs();
    if t <= 1.0 {
        ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0
    } else if t < 2.0 {
        A * (((t - 5.0) * t + 8.0) * t - 4.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trained_size_is_the_identity_and_constants_stay() {
        let identity: Vec<Vec<f32>> = resampling(3, 3, &Device::Cpu).unwrap().to_vec2().unwrap();
        assert_eq!(identity, [[1., 0., 0.], [0., 1., 0.], [0., 0., 1.]]);
        for (n_in, n_out) in [(1, 4), (4, 1), (37, 16), (5, 13)] {
            let map: Vec<Vec<f32>> = resampling(n_in, n_out, &Device::Cpu).unwrap().to_vec2().unwrap();
            // Four weights that sum to 1, each rounded once.
            assert!(map.iter().all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 8.0 * f32::EPSILON));
        }
    }

    /// Half the size: every new sample lies in the middle between two old ones, where the kernel is (a, 4 − a, 4 − a, a)/8.
    #[test]
    fn halving_weighs_four_neighbours_and_repeats_the_edge() {
        let map: Vec<Vec<f32>> = resampling(4, 2, &Device::Cpu).unwrap().to_vec2().unwrap();
        let (outer, inner) = (-0.09375f32, 0.59375f32);
        assert_eq!(map[0], [outer + inner, inner, outer, 0.0]);
        assert_eq!(map[1], [0.0, outer, inner, inner + outer]);
    }
}
