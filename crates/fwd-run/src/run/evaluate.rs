//! The prompts or adapters of a run, scored again on any split and any task.

use super::lora::AdaptedModels;
use super::saved::SavedRun;
use crate::model::FeatureStore;
use crate::predictions::{self, Generation};
use crate::samples::exam;
use crate::session::Session;
use anyhow::Result;
use fwd_data::bench::Split;
use serde::Serialize;
use std::path::PathBuf;

/// The scores of what a run has learnt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// The run directory, as it was named.
    pub run: String,
    /// The split that was scored.
    pub split: &'static str,
    /// One for each task, in the order in which they were named.
    pub scores: Vec<TaskScore>,
}

/// What a run scores on one task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskScore {
    /// Its name in the benchmark.
    pub task: String,
    /// How many samples were answered.
    pub n_scored: usize,
    /// In percent of the task's metric.
    pub score: f64,
}

/// Which tasks are scored, and on which split.
#[derive(Debug, Clone)]
pub struct EvaluationOptions {
    /// Any tasks of the benchmark, by name.
    pub tasks: Vec<String>,
    /// The split whose samples are answered.
    pub split: Split,
    /// A folder into which the answers are written, as `TASK.jsonl`.
    pub answers: Option<PathBuf>,
}

/// Scores tasks with the prompts or the adapters of a run.
///
/// # Errors
/// An unknown task, a run that has neither, those of the model and of the folder.
pub fn evaluate(
    run: &SavedRun,
    session: &Session,
    store: &FeatureStore<'_>,
    options: &EvaluationOptions,
) -> Result<Evaluation> {
    let config = &run.manifest().run.config;
    let generation = Generation { max_new_tokens: config.max_new_tokens, batch: config.eval_batch };
    let (backbone, observer) = (&session.backbone, store.observer());
    let adapters = config.method.has_adapters().then(|| run.adapters(&*backbone.model)).transpose()?;
    let adapted = adapters.as_ref().map(|learner| AdaptedModels::new(backbone, learner)).transpose()?;
    let mut scores = Vec::new();
    for name in &options.tasks {
        let task = session.bench.task(name)?;
        let exam = exam(store, task, options.split, usize::MAX)?;
        let given = match adapters.as_ref().zip(adapted.as_ref()) {
            Some((learner, models)) => models.answer(learner, &exam, generation, observer)?,
            None => {
                let pool = run.pool(&*backbone.model, Some(name))?;
                predictions::answer(backbone, &pool, &exam, generation, None, observer)?
            }
        };
        if let Some(dir) = &options.answers {
            predictions::write(&dir.join(format!("{name}.jsonl")), &given)?;
        }
        let score = predictions::percent(task.metric, &given)?;
        scores.push(TaskScore { task: name.clone(), n_scored: given.len(), score });
    }
    Ok(Evaluation { run: run.dir().display().to_string(), split: options.split.name(), scores })
}
