//! Greedy and beam search over any [`LanguageModel`], token for token as Hugging Face transformers does them.
//!
//! Beam search: of `max(2, 1 + n_eos)·K` candidates per step only the best `K` may finish; a hypothesis scores
//! `Σ log p / n^length_penalty` with `n` generated tokens, `</s>` included; running beams are compared by the raw sum; at the
//! last step every candidate of the best `K` counts as finished.

use crate::config::SpecialTokens;
use crate::error::{ModelError, Result};
use crate::language::{LanguageInput, LanguageModel};
use candle_core::{CpuStorage, DType, Storage, Tensor};
use fwd_ops::in_pool;
use rayon::prelude::*;

/// When beam search stops looking for better hypotheses of a sample that has `K` finished ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EarlyStopping {
    /// Stop when the best running beam, at its present length, cannot beat the worst finished one (`early_stopping=False`).
    #[default]
    Heuristic,
    /// Stop as soon as there are `K` finished ones (`True`).
    Always,
    /// Stop when no running beam can win at any length (`"never"`).
    Never,
}

/// How a search goes, and when it ends.
#[derive(Debug, Clone)]
pub struct GenerationConfig {
    /// At most this many tokens, the start token not counted.
    pub max_new_tokens: usize,
    /// At least this many tokens before `</s>`.
    pub min_new_tokens: usize,
    /// Sequences of a sample that are followed side by side; 1 is greedy search.
    pub num_beams: usize,
    /// Exponent of the length in a hypothesis' score; above 0 favours longer ones.
    pub length_penalty: f64,
    /// When beam search is content with the hypotheses that it has.
    pub early_stopping: EarlyStopping,
    /// The ids to start from, to end with and to fill up with.
    pub tokens: SpecialTokens,
}

impl GenerationConfig {
    /// What is impossible with a vocabulary, if anything.
    fn check(&self, vocab_size: usize) -> std::result::Result<(), String> {
        if self.max_new_tokens == 0 {
            return Err("max_new_tokens must be at least 1".into());
        }
        if self.num_beams == 0 || self.n_candidates() > vocab_size {
            return Err(format!("{} beams with a vocabulary of {vocab_size}", self.num_beams));
        }
        self.tokens.check(vocab_size)
    }

    /// Enough candidates for `num_beams` of them to go on even if every beam ends in every possible way.
    fn n_candidates(&self) -> usize {
        self.num_beams.saturating_mul((1 + self.tokens.eos.len()).max(2))
    }

    /// The ids that must not come next: `</s>` as long as the sequence is too short.
    fn banned(&self, n_generated: usize) -> &[u32] {
        if n_generated < self.min_new_tokens { &self.tokens.eos } else { &[] }
    }

    /// Greedy search for at most `max_new_tokens`.
    pub fn greedy(max_new_tokens: usize, tokens: SpecialTokens) -> Self {
        Self {
            max_new_tokens,
            min_new_tokens: 0,
            num_beams: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::Heuristic,
            tokens,
        }
    }
}

/// One generated sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// Token ids without the start token, up to and including `</s>` if it was reached.
    pub ids: Vec<u32>,
    /// `Σ log p / n^length_penalty`; for greedy search `Σ log p` is not computed and this is 0.
    pub score: f32,
}

/// Sees the logits `(batch · num_beams, vocab)` of every step.
pub type OnStep<'a> = &'a mut (dyn FnMut(&Tensor) + Send);

/// Generates for every sample of an input; the best hypothesis comes first, `num_beams` of them per sample.
///
/// # Errors
/// [`ModelError::Input`] for a configuration without tokens or beams, with more beams or other ids than the vocabulary
/// allows, or logits that are not finite; those of the model.
pub fn generate(
    model: &dyn LanguageModel,
    input: &LanguageInput,
    config: &GenerationConfig,
    on_step: Option<OnStep<'_>>,
) -> Result<Vec<Vec<Hypothesis>>> {
    config.check(model.vocab_size()).map_err(|what| ModelError::input("generate", what))?;
    let mut ignore = |_: &Tensor| {};
    let on_step = on_step.unwrap_or(&mut ignore);
    in_pool(|| {
        if config.num_beams > 1 {
            return beam(model, input, config, on_step);
        }
        let rows = greedy(model, input, config, on_step)?;
        Ok(rows.into_iter().map(|ids| vec![Hypothesis { ids, score: 0.0 }]).collect())
    })
}

