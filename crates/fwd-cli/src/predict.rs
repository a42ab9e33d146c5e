//! Answers to all samples of a task, their scores, and the file they are written to.
//!
//! A line of a predictions file: `{"question_id": …, "prompt": …, "text": …, "answers": […], "score": …}`; `prompt` is the
//! question, `text` the answer that was given, `score` lies in 0…1 and is that of the task's metric.

use crate::backbone::Backbone;
use crate::files::write_atomically;
use crate::interrupt;
use crate::progress;
use crate::samples::{Case, Exam};
use anyhow::{Context, Result};
use fwd_data::bench::{BenchTask, Metric};
use fwd_prompt::PromptPool;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// How answers are generated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Generation {
    /// Longest answer in tokens.
    pub(crate) max_new_tokens: usize,
    /// Samples at a time.
    pub(crate) batch: usize,
}

/// One answer, scored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Prediction<'a> {
    /// `TASK/SPLIT/NUMBER`.
    pub(crate) question_id: &'a str,
    /// The instruction.
    pub(crate) prompt: &'a str,
    /// The model's answer.
    pub(crate) text: String,
    /// The right answers.
    pub(crate) answers: &'a [String],
    /// In 0…1.
    pub(crate) score: f64,
}

impl<'a> Prediction<'a> {
    /// An answer to a sample, scored by the task's metric.
    pub(crate) fn new(task: &BenchTask, case: &'a Case<'_>, text: String) -> Self {
        let (record, text) = (case.record, text.trim().to_owned());
        Self {
            question_id: &case.question_id,
            prompt: &record.instruction,
            score: fwd_eval::score(scorer(task.metric), &text, &record.answers),
            text,
            answers: &record.answers,
        }
    }
}

/// Answers to all samples of a task.
///
/// # Errors
/// Those of the model; an interrupt between two batches.
pub(crate) fn answer<'a>(
    backbone: &Backbone,
    pool: &PromptPool,
    exam: &'a Exam<'_>,
    generation: Generation,
) -> Result<Vec<Prediction<'a>>> {
    let bar = progress::bar(format!("scoring {}", exam.task.name), exam.cases.len());
    let mut predictions = Vec::with_capacity(exam.cases.len());
    for batch in exam.cases.chunks(generation.batch) {
        interrupt::check()?;
        let samples: Vec<_> = batch.iter().map(|case| &case.sample).collect();
        let answers = backbone.answer(&samples, pool, generation.max_new_tokens);
        let answers = answers.with_context(|| format!("task `{}`", exam.task.name))?;
        for (case, answer) in batch.iter().zip(answers) {
            predictions.push(Prediction::new(exam.task, case, answer.text));
            bar.advance();
        }
    }
    Ok(predictions)
}

/// The mean score in percent.
pub(crate) fn percent(predictions: &[Prediction<'_>]) -> f64 {
    let sum: f64 = predictions.iter().map(|p| p.score).sum();
    100.0 * sum / predictions.len().max(1) as f64
}

/// Writes predictions, one JSON line each.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn write(path: &Path, predictions: &[Prediction<'_>]) -> Result<()> {
    let mut lines = Vec::new();
    for prediction in predictions {
        serde_json::to_writer(&mut lines, prediction)?;
        lines.push(b'\n');
    }
    write_atomically(path, &lines)
}

/// The mean score in percent of a file that [`write`] wrote; the same number as [`percent`] gave for it.
///
/// # Errors
/// If the file is missing or damaged.
pub(crate) fn read_percent(path: &Path) -> Result<f64> {
    #[derive(Deserialize)]
    struct Line {
        score: f64,
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut sum, mut n) = (0.0, 0usize);
    for line in text.lines() {
        let line: Line = serde_json::from_str(line)
            .with_context(|| format!("{}, line {}, is damaged; delete the file", path.display(), n + 1))?;
        (sum, n) = (sum + line.score, n + 1);
    }
    Ok(100.0 * sum / n.max(1) as f64)
}

/// The scorer of a benchmark's metric.
pub(crate) fn scorer(metric: Metric) -> fwd_eval::Metric {
    match metric {
        Metric::Exact => fwd_eval::Metric::Exact,
        Metric::RougeL => fwd_eval::Metric::RougeL,
    }
}
