//! Greedy and beam search over a T5, token for token as Hugging Face transformers does them.
//!
//! Beam search: of `2K` candidates per step only the best `K` may finish; a hypothesis scores `Σ log p / n^length_penalty`
//! with `n` generated tokens, `</s>` included; running beams are compared by the raw sum; at the last step every candidate of
//! the best `K` counts as finished.

use crate::config::SpecialTokens;
use crate::error::{ModelError, Result};
use crate::t5::{Encoded, T5};
use candle_core::{DType, Tensor};
use fwd_ops::in_pool;

/// When beam search stops looking for better hypotheses of a sample that has `K` finished ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EarlyStopping {
    /// Stop when the best running beam, at its present length, cannot beat the worst finished one (`early_stopping=False`).
    #[default]
    Heuristic,
    /// Stop at once (`True`).
    Always,
    /// Stop when no running beam can win at any length (`"never"`).
    Never,
}

/// How to generate.
#[derive(Debug, Clone)]
pub struct GenerationConfig {
    /// At most this many tokens, the start token not counted.
    pub max_new_tokens: usize,
    /// At least this many tokens before `</s>`.
    pub min_new_tokens: usize,
    /// 1 is greedy search.
    pub num_beams: usize,
    /// Exponent of the length in a hypothesis' score; above 0 favours longer ones.
    pub length_penalty: f64,
    /// When to stop.
    pub early_stopping: EarlyStopping,
    /// Start, end and padding ids.
    pub tokens: SpecialTokens,
}

impl GenerationConfig {
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

impl T5 {
    /// Generates for every sample; the best hypothesis comes first, `num_beams` of them per sample.
    ///
    /// # Errors
    /// [`ModelError::Input`] for a configuration without beams or with more beams than the vocabulary allows, or logits that
    /// are not numbers.
    pub fn generate(
        &self,
        encoded: &Encoded,
        config: &GenerationConfig,
        on_step: Option<OnStep<'_>>,
    ) -> Result<Vec<Vec<Hypothesis>>> {
        if config.num_beams == 0 || 2 * config.num_beams > self.vocab_size() {
            let what = format!("{} beams with a vocabulary of {}", config.num_beams, self.vocab_size());
            return Err(ModelError::input("generate", what));
        }
        let mut ignore = |_: &Tensor| {};
        let on_step = on_step.unwrap_or(&mut ignore);
        in_pool(|| {
            if config.num_beams > 1 {
                return beam(self, encoded, config, on_step);
            }
            let rows = greedy(self, encoded, config, on_step)?;
            Ok(rows.into_iter().map(|ids| vec![Hypothesis { ids, score: 0.0 }]).collect())
        })
    }
}

/// Logits as rows, with `</s>` out of reach as long as the sequence is too short.
fn logit_rows(logits: &Tensor, config: &GenerationConfig, n_generated: usize) -> Result<Vec<Vec<f32>>> {
    let mut rows: Vec<Vec<f32>> = logits.to_dtype(DType::F32)?.to_vec2()?;
    if rows.iter().flatten().any(|z| z.is_nan()) {
        return Err(ModelError::input("generate", "the logits are NaN"));
    }
    if n_generated < config.min_new_tokens {
        for row in &mut rows {
            for &eos in &config.tokens.eos {
                row[eos as usize] = f32::NEG_INFINITY;
            }
        }
    }
    Ok(rows)
}

/// The first index of the largest value.
fn argmax(row: &[f32]) -> u32 {
    let best = row
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (i, &z)| if z > best.1 { (i, z) } else { best });
    best.0 as u32
}

