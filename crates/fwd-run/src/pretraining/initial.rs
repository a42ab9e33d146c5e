//! First values of the trained parameters, from streams named after them.
//!
//! Matrices are normal with the variance that keeps a unit input at unit output (half of it in the Q-Former, whose sublayers are
//! normalised after the sum), T5's queries are scaled down by `sqrt(d_kv)` as its scores are not, embeddings are large enough to
//! differ, norms begin at 1 and biases at 0. The positions of the image tokens are sines and cosines.
//!
//! The Q-Former begins as a copier: query i is the position of cell i, and the maps of the cross-attention are near the identity, so
//! that it looks at its cell and passes it on. From random maps, every query sees the mean of the image, and training never leaves
//! that (after 60,000 samples colour and number were half guessed).

use super::recipe::Sizes;
use crate::weight_training::PROMPTS;
use fwd_models::{CELL_CHANNELS, EfficientNetLite0};
use rand::Rng;
use rand_distr::StandardNormal;
use std::f64::consts::PI;

/// The first value of a parameter.
pub(super) fn value(seed: u64, sizes: &Sizes, name: &str, shape: &[usize]) -> Vec<f32> {
    let n = shape.iter().product();
    let mut rng = fwd_continual::stream(seed, name, [0, 0]);
    let mut normal = |std: f64| -> Vec<f32> {
        (0..n).map(|_| (std * rng.sample::<f64, _>(StandardNormal)) as f32).collect()
    };
    let n_in = shape.last().copied().unwrap_or(1) as f64;
    match name {
        "vision_model.neck.positions" => grid_code(shape[0].isqrt(), shape[1]),
        "vision_model.neck.map.weight" => neck(normal(1.0)),
        "query_tokens" => grid_code(shape[1].isqrt(), shape[2]),
        _ if name.contains(".crossattention.attention.") && name.ends_with(".weight") => {
            let gain = if name.ends_with("value.weight") { 1.0 } else { 1.5 };
            near_identity(normal(0.15 * n_in.powf(-0.5)), shape[1], gain)
        }
        _ if name.ends_with(".crossattention.output.dense.weight") => {
            near_identity(normal(0.15 * n_in.powf(-0.5)), shape[1], 1.0)
        }
        _ if name.starts_with("qformer.") && name.ends_with(".attention.output.dense.weight") => {
            normal(0.15 * n_in.powf(-0.5))
        }
        _ if name.ends_with("relative_attention_bias.weight") => normal(0.1),
        _ if name.ends_with("language_model.shared.weight") => normal(1.0),
        _ if name.contains("_embeddings.weight") || name == PROMPTS => normal(0.5),
        _ if shape.len() == 1 && name.ends_with(".weight") => vec![1.0; n],
        _ if name.ends_with(".bias") => vec![0.0; n],
        _ if name.starts_with("qformer.") => normal(0.5 * n_in.powf(-0.5)),
        _ if name.ends_with("Attention.q.weight") => normal((n_in * sizes.d_kv as f64).powf(-0.5)),
        _ => normal(n_in.powf(-0.5)),
    }
}

/// `gain·I` added to `(n, width)`.
fn near_identity(mut weights: Vec<f32>, width: usize, gain: f32) -> Vec<f32> {
    for (i, row) in weights.chunks_exact_mut(width).enumerate() {
        row.iter_mut().skip(i).take(1).for_each(|w| *w += gain);
    }
    weights
}

/// Both maps begin with the same say in a token.
fn neck(mut weights: Vec<f32>) -> Vec<f32> {
    let last = EfficientNetLite0::LAST_CHANNELS;
    let (last_std, mid_std) = ((last as f32).powf(-0.5), ((CELL_CHANNELS - last) as f32).powf(-0.5));
    for row in weights.chunks_exact_mut(CELL_CHANNELS) {
        let (a, b) = row.split_at_mut(last);
        a.iter_mut().for_each(|w| *w *= last_std);
        b.iter_mut().for_each(|w| *w *= mid_std);
    }
    weights
}

/// `(side², d)`: sines and cosines of the cells' centres in the unit square, from half a wave to four waves a side.
fn grid_code(side: usize, d: usize) -> Vec<f32> {
    let n_waves = d / 4;
    let wave = |i: usize| PI * 2f64.powf(3.0 * i as f64 / (n_waves.max(2) - 1) as f64);
    let centre = |i: usize| (i as f64 + 0.5) / side as f64;
    let mut code = Vec::with_capacity(side * side * d);
    for cell in 0..side * side {
        let (x, y) = (centre(cell % side), centre(cell / side));
        for i in 0..n_waves {
            let parts = [(x * wave(i)).sin_cos(), (y * wave(i)).sin_cos()];
            code.extend(parts.into_iter().flat_map(|(sin, cos)| [sin as f32, cos as f32]));
        }
        code.resize((cell + 1) * d, 0.0);
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_different_codes_of_one_length() {
        let code = grid_code(4, 32);
        let rows: Vec<&[f32]> = code.chunks_exact(32).collect();
        assert_eq!(rows.len(), 16);
        for (i, a) in rows.iter().enumerate() {
            let square: f32 = a.iter().map(|x| x * x).sum();
            assert!((square - 16.0).abs() < 1e-4);
            for b in &rows[..i] {
                let distance: f32 = a.iter().zip(*b).map(|(x, y)| (x - y) * (x - y)).sum();
                assert!(distance > 1.0, "{distance}");
            }
        }
    }
}
