//! The model with what a learner of adapters has learnt, for scoring.

use super::outputs::{Distributions, distributions, targets};
use super::saved::SavedRun;
use crate::model::{Backbone, Model, Sample};
use crate::observer::{Observer, check};
use crate::predictions::{self, Generation, Prediction};
use crate::samples::Exam;
use anyhow::{Context, Result, ensure};
use fwd_adapters::{AdaptableModel, Lora, LoraConfig, LoraLearner, Sharing};
use fwd_continual::chain;
use fwd_models::{GenerationConfig, with_adapters};
use fwd_prompt::{Place, PromptBatch};
use std::borrow::Cow;
use std::path::Path;

/// The learner of a backbone's adapters.
pub(super) type Adapters<'a> = LoraLearner<&'a Model>;

/// The models that answer samples at one moment: one for each way in which adapters are put together.
pub(super) struct AdaptedModels<'a> {
    backbone: &'a Backbone,
    /// One, or where each task has its own adapter, one for each.
    models: Vec<Box<Model>>,
}

impl<'a> AdaptedModels<'a> {
    /// The models as the learner stands; before the first task none, which is the backbone's own.
    ///
    /// # Errors
    /// Those of the model.
    pub(super) fn new(backbone: &'a Backbone, learner: &Adapters<'_>) -> Result<Self> {
        let with = |adapters: Vec<Cow<'_, Lora>>| {
            let adapters: Vec<&Lora> = adapters.iter().map(|adapter| &**adapter).collect();
            Ok(with_adapters(&*backbone.model, &adapters)?)
        };
        let models = learner.combinations().map(with);
        Ok(Self { backbone, models: models.collect::<Result<_>>()? })
    }

    /// Samples by the model that answers them: the model, and the positions of its samples.
    fn groups(&self, learner: &Adapters<'_>, batch: &[&Sample]) -> Result<Vec<(&Model, Vec<usize>)>> {
        if self.models.is_empty() {
            return Ok(vec![(&*self.backbone.model, (0..batch.len()).collect())]);
        }
        let mut groups: Vec<(&Model, Vec<usize>)> =
            self.models.iter().map(|model| (&**model, Vec::new())).collect();
        for (i, sample) in batch.iter().enumerate() {
            let of = learner.combination_of(sample).map_err(|e| anyhow::anyhow!(chain(&*e.source)))?;
            groups.get_mut(of).context("a combination of adapters that does not exist")?.1.push(i);
        }
        groups.retain(|(_, samples)| !samples.is_empty());
        Ok(groups)
    }

    /// The answer to one sample.
    ///
    /// # Errors
    /// Those of the model and the tokenizer.
    pub(super) fn answer_one(
        &self,
        learner: &Adapters<'_>,
        sample: &Sample,
        max_new_tokens: usize,
    ) -> Result<String> {
        let batch = [sample];
        let groups = self.groups(learner, &batch)?;
        let (model, _) = groups.first().context("a sample that no model answers")?;
        let config = GenerationConfig::greedy(max_new_tokens, self.backbone.model.special_tokens().clone());
        let answers = fwd_models::answer(*model, &batch, &no_prompts(&batch, *model), &config)?;
        let answer = answers.first().context("the model returned no answer")?;
        Ok(self.backbone.processor.text.decode(&answer.ids)?.trim().to_owned())
    }

    /// The answers to all samples of a task.
    ///
    /// # Errors
    /// Those of the model; an interrupt between two batches.
    pub(super) fn answer<'e>(
        &self,
        learner: &Adapters<'_>,
        exam: &'e Exam<'_>,
        generation: Generation,
        observer: &dyn Observer,
    ) -> Result<Vec<Prediction<'e>>> {
        let progress = observer.begin(&format!("scoring {}", exam.task.name), exam.cases.len());
        let config =
            GenerationConfig::greedy(generation.max_new_tokens, self.backbone.model.special_tokens().clone());
        let mut texts = vec![String::new(); exam.cases.len()];
        let mut n_done = 0;
        for (number, cases) in exam.cases.chunks(generation.batch).enumerate() {
            check(observer)?;
            let batch: Vec<&Sample> = cases.iter().map(|case| &case.sample).collect();
            for (model, positions) in self.groups(learner, &batch)? {
                let group: Vec<&Sample> = positions.iter().map(|&i| batch[i]).collect();
                let answers = fwd_models::answer(model, &group, &no_prompts(&group, model), &config)
                    .with_context(|| format!("task `{}`", exam.task.name))?;
                for (i, answer) in positions.into_iter().zip(answers) {
                    texts[number * generation.batch + i] =
                        self.backbone.processor.text.decode(&answer.ids)?;
                }
            }
            n_done += cases.len();
            progress.set(n_done);
        }
        predictions::scored(exam, texts)
    }

    /// What the models say of the answers to some samples of a task.
    ///
    /// # Errors
    /// Those of the model and the tokenizer.
    pub(super) fn outputs(
        &self,
        learner: &Adapters<'_>,
        exam: &Exam<'_>,
        max_tokens: usize,
    ) -> Result<Distributions> {
        distributions(&*self.backbone.model, exam, max_tokens, |cases, max_tokens| {
            let targets = targets(self.backbone, cases, max_tokens)?;
            let batch: Vec<&Sample> = targets.iter().collect();
            let mut all = vec![Vec::new(); batch.len()];
            for (model, positions) in self.groups(learner, &batch)? {
                let group: Vec<&Sample> = positions.iter().map(|&i| batch[i]).collect();
                let said = fwd_models::label_log_probs(model, &group, &no_prompts(&group, model))?;
                positions.into_iter().zip(said).for_each(|(i, said)| all[i] = said);
            }
            Ok(all)
        })
    }
}

