//! `score`: a file of predictions, of this program or of a peer's, against the annotations of a task.

use crate::args::{Common, ScoreArgs};
use crate::{output, table};
use anyhow::Result;
use fwd_run::assets;
use fwd_run::config::parse_split;
use fwd_run::scoring::{FileScore, FileScoring, score_file};
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
        output::print(&as_table(&score))?;
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
