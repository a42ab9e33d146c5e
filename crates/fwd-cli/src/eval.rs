//! `eval`: scores the prompts of a run again, on any split and any task.

use crate::args::{Common, EvalArgs, Places};
use crate::config::{cache_dir, parse_split};
use crate::data::on_bad;
use crate::device::DeviceKind;
use crate::method::Method;
use crate::output;
use crate::predict::{self, Generation};
use crate::run_dir::{Manifest, state_dir};
use crate::samples::{exam, split_name};
use crate::session::Session;
use crate::table;
use anyhow::{Context, Result, ensure};
use fwd_prompt::{FrozenModel, PromptPool, RunState};
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;

#[derive(Serialize)]
struct Evaluation {
    run: String,
    split: &'static str,
    scores: Vec<TaskScore>,
}

#[derive(Serialize)]
struct TaskScore {
    task: String,
    n_scored: usize,
    score: f64,
}

/// The command `eval`.
///
/// # Errors
/// A directory that is no run, another model or benchmark than the run's, an unknown task.
pub(crate) fn command(args: &EvalArgs, common: &Common) -> Result<ExitCode> {
    let manifest = Manifest::read(&args.run)?;
    let config = &manifest.run.config;
    let split = args.split.as_deref().map_or(Ok(config.split), parse_split)?;
    let session = session(&manifest, &args.places, args.device)?;
    let names = args.task.as_ref().map_or(config.tasks.clone(), |task| vec![task.clone()]);
    let store = session.features(cache_dir(args.places.cache.as_ref(), &args.run));
    let generation = Generation { max_new_tokens: config.max_new_tokens, batch: config.eval_batch };
    let mut scores = Vec::new();
    for name in names {
        let task = session.bench.task(&name)?;
        let pool = pool(&args.run, &manifest, &session.backbone.model, Some(&name))?;
        let exam = exam(&store, task, split, usize::MAX)?;
        let predictions = predict::answer(&session.backbone, &pool, &exam, generation)?;
        if let Some(dir) = &args.predictions {
            predict::write(&dir.join(format!("{name}.jsonl")), &predictions)?;
        }
        scores.push(TaskScore {
            task: name,
            n_scored: predictions.len(),
            score: predict::percent(task.metric, &predictions)?,
        });
    }
    let result = Evaluation { run: args.run.display().to_string(), split: split_name(split), scores };
    if common.json {
        output::print_json(&result)?;
    } else {
        let mut rows = vec![["task", "samples", result.split].map(str::to_owned).to_vec()];
        for s in &result.scores {
            rows.push(vec![s.task.clone(), s.n_scored.to_string(), format!("{:.1}", s.score)]);
        }
        output::print(&table::render(&rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The model and the benchmark of a run, where it found them or where they are now.
///
/// # Errors
/// Another model or benchmark than the run's.
pub(crate) fn session(manifest: &Manifest, places: &Places, device: DeviceKind) -> Result<Session> {
    let backbone = places.backbone.as_ref().unwrap_or(&manifest.backbone_dir);
    let bench = places.bench.as_ref().unwrap_or(&manifest.bench_dir);
    let on_bad = on_bad(manifest.run.config.skip_bad);
    let session = Session::open_with(Some(backbone), Some(bench), device, on_bad)?;
    check_backbone(&session.backbone.hash, manifest, backbone)?;
    let found = session.bench.hash().to_string();
    ensure!(
        found == manifest.run.data_hash,
        "{} is not the benchmark of this run ({found}, not {}); name that one with --bench",
        bench.display(),
        manifest.run.data_hash
    );
    Ok(session)
}

/// Refuses prompts that were learnt for another model.
///
/// # Errors
/// That names both.
pub(crate) fn check_backbone(hash: &str, manifest: &Manifest, dir: &Path) -> Result<()> {
    ensure!(
        hash == manifest.run.backbone_hash,
        "the run was made with another model: {} has the hash {hash}, the run's {} had {}; name that one with --backbone",
        dir.display(),
        manifest.backbone_dir.display(),
        manifest.run.backbone_hash
    );
    Ok(())
}

/// The prompts of a run, as they were when its last task was finished; under the method `independent`, those of `task`.
///
/// # Errors
/// A damaged or missing state, or one whose widths are not the model's.
pub(crate) fn pool<M: FrozenModel>(
    run: &Path,
    manifest: &Manifest,
    model: &M,
    task: Option<&str>,
) -> Result<PromptPool> {
    let config = &manifest.run.config;
    if config.method == Method::ZeroShot {
        return Ok(PromptPool::new(model.dims(), config.pool.prompt_len, config.pool.top_k));
    }
    Ok(state(run, manifest, model, task)?.pool().clone())
}

/// All that a run has computed; under the method `independent`, for `task`.
///
/// # Errors
/// As [`pool`].
pub(crate) fn state<M: FrozenModel>(
    run: &Path,
    manifest: &Manifest,
    model: &M,
    task: Option<&str>,
) -> Result<RunState> {
    let task = if manifest.run.config.method == Method::Independent {
        Some(task.context("each task of this run has prompts of its own; name one with --task")?)
    } else {
        None
    };
    let dir = state_dir(run, task);
    ensure!(RunState::exists(&dir), "{} holds no prompts yet; let the run go on first", dir.display());
    let state = RunState::load(&dir)?;
    ensure!(
        state.pool().dims() == model.dims(),
        "{}: its prompts are for a model of {:?}, this one has {:?}",
        dir.display(),
        state.pool().dims(),
        model.dims()
    );
    Ok(state)
}
