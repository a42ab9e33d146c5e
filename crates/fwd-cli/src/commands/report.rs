//! `report`: one HTML file about finished runs, with its figures beside it.

use crate::args::{Common, ReportArgs};
use crate::{output, report};
use anyhow::{Result, ensure};
use fwd_run::analysis::{ANALYSIS, EmbeddingAnalysis};
use fwd_run::comparison::Comparison;
use fwd_run::files::read_json;
use std::process::ExitCode;

/// The command `report`.
///
/// # Errors
/// Runs that cannot be compared (see [`Comparison::read`]); an analysis of another model or benchmark; a folder that holds something
/// else or cannot be written.
pub(super) fn command(args: &ReportArgs, common: &Common) -> Result<ExitCode> {
    let comparison = Comparison::read(&args.runs, false)?;
    let analysis = read_analysis(args, &comparison)?;
    let (path, figures) = report::write(&comparison, analysis.as_ref(), &args.out)?;
    let path = path.display().to_string();
    if common.json {
        output::print_json(&serde_json::json!({ "report": path, "figures": figures }))?;
    } else {
        output::print(&path)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What `analyze` wrote: the file that was named, or one beside the first run.
fn read_analysis(args: &ReportArgs, comparison: &Comparison) -> Result<Option<EmbeddingAnalysis>> {
    let beside = || args.runs.first()?.parent().map(|dir| dir.join(ANALYSIS)).filter(|path| path.is_file());
    let Some(path) = args.analysis.clone().or_else(beside) else { return Ok(None) };
    let analysis: EmbeddingAnalysis = read_json(&path)?;
    let run = &comparison.first()?.manifest.run;
    let is_same = analysis.backbone_hash == run.backbone_hash && analysis.data_hash == run.data_hash;
    ensure!(
        is_same,
        "{} is of another model or benchmark than the runs; name the right one with --analysis",
        path.display()
    );
    Ok(Some(analysis))
}
