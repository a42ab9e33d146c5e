//! A folder of results, as other toolboxes or runs of this program leave it, as a score matrix.
//!
//! Two layouts are read: `TASK/STAGE/merge.jsonl`, with what the toolbox's scorer printed in `Result.text` beside it (CoIN's `results/CoIN`,
//! MCITlib's `results/UCIT/each_dataset`, Prism's `results/llava/UCIT/METHOD`), and `STAGE/TASK.jsonl` (a run directory here, or its
//! `predictions`).
//!
//! A stage is a moment of the sequence. Its name tells which: `Zero_shot` is before training; `Finetune` is after the task itself;
//! the name of a task is after that task; `last` is the end; a number at the end (`Task2`, `CL-MoE-task2`, `after-2`) counts the tasks
//! learnt, where a stage 0 exists in the first layout from 0, as Prism does. `Multitask` is no moment and left out.

use super::file::{self, Counts};
use crate::run::RunPaths;
use anyhow::{Context, Result, bail, ensure};
use fwd_data::bench::Split;
use fwd_data::task::{Preset, annotations, is_same_task, sequence};
use fwd_eval::FirstRow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const MERGED: &str = "merge.jsonl";
const PRINTED: &str = "Result.text";

/// Bytes that a file of printed figures may have.
const MAX_PRINTED: u64 = 16 << 20;

/// A folder of results, and how it is read.
#[derive(Debug, Clone)]
pub struct FolderScoring {
    /// Either `TASK/STAGE/merge.jsonl` or `STAGE/TASK.jsonl` below it.
    pub dir: PathBuf,
    /// The folder of the benchmark whose annotations the predictions are scored against; none: the figures of `Result.text` are taken.
    pub bench: Option<PathBuf>,
    /// The split that was answered.
    pub split: Split,
    /// The tasks in the order in which they were learnt; none: the order of the benchmark, or of a published one.
    pub tasks: Option<Vec<String>>,
    /// The stages, one a moment, in order; none: their names tell the moments.
    pub stages: Option<Vec<String>>,
    /// What the first of `stages` is; none: before training if there are more stages than tasks.
    pub first_row: Option<FirstRow>,
}

/// The scores of a folder of results.
#[derive(Debug, Clone, PartialEq)]
pub struct FolderScores {
    /// The tasks in order: the columns.
    pub tasks: Vec<String>,
    /// Row i after i tasks, in percent; empty where there is none.
    pub rows: Vec<Vec<f64>>,
    /// What the scores leave out or lack, over all files of predictions; zeros where figures were taken as printed.
    pub counts: Counts,
}

/// Where the result of a task at a stage lies.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cell {
    task: String,
    stage: String,
    predictions: PathBuf,
    printed: PathBuf,
}

/// Reads the scores of a folder: of its predictions against a benchmark, or those in its `Result.text` files.
///
/// # Errors
/// A folder of neither layout, tasks without a known order, a stage that is no moment, a gap before a score, and those of scoring.
pub fn score_folder(scoring: &FolderScoring) -> Result<FolderScores> {
    let dir = &scoring.dir;
    let (mut cells, is_task_first) = cells(dir)?;
    if let Some(stages) = &scoring.stages {
        for stage in stages {
            let is_there = cells.iter().any(|cell| cell.stage == *stage);
            ensure!(is_there, "{}: no stage is called `{stage}`", dir.display());
        }
        cells.retain(|cell| stages.contains(&cell.stage));
    }
    let tasks = order(scoring, &cells)?;
    let is_from_0 = is_task_first && cells.iter().any(|cell| number(&cell.stage) == Some(0));
    let mut scores: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    let mut counts = Counts::default();
    for cell in &cells {
        let Some(column) = tasks.iter().position(|task| is_same_task(&cell.task, task)) else { continue };
        let row = match &scoring.stages {
            Some(stages) => {
                let is_before = scoring
                    .first_row
                    .map_or(stages.len() > tasks.len(), |row| row == FirstRow::BeforeTraining);
                stages.iter().position(|stage| *stage == cell.stage).map(|i| i + usize::from(!is_before))
            }
            None => moment(&cell.stage, column, &tasks, is_from_0),
        };
        let Some(row) = row else {
            ensure!(
                cell.stage.eq_ignore_ascii_case("multitask"),
                "{}: which moment is the stage `{}`? Name the stages in order with --stages",
                dir.display(),
                cell.stage
            );
            continue;
        };
        ensure!(
            row <= tasks.len(),
            "{}: the stage `{}` comes after {row} tasks, but there are {}",
            dir.display(),
            cell.stage,
            tasks.len()
        );
        let (figure, lacks) = figure(scoring, cell, &tasks[column])?;
        counts += lacks;
        let is_twice = scores.insert((row, column), figure).is_some();
        ensure!(
            !is_twice,
            "{}: two stages of `{}` are after {row} tasks; choose with --stages",
            dir.display(),
            cell.task
        );
    }
    let n_rows = scores.keys().map(|(row, _)| row + 1).max().unwrap_or_default();
    let rows = (0..n_rows).map(|row| full_row(dir, row, &tasks, &scores)).collect::<Result<_>>()?;
    Ok(FolderScores { tasks, rows, counts })
}

