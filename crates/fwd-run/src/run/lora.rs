//! The model with what a learner of adapters has learnt, for scoring.

use super::outputs::{Distributions, distributions, targets};
use crate::model::{Backbone, Model, Sample};
use crate::observer::{Observer, check};
use crate::predictions::{self, Generation, Prediction};
use crate::samples::Exam;
use anyhow::{Context, Result};
use fwd_adapters::LoraLearner;
use fwd_continual::chain;
use fwd_models::{GenerationConfig, with_adapters};
use fwd_prompt::{Place, PromptBatch};
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
        let models = learner.combinations().map(|adapters| Ok(with_adapters(&*backbone.model, &adapters)?));
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

/// Nothing in front of any sample.
fn no_prompts(batch: &[&Sample], model: &Model) -> PromptBatch {
    let dim = model.prompt_dims().model;
    PromptBatch { values: Vec::new(), lengths: vec![0; batch.len()], dim, place: Place::Front }
}

/// Writes what was learnt into a folder, in PEFT's format: `all-tasks`, or a folder for each task.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn write_adapters(learner: &Adapters<'_>, tasks: &[String], dir: &Path) -> Result<()> {
    let config = learner.config();
    if let [one] = learner.adapters() {
        return Ok(fwd_adapters::write(&dir.join("all-tasks"), one, config)?);
    }
    for (adapter, task) in learner.adapters().iter().zip(tasks) {
        fwd_adapters::write(&dir.join(task), adapter, config)?;
    }
    Ok(())
}
