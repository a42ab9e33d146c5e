//! `metrics`: the measures of continual learning from any matrix of scores, or from a folder of results, as other toolboxes write
//! them.

use super::score::left_out;
use crate::args::{Common, MetricsArgs};
use crate::{output, progress, table};
use anyhow::{Result, bail, ensure};
use fwd_continual::ScoreMatrix;
use fwd_eval::ScoreTable;
use fwd_run::comparison::FinishedRun;
use fwd_run::config::parse_split;
use fwd_run::run::{Measures, RunPaths};
use fwd_run::scoring::{Counts, FolderScores, FolderScoring, read_table, score_folder};
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;

/// What a folder of results comes to.
#[derive(Serialize)]
struct FolderReport<'a> {
    /// In the order in which they were learnt.
    tasks: &'a [String],
    /// Row i after i tasks, empty where there is none.
    scores: &'a [Vec<f64>],
    measures: Measures,
    /// What the scores leave out or lack.
    #[serde(flatten)]
    counts: Counts,
}

/// The command `metrics`.
///
/// # Errors
/// A file that is no matrix, naming line and column; a folder that holds no results, or a run whose result was changed; another number
/// of scores in `--alone` than tasks.
pub(super) fn command(args: &MetricsArgs, common: &Common) -> Result<ExitCode> {
    let is_matrix_only = args.bench.is_none() && args.tasks.is_none() && args.stages.is_none();
    let parent = args.path.parent().filter(|_| args.path.ends_with("metrics.json"));
    for dir in [Some(args.path.as_path()), parent].into_iter().flatten() {
        let paths = RunPaths::new(dir);
        if is_matrix_only && paths.is_finished() && paths.manifest().is_file() {
            return run(dir, args, common);
        }
    }
    if args.path.is_dir() {
        return folder(args, common);
    }
    let name = args.path.display().to_string();
    ensure!(is_matrix_only, "{name} is a matrix: --bench, --tasks and --stages are for a folder of results");
    let table = read_table(&args.path)?;
    let has_pretraining = args.pretraining_column || table.names_pretraining();
    let n_tasks = table.n_columns() - usize::from(has_pretraining);
    ensure!(n_tasks > 0, "{name} has no column of a task");
    check_alone(args, n_tasks)?;
    let first = args.first_row.unwrap_or_else(|| table.first_row(n_tasks));
    let matrix = ScoreMatrix { n_tasks, rows: table.matrix(first, n_tasks)? };
    let measures = Measures::of_sequence(&matrix, &[], args.alone.as_deref());
    let measures = with_stated(measures, &table, &name)?;
    let n_learnt = matrix.rows.len().saturating_sub(1);
    if n_learnt < n_tasks && measures.average.is_none() {
        progress::note(&format!("{name} ends after {n_learnt} of {n_tasks} tasks: most measures need all"));
    }
    let largest = table.rows.iter().flatten().copied().fold(0.0, f64::max);
    if largest > 0.0 && largest <= 1.0 {
        progress::note("no score is above 1: the measures are shares too, not points of 100");
    }
    if common.json {
        output::print_json(&measures)?;
    } else {
        output::print(&table::measures(&measures))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The measures with those that the file states and its scores do not give: a run's table has scores of no other runs and no subspaces,
/// and of tasks that were not learnt one after another only the mean.
fn with_stated(mut measures: Measures, table: &ScoreTable, name: &str) -> Result<Measures> {
    let last = table.rows.last().map_or(&[][..], |row| &row[..]);
    for (key, stated) in &table.stated {
        let measure = match key.as_str() {
            "average" => &mut measures.average,
            "mean_average" => &mut measures.mean_average,
            "forgetting" => &mut measures.forgetting,
            "backward_transfer" => &mut measures.backward_transfer,
            "forward_transfer" => &mut measures.forward_transfer,
            "plasticity" => &mut measures.plasticity,
            "retention" => &mut measures.retention,
            "leakage" => &mut measures.leakage,
            "output_kl" => &mut measures.output_kl,
            _ => bail!("{name}: no measure is called `{}`", key.escape_debug()),
        };
        let ours = match (key.as_str(), *measure) {
            ("average", None) => Measures::of_row(last).average,
            ("plasticity" | "leakage" | "output_kl", None) => Some(*stated),
            (_, ours) => ours,
        };
        let is_equal = ours.is_some_and(|ours| (ours - stated).abs() <= 1e-9 * stated.abs().max(1.0));
        ensure!(
            is_equal || key == "plasticity",
            "{name}: the measure `{key}` is {stated}, but the scores give {}; the file was changed or is damaged",
            ours.map_or("none".to_owned(), |ours| ours.to_string())
        );
        *measure = ours;
    }
    Ok(measures)
}

/// A finished run of this program.
fn run(dir: &Path, args: &MetricsArgs, common: &Common) -> Result<ExitCode> {
    let run = FinishedRun::read(dir)?;
    ensure!(
        args.first_row.is_none() && !args.pretraining_column,
        "{} is a run, which knows its rows and columns: leave --first-row and --pretraining-column out",
        dir.display()
    );
    check_alone(args, run.metrics.tasks.len())?;
    let matrix = run.matrix();
    let mut measures = run.metrics.measures.clone();
    if let Some(alone) = &args.alone {
        measures.plasticity = matrix.plasticity(alone);
    }
    if common.json {
        let (tasks, counts) = (run.order(), Counts::default());
        output::print_json(&FolderReport { tasks: &tasks, scores: &matrix.rows, measures, counts })?;
    } else {
        output::print(&format!("{}\n{}", table::scores(&run.metrics), table::measures(&measures)))?;
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
    let FolderScores { tasks, rows, counts } = score_folder(&FolderScoring {
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
        output::print_json(&FolderReport { tasks: &tasks, scores: &matrix.rows, measures, counts })?;
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
    let left_out = left_out(&counts);
    output::print(&format!("{}\n{}{left_out}", table::render(&table), table::measures(&measures)))?;
    Ok(ExitCode::SUCCESS)
}