/// Reads logits `(rows, vocab)`, row after row, where they are if that is the memory of the CPU.
fn read_logits<R>(logits: &Tensor, shape: [usize; 2], body: impl FnOnce(&[f32]) -> R) -> Result<R> {
    if logits.dims() != shape {
        let what = format!("the model gave logits {:?} where {shape:?} are due", logits.shape());
        return Err(ModelError::input("generate", what));
    }
    let (storage, layout) = logits.storage_and_layout();
    let copied: Vec<f32>;
    let values = match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) => &values[from..to],
        _ => {
            copied = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            &copied
        }
    };
    // Not ended early within a chunk, so that it vectorises.
    if !values.chunks(4096).all(|chunk| chunk.iter().fold(true, |all, z| all & z.is_finite())) {
        return Err(ModelError::input("generate", "the logits are not finite"));
    }
    Ok(body(values))
}

/// The first index of the largest value among those that are not banned.
fn argmax(row: &[f32], banned: &[u32]) -> u32 {
    let (chunks, rest) = row.as_chunks::<16>();
    let mut largest = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for (max, &z) in largest.iter_mut().zip(chunk) {
            *max = if z > *max { z } else { *max };
        }
    }
    let max = largest.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    let first = row.iter().position(|&z| z == max).unwrap_or(0) as u32;
    if !banned.contains(&first) {
        return first;
    }
    let allowed = row.iter().enumerate().filter(|(i, _)| !banned.contains(&(*i as u32)));
    allowed.fold((0, f32::NEG_INFINITY), |best, (i, &z)| if z > best.1 { (i, z) } else { best }).0 as u32
}

fn greedy(
    model: &dyn LanguageModel,
    input: &LanguageInput,
    config: &GenerationConfig,
    on_step: OnStep<'_>,
) -> Result<Vec<Vec<u32>>> {
    let (mut decoding, mut logits) = model.start(input, &config.tokens, config.max_new_tokens)?;
    let (batch, shape) = (input.batch(), [input.batch(), model.vocab_size()]);
    let mut sequences = vec![Vec::new(); batch];
    let mut ended = vec![false; batch];
    let mut last = vec![config.tokens.pad; batch];
    for n_generated in 0..config.max_new_tokens {
        if n_generated > 0 {
            decoding.end(&ended)?;
            logits = decoding.step(&last)?;
        }
        on_step(&logits);
        read_logits(&logits, shape, |logits| {
            for (i, row) in logits.chunks_exact(shape[1]).enumerate() {
                // A sequence that has ended goes on with padding until the last one ends.
                last[i] = if ended[i] { config.tokens.pad } else { argmax(row, config.banned(n_generated)) };
                if !ended[i] {
                    sequences[i].push(last[i]);
                    ended[i] = config.tokens.eos.contains(&last[i]);
                }
            }
        })?;
        if ended.iter().all(|&e| e) {
            break;
        }
    }
    Ok(sequences)
}

/// The search of one sample.
struct Beams {
    running: Vec<(f32, Vec<u32>)>,
    finished: Vec<Hypothesis>,
    /// Whether a running beam may still win.
    open: bool,
    /// Whether the search of this sample is over.
    done: bool,
}

/// A continuation of running beam `beam` by `token`.
#[derive(Clone, Copy)]
struct Candidate {
    score: f32,
    beam: usize,
    token: u32,
}

