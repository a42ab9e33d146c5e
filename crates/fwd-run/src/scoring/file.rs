//! A file of predictions, of this project or of a peer's, against the annotations of a task.
//!
//! The denominator is the annotations: a sample without prediction counts as 0. What is left out or lacks is counted ([`Counts`]).

use crate::predictions::{self, Prediction};
use anyhow::{Context, Result};
use fwd_data::bench::Split;
use fwd_data::task::{Annotations, annotations};
use fwd_eval::peer_compat::{PeerRule, compare};
use fwd_eval::{Joined, Metric, Predictions, Sample, corpus_percent, score, score_all};
use serde::Serialize;
use std::io::BufReader;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};

/// A file of predictions, and what it is scored against.
#[derive(Debug, Clone)]
pub struct FileScoring {
    /// The predictions: one JSON object a line, or an array of them, with `question_id` and `text`.
    pub predictions: PathBuf,
    /// The folder of the benchmark that has the task.
    pub bench: PathBuf,
    /// The task whose samples were answered.
    pub task: String,
    /// The split that was answered.
    pub split: Split,
    /// Whether the figure is computed, too, that Prism and MCITlib print for these predictions.
    pub peer_compat: bool,
    /// A file that all samples are written to, each with its prediction, answers and score.
    pub out: Option<PathBuf>,
}

/// The score of a file of predictions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileScore {
    /// The task, as the benchmark spells it.
    pub task: String,
    /// The split that was answered.
    pub split: &'static str,
    /// By which answers are scored.
    pub metric: Metric,
    /// How many samples the split has.
    pub n_annotations: usize,
    /// How many predictions the file has.
    pub n_predictions: usize,
    /// What the score leaves out or lacks.
    #[serde(flatten)]
    pub counts: Counts,
    /// In percent of the metric, over all annotations.
    pub score: f64,
    /// What peers print for the same predictions, if that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerScore>,
}

/// What a score leaves out or lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Samples without prediction: they count as 0.
    pub n_unanswered: usize,
    /// Samples whose prediction is blank: they count as 0.
    pub n_empty: usize,
    /// Predictions for samples that are not annotated: they are left out.
    pub n_unasked: usize,
    /// Samples whose own answers score 0, such as a box that is none, or a published VQA answer that is no normal form: they count as 0,
    /// whatever is predicted.
    pub n_unreachable: usize,
    /// Annotated samples that the field does not score, such as images all of whose captions are marked as rejected: they are left out.
    pub n_unscored: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.n_unanswered += other.n_unanswered;
        self.n_empty += other.n_empty;
        self.n_unasked += other.n_unasked;
        self.n_unreachable += other.n_unreachable;
        self.n_unscored += other.n_unscored;
    }
}

/// What Prism and MCITlib make of the same predictions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerScore {
    /// The rule by which they score the task.
    pub rule: PeerRule,
    /// The figure that they print, in percent; none where their rule gives none.
    pub score: Option<f64>,
    /// Our figure less theirs, in points.
    pub difference: Option<f64>,
}

/// Scores a file of predictions.
///
/// # Errors
/// An unknown task; a damaged file, naming line and key; two predictions for one sample, or none for any that is annotated.
pub fn score_file(scoring: &FileScoring) -> Result<FileScore> {
    let annotated = annotations(&scoring.bench, &scoring.task, scoring.split)?;
    let predictions = read(&scoring.predictions)?;
    let (texts, counts) = texts(&annotated, &predictions)?;
    let (metric, answers) = (annotated.metric, answers(&annotated));
    if let Some(out) = &scoring.out {
        write(out, &annotated, &texts, &answers)?;
    }
    let score = percent(&annotated, &texts)?;
    let peer = match scoring.peer_compat {
        true => {
            let rule = PeerRule::of(&annotated.task, metric);
            let both = compare(metric, rule, &texts, &answers)?;
            Some(PeerScore { rule, score: both.peer, difference: both.difference() })
        }
        false => None,
    };
    Ok(FileScore {
        split: scoring.split.name(),
        metric,
        n_annotations: annotated.samples.len(),
        n_predictions: predictions.records().len(),
        counts,
        score,
        peer,
        task: annotated.task,
    })
}

/// Reads a file of predictions.
///
/// # Errors
/// If it is missing or damaged, naming line and key.
pub(super) fn read(path: &Path) -> Result<Predictions> {
    let name = path.display().to_string();
    let file = fwd_files::open(path).with_context(|| format!("cannot read {name}"))?;
    Ok(Predictions::read(BufReader::new(file), &name)?)
}

/// The predicted text of each annotated sample, none where it is missing, and what that leaves out or lacks.
///
/// # Errors
/// Two predictions for one sample, or none for any that is annotated.
pub(super) fn texts<'a>(
    annotated: &Annotations,
    predictions: &'a Predictions,
) -> Result<(Vec<Option<&'a str>>, Counts)> {
    let samples =
        annotated.samples.iter().map(|sample| Sample { id: &sample.id, question: &sample.question });
    // Samples that are not scored may have been answered.
    let left_out = annotated.left_out.iter().map(|id| Sample { id, question: "" });
    let samples: Vec<_> = samples.chain(left_out).collect();
    let Joined { predictions, unasked } = predictions.join_samples(&samples)?;
    let asked = predictions.into_iter().take(annotated.samples.len());
    let texts: Vec<Option<&str>> = asked.map(|record| record.map(|record| record.text.as_str())).collect();
    let counts = Counts {
        n_unanswered: texts.iter().filter(|text| text.is_none()).count(),
        n_empty: texts.iter().flatten().filter(|text| text.trim().is_empty()).count(),
        n_unasked: unasked.len(),
        n_unreachable: answers(annotated)
            .iter()
            .filter(|answers| is_unreachable(annotated.metric, answers))
            .count(),
        n_unscored: annotated.left_out.len(),
    };
    Ok((texts, counts))
}

/// Whether none of a sample's own answers scores; one of a metric of whole corpora always does.
fn is_unreachable(metric: Metric, answers: &[&str]) -> bool {
    answers.iter().all(|answer| score(metric, answer, answers) <= 0.0)
}

/// The figure in percent, over the annotations.
///
/// # Errors
/// A split without samples.
pub(super) fn percent(annotated: &Annotations, texts: &[Option<&str>]) -> Result<f64> {
    let texts: Vec<&str> = texts.iter().map(|text| text.unwrap_or_default()).collect();
    corpus_percent(annotated.metric, &texts, &answers(annotated))
        .with_context(|| format!("task `{}`", annotated.task))
}

fn answers(annotated: &Annotations) -> Vec<Vec<&str>> {
    annotated.samples.iter().map(|sample| sample.answers.iter().map(String::as_str).collect()).collect()
}

/// Writes every sample with its prediction, an empty one where it is missing.
fn write(out: &Path, annotated: &Annotations, texts: &[Option<&str>], answers: &[Vec<&str>]) -> Result<()> {
    let texts: Vec<&str> = texts.iter().map(|text| text.unwrap_or_default()).collect();
    let scores = score_all(annotated.metric, &texts, answers)?;
    let samples = annotated.samples.iter().zip(texts).zip(scores);
    let scored = samples.map(|((sample, text), score)| {
        Prediction::new((&sample.id, &sample.question), text.to_owned(), "", (&sample.answers, score))
    });
    predictions::write(out, &scored.collect::<Vec<_>>())
}
