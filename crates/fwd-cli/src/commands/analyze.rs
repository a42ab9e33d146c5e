//! `analyze`: the input embeddings of any tasks under any model, as spectra, ranks and subspaces, and how their rank grows along runs.
//!
//! Overlaps are read beside two others: that of two halves of one task, which should be the same subspace, and that of random
//! subspaces of the same sizes.

use super::session;
use crate::args::{AnalyzeArgs, Common};
use crate::output;
use crate::table::{self, cells, mean, percent};
use crate::terminal::Terminal;
use anyhow::{Result, ensure};
use fwd_prompt::analysis::{Modality, Pair};
use fwd_run::analysis::{
    ANALYSIS, AnalysisOptions, EmbeddingAnalysis, FromPretrained, Growth, examine, growth,
};
use fwd_run::files::write_json;
use fwd_run::model::ModelOptions;
use fwd_run::run::{Manifest, ModelChanges, RankStage, Rows, RunPaths, SavedRun};
use fwd_run::{RunConfig, Session, SessionOptions};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The command `analyze`.
///
/// # Errors
/// An unknown task, a run without ranks, an error of the model; a folder that cannot be written.
pub(super) fn command(args: &AnalyzeArgs, common: &Common) -> Result<ExitCode> {
    ensure!(
        args.energy > 0.0 && args.energy <= 1.0,
        "--energy is {}, must be above 0 and at most 1",
        args.energy
    );
    ensure!(args.samples > 0, "--samples is 0, must be at least 1");
    let growth = args.run.iter().map(|run| growth(run)).collect::<Result<Vec<_>>>()?;
    let runs = args.run.iter().map(|run| SavedRun::read(run)).collect::<Result<Vec<_>>>()?;
    let first = runs.first().map(SavedRun::manifest);
    let place = |given: &Option<PathBuf>, of_run: fn(&Manifest) -> Result<PathBuf>| match given {
        Some(dir) => Ok(Some(dir.clone())),
        None => first.map(of_run).transpose(),
    };
    let (backbone, bench) =
        (place(&args.backbone, Manifest::backbone_dir)?, place(&args.bench, Manifest::bench_dir)?);
    let ModelOptions { dtype, compute, template } = session::model_options(args.model, runs.first());
    for run in runs.iter().skip(1) {
        // Their growth stands beside what is computed here.
        let now = ModelChanges { dtype: Some(dtype), compute: Some(compute), template };
        run.model_options(now, &Terminal);
    }
    let options = SessionOptions { backbone, bench, dtype, compute, template, ..session::options() };
    let session = Session::open(&options, &Terminal)?;
    let of_run = || first.map(|m| m.run.config.tasks.clone());
    let names = args.tasks.clone().or_else(of_run).unwrap_or_default();
    let mut config = RunConfig::default();
    config.tasks = names;
    let tasks = session.tasks(&config)?;
    let beside = args.run.first().or(args.out.as_ref());
    let beside = beside.map_or(Path::new("analysis"), PathBuf::as_path);
    let store = session.features(RunPaths::new(beside).cache(args.cache.as_deref()), &Terminal);
    let options = AnalysisOptions { energy: args.energy, n_samples: args.samples };
    let analysis = EmbeddingAnalysis { growth, ..examine(&session, &store, &tasks, &options)? };
    if let Some(out) = &args.out {
        write_json(&out.join(ANALYSIS), &analysis)?;
    }
    if common.json {
        output::print_json(&analysis)?
    } else {
        output::print(&render(&analysis))?
    }
    Ok(ExitCode::SUCCESS)
}

fn render(analysis: &EmbeddingAnalysis) -> String {
    let mut out = format!("{}\n", spectra(analysis));
    for modality in [Modality::Both, Modality::Image, Modality::Text] {
        if let Some(text) = overlaps(analysis, modality) {
            let _ = writeln!(out, "{text}");
        }
    }
    let _ = writeln!(out, "{}", modalities(analysis));
    for growth in &analysis.growth {
        let _ = writeln!(out, "{}", render_growth(growth));
    }
    out.push_str(&in_words(analysis));
    out
}