fn greedy(
    model: &T5,
    encoded: &Encoded,
    config: &GenerationConfig,
    on_step: OnStep<'_>,
) -> Result<Vec<Vec<u32>>> {
    let batch = encoded.states.dim(0)?;
    let mut state = model.start(encoded)?;
    let mut sequences = vec![Vec::new(); batch];
    let mut ended = vec![false; batch];
    let mut last = vec![config.tokens.decoder_start; batch];
    for n_generated in 0..config.max_new_tokens {
        let ids = Tensor::from_slice(&last, batch, encoded.states.device())?;
        let logits = model.step(&mut state, &ids)?;
        on_step(&logits);
        for (i, row) in logit_rows(&logits, config, n_generated)?.iter().enumerate() {
            // A sequence that has ended goes on with padding until the last one ends.
            last[i] = if ended[i] { config.tokens.pad } else { argmax(row) };
            if !ended[i] {
                sequences[i].push(last[i]);
                ended[i] = config.tokens.eos.contains(&last[i]);
            }
        }
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
    /// Nothing more to do.
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
    model: &T5,
    encoded: &Encoded,
    config: &GenerationConfig,
    on_step: OnStep<'_>,
) -> Result<Vec<Vec<Hypothesis>>> {
    let (batch, k) = (encoded.states.dim(0)?, config.num_beams);
    let device = encoded.states.device();
    let repeat: Vec<u32> = (0..batch as u32).flat_map(|b| std::iter::repeat_n(b, k)).collect();
    let repeat = Tensor::from_vec(repeat, batch * k, device)?;
    let expanded = Encoded {
        states: encoded.states.index_select(&repeat, 0)?,
        mask: encoded.mask.index_select(&repeat, 0)?,
    };
    let mut state = model.start(&expanded)?;
    let mut samples: Vec<Beams> = (0..batch)
        .map(|_| Beams {
            // All beams start the same: only the first may continue.
            running: (0..k).map(|i| (if i == 0 { 0.0 } else { -1e9 }, Vec::new())).collect(),
            finished: Vec::new(),
            open: true,
            done: config.max_new_tokens == 0,
        })
        .collect();
    for step in 1..=config.max_new_tokens {
        let last = samples.iter().flat_map(|s| &s.running);
        let last: Vec<u32> =
            last.map(|(_, ids)| ids.last().copied().unwrap_or(config.tokens.decoder_start)).collect();
        let logits = model.step(&mut state, &Tensor::from_vec(last, batch * k, device)?)?;
        on_step(&logits);
        let rows = logit_rows(&logits, config, step - 1)?;
        let mut origin: Vec<u32> = (0..(batch * k) as u32).collect();
        for (b, sample) in samples.iter_mut().enumerate().filter(|(_, s)| !s.done) {
            let from = sample.advance(&rows[b * k..(b + 1) * k], step, config);
            for (slot, beam) in from.into_iter().enumerate() {
                origin[b * k + slot] = (b * k + beam) as u32;
            }
        }
        if samples.iter().all(|s| s.done) {
            break;
        }
        state.reorder(&Tensor::from_vec(origin, batch * k, device)?)?;
    }
    Ok(samples.into_iter().map(|s| s.finished).collect())
}

impl Beams {
    /// One step; returns which beam each new running beam continues.
    fn advance(&mut self, rows: &[Vec<f32>], step: usize, config: &GenerationConfig) -> Vec<usize> {
        let k = config.num_beams;
        let last = step == config.max_new_tokens;
        let ends = |c: &Candidate| last || config.tokens.eos.contains(&c.token);
        let candidates = self.best(rows, 2 * k);
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

    /// The `n` best continuations, best first; of equals the one of the lower beam and token.
    fn best(&self, rows: &[Vec<f32>], n: usize) -> Vec<Candidate> {
        let mut best: Vec<Candidate> = Vec::with_capacity(n + 1);
        for (beam, row) in rows.iter().enumerate() {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|&z| f64::from(z - max).exp()).sum();
            let offset = self.running[beam].0 - max - sum.ln() as f32;
            for (token, &z) in row.iter().enumerate() {
                let score = z + offset;
                if best.len() == n && score <= best[n - 1].score {
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