/// What a backbone with the adapters of a run answers to a sample.
///
/// # Errors
/// A run without adapters; those of the model and the tokenizer.
pub fn answer_with_adapters(
    run: &SavedRun,
    backbone: &Backbone,
    sample: &Sample,
    max_new_tokens: usize,
) -> Result<String> {
    let learner = run.adapters(&*backbone.model)?;
    AdaptedModels::new(backbone, &learner)?.answer_one(&learner, sample, max_new_tokens)
}

/// Nothing in front of any sample.
fn no_prompts(batch: &[&Sample], model: &Model) -> PromptBatch {
    let dim = model.prompt_dims().model;
    PromptBatch { values: Vec::new(), lengths: vec![0; batch.len()], dim, place: Place::Front }
}

/// Writes what was learnt into a folder, in PEFT's format (experts under CoIN's names): `all-tasks`, or a folder for each task that has an adapter.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn write_adapters(learner: &Adapters<'_>, dir: &Path) -> Result<()> {
    let write = |name: &str, adapter| fwd_adapters::write(&dir.join(name), adapter, learner.config());
    match learner.adapters_of_tasks() {
        Some(mut of_tasks) => of_tasks.try_for_each(|(task, adapter)| write(task, adapter))?,
        None => learner.adapters().iter().try_for_each(|adapter| write("all-tasks", adapter))?,
    }
    Ok(())
}

/// Refuses adapters that a model cannot have, before the frozen pass and not after it.
///
/// # Errors
/// That names the key of the configuration.
pub(super) fn check_config(sharing: Sharing, config: &LoraConfig, model: &Model) -> Result<()> {
    sharing.check(config)?;
    config.chosen(&model.sites().concat())?;
    Ok(())
}

/// Refuses adapters that need more memory than there is, with the method beside them.
///
/// # Errors
/// That names both figures.
pub(super) fn check_memory(
    learner: &Adapters<'_>,
    n_tasks: usize,
    beside: Option<&str>,
    available: Option<u64>,
) -> Result<()> {
    // A gradient for each older task.
    let n_gradients = if beside == Some("gem") { n_tasks.saturating_sub(1) } else { 0 };
    let needed = learner.n_bytes(n_tasks) + (4 * n_gradients * learner.n_parameters_of_one()) as u64;
    let (available, gib) = (available.unwrap_or(u64::MAX), |bytes: u64| bytes as f64 / f64::from(1 << 30));
    ensure!(
        needed <= available,
        "adapters of {} numbers each, and what this method keeps beside them, need at least {:.1} GiB of memory, {:.1} GiB are free; choose fewer maps (lora.targets) or another method",
        learner.n_parameters_of_one(),
        gib(needed),
        gib(available),
    );
    Ok(())
}