fn spectra(analysis: &EmbeddingAnalysis) -> String {
    let mut rows = vec![cells([
        "task",
        "rows",
        "N",
        "rank at 90 %",
        "95 %",
        "99 %",
        "effective",
        "in V_0",
        "beside V_0",
    ])];
    let of_pretraining = analysis.pretrained.iter().flat_map(|p| &p.spectra);
    for s in of_pretraining.chain(&analysis.embeddings.spectra) {
        let mut row = vec![s.task.clone(), modality_name(s.modality).to_owned(), s.n_rows.to_string()];
        row.extend(s.ranks.map(|rank| rank.to_string()));
        row.push(format!("{:.1}", s.effective_rank));
        let near = |p: &&FromPretrained| p.task == s.task && p.modality == s.modality;
        let near = analysis.pretrained.iter().flat_map(|p| &p.tasks).find(near);
        row.push(near.map_or("–".to_owned(), |p| percent(p.captured)));
        row.push(near.map_or("–".to_owned(), |p| p.beyond.to_string()));
        rows.push(row);
    }
    let energy = percent(analysis.embeddings.energy);
    let v0 = analysis.pretrained.as_ref().map_or(String::new(), |p| {
        format!(" V_0, the pre-trained subspace, has {} of {} directions.", p.rank, analysis.dim)
    });
    format!(
        "Directions that carry 90, 95 and 99 % of the energy, and the effective rank; what share of the energy lies in V_0, and how \
         many directions beside it a task needs for {energy}.{v0}\n\n{}",
        table::render(&rows)
    )
}

/// The matrix of overlaps of one modality, two halves of each task on the diagonal; none without pairs.
fn overlaps(analysis: &EmbeddingAnalysis, modality: Modality) -> Option<String> {
    let names: Vec<&str> = analysis.tasks.iter().map(|task| task.name.as_str()).collect();
    let of = |pairs: &[Pair], a: &str, b: &str| {
        let is_it = |p: &&Pair| p.modality == modality && ((p.a == a && p.b == b) || (p.a == b && p.b == a));
        pairs.iter().find(is_it).map(|p| percent(p.overlap))
    };
    let mut rows = vec![vec!["task".to_owned()]];
    rows[0].extend((1..=names.len()).map(|i| i.to_string()));
    let mut is_empty = true;
    for (i, a) in names.iter().enumerate() {
        let mut row = vec![format!("{} {a}", i + 1)];
        for b in &names[..=i] {
            let pairs = if a == b { &analysis.halves } else { &analysis.embeddings.pairs };
            let cell = of(pairs, a, b);
            is_empty &= cell.is_none();
            row.push(cell.unwrap_or("–".to_owned()));
        }
        rows.push(row);
    }
    let what = match modality {
        Modality::Both => "all rows",
        Modality::Image => "visual tokens",
        Modality::Text => "instruction tokens",
    };
    let text = format!(
        "Overlap of the tasks' subspaces, {what}; on the diagonal, of two halves of one task.\n\n{}",
        table::render(&rows)
    );
    (!is_empty).then_some(text)
}

fn modalities(analysis: &EmbeddingAnalysis) -> String {
    let mut rows = vec![cells(["task", "directions", "overlap", "by chance", "least angle", "median angle"])];
    for pair in &analysis.embeddings.modalities {
        let degrees = |angle: Option<&f64>| angle.map_or("–".to_owned(), |a| format!("{a:.0}°"));
        rows.push(vec![
            pair.a.clone(),
            format!("{} and {}", pair.ranks[0], pair.ranks[1]),
            percent(pair.overlap),
            percent(chance(pair, analysis.dim)),
            degrees(pair.angles.first()),
            degrees(pair.angles.get(pair.angles.len() / 2)),
        ]);
    }
    format!("Visual tokens against instruction tokens of one task.\n\n{}", table::render(&rows))
}

