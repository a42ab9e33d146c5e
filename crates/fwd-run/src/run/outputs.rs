//! How far a task's answers have moved since it was learnt: `outputs/` in a run directory.
//!
//! Right after a task is learnt, what the model then says of each token of the right answers to some of its scored samples is kept, as
//! distributions over the vocabulary. After each later task they are compared with what the model says now: the mean over tokens of
//! `KL(then ‖ now)`, in nats. A score says whether the answer is still right, this says how much of what was learnt was moved at all.

use super::paths::RunPaths;
use crate::files::{read, read_json, write_atomically, write_json};
use crate::model::{Backbone, Behind, Model, Sample};
use crate::samples::{Case, Exam, spread};
use anyhow::{Context, Result, ensure};
use fwd_prompt::PromptPool;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// How many scored samples of each task are asked.
const SAMPLES: usize = 32;
/// How many are asked at a time.
const BATCH: usize = 16;
/// Numbers that are kept of a task, at most: 64 MiB.
const NUMBERS: usize = 1 << 24;
const NAME: &str = "log_probs";

/// The log-probabilities of all tokens of a vocabulary at some places, one behind another.
pub(super) struct Distributions {
    vocabulary: usize,
    log_probs: Vec<f32>,
}

/// What a model says of the first `max_tokens` tokens of the answers to some samples of a task. Of a large vocabulary it may be fewer
/// tokens, so that [`NUMBERS`] hold them. `ask` tells of some samples what the model says of so many tokens at most.
///
/// # Errors
/// Those of `ask`.
pub(super) fn distributions(
    model: &Model,
    exam: &Exam<'_>,
    max_tokens: usize,
    mut ask: impl FnMut(&[&Case<'_>], usize) -> Result<Vec<Vec<f32>>>,
) -> Result<Distributions> {
    let vocabulary = model.language().vocab_size();
    let max_tokens = max_tokens.min(NUMBERS / (SAMPLES * vocabulary.max(1))).max(1);
    let chosen: Vec<&Case<'_>> = spread(exam.cases.len(), SAMPLES).map(|i| &exam.cases[i]).collect();
    let mut all = Distributions { vocabulary, log_probs: Vec::new() };
    for batch in chosen.chunks(BATCH) {
        let of_batch = ask(batch, max_tokens)?;
        of_batch.iter().for_each(|of_sample| all.log_probs.extend_from_slice(of_sample));
    }
    Ok(all)
}

/// What the frozen model says behind the prompts that the samples select.
///
/// # Errors
/// Those of the model and the tokenizer.
pub(super) fn of_prompts(
    backbone: &Backbone,
    pool: &PromptPool,
    exam: &Exam<'_>,
    max_tokens: usize,
) -> Result<Distributions> {
    let model = &*backbone.model;
    distributions(model, exam, max_tokens, |cases, max_tokens| {
        let targets = targets(backbone, cases, max_tokens)?;
        let batch: Vec<&Sample> = targets.iter().collect();
        let Behind { prompts, samples, .. } = backbone.behind(&batch, pool)?;
        let read: Vec<&Sample> = samples.iter().map(|sample| &**sample).collect();
        Ok(fwd_models::label_log_probs(model, &read, &prompts)?)
    })
}

/// Scored samples with the first `max_tokens` tokens of their first answers as labels.
///
/// # Errors
/// Those of the tokenizer.
pub(super) fn targets(backbone: &Backbone, cases: &[&Case<'_>], max_tokens: usize) -> Result<Vec<Sample>> {
    let target = |Case { record, sample, .. }: &Case<'_>| {
        let answer = record.answers.first().map_or("", String::as_str);
        let mut labels = backbone.labels(&record.instruction, answer)?;
        labels.truncate(max_tokens);
        Ok(Sample { labels, ..sample.clone() })
    };
    cases.iter().map(|case| target(case)).collect()
}

/// The outputs of a run: what they were, and how far they have moved.
pub(super) struct Outputs<'a> {
    pub(super) run: &'a RunPaths,
}

impl Outputs<'_> {
    /// Takes down what the model says of a task when `after` tasks are learnt, of which the task is the `number`th (from 1): keeps it if
    /// the task was learnt last, and compares it if it is older. What is there already is not asked again, and nothing is compared with what
    /// an older version of this crate has not kept.
    ///
    /// # Errors
    /// Those of `now`; a file that cannot be written, is damaged, or is of another model.
    pub(super) fn record(
        &self,
        (after, number): (usize, usize),
        task: &str,
        now: impl FnOnce() -> Result<Distributions>,
    ) -> Result<()> {
        let path = self.run.reference_outputs(task);
        if after == number && !path.exists() {
            return keep(&path, &now()?);
        }
        if after <= number || !path.exists() {
            return Ok(());
        }
        let mut moved = self.moved(after)?;
        if !moved.contains_key(task) {
            moved.insert(task.to_owned(), divergence(&kept(&path)?, &now()?, &path)?);
            write_json(&self.run.moved_outputs(after), &moved)?;
        }
        Ok(())
    }

    /// For each older task, how far its outputs have moved when `after` tasks are learnt.
    fn moved(&self, after: usize) -> Result<BTreeMap<String, f64>> {
        let path = self.run.moved_outputs(after);
        if path.exists() { read_json(&path) } else { Ok(BTreeMap::new()) }
    }

    /// The mean over all older tasks when `after` tasks are learnt; none without an older task, or if one was not compared.
    ///
    /// # Errors
    /// A damaged file.
    pub(super) fn mean(&self, after: usize) -> Result<Option<f64>> {
        let moved = self.moved(after)?;
        let is_whole = !moved.is_empty() && moved.len() + 1 == after;
        Ok(is_whole.then(|| moved.values().sum::<f64>() / moved.len() as f64))
    }
}

