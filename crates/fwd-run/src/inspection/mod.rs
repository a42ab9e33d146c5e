//! What the prompts of a run have learnt: who selects them and by which key, which words they are near, what they took of the
//! embedding space, and into which subspaces training moved them. Of a run with adapters: how far each moved each layer, and what they share.

mod adapters;
mod findings;
mod prompts;
mod selection;

pub use adapters::{AdapterInspection, LayerFindings, inspect_adapters};
pub use findings::{
    Capacity, Confusion, INSPECTION, Inspection, KeyShares, Neighbour, PromptFindings, StartFindings,
    SubspaceFindings, TaskSelection, TokenFindings,
};

use crate::config::RunConfig;
use crate::model::FeatureStore;
use crate::observer::check;
use crate::run::SavedRun;
use crate::samples::{PRETRAINING, exam};
use crate::session::Session;
use anyhow::{Result, ensure};
use fwd_data::bench::{BenchTask, Split};
use fwd_prompt::{Allocation, FrozenModel, PromptPool, Prompts, Queries, Started, SubspaceLedger};

/// What an inspection looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct InspectionOptions {
    /// The split whose samples select prompts.
    pub split: Split,
    /// How many nearest words of each prompt token are named.
    pub n_nearest: usize,
}

/// Refuses a run that has neither prompts nor adapters by its method, before anything is loaded.
///
/// # Errors
/// That names the run and its method.
pub fn refuse_without_findings(run: &SavedRun) -> Result<()> {
    let method = run.manifest().run.config.method;
    let has_any = method.has_prompts() || method.has_adapters();
    ensure!(
        has_any,
        "{} is a run of `{method}`, which has neither prompts nor adapters",
        run.dir().display()
    );
    Ok(())
}

/// Inspects the prompts of a run ([`SavedRun::prompts`]).
///
/// # Errors
/// A state without prompts, an unknown task, those of the model.
pub fn inspect(
    run: &SavedRun,
    prompts: &Prompts,
    session: &Session,
    store: &FeatureStore<'_>,
    options: &InspectionOptions,
) -> Result<Inspection> {
    let config = &run.manifest().run.config;
    ensure!(
        !prompts.pool().is_empty(),
        "{} has no prompts yet: its first task has not begun",
        run.dir().display()
    );
    let names: Vec<String> = prompts.ledger().entries().iter().map(|entry| entry.task.clone()).collect();
    let owners = prompts.owners();
    let is_shared = matches!(prompts.config().pool.allocation, Allocation::Shared(_));
    // What counts as the same choice: the task's prompts, or the prompt itself.
    let groups = if is_shared { (0..owners.len()).collect() } else { owners.to_vec() };
    let selection = selections(session, store, prompts.pool(), config, options.split, &groups)?;
    Ok(Inspection {
        run: run.dir().display().to_string(),
        method: config.method,
        seed: config.seed,
        split: options.split.name().to_owned(),
        tasks: config.tasks.clone(),
        prompt_len: prompts.pool().prompt_len(),
        top_k: prompts.pool().top_k(),
        is_shared,
        confusion: (!is_shared).then(|| selection::confusion(&selection, owners, &names)),
        similarity: selection::similarity(&selection),
        selection,
        prompts: prompts::findings(&session.backbone, prompts, options.n_nearest)?,
        starts: starts(prompts),
        capacity: capacity(prompts.ledger()),
    })
}

/// What the samples of each task select, and those of pre-training if the run has to do with it.
fn selections(
    session: &Session,
    store: &FeatureStore<'_>,
    pool: &PromptPool,
    config: &RunConfig,
    split: Split,
    groups: &[usize],
) -> Result<Vec<TaskSelection>> {
    let (bench, model) = (&session.bench, &session.backbone.model);
    let queries = |tasks: &[&BenchTask], limit: usize| -> Result<Vec<Queries<'static>>> {
        let mut all = Vec::new();
        for task in tasks {
            check(store.observer())?;
            for case in exam(store, task, split, limit)?.cases {
                let Queries { image, text } = model.queries(&case.sample)?;
                all.push(Queries { image: image.into_owned().into(), text: text.into_owned().into() });
            }
        }
        Ok(all)
    };
    let mut rows = Vec::new();
    for name in &config.tasks {
        let queries = queries(&[bench.task(name)?], usize::MAX)?;
        rows.push(selection::of_task(pool, name, &queries, groups)?);
    }
    let pretraining = bench.pretraining();
    if config.method.needs_pretraining() && config.pretraining_samples > 0 && !pretraining.is_empty() {
        let queries = queries(&pretraining, config.retention_samples)?;
        rows.push(selection::of_task(pool, PRETRAINING, &queries, groups)?);
    }
    Ok(rows)
}

fn starts(prompts: &Prompts) -> Vec<StartFindings> {
    let entries = prompts.ledger().entries().iter().enumerate();
    let starts = entries.filter_map(|(t, entry)| Some((entry, prompts.started(t)?)));
    let findings = starts.map(|(entry, Started { block, scores, .. })| {
        let (task, from, scores) = (entry.task.clone(), block.clone(), scores.clone());
        StartFindings { task, from, scores }
    });
    findings.collect()
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