fn beam(
    model: &dyn LanguageModel,
    input: &LanguageInput,
    config: &GenerationConfig,
    on_step: OnStep<'_>,
) -> Result<Vec<Vec<Hypothesis>>> {
    let k = config.num_beams;
    let (mut decoding, logits) = model.start(input, &config.tokens, config.max_new_tokens)?;
    let (batch, vocab) = (input.batch(), model.vocab_size());
    decoding.repeat(k)?;
    // All beams of a sample start the same.
    let mut logits = logits.unsqueeze(1)?.broadcast_as((batch, k, vocab))?.reshape((batch * k, vocab))?;
    let mut samples: Vec<Beams> = (0..batch).map(|_| Beams::new(k)).collect();
    for step in 1..=config.max_new_tokens {
        on_step(&logits);
        let mut origin: Vec<u32> = (0..(batch * k) as u32).collect();
        read_logits(&logits, [batch * k, vocab], |logits| {
            let rows = samples.par_iter_mut().zip(logits.par_chunks_exact(k * vocab));
            rows.zip(origin.par_chunks_exact_mut(k)).filter(|((sample, _), _)| !sample.done).for_each(
                |((sample, logits), origin)| {
                    let rows: Vec<&[f32]> = logits.chunks_exact(vocab).collect();
                    let first = origin[0];
                    for (origin, beam) in origin.iter_mut().zip(sample.advance(&rows, step, config)) {
                        *origin = first + beam as u32;
                    }
                },
            );
        })?;
        if step == config.max_new_tokens || samples.iter().all(|s| s.done) {
            break;
        }
        if !origin.iter().copied().eq(0..(batch * k) as u32) {
            decoding.reorder(&origin)?;
        }
        let over = samples.iter().flat_map(|s| std::iter::repeat_n(s.done, k));
        decoding.end(&over.collect::<Vec<_>>())?;
        let last = samples.iter().flat_map(|s| &s.running);
        let last: Vec<u32> = last.map(|(_, ids)| ids.last().copied().unwrap_or(config.tokens.pad)).collect();
        logits = decoding.step(&last)?;
    }
    Ok(samples.into_iter().map(|s| s.finished).collect())
}

impl Beams {
    /// Nothing written yet. All beams are the same then, so only the first may continue.
    fn new(k: usize) -> Self {
        let running = (0..k).map(|i| (if i == 0 { 0.0 } else { -1e9 }, Vec::new())).collect();
        Self { running, finished: Vec::new(), open: true, done: false }
    }

    /// One step; returns which beam each new running beam continues.
    fn advance(&mut self, rows: &[&[f32]], step: usize, config: &GenerationConfig) -> Vec<usize> {
        let k = config.num_beams;
        let last = step == config.max_new_tokens;
        let ends = |c: &Candidate| last || config.tokens.eos.contains(&c.token);
        let candidates = self.best(rows, config.n_candidates(), config.banned(step - 1));
        let length_norm = (step as f64).powf(config.length_penalty);
        let always = config.early_stopping == EarlyStopping::Always;
        if self.open && !(always && self.finished.len() == k) {
            for c in candidates.iter().take(k).filter(|c| ends(c)) {
                let score = (f64::from(c.score) / length_norm) as f32;
                self.finished.push(Hypothesis { ids: self.extended(c), score });
            }
            self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
            self.finished.truncate(k);
        }
        let going_on: Vec<Candidate> = candidates.iter().filter(|c| !ends(c)).take(k).copied().collect();
        if going_on.is_empty() {
            self.done = true;
            return (0..k).collect();
        }
        let running: Vec<(f32, Vec<u32>)> = going_on.iter().map(|c| (c.score, self.extended(c))).collect();
        self.running = running;
        if self.finished.len() == k {
            let reachable = match config.early_stopping {
                EarlyStopping::Never if config.length_penalty > 0.0 => {
                    (config.max_new_tokens as f64).powf(config.length_penalty)
                }
                _ => length_norm,
            };
            let best = f64::from(self.running[0].0) / reachable;
            self.open = self.open && best > f64::from(self.finished[k - 1].score);
            self.done = always || !self.open;
        }
        going_on.iter().map(|c| c.beam).collect()
    }

    fn extended(&self, c: &Candidate) -> Vec<u32> {
        let mut ids = self.running[c.beam].1.clone();
        ids.push(c.token);
        ids
    }