fn render_growth(growth: &Growth) -> String {
    let kinds = [
        (Rows::Image, "visual"),
        (Rows::Text, "instructions"),
        (Rows::Both, "both"),
        (Rows::Prompted, "with prompts"),
    ];
    let has = |rows: Rows| growth.stages.iter().any(|stage| together(stage, rows).is_some());
    let kinds: Vec<(Rows, &str)> = kinds.into_iter().filter(|(rows, _)| has(*rows)).collect();
    let mut rows = vec![vec!["after".to_owned()]];
    rows[0].extend(kinds.iter().map(|(_, name)| (*name).to_owned()));
    for stage in &growth.stages {
        let learnt = stage.learnt.as_deref().unwrap_or("nothing");
        let mut row = vec![format!("{} {learnt}", stage.after)];
        row.extend(kinds.iter().map(|(kind, _)| {
            together(stage, *kind)
                .map_or("–".to_owned(), |(rank, effective)| format!("{rank} ({effective:.1})"))
        }));
        rows.push(row);
    }
    format!(
        "{} ({}, seed {}): directions for 95 % of the energy of all tasks' input embeddings after each task, in brackets the \
         effective rank.\n\n{}",
        growth.run,
        growth.method,
        growth.seed,
        table::render(&rows)
    )
}

/// Rank at 0.95 and effective rank of the rows of all tasks together.
fn together(stage: &RankStage, rows: Rows) -> Option<(usize, f64)> {
    let all = stage.ranks.iter().find(|rank| rank.task.is_none() && rank.rows == rows);
    all.map(|rank| (rank.ranks[1], rank.effective_rank))
}

fn in_words(analysis: &EmbeddingAnalysis) -> String {
    let mut out = String::new();
    for (modality, what) in
        [(Modality::Both, "all rows"), (Modality::Image, "visual tokens"), (Modality::Text, "instructions")]
    {
        let of = |pairs: &[Pair], value: &dyn Fn(&Pair) -> f64| {
            mean(pairs.iter().filter(|p| p.modality == modality).map(value))
        };
        let pairs = &analysis.embeddings.pairs;
        if let (Some(tasks), Some(halves), Some(random)) = (
            of(pairs, &|p| p.overlap),
            of(&analysis.halves, &|p| p.overlap),
            of(pairs, &|p| chance(p, analysis.dim)),
        ) {
            let _ = writeln!(
                out,
                "Two tasks share {} of their directions in the mean ({what}); two halves of one task {}, random directions {}.",
                percent(tasks),
                percent(halves),
                percent(random)
            );
        }
    }
    let pairs = &analysis.embeddings.modalities;
    if let (Some(shared), Some(random)) =
        (mean(pairs.iter().map(|p| p.overlap)), mean(pairs.iter().map(|p| chance(p, analysis.dim))))
    {
        let (shared, random) = (percent(shared), percent(random));
        let _ = writeln!(
            out,
            "Visual and instruction tokens of one task share {shared} of their directions in the mean; random directions {random}."
        );
    }
    if let Some(base) = &analysis.pretrained {
        let both: Vec<&FromPretrained> = base.tasks.iter().filter(|p| p.modality == Modality::Both).collect();
        if let Some(least) = both.iter().min_by(|a, b| a.captured.total_cmp(&b.captured)) {
            let _ = writeln!(
                out,
                "The pre-trained subspace ({} of {} directions) holds {} of a task's energy in the mean, least of {}: {}.",
                base.rank,
                analysis.dim,
                percent(mean(both.iter().map(|p| p.captured)).unwrap_or_default()),
                least.task,
                percent(least.captured)
            );
        }
    }
    for growth in &analysis.growth {
        for rows in [Rows::Both, Rows::Prompted] {
            let ends = (growth.stages.first(), growth.stages.last());
            let (Some(first), Some(last)) = ends else { continue };
            if let (Some(from), Some(to)) = (together(first, rows), together(last, rows)) {
                let what = if rows == Rows::Both { "" } else { ", prompts included" };
                let _ = writeln!(
                    out,
                    "{}: from {} to {} directions (effective rank {:.1} to {:.1}) over {} tasks{what}.",
                    growth.run, from.0, to.0, from.1, to.1, last.after
                );
            }
        }
    }
    out
}

/// The mean overlap of random subspaces of these sizes.
fn chance(pair: &Pair, dim: usize) -> f64 {
    pair.ranks[0].max(pair.ranks[1]) as f64 / dim.max(1) as f64
}

fn modality_name(modality: Modality) -> &'static str {
    match modality {
        Modality::Image => "image",
        Modality::Text => "text",
        Modality::Both => "both",
    }
}