/// The scores after so many tasks, up to the last that there is.
fn full_row(
    dir: &Path,
    row: usize,
    tasks: &[String],
    scores: &BTreeMap<(usize, usize), f64>,
) -> Result<Vec<f64>> {
    let last =
        scores.keys().filter(|(i, _)| *i == row).map(|(_, column)| column + 1).max().unwrap_or_default();
    let score = |column: usize| {
        scores.get(&(row, column)).copied().with_context(|| {
            format!(
                "{}: after {row} tasks `{}` was scored, but not `{}`",
                dir.display(),
                tasks[last - 1],
                tasks[column]
            )
        })
    };
    (0..last).map(score).collect()
}

/// The score of a cell in percent, and what it leaves out or lacks.
fn figure(scoring: &FolderScoring, cell: &Cell, task: &str) -> Result<(f64, Counts)> {
    if let Some(bench) = &scoring.bench {
        let annotated = annotations(bench, task, scoring.split)?;
        let predictions = file::read(&cell.predictions)?;
        let (texts, counts) = file::texts(&annotated, &predictions)?;
        return Ok((file::percent(&annotated, &texts)?, counts));
    }
    let name = cell.printed.display();
    let text = fwd_files::read_to_string(&cell.printed, MAX_PRINTED)
        .with_context(|| format!("cannot read {name}; with --bench DIR the predictions are scored"))?;
    let figure = printed(&text)
        .with_context(|| format!("{name} has no figure; with --bench DIR the predictions are scored"))?;
    Ok((figure, Counts::default()))
}

