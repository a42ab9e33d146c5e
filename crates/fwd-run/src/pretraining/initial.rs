//! First values of the trained parameters, from streams named after them.
//!
//! Matrices are normal with the variance that keeps a unit input at unit output (half of it in the Q-Former, whose sublayers are
//! normalised after the sum), T5's queries are scaled down by `sqrt(d_kv)` as its scores are not, embeddings are large enough to
//! differ, norms begin at 1 and biases at 0. The positions of the image tokens are sines and cosines.
//!
//! The Q-Former begins as a copier: query i is the position of cell i, and the maps of the cross-attention are near the identity, so
//! that it looks at its cell and passes it on. From random maps, every query sees the mean of the image, and training never leaves
//! that (after 60,000 samples colour and number were half guessed).
//!
//! Where the text side of the Q-Former is pre-trained and frozen, the queries' feed-forward layers begin as copies of it. Where the
//! language model is, visual tokens and prompts begin as long as its own embeddings.

use super::recipe::Sizes;
use crate::weight_training::PROMPTS;
use anyhow::Result;
use fwd_models::Weights;
use fwd_models::{CELL_CHANNELS, EfficientNetLite0};
use rand::Rng;
use rand_distr::StandardNormal;
use std::f64::consts::PI;

/// What first values depend on beside name and shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    /// Of the random streams.
    pub(super) seed: u64,
    /// The sizes of a model that is trained from the beginning.
    pub(super) sizes: Option<&'a Sizes>,
    /// Root of the mean square of the elements of the language model's embeddings, if it is frozen.
    pub(super) embedding_rms: Option<f64>,
}

/// The name of the embeddings of the language models that are frozen (LLaMA).
const EMBEDDINGS: &str = "language_model.model.embed_tokens.weight";

/// The root of the mean square of a frozen language model's embeddings; none if it is not among the frozen parts.
///
/// # Errors
/// An unreadable file.
pub(super) fn embedding_rms(frozen: &mut dyn Weights, shape: &[usize]) -> Result<Option<f64>> {
    if !frozen.has(EMBEDDINGS) {
        return Ok(None);
    }
    let values = frozen.get(EMBEDDINGS, shape)?;
    Ok(Some(f64::from(values.sqr()?.mean_all()?.to_scalar::<f32>()?).sqrt()))
}

/// The parameter of the text side that one of the queries' feed-forward layers begins as a copy of.
pub(super) fn twin(name: &str) -> Option<String> {
    let name = name.strip_prefix("qformer.")?;
    name.contains("_query.").then(|| format!("qformer.{}", name.replace("_query.", ".")))
}

/// The first value of a parameter.
pub(super) fn value(given: Given<'_>, name: &str, shape: &[usize]) -> Vec<f32> {
    let Given { seed, sizes, embedding_rms } = given;
    let n = shape.iter().product();
    let mut rng = fwd_continual::stream(seed, name, [0, 0]);
    let mut normal = |std: f64| -> Vec<f32> {
        (0..n).map(|_| (std * rng.sample::<f64, _>(StandardNormal)) as f32).collect()
    };
    let n_in = shape.last().copied().unwrap_or(1) as f64;
    match name {
        "vision_model.neck.positions" => cell_codes(shape[0], shape[1]),
        "vision_model.neck.map.weight" if shape[1] == CELL_CHANNELS => neck(normal(1.0)),
        "language_projection_norm.weight" => vec![embedding_rms.unwrap_or(1.0) as f32; n],
        PROMPTS => normal(0.5 * embedding_rms.unwrap_or(1.0)),
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
        _ if name.contains("_embeddings.weight") => normal(0.5),
        _ if shape.len() == 1 && name.ends_with(".weight") => vec![1.0; n],
        _ if name.ends_with(".bias") => vec![0.0; n],
        _ if name.starts_with("qformer.") => normal(0.5 * n_in.powf(-0.5)),
        _ if name.ends_with("Attention.q.weight") => {
            normal((n_in * sizes.map_or(1, |sizes| sizes.d_kv) as f64).powf(-0.5))
        }
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

/// The codes of a square number of cells, or of a class token, which has no place, and such cells.
fn cell_codes(n: usize, d: usize) -> Vec<f32> {
    let side = n.isqrt();
    if side * side == n {
        return grid_code(side, d);
    }
    let mut codes = vec![0.0; d];
    codes.extend(grid_code((n - 1).isqrt(), d));
    codes
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
