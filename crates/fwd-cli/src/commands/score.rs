//! `score`: a file of predictions, of this program or of a peer's, against the annotations of a task.

use crate::args::{Common, ScoreArgs};
use crate::{output, table};
use anyhow::Result;
use fwd_run::assets;
use fwd_run::config::parse_split;
use fwd_run::scoring::{Counts, FileScore, FileScoring, score_file};
use std::process::ExitCode;

/// The command `score`.
///
/// # Errors
/// As [`score_file`].
pub(super) fn command(args: &ScoreArgs, common: &Common) -> Result<ExitCode> {
    let score = score_file(&FileScoring {
        predictions: args.predictions.clone(),
        bench: args.bench.clone().map_or_else(assets::benchmark, Ok)?,
        task: args.task.clone(),
        split: parse_split(&args.split)?,
        peer_compat: args.peer_compat,
        out: args.out.clone(),
    })?;
    if common.json {
        output::print_json(&score)?;
    } else {
        output::print(&format!("{}{}", as_table(&score), left_out(&score.counts)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_table(score: &FileScore) -> String {
    let mut rows = vec![
        ["scored by", "annotations", "predictions", "score", "difference"].map(str::to_owned).to_vec(),
        vec![
            score.metric.to_string(),
            score.n_annotations.to_string(),
            score.n_predictions.to_string(),
            format!("{:.2}", score.score),
        ],
    ];
    if let Some(peer) = &score.peer {
        let points = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
        let signed = peer.difference.map_or("–".to_owned(), |value| format!("{value:+.2}"));
        let counts = [score.n_annotations.to_string(), score.n_predictions.to_string()];
        rows.push(
            [vec![format!("peers: {}", peer.rule)], counts.to_vec(), vec![points(peer.score), signed]]
                .concat(),
        );
    }
    table::render(&rows)
}

/// A line for each kind of sample or prediction that is left out or counts as 0; nothing if there is none.
pub(super) fn left_out(counts: &Counts) -> String {
    let kinds = [
        (counts.n_unanswered, "without prediction (they count as 0)"),
        (counts.n_empty, "with a blank prediction (they count as 0)"),
        (counts.n_unreachable, "whose own answers score 0 under this metric (they count as 0)"),
        (counts.n_unscored, "without an answer to score, or marked as rejected (they are left out)"),
    ];
    let samples = kinds.iter().map(|(n, what)| (*n, "samples", *what));
    let predictions =
        (counts.n_unasked, "predictions", "for samples that are not annotated (they are left out)");
    let lines = samples.chain([predictions]).filter(|(n, ..)| *n > 0);
    lines.map(|(n, of, what)| format!("{of} {what}: {n}\n")).collect()
}