fn keep(path: &Path, all: &Distributions) -> Result<()> {
    let bytes: Vec<u8> = all.log_probs.iter().flat_map(|x| x.to_le_bytes()).collect();
    let shape = vec![all.log_probs.len() / all.vocabulary.max(1), all.vocabulary];
    let view = TensorView::new(Dtype::F32, shape, &bytes)?;
    write_atomically(path, &serialize([(NAME, view)], None)?)
}

fn kept(path: &Path) -> Result<Distributions> {
    let damaged = || format!("{} is damaged; to begin the run again, delete its directory", path.display());
    let bytes = read(path)?;
    let file = SafeTensors::deserialize(&bytes).with_context(damaged)?;
    let view = file.tensor(NAME).with_context(damaged)?;
    let &[_, vocabulary] = view.shape() else { anyhow::bail!(damaged()) };
    ensure!(view.dtype() == Dtype::F32, damaged());
    let log_probs = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    Ok(Distributions { vocabulary, log_probs: log_probs.collect() })
}

/// The mean over all places of `KL(then ‖ now) = Σ p_then·(log p_then − log p_now)`, in nats.
fn divergence(then: &Distributions, now: &Distributions, path: &Path) -> Result<f64> {
    ensure!(
        then.vocabulary == now.vocabulary && then.log_probs.len() == now.log_probs.len(),
        "{}: {} numbers over {} tokens, the model gives {} over {}",
        path.display(),
        then.log_probs.len(),
        then.vocabulary,
        now.log_probs.len(),
        now.vocabulary
    );
    let places = then.log_probs.len() / then.vocabulary.max(1);
    let terms = then.log_probs.iter().zip(&now.log_probs).map(|(&then, &now)| {
        let (then, now) = (f64::from(then), f64::from(now));
        // The limit of p·log p is 0.
        if then == f64::NEG_INFINITY { 0.0 } else { then.exp() * (then - now) }
    });
    let mean = terms.sum::<f64>() / places.max(1) as f64;
    // JSON has no such number.
    ensure!(mean.is_finite(), "{}: the model's outputs are not finite any more, or were not", path.display());
    Ok(mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distributions(rows: &[[f32; 3]]) -> Distributions {
        let log_probs = rows.iter().flatten().map(|p| p.ln()).collect();
        Distributions { vocabulary: 3, log_probs }
    }

    #[test]
    fn outputs_are_kept_when_a_task_is_learnt_and_compared_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunPaths::new(dir.path());
        let outputs = Outputs { run: &run };
        let then = [[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]];
        let never = || -> Result<Distributions> { panic!("asked without need") };
        // Before the task is learnt there is nothing to keep, and nothing is kept twice.
        outputs.record((0, 1), "a", never).unwrap();
        outputs.record((1, 1), "a", || Ok(distributions(&then))).unwrap();
        outputs.record((1, 1), "a", never).unwrap();
        assert_eq!(outputs.mean(1).unwrap(), None);
        // KL of the first row is ½·ln 2 + ¼·ln ½ + ¼·ln 1, of the second ln 2.
        let now = [[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]];
        outputs.record((2, 1), "a", || Ok(distributions(&now))).unwrap();
        outputs.record((2, 1), "a", never).unwrap();
        let expected = (0.25 * 2f64.ln() + 2f64.ln()) / 2.0;
        assert!((outputs.mean(2).unwrap().unwrap() - expected).abs() < 1e-6);
        outputs.record((2, 2), "b", || Ok(distributions(&now))).unwrap();
        outputs.record((3, 1), "a", || Ok(distributions(&then))).unwrap();
        outputs.record((3, 2), "b", || Ok(distributions(&now))).unwrap();
        assert_eq!(outputs.mean(3).unwrap(), Some(0.0));
        // A task of which nothing was kept has no figure, and then there is none of all.
        outputs.record((4, 1), "a", || Ok(distributions(&then))).unwrap();
        outputs.record((4, 3), "c", never).unwrap();
        assert_eq!(outputs.mean(4).unwrap(), None);
        let other = outputs.record((5, 1), "a", || Ok(distributions(&then[..1]))).unwrap_err().to_string();
        assert!(other.contains("6 numbers over 3 tokens, the model gives 3 over 3"), "{other}");
        let nan = [[f32::NAN, 0.5, 0.5], [1.0, 0.0, 0.0]];
        let nan = outputs.record((5, 1), "a", || Ok(distributions(&nan))).unwrap_err().to_string();
        assert!(nan.contains("not finite"), "{nan}");
        std::fs::write(run.reference_outputs("a"), b"broken").unwrap();
        let damaged = outputs.record((5, 1), "a", || Ok(distributions(&then))).unwrap_err().to_string();
        assert!(damaged.contains("is damaged"), "{damaged}");
    }
}