    /// The `n` best continuations, best first; of equals the one of the lower beam and token. Banned tokens are left out after
    /// normalising, as transformers does.
    fn best(&self, rows: &[&[f32]], n: usize, banned: &[u32]) -> Vec<Candidate> {
        let mut best: Vec<Candidate> = Vec::with_capacity(n + 1);
        for (beam, row) in rows.iter().enumerate() {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|&z| f64::from(z - max).exp()).sum();
            let offset = self.running[beam].0 - max - sum.ln() as f32;
            for (token, &z) in row.iter().enumerate() {
                let score = z + offset;
                if (best.len() == n && score <= best[n - 1].score) || banned.contains(&(token as u32)) {
                    continue;
                }
                let at = best.partition_point(|c| c.score >= score);
                best.insert(at, Candidate { score, beam, token: token as u32 });
                best.truncate(n);
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(num_beams: usize, max_new_tokens: usize) -> GenerationConfig {
        let tokens = SpecialTokens { decoder_start: 0, eos: vec![1], pad: 0, bos: 1 };
        GenerationConfig { num_beams, ..GenerationConfig::greedy(max_new_tokens, tokens) }
    }

    /// Logits whose softmax is the given distribution.
    fn log(p: &[f32]) -> Vec<f32> {
        p.iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn a_banned_end_leaves_the_other_scores_as_they_are() {
        let config = GenerationConfig { min_new_tokens: 2, ..config(2, 5) };
        let mut beams = Beams::new(2);
        let row = log(&[0.1, 0.6, 0.2, 0.06, 0.04]);
        beams.advance(&[&row, &row], 1, &config);
        assert!(beams.finished.is_empty());
        assert_eq!(beams.running.iter().map(|b| b.1.clone()).collect::<Vec<_>>(), [[2], [0]]);
        assert!((beams.running[0].0 - 0.2f32.ln()).abs() < 1e-6, "not renormalised: {}", beams.running[0].0);
    }

    #[test]
    fn as_many_beams_go_on_although_every_beam_may_end_in_two_ways() {
        let mut config = config(2, 5);
        config.tokens.eos = vec![1, 2];
        let mut beams = Beams::new(2);
        beams.running = vec![(0.0, vec![3]), (-0.1, vec![4])];
        let row = log(&[0.02, 0.47, 0.47, 0.02, 0.02]);
        let from = beams.advance(&[&row, &row], 2, &config);
        assert_eq!((beams.running.len(), from.len()), (2, 2));
        assert!(beams.running.iter().all(|(_, ids)| ![1, 2].contains(ids.last().unwrap())));
    }

    #[test]
    fn early_stopping_always_heuristic_and_never() {
        // Two hypotheses have ended; a running beam is worse at its length, but at 9 tokens with penalty 2 it could win.
        let run = |early_stopping| {
            let config = GenerationConfig { early_stopping, length_penalty: 2.0, ..config(2, 9) };
            let mut beams = Beams::new(2);
            beams.finished = vec![
                Hypothesis { ids: vec![3, 1], score: -0.20 },
                Hypothesis { ids: vec![4, 1], score: -0.25 },
            ];
            beams.running = vec![(-1.6, vec![3]), (-1.7, vec![4])];
            let row = log(&[0.9, 1e-6, 0.05, 0.03, 0.02]);
            beams.advance(&[&row, &row], 2, &config);
            (beams.open, beams.done)
        };
        assert_eq!(run(EarlyStopping::Always), (false, true));
        assert_eq!(run(EarlyStopping::Heuristic), (false, true));
        assert_eq!(run(EarlyStopping::Never), (true, false));
    }

    #[test]
    fn impossible_configurations_are_named() {
        assert_eq!(config(2, 0).check(10), Err("max_new_tokens must be at least 1".into()));
        assert_eq!(config(6, 3).check(10), Err("6 beams with a vocabulary of 10".into()));
        assert!(config(usize::MAX, 3).check(10).is_err());
        assert!(config(1, 3).check(1).is_err());
        assert_eq!(config(2, 3).check(10), Ok(()));
    }
}
