//! `eval`: scores the prompts of a run again, on any split and any task.

use super::session;
use crate::args::{Common, EvalArgs};
use crate::terminal::Terminal;
use crate::{output, table};
use anyhow::Result;
use fwd_run::config::parse_split;
use fwd_run::run::{EvaluationOptions, SavedRun, evaluate};
use std::process::ExitCode;

/// The command `eval`.
///
/// # Errors
/// A directory that is no run, another model or benchmark than the run's, an unknown task.
pub(super) fn command(args: &EvalArgs, common: &Common) -> Result<ExitCode> {
    let run = SavedRun::read(&args.run)?;
    let config = &run.manifest().run.config;
    let split = args.split.as_deref().map_or(Ok(config.split), parse_split)?;
    let session = session::of_run(&run, &args.places, args.device)?;
    let tasks = args.task.as_ref().map_or(config.tasks.clone(), |task| vec![task.clone()]);
    let store = session.features(run.paths().cache(args.places.cache.as_deref()), &Terminal);
    let options = EvaluationOptions { tasks, split, answers: args.predictions.clone() };
    let evaluation = evaluate(&run, &session, &store, &options)?;
    if common.json {
        output::print_json(&evaluation)?;
    } else {
        let mut rows = vec![["task", "samples", evaluation.split].map(str::to_owned).to_vec()];
        for s in &evaluation.scores {
            rows.push(vec![s.task.clone(), s.n_scored.to_string(), format!("{:.1}", s.score)]);
        }
        output::print(&table::render(&rows))?;
    }
    Ok(ExitCode::SUCCESS)
}
