//! `metrics`: the measures of continual learning from any matrix of scores, as other toolboxes write them.

use crate::args::{Common, FirstRow, MetricsArgs};
use crate::metrics::Measures;
use crate::{output, table};
use anyhow::{Context, Result, ensure};
use fwd_eval::ScoreTable;
use fwd_prompt::ScoreMatrix;
use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

/// The command `metrics`.
///
/// # Errors
/// A file that is no matrix, naming line and column; another number of scores in `--alone` than tasks.
pub(crate) fn command(args: &MetricsArgs, common: &Common) -> Result<ExitCode> {
    let name = args.matrix.display().to_string();
    let file = File::open(&args.matrix).with_context(|| format!("cannot read {name}"))?;
    let scores = ScoreTable::read(BufReader::new(file), &name)?;
    let first = match args.first_row {
        Some(FirstRow::BeforeTraining) => fwd_eval::FirstRow::BeforeTraining,
        Some(FirstRow::AfterFirstTask) => fwd_eval::FirstRow::AfterFirstTask,
        None => scores.first_row(),
    };
    let n_tasks = scores.n_tasks() - usize::from(args.pretraining_column);
    ensure!(n_tasks > 0, "{name} has no column of a task");
    if let Some(alone) = &args.alone {
        ensure!(alone.len() == n_tasks, "--alone has {} scores, {name} has {n_tasks} tasks", alone.len());
    }
    let matrix = ScoreMatrix { n_tasks, rows: scores.matrix(first)? };
    let measures = Measures::of_sequence(&matrix, &[], args.alone.as_deref());
    if common.json {
        output::print_json(&measures)?;
    } else {
        output::print(&table::measures(&measures))?;
    }
    Ok(ExitCode::SUCCESS)
}
