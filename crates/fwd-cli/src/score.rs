//! `score`: a file of predictions, of this program or of a peer's, against the annotations of a task.
//!
//! The denominator is the annotations: a sample without prediction counts as 0, a prediction without sample is an error.

use crate::args::{Common, ScoreArgs};
use crate::config::parse_split;
use crate::predict::{self, Prediction};
use crate::{assets, output, table};
use anyhow::{Context, Result};
use fwd_data::task::{Annotations, annotations};
use fwd_eval::peer_compat::{PeerRule, compare};
use fwd_eval::{Metric, Predictions, Sample, corpus_percent, score_all};
use serde::Serialize;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;

#[derive(Serialize)]
struct Score<'a> {
    task: &'a str,
    split: &'a str,
    metric: Metric,
    n_annotations: usize,
    n_predictions: usize,
    score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Peer>,
}

/// What Prism and MCITlib make of the same predictions.
#[derive(Serialize)]
struct Peer {
    rule: PeerRule,
    score: Option<f64>,
    difference: Option<f64>,
}

/// The command `score`.
///
/// # Errors
/// An unknown task; a damaged file, naming line and key; a prediction for a sample that is not annotated, or two for one.
pub(crate) fn command(args: &ScoreArgs, common: &Common) -> Result<ExitCode> {
    let bench = args.bench.clone().map_or_else(assets::benchmark, Ok)?;
    let annotated = annotations(&bench, &args.task, parse_split(&args.split)?)?;
    let predictions = read(&args.predictions)?;
    let texts = texts(&annotated, &predictions)?;
    let (metric, answers) = (annotated.metric, answers(&annotated));
    if let Some(out) = &args.out {
        write(out, &annotated, &texts, &answers)?;
    }
    let score = percent(&annotated, &texts)?;
    let peer = match args.peer_compat {
        true => {
            let rule = PeerRule::of(&annotated.task, metric);
            let both = compare(metric, rule, &texts, &answers)?;
            Some(Peer { rule, score: both.peer, difference: both.difference() })
        }
        false => None,
    };
    let result = Score {
        task: &annotated.task,
        split: &args.split,
        metric,
        n_annotations: annotated.samples.len(),
        n_predictions: predictions.records().len(),
        score,
        peer,
    };
    if common.json {
        output::print_json(&result)?;
    } else {
        output::print(&as_table(&result))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_table(result: &Score<'_>) -> String {
    let mut rows = vec![
        ["scored by", "annotations", "predictions", "score", "difference"].map(str::to_owned).to_vec(),
        vec![
            result.metric.to_string(),
            result.n_annotations.to_string(),
            result.n_predictions.to_string(),
            format!("{:.2}", result.score),
        ],
    ];
    if let Some(peer) = &result.peer {
        let points = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
        let signed = peer.difference.map_or("–".to_owned(), |value| format!("{value:+.2}"));
        let counts = [result.n_annotations.to_string(), result.n_predictions.to_string()];
        rows.push(
            [vec![format!("peers: {}", peer.rule)], counts.to_vec(), vec![points(peer.score), signed]]
                .concat(),
        );
    }
    table::render(&rows)
}

/// Reads a file of predictions.
///
/// # Errors
/// If it is missing or damaged, naming line and key.
pub(crate) fn read(path: &Path) -> Result<Predictions> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
    Ok(Predictions::read(BufReader::new(file), &name)?)
}

/// The predicted text of each annotated sample; none where it is missing.
///
/// # Errors
/// A prediction for a sample that is not annotated, or two for one.
pub(crate) fn texts<'a>(
    annotated: &Annotations,
    predictions: &'a Predictions,
) -> Result<Vec<Option<&'a str>>> {
    let samples =
        annotated.samples.iter().map(|sample| Sample { id: &sample.id, question: &sample.question });
    let samples: Vec<_> = samples.collect();
    let joined = predictions.join_samples(&samples)?;
    Ok(joined.into_iter().map(|record| record.map(|record| record.text.as_str())).collect())
}

/// The figure in percent, over the annotations.
///
/// # Errors
/// A split without samples.
pub(crate) fn percent(annotated: &Annotations, texts: &[Option<&str>]) -> Result<f64> {
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
    predict::write(out, &scored.collect::<Vec<_>>())
}
