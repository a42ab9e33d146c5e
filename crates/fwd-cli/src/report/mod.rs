//! `report`: one HTML file about finished runs that needs nothing else, and its figures as SVG and PNG.
//!
//! ```text
//! DIR/report.html         everything: text, tables, figures
//! DIR/figures/NAME.svg    each figure, for light and dark ground
//! DIR/figures/NAME.png    each figure, on white
//! ```
//! Nothing in it depends on when it is made: the same runs give the same bytes.

mod charts;
mod dots;
mod draw;
mod embeddings;
mod heat;
mod html;
mod lines;
mod palette;
mod results;
mod selection;

use crate::args::{Common, ReportArgs};
use crate::files::{read_json, write_atomically};
use crate::findings::{ANALYSIS, Analyzed};
use crate::output;
use crate::runs::Comparison;
use anyhow::{Context, Result, ensure};
use html::{Block, Figure, Section};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const PAGE: &str = "report.html";
const FIGURES: &str = "figures";

/// The command `report`.
///
/// # Errors
/// Runs that cannot be compared (see [`Comparison::read`]); an analysis of another model or benchmark; a folder that holds something
/// else or cannot be written.
pub(crate) fn command(args: &ReportArgs, common: &Common) -> Result<ExitCode> {
    let comparison = Comparison::read(&args.runs, false)?;
    let analysis = read_analysis(args, &comparison)?;
    let sections = sections(&comparison, analysis.as_ref())?;
    refuse_foreign(&args.out)?;
    write_figures(&args.out.join(FIGURES), &sections)?;
    let (title, summary) = heading(&comparison)?;
    let page = html::page(&title, &summary, &sections)?;
    let path = args.out.join(PAGE);
    write_atomically(&path, page.as_bytes())?;
    if common.json {
        let names: Vec<&str> = figures(&sections).map(|figure| figure.id.as_str()).collect();
        output::print_json(&serde_json::json!({ "report": path.display().to_string(), "figures": names }))?;
    } else {
        output::print(&path.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn sections(comparison: &Comparison, analysis: Option<&Analyzed>) -> Result<Vec<Section>> {
    let mut sections = vec![
        results::overview(comparison)?,
        results::sequence(comparison),
        results::matrices(comparison),
        results::cost(comparison),
    ];
    sections.extend(embeddings::growth(comparison)?);
    sections.extend(analysis.map(embeddings::analysis));
    sections.extend(selection::sections(comparison)?);
    sections.push(results::runs(comparison)?);
    sections.retain(|section| !section.blocks.is_empty());
    Ok(sections)
}

/// The heading of the page and the sentence below it.
fn heading(comparison: &Comparison) -> Result<(String, String)> {
    let first = comparison.first()?;
    let methods: BTreeSet<String> = comparison.groups.iter().map(|group| group.method.to_string()).collect();
    let n_runs: usize = comparison.groups.iter().map(|group| group.runs.len()).sum();
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let tasks = count(first.metrics.tasks.len(), "task");
    let title = format!("Continual prompt tuning: {} on {tasks}", count(methods.len(), "method"));
    let summary = format!(
        "{}, scored on the {} split. The model has {} numbers, which are frozen but for what a method trains.",
        count(n_runs, "run"),
        first.metrics.split,
        charts::group_digits(first.metrics.backbone_parameters as f64)
    );
    Ok((title, summary))
}

/// What `analyze` wrote: the file that was named, or one beside the first run.
fn read_analysis(args: &ReportArgs, comparison: &Comparison) -> Result<Option<Analyzed>> {
    let beside = || args.runs.first()?.parent().map(|dir| dir.join(ANALYSIS)).filter(|path| path.is_file());
    let Some(path) = args.analysis.clone().or_else(beside) else { return Ok(None) };
    let analysis: Analyzed = read_json(&path)?;
    let run = &comparison.first()?.manifest.run;
    let is_same = analysis.backbone_hash == run.backbone_hash && analysis.data_hash == run.data_hash;
    ensure!(
        is_same,
        "{} is of another model or benchmark than the runs; name the right one with --analysis",
        path.display()
    );
    Ok(Some(analysis))
}

fn figures(sections: &[Section]) -> impl Iterator<Item = &Figure> {
    let blocks = sections.iter().flat_map(|section| &section.blocks);
    blocks.flat_map(|block| if let Block::Figures(figures) = block { figures.as_slice() } else { &[] })
}

/// Writes all figures, and removes those of an older report.
fn write_figures(dir: &Path, sections: &[Section]) -> Result<()> {
    let mut written: BTreeSet<PathBuf> = BTreeSet::new();
    for figure in figures(sections) {
        let svg = draw::svg(&figure.chart, &figure.title)?.into_bytes();
        for (extension, bytes) in [("svg", svg), ("png", draw::png(&figure.chart)?)] {
            let path = dir.join(format!("{}.{extension}", figure.id));
            write_atomically(&path, &bytes)?;
            written.insert(path);
        }
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_figure = path.extension().is_some_and(|e| e == "svg" || e == "png");
        if is_figure && !written.contains(&path) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Refuses a folder that holds something else than a report.
fn refuse_foreign(dir: &Path) -> Result<()> {
    let is_ours = |name: &str| name == PAGE || name == FIGURES || name.starts_with(".tmp");
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        ensure!(
            is_ours(&name),
            "{} holds `{name}`, which is no part of a report; choose another --out",
            dir.display()
        );
    }
    Ok(())
}
