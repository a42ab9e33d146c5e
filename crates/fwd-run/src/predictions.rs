//! Answers to all samples of a task, their scores, and the file they are written to.
//!
//! A line of a predictions file: the six keys of LLaVA, CoIN, Prism and MCITlib, whose scorers read it, and two more:
//! `{"question_id": …, "prompt": …, "text": …, "answer_id": "", "model_id": "fwd-prompt", "metadata": {}, "answers": […], "score": …}`;
//! `prompt` is the question, `text` the answer that was given, `score` is that of the task's metric, 0…1 (0…10 for CIDEr-D, which is
//! one of all captions together).

use crate::files::write_atomically_with;
use crate::model::Backbone;
use crate::observer::{Observer, check};
use crate::samples::{Case, Exam};
use anyhow::{Context, Result, ensure};
use fwd_data::bench::Metric;
use fwd_prompt::{PromptBatch, PromptPool};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// How answers are generated.
#[derive(Debug, Clone, Copy)]
pub struct Generation {
    /// Longest answer in tokens.
    pub max_new_tokens: usize,
    /// How many samples are answered at a time.
    pub batch: usize,
}

/// One answer, scored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction<'a> {
    /// The record's own name, or `TASK/SPLIT/NUMBER`.
    pub question_id: &'a str,
    /// The instruction that was asked.
    pub prompt: &'a str,
    /// The model's answer, without spaces at its ends.
    pub text: String,
    /// Empty, always; answers have no names here.
    pub answer_id: &'static str,
    /// The name of the model or program that answered.
    pub model_id: &'static str,
    /// Empty, always; scorers of other toolboxes expect the key.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Every answer that counts as right.
    pub answers: &'a [String],
    /// By the task's metric: 0 to 1, of CIDEr-D 0 to 10.
    pub score: f64,
}

/// The answers to all samples of a task, scored by its metric.
///
/// # Errors
/// [`fwd_eval::EvalError`].
pub fn scored<'a>(exam: &'a Exam<'_>, texts: Vec<String>) -> Result<Vec<Prediction<'a>>> {
    let answers: Vec<Vec<&str>> =
        exam.cases.iter().map(|case| case.record.answers.iter().map(String::as_str).collect()).collect();
    let texts: Vec<String> = texts.into_iter().map(trimmed).collect();
    let scores = fwd_eval::score_all(exam.task.metric, &texts, &answers);
    let scores = scores.with_context(|| format!("task `{}`", exam.task.name))?;
    let predictions = exam.cases.iter().zip(texts).zip(scores).map(|((case, text), score)| {
        let asked = (case.question_id.as_str(), case.record.instruction.as_str());
        Prediction::new(asked, text, "fwd-prompt", (&case.record.answers, score))
    });
    Ok(predictions.collect())
}

/// A text without spaces at its ends; most have none.
fn trimmed(text: String) -> String {
    if text.trim().len() == text.len() { text } else { text.trim().to_owned() }
}

impl<'a> Prediction<'a> {
    /// A scored answer of a model to a question of this name.
    pub fn new(
        (question_id, prompt): (&'a str, &'a str),
        text: String,
        model_id: &'static str,
        (answers, score): (&'a [String], f64),
    ) -> Self {
        let metadata = serde_json::Map::new();
        Self { question_id, prompt, text, answer_id: "", model_id, metadata, answers, score }
    }
}

/// The answers of one model to the samples of one split, as they were last generated. A batch that has the same prompts in front of it as
/// then is not asked again: the model would compute the same numbers from the same batch, so that a run which forgets this, because it was
/// killed, ends in the same bytes.
#[derive(Debug, Default)]
pub struct AnswerCache {
    /// By the task and the number of the batch.
    batches: HashMap<(String, usize), (Digest32, Vec<String>)>,
    /// Answers of all tasks so far, those that were not asked again included.
    pub n_answers: u64,
    /// Those that were not asked again.
    pub n_repeated: u64,
}

type Digest32 = [u8; 32];

/// Of a batch and what stands in front of it; none behind a map, which changes what the batch itself is.
fn digest(cases: &[Case<'_>], prompts: &PromptBatch, pool: &PromptPool) -> Option<Digest32> {
    pool.map().is_none().then(|| {
        let mut hash = Sha256::new();
        for (Case { question_id, record, .. }, n_tokens) in cases.iter().zip(&prompts.lengths) {
            let texts = [question_id.as_str(), &record.image, &record.instruction].map(str::as_bytes);
            for bytes in texts.into_iter().chain([&n_tokens.to_le_bytes()[..]]) {
                hash.update(bytes.len().to_le_bytes());
                hash.update(bytes);
            }
        }
        prompts.values.iter().for_each(|x| hash.update(x.to_le_bytes()));
        hash.finalize().into()
    })
}

/// Answers to all samples of a task.
///
/// # Errors
/// Those of the model; an interrupt between two batches.
pub fn answer<'a>(
    backbone: &Backbone,
    pool: &PromptPool,
    exam: &'a Exam<'_>,
    generation: Generation,
    mut cache: Option<&mut AnswerCache>,
    observer: &dyn Observer,
) -> Result<Vec<Prediction<'a>>> {
    let name = &exam.task.name;
    let progress = observer.begin(&format!("scoring {name}"), exam.cases.len());
    let mut texts = Vec::with_capacity(exam.cases.len());
    for (number, batch) in exam.cases.chunks(generation.batch).enumerate() {
        check(observer)?;
        let samples: Vec<_> = batch.iter().map(|case| &case.sample).collect();
        let failed = || format!("task `{name}`");
        let behind = backbone.behind(&samples, pool).with_context(failed)?;
        let (digest, place) = (digest(batch, &behind.prompts, pool), (name.clone(), number));
        let cached = cache.as_ref().and_then(|cache| cache.batches.get(&place));
        let known = cached.filter(|(of, _)| Some(*of) == digest).map(|(_, answers)| answers.clone());
        let is_known = known.is_some();
        let of_batch: Vec<String> = if let Some(known) = known {
            known
        } else {
            let answers = backbone.answer_behind(behind, generation.max_new_tokens).with_context(failed)?;
            answers.into_iter().map(|answer| answer.text).collect()
        };
        if let Some(cache) = &mut cache {
            cache.n_answers += of_batch.len() as u64;
            cache.n_repeated += if is_known { of_batch.len() as u64 } else { 0 };
            if let Some(digest) = digest {
                cache.batches.insert(place, (digest, of_batch.clone()));
            }
        }
        texts.extend(of_batch);
        progress.set(texts.len());
    }
    scored(exam, texts)
}

