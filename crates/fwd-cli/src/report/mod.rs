//! One HTML file about runs that needs nothing else, pictures included, and its figures as SVG and PNG.
//!
//! ```text
//! DIR/report.html         everything: text, tables, figures, pictures of samples
//! DIR/figures/NAME.svg    each figure, for light and dark ground
//! DIR/figures/NAME.png    each figure, on white
//! ```
//! Nothing in it depends on when it is made: the same runs give the same bytes.

mod chart;
mod dots;
mod draw;
mod embeddings;
mod escape;
mod heat;
mod html;
mod lines;
mod losses;
mod palette;
mod pen;
mod picture;
mod results;
mod samples;
mod selection;
mod shared;
mod unfinished;
mod verdict;

use anyhow::{Context, Result, ensure};
use fwd_run::analysis::EmbeddingAnalysis;
use fwd_run::comparison::{Comparison, UnfinishedRun};
use fwd_run::files::write_atomically;
use html::{Block, Figure, Heading, Section};
use samples::Pictures;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "report.html";
const FIGURES: &str = "figures";

/// Writes the report on some finished runs into a folder, and returns the page and the names of its figures. Pictures are those of
/// the benchmark in `bench`, or where the first run found it.
///
/// # Errors
/// A damaged file beside a run; a folder that holds something else or cannot be written.
pub(crate) fn write(
    comparison: &Comparison,
    analysis: Option<&EmbeddingAnalysis>,
    bench: Option<&Path>,
    out: &Path,
) -> Result<(PathBuf, Vec<String>)> {
    refuse_foreign(out)?;
    let pictures = Pictures::open(&comparison.first()?.manifest, bench);
    let sections = sections(comparison, analysis, &pictures)?;
    write_page(&heading(comparison)?, sections, out)
}

/// Writes the report on a run that is not finished.
///
/// # Errors
/// As [`write`].
pub(crate) fn write_unfinished(
    run: &UnfinishedRun,
    bench: Option<&Path>,
    out: &Path,
) -> Result<(PathBuf, Vec<String>)> {
    refuse_foreign(out)?;
    let pictures = Pictures::open(&run.manifest, bench);
    let sections = unfinished::sections(run, &pictures)?;
    write_page(&unfinished::heading(run), sections, out)
}

fn write_page(heading: &Heading, mut sections: Vec<Section>, out: &Path) -> Result<(PathBuf, Vec<String>)> {
    sections.retain(|section| !section.blocks.is_empty());
    write_figures(&out.join(FIGURES), &sections)?;
    let page = html::page(heading, &sections)?;
    let path = out.join(PAGE);
    write_atomically(&path, page.as_bytes())?;
    Ok((path, figures(&sections).map(|figure| figure.id.clone()).collect()))
}

fn sections(
    comparison: &Comparison,
    analysis: Option<&EmbeddingAnalysis>,
    pictures: &Pictures,
) -> Result<Vec<Section>> {
    let mut sections = vec![
        results::overview(comparison)?,
        results::sequence(comparison),
        results::matrices(comparison),
        samples::of_groups(comparison, pictures)?,
        losses::of_groups(comparison)?,
        results::cost(comparison),
    ];
    sections.extend(embeddings::growth(comparison)?);
    sections.extend(analysis.map(embeddings::analysis));
    sections.extend(selection::sections(comparison)?);
    sections.push(results::runs(comparison)?);
    Ok(sections)
}

/// What stands above the sections.
fn heading(comparison: &Comparison) -> Result<Heading> {
    let first = comparison.first()?;
    let methods: BTreeSet<String> = comparison.groups.iter().map(|group| group.method.to_string()).collect();
    let n_runs: usize = comparison.groups.iter().map(|group| group.runs.len()).sum();
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let tasks = count(first.metrics.tasks.len(), "task");
    Ok(Heading {
        title: format!("Continual prompt tuning: {} on {tasks}", count(methods.len(), "method")),
        verdict: verdict::verdict(comparison),
        is_unfinished: false,
        summary: format!(
            "{}, scored on the {} split. The model has {} numbers, which are frozen but for what a method trains. {}",
            count(n_runs, "run"),
            first.metrics.split,
            chart::group_digits(first.metrics.backbone_parameters as f64),
            shared::left_out_in_short(&first.manifest)
        ),
    })
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
