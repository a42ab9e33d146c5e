//! `report`: one HTML file about finished runs, or about one that is not finished yet, with its figures beside it.

use crate::args::{Common, ReportArgs};
use crate::{output, progress, report};
use anyhow::{Result, bail, ensure};
use fwd_run::analysis::{ANALYSIS, EmbeddingAnalysis};
use fwd_run::comparison::{Comparison, FinishedRun, UnfinishedRun};
use fwd_run::files::read_json;
use fwd_run::run::{Identity, Manifest, RunPaths};
use std::process::ExitCode;

/// The command `report`.
///
/// # Errors
/// Runs that cannot be compared (see [`Comparison::read`]); an analysis of another model or benchmark, dtype, compute or template; a folder that holds something
/// else or cannot be written.
pub(super) fn command(args: &ReportArgs, common: &Common) -> Result<ExitCode> {
    let (path, figures) = match unfinished(args)? {
        Some(run) => {
            progress::note(&format!(
                "{} is not finished: the report shows what there is so far and says so",
                run.dir.display()
            ));
            report::write_unfinished(&run, args.bench.as_deref(), &args.out)?
        }
        None => {
            let comparison = Comparison::read(&args.runs, false)?;
            let analysis = read_analysis(args, &comparison)?;
            report::write(&comparison, analysis.as_ref(), args.bench.as_deref(), &args.out)?
        }
    };
    let path = path.display().to_string();
    if common.json {
        output::print_json(&serde_json::json!({ "report": path, "figures": figures }))?;
    } else {
        output::print(&path)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The run that is reported alone although it is not finished. Several runs are compared, which only finished ones can be.
fn unfinished(args: &ReportArgs) -> Result<Option<UnfinishedRun>> {
    let mut unfinished = Vec::new();
    for run in &args.runs {
        Manifest::read(run)?;
        if !RunPaths::new(run).is_finished() {
            unfinished.push(run);
        }
    }
    match (unfinished.as_slice(), args.runs.len()) {
        ([], _) => Ok(None),
        ([run], 1) => UnfinishedRun::read(run).map(Some),
        (runs, _) => {
            let names: Vec<String> = runs.iter().map(|run| run.display().to_string()).collect();
            bail!(
                "not finished: {}; only finished runs can be compared, so go on with it by the command that began it, leave it out, or \
                 report it alone",
                names.join(", ")
            )
        }
    }
}

/// What `analyze` wrote: the file that was named, or one beside the first run.
fn read_analysis(args: &ReportArgs, comparison: &Comparison) -> Result<Option<EmbeddingAnalysis>> {
    let beside = || args.runs.first()?.parent().map(|dir| dir.join(ANALYSIS)).filter(|path| path.is_file());
    let Some(path) = args.analysis.clone().or_else(beside) else { return Ok(None) };
    let analysis: EmbeddingAnalysis = read_json(&path)?;
    let is_of = |run: &FinishedRun| {
        let Identity { config, data_hash, backbone_hash, .. } = &run.manifest.run;
        analysis.backbone_hash == *backbone_hash
            && analysis.data_hash == *data_hash
            && analysis.dtype == config.dtype
            && analysis.compute == config.compute
            && analysis.template == config.template.unwrap_or_default()
    };
    ensure!(
        comparison.groups.iter().flat_map(|group| &group.runs).any(is_of),
        "{} is of another model or benchmark than the runs, or of another dtype, compute or template (`{}`, `{}`, `{}`); name the \
         right one with --analysis",
        path.display(),
        analysis.dtype,
        analysis.compute,
        analysis.template
    );
    Ok(Some(analysis))
}
