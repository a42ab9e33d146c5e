//! `metrics`: the measures of continual learning from any matrix of scores, or from a folder of results, as other toolboxes write
//! them.

use crate::args::{Common, MetricsArgs};
use crate::{output, progress, table};
use anyhow::{Context, Result, ensure};
use fwd_continual::ScoreMatrix;
use fwd_eval::ScoreTable;
use fwd_run::config::parse_split;
use fwd_run::run::Measures;
use fwd_run::scoring::{FolderScores, FolderScoring, score_folder};
use serde::Serialize;
use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

/// What a folder of results comes to.
#[derive(Serialize)]
struct FolderReport<'a> {
    /// In the order in which they were learnt.
    tasks: &'a [String],
    /// Row i after i tasks, empty where there is none.
    scores: &'a [Vec<f64>],
    measures: Measures,
}

/// The command `metrics`.
///
/// # Errors
/// A file that is no matrix, naming line and column; a folder that holds no results; another number of scores in `--alone` than
/// tasks.
pub(super) fn command(args: &MetricsArgs, common: &Common) -> Result<ExitCode> {
    if args.path.is_dir() {
        return folder(args, common);
    }
    let name = args.path.display().to_string();
    ensure!(
        args.bench.is_none() && args.tasks.is_none() && args.stages.is_none(),
        "{name} is a matrix: --bench, --tasks and --stages are for a folder of results"
    );
    let file = File::open(&args.path).with_context(|| format!("cannot read {name}"))?;
    let scores = ScoreTable::read(BufReader::new(file), &name)?;
    let n_tasks = scores.n_tasks() - usize::from(args.pretraining_column);
    ensure!(n_tasks > 0, "{name} has no column of a task");
    check_alone(args, n_tasks)?;
    let first = args.first_row.unwrap_or_else(|| scores.first_row());
    let matrix = ScoreMatrix { n_tasks, rows: scores.matrix(first)? };
    let measures = Measures::of_sequence(&matrix, &[], args.alone.as_deref());
    if common.json {
        output::print_json(&measures)?;
    } else {
        output::print(&table::measures(&measures))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn check_alone(args: &MetricsArgs, n_tasks: usize) -> Result<()> {
    let n = args.alone.as_ref().map_or(n_tasks, Vec::len);
    ensure!(n == n_tasks, "--alone has {n} scores, {} has {n_tasks} tasks", args.path.display());
    Ok(())
}

fn folder(args: &MetricsArgs, common: &Common) -> Result<ExitCode> {
    ensure!(
        !args.pretraining_column,
        "--pretraining-column is for a matrix, {} is a folder",
        args.path.display()
    );
    let FolderScores { tasks, rows } = score_folder(&FolderScoring {
        dir: args.path.clone(),
        bench: args.bench.clone(),
        split: parse_split(&args.split)?,
        tasks: args.tasks.clone(),
        stages: args.stages.clone(),
        first_row: args.first_row,
    })?;
    check_alone(args, tasks.len())?;
    if args.bench.is_none() {
        progress::note(
            "these are the figures that the toolbox printed; --bench DIR scores its predictions anew",
        );
    }
    let matrix = ScoreMatrix { n_tasks: tasks.len(), rows };
    let measures = Measures::of_sequence(&matrix, &[], args.alone.as_deref());
    if common.json {
        output::print_json(&FolderReport { tasks: &tasks, scores: &matrix.rows, measures })?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = vec![["after".to_owned()].into_iter().chain(tasks.clone()).collect::<Vec<_>>()];
    for (after, row) in matrix.rows.iter().enumerate().filter(|(_, row)| !row.is_empty()) {
        let moment = match after.checked_sub(1) {
            None => "nothing".to_owned(),
            Some(i) => format!("{after} {}", tasks[i]),
        };
        table.push([moment].into_iter().chain(row.iter().map(|score| format!("{score:.2}"))).collect());
    }
    output::print(&format!("{}\n{}", table::render(&table), table::measures(&measures)))?;
    Ok(ExitCode::SUCCESS)
}