/// The figure that a toolbox printed: `Accuracy: 92.17%`, `ANLS: 44.33%`, or of captions `Average: 60.55`.
fn printed(text: &str) -> Option<f64> {
    ["Accuracy: ", "ANLS: ", "Average: "].iter().find_map(|key| {
        let mut places = text.match_indices(key).map(|(at, _)| at);
        let at =
            places.find(|&at| !text[..at].ends_with(|c: char| c.is_alphanumeric() || "-_".contains(c)))?;
        let rest = &text[at + key.len()..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        rest[..end].parse().ok()
    })
}

/// The results in a folder, and whether the folders of tasks hold those of stages.
fn cells(dir: &Path) -> Result<(Vec<Cell>, bool)> {
    let mut results = Vec::new();
    for (task, folder) in entries(dir)?.into_iter().filter(|(_, path)| path.is_dir()) {
        for (stage, folder) in entries(&folder)?.into_iter().filter(|(_, path)| path.is_dir()) {
            let (predictions, printed) = (folder.join(MERGED), folder.join(PRINTED));
            if predictions.is_file() || printed.is_file() {
                results.push(Cell { task: task.clone(), stage, predictions, printed });
            }
        }
    }
    if !results.is_empty() {
        return Ok((results, true));
    }
    let nested = RunPaths::new(dir).predictions();
    let dir = if nested.is_dir() { &nested } else { dir };
    for (stage, folder) in entries(dir)?.into_iter().filter(|(_, path)| path.is_dir()) {
        for (file, predictions) in entries(&folder)?.into_iter().filter(|(_, path)| path.is_file()) {
            if let Some(task) = file.strip_suffix(".jsonl") {
                let printed = folder.join(PRINTED);
                results.push(Cell { task: task.to_owned(), stage: stage.clone(), predictions, printed });
            }
        }
    }
    ensure!(
        !results.is_empty(),
        "{} holds no results: neither TASK/STAGE/{MERGED} (or {PRINTED}) nor STAGE/TASK.jsonl",
        dir.display()
    );
    Ok((results, false))
}

/// Names and paths of what a folder holds, ascending.
fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let read = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut entries = Vec::new();
    for entry in read {
        let entry = entry.with_context(|| format!("cannot read {}", dir.display()))?;
        entries.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    entries.sort();
    Ok(entries)
}

/// The tasks in the order in which they were learnt.
fn order(scoring: &FolderScoring, cells: &[Cell]) -> Result<Vec<String>> {
    let mut folders: Vec<&str> = cells.iter().map(|cell| cell.task.as_str()).collect();
    folders.sort_unstable();
    folders.dedup();
    let is_here = |task: &String| folders.iter().any(|folder| is_same_task(folder, task));
    if let Some(tasks) = &scoring.tasks {
        if let Some(task) = tasks.iter().find(|task| !is_here(task)) {
            bail!(
                "{}: no result of the task `{task}`; there are {}",
                scoring.dir.display(),
                folders.join(", ")
            );
        }
        return Ok(tasks.clone());
    }
    let order = match &scoring.bench {
        Some(bench) => sequence(bench)?.into_iter().filter(is_here).collect(),
        None => published(&folders),
    };
    ensure!(
        order.len() == folders.len(),
        "{}: in which order were {} learnt? Name them with --tasks",
        scoring.dir.display(),
        folders.join(", ")
    );
    Ok(order)
}

/// The folders that a published benchmark knows, in its order.
fn published(folders: &[&str]) -> Vec<String> {
    let Some(preset) = Preset::fitting(folders) else { return Vec::new() };
    let mut known: Vec<_> =
        folders.iter().filter_map(|folder| Some((preset.place(folder)?, *folder))).collect();
    known.sort_unstable();
    known.into_iter().map(|(_, folder)| folder.to_owned()).collect()
}

/// How many tasks a stage comes after; none if its name does not say.
fn moment(stage: &str, column: usize, tasks: &[String], is_from_0: bool) -> Option<usize> {
    let plain: String = stage.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    if let Some(task) = tasks.iter().position(|task| is_same_task(stage, task)) {
        return Some(task + 1);
    }
    match plain.as_str() {
        "zeroshot" => Some(0),
        "finetune" => Some(column + 1),
        "last" | "final" => Some(tasks.len()),
        _ => number(stage).map(|n| n + usize::from(is_from_0)),
    }
}

/// The number that a name ends in.
fn number(stage: &str) -> Option<usize> {
    stage[stage.trim_end_matches(|c: char| c.is_ascii_digit()).len()..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_stages_are_moments() {
        let tasks = ["ScienceQA", "TextVQA", "gqa"].map(str::to_owned);
        for (stage, column, expected) in [
            ("Zero_shot", 2, Some(0)),
            ("zero-shot", 0, Some(0)),
            ("Finetune", 1, Some(2)),
            ("TextVQA", 0, Some(2)),
            ("GQA", 0, Some(3)),
            ("last", 0, Some(3)),
            ("CL-MoE-task2", 0, Some(2)),
            ("after-0", 1, Some(0)),
            ("Multitask", 0, None),
            ("best", 0, None),
        ] {
            assert_eq!(moment(stage, column, &tasks, false), expected, "{stage}");
        }
        assert_eq!(moment("task0", 0, &tasks, true), Some(1));
    }

    #[test]
    fn printed_figures_are_found() {
        for (text, expected) in [
            ("Samples: 3000\nAccuracy: 92.17%\n", Some(92.17)),
            ("Samples: 5349\nANLS: 44.33%\n", Some(44.33)),
            ("Samples: 3\nBleu_1: 75.28\nCIDEr: 128.56\nAverage: 60.55\n", Some(60.55)),
            ("Total: 4, Correct: 3, Accuracy: 75.00%, IMG-Accuracy: 50.00%", Some(75.0)),
            ("IMG-Accuracy: 50.00%", None),
            ("\nBinary: 61.00%\nAccuracy: 60.00%\n\nAccuracy / steps number:", Some(60.0)),
            ("Samples: 0", None),
        ] {
            assert_eq!(printed(text), expected, "{text}");
        }
    }
}
