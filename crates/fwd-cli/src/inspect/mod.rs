//! `inspect`: what the prompts of a run have learnt. Who selects them and by which key, which words they are near, what they took of
//! the embedding space, and into which subspaces training moved them.

mod prompts;
mod selection;
mod text;

use crate::args::{Common, InspectArgs};
use crate::config::{RunConfig, cache_dir, parse_split};
use crate::device::DeviceKind;
use crate::eval;
use crate::features::FeatureStore;
use crate::files::write_json;
use crate::findings::{Capacity, INSPECTION, Inspection, PRETRAINING, SubspaceFindings, TaskSelection};
use crate::method::Method;
use crate::run_dir::Manifest;
use crate::samples::{exam, split_name};
use crate::session::Session;
use crate::{interrupt, output};
use anyhow::{Result, ensure};
use fwd_data::bench::{BenchTask, Split};
use fwd_prompt::{Allocation, FrozenModel, RunState, SubspaceLedger};
use std::process::ExitCode;

/// The command `inspect`.
///
/// # Errors
/// A directory that is no run or has no prompts, another model or benchmark than the run's, a folder that cannot be written.
pub(crate) fn command(args: &InspectArgs, common: &Common) -> Result<ExitCode> {
    let manifest = Manifest::read(&args.run)?;
    let config = &manifest.run.config;
    ensure!(
        !matches!(config.method, Method::ZeroShot | Method::Finetune),
        "{} is a run of `{}`, which has no prompts",
        args.run.display(),
        config.method
    );
    let split = args.split.as_deref().map_or(Ok(config.split), parse_split)?;
    let session = eval::session(&manifest, &args.places, DeviceKind::Cpu)?;
    let state = eval::state(&args.run, &manifest, &session.backbone.model, args.task.as_deref())?;
    ensure!(
        !state.pool().is_empty(),
        "{} has no prompts yet: its first task has not begun",
        args.run.display()
    );
    let store = session.features(cache_dir(args.places.cache.as_ref(), &args.run));
    let names: Vec<String> = state.tasks().iter().map(|task| task.name.clone()).collect();
    let owners = state.owners();
    let is_shared = matches!(state.config().pool.allocation, Allocation::Shared(_));
    // What counts as the same choice: the task's prompts, or the prompt itself.
    let groups = if is_shared { (0..owners.len()).collect() } else { owners.clone() };
    let selection = selections(&session, &store, &state, config, split, &groups)?;
    let found = Inspection {
        run: args.run.display().to_string(),
        method: config.method,
        seed: config.seed,
        split: split_name(split).to_owned(),
        tasks: config.tasks.clone(),
        prompt_len: state.pool().prompt_len(),
        top_k: state.pool().top_k(),
        is_shared,
        confusion: (!is_shared).then(|| selection::confusion(&selection, &owners, &names)),
        similarity: selection::similarity(&selection),
        selection,
        prompts: prompts::findings(&session.backbone, &state, args.nearest)?,
        capacity: capacity(state.ledger()),
    };
    if let Some(out) = &args.out {
        write_json(&out.join(INSPECTION), &found)?;
    }
    if common.json {
        output::print_json(&found)?
    } else {
        output::print(&text::render(&found))?
    }
    Ok(ExitCode::SUCCESS)
}

/// What the samples of each task select, and those of pre-training if the run has to do with it.
fn selections(
    session: &Session,
    store: &FeatureStore<'_>,
    state: &RunState,
    config: &RunConfig,
    split: Split,
    groups: &[usize],
) -> Result<Vec<TaskSelection>> {
    let (bench, model) = (&session.bench, &session.backbone.model);
    let queries = |tasks: &[&BenchTask], limit: usize| -> Result<Vec<_>> {
        let mut found = Vec::new();
        for task in tasks {
            interrupt::check()?;
            for case in exam(store, task, split, limit)?.cases {
                found.push(model.queries(&case.sample)?);
            }
        }
        Ok(found)
    };
    let mut rows = Vec::new();
    for name in &config.tasks {
        let queries = queries(&[bench.task(name)?], usize::MAX)?;
        rows.push(selection::of_task(state.pool(), name, &queries, groups)?);
    }
    let pretraining = bench.pretraining();
    if config.method.needs_pretraining() && config.pretraining_samples > 0 && !pretraining.is_empty() {
        let queries = queries(&pretraining, config.retention_samples)?;
        rows.push(selection::of_task(state.pool(), PRETRAINING, &queries, groups)?);
    }
    Ok(rows)
}

fn capacity(ledger: &SubspaceLedger) -> Capacity {
    let subspaces = ledger.entries().iter().map(|entry| SubspaceFindings {
        task: entry.task.clone(),
        rank: entry.basis.len(),
        n_rows: entry.n_rows,
        captured_before: entry.captured_before,
        captured: entry.captured,
    });
    let (dim, used, left) = (ledger.dim(), ledger.rank(), ledger.capacity_left());
    Capacity { dim, used, left, subspaces: subspaces.collect() }
}
