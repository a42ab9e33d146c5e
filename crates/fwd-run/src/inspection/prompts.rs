//! The prompts themselves: the words of the vocabulary that their tokens are nearest to, and where training moved them.

use super::findings::{Neighbour, PromptFindings, TokenFindings};
use crate::model::Backbone;
use anyhow::{Context, Result};
use candle_core::Tensor;
use fwd_models::LanguageModel;
use fwd_prompt::Prompts;
use fwd_prompt::linalg::share_within;

/// Prompt tokens that are compared with the vocabulary at a time.
const CHUNK: usize = 64;

/// Every prompt of a run, with so many nearest words of each token.
///
/// # Errors
/// Those of the model.
pub(super) fn findings(
    backbone: &Backbone,
    prompts: &Prompts,
    n_nearest: usize,
) -> Result<Vec<PromptFindings>> {
    let (pool, entries) = (prompts.pool(), prompts.ledger().entries());
    let (dim, size) = (pool.dims().model, pool.prompt_len() * pool.dims().model);
    let (after, before) = (pool.prompts(), prompts.initial_prompts());
    let table = vocabulary(backbone.model.language())?;
    let nearest_now = nearest(&table, after, dim, n_nearest)?;
    let nearest_before = nearest(&table, &before, dim, 1)?;
    let token = |i: usize, row: &[f32]| TokenFindings {
        norm: norm(row),
        nearest: nearest_now[i].iter().map(|&(id, cosine)| neighbour(backbone, id, cosine)).collect(),
        initial_cosine: nearest_before[i].first().map_or(0.0, |&(_, cosine)| cosine),
    };
    let mut findings = Vec::new();
    let values = after.chunks_exact(size).zip(before.chunks_exact(size)).zip(prompts.owners());
    for (index, ((after, before), owner)) in values.enumerate() {
        let change: Vec<f32> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        let share = |entry: &fwd_prompt::Entry| Ok(share_within(&change, &entry.basis)?.powi(2));
        let inside = entries.iter().map(share).collect::<Result<Vec<f64>>>()?;
        let moved = norm(&change);
        let outside = if moved > 0.0 { (1.0 - inside.iter().sum::<f64>()).max(0.0) } else { 0.0 };
        let first = index * pool.prompt_len();
        findings.push(PromptFindings {
            index,
            task: entries.get(*owner).context("a prompt of no task")?.task.clone(),
            tokens: after.chunks_exact(dim).enumerate().map(|(i, row)| token(first + i, row)).collect(),
            initial_norm: norm(before),
            moved,
            inside,
            outside,
        });
    }
    Ok(findings)
}

fn neighbour(backbone: &Backbone, id: u32, cosine: f64) -> Neighbour {
    // A model may have more rows than its tokenizer has tokens.
    let token = backbone.processor.text.token(id).unwrap_or_else(|| format!("<id {id}>"));
    Neighbour { id, token, cosine }
}

/// The input embeddings of all tokens, each of length 1.
fn vocabulary(language: &dyn LanguageModel) -> Result<Tensor> {
    let ids = Tensor::arange(0, language.vocab_size() as i64, language.device())?;
    unit_rows(&language.embed(&ids)?)
}

fn unit_rows(rows: &Tensor) -> Result<Tensor> {
    let length = rows.sqr()?.sum_keepdim(1)?.sqrt()?;
    Ok(rows.broadcast_div(&length.maximum(f64::from(f32::MIN_POSITIVE))?)?)
}

/// For each row, the ids of the `n` rows of a table of unit vectors with the largest cosine, and the cosines, largest first; equal
/// ones in the order of ids.
fn nearest(table: &Tensor, rows: &[f32], dim: usize, n: usize) -> Result<Vec<Vec<(u32, f64)>>> {
    let mut neighbours = Vec::new();
    for chunk in rows.chunks(CHUNK * dim) {
        let chunk = Tensor::from_slice(chunk, (chunk.len() / dim, dim), table.device())?;
        let cosines = unit_rows(&chunk)?.matmul(&table.t()?)?.to_vec2::<f32>()?;
        for row in cosines {
            let mut all: Vec<(u32, f64)> =
                row.iter().zip(0..).map(|(&cosine, id)| (id, f64::from(cosine).clamp(-1.0, 1.0))).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            all.truncate(n);
            neighbours.push(all);
        }
    }
    Ok(neighbours)
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use fwd_models::{Blip, MultimodalModel, WeightDtype};
    use std::path::Path;

    #[test]
    fn a_token_of_the_vocabulary_is_nearest_to_itself() {
        let set = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fwd-models/tests/fixtures/sets/instructblip-small");
        let model = Blip::load(&set, WeightDtype::F32, &Device::Cpu).unwrap();
        let (language, dim) = (model.language(), model.language().d_model());
        let table = vocabulary(language).unwrap();
        let ids: Vec<i64> = (0..language.vocab_size() as i64).step_by(3).collect();
        assert!(ids.len() > CHUNK, "several chunks");
        let rows = language.embed(&Tensor::new(&ids[..], &Device::Cpu).unwrap()).unwrap();
        let rows = (rows * -2.5).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let near_tokens = nearest(&table, &rows.iter().map(|x| -x).collect::<Vec<_>>(), dim, 3).unwrap();
        assert_eq!(near_tokens.len(), ids.len());
        let lengths: Vec<f64> = rows.chunks_exact(dim).map(norm).collect();
        let cosine = |a: usize, b: usize| {
            let (a, b) = (&rows[a * dim..(a + 1) * dim], &rows[b * dim..(b + 1) * dim]);
            a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>() / (norm(a) * norm(b))
        };
        for (i, (near, &id)) in near_tokens.iter().zip(&ids).enumerate() {
            if lengths[i] == 0.0 {
                continue; // The padding token may have no direction.
            }
            assert_eq!(i64::from(near[0].0), id);
            assert!((near[0].1 - 1.0).abs() < 1e-5 && near[0].1 > near[1].1 && near[1].1 >= near[2].1);
            if let Some(other) = ids.iter().position(|&id| id == i64::from(near[1].0)) {
                assert!((near[1].1 - cosine(i, other)).abs() < 1e-4);
            }
        }
        // A row without a direction is near to nothing.
        assert_eq!(nearest(&table, &vec![0.0; dim], dim, 1).unwrap()[0][0].1, 0.0);
    }
}