/// The figure of a task in percent: the mean score, for BLEU that of the corpus; 0 without samples.
///
/// # Errors
/// [`fwd_eval::EvalError`].
pub fn percent(metric: Metric, predictions: &[Prediction<'_>]) -> Result<f64> {
    let texts: Vec<&str> = predictions.iter().map(|p| p.text.as_str()).collect();
    let answers: Vec<Vec<&str>> =
        predictions.iter().map(|p| p.answers.iter().map(String::as_str).collect()).collect();
    corpus_percent(metric, &texts, &answers)
}

/// The figure of some answers in percent.
///
/// # Errors
/// [`fwd_eval::EvalError`].
pub fn corpus_percent(metric: Metric, texts: &[&str], answers: &[Vec<&str>]) -> Result<f64> {
    if texts.is_empty() {
        return Ok(0.0);
    }
    Ok(fwd_eval::corpus_percent(metric, texts, answers)?)
}

/// Writes predictions, one JSON line each.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, predictions: &[Prediction<'_>]) -> Result<()> {
    write_atomically_with(path, |file| {
        for prediction in predictions {
            serde_json::to_writer(&mut *file, prediction)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// An answer of a file that [`write()`] wrote.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Answered {
    /// The record's own name, or `TASK/SPLIT/NUMBER`.
    pub question_id: String,
    /// The instruction that was asked.
    pub prompt: String,
    /// The model's answer.
    pub text: String,
    /// Every answer that counts as right.
    pub answers: Vec<String>,
    /// By the task's metric: 0 to 1, of CIDEr-D 0 to 10.
    pub score: f64,
}

/// Reads a file that [`write()`] wrote.
///
/// # Errors
/// If the file is missing, larger than 4 GiB, or damaged; the message names the line.
pub fn read(path: &Path) -> Result<Vec<Answered>> {
    let mut all = Vec::new();
    read_each(path, |answered| {
        all.push(answered);
        Ok(())
    })?;
    Ok(all)
}

/// Reads a file that [`write()`] wrote line by line, so that no more of it is in memory than `see` keeps.
///
/// # Errors
/// As [`read`], and those of `see`.
pub(crate) fn read_each(path: &Path, mut see: impl FnMut(Answered) -> Result<()>) -> Result<()> {
    const MAX_BYTES: u64 = 4 << 30;
    let failed = || format!("cannot read {}", path.display());
    let file = fwd_files::open(path).with_context(failed)?;
    let n_bytes = file.metadata().with_context(failed)?.len();
    ensure!(n_bytes <= MAX_BYTES, "{}: the file has {n_bytes} bytes, more than {MAX_BYTES}", failed());
    let (mut file, mut line) = (BufReader::new(file), Vec::new());
    for number in 1.. {
        line.clear();
        if file.read_until(b'\n', &mut line).with_context(failed)? == 0 {
            break;
        }
        let answered = serde_json::from_slice(&line)
            .with_context(|| format!("{}, line {number}, is damaged; delete the file", path.display()))?;
        see(answered)?;
    }
    Ok(())
}

/// The figure in percent of a file that [`write()`] wrote; the same number as [`percent`] gave for it.
///
/// # Errors
/// If the file is missing or damaged.
pub fn read_percent(metric: Metric, path: &Path) -> Result<f64> {
    Ok(read_figure(metric, path)?.0)
}

/// As [`read_percent`], with the number of answers.
///
/// # Errors
/// As [`read_percent`].
pub(crate) fn read_figure(metric: Metric, path: &Path) -> Result<(f64, usize)> {
    // Neither ids nor questions are scored.
    let mut lines = Vec::new();
    read_each(path, |Answered { text, answers, .. }| {
        lines.push((text, answers));
        Ok(())
    })?;
    let texts: Vec<&str> = lines.iter().map(|(text, _)| text.as_str()).collect();
    let answers: Vec<Vec<&str>> =
        lines.iter().map(|(_, answers)| answers.iter().map(String::as_str).collect()).collect();
    Ok((corpus_percent(metric, &texts, &answers)?, lines.len()))
}
