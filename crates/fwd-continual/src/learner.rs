//! What the loop needs of that which learns.
//!
//! A learner owns parameters, and the loop owns everything else: which task, which samples, when to score, when to save. The loop
//! calls in this order, and each call either succeeds or leaves the learner as it was:
//!
//! ```text
//! begin_pretraining(samples)                     once, with the samples of the pre-training tasks
//! for each task that has samples (skip_task for the others):
//!     training = begin_task(samples)
//!     for each step:  g = gradients(training, batch);  the method may change g;  step(training, g)
//!     end_task(training, samples)
//!     gradient_of(sample)                        for each sample that the method wants to remember something of
//! ```
//! `change` is asked for by methods during a step, `save` after every stage, and `load` once before a saved run goes on.

use crate::curriculum::{StoredSample, TaskId};
use crate::error::Failure;
use crate::event::Reporter;
use crate::saved::{Section, SectionError};
use crate::streams::{permutation, stream};
use std::borrow::Cow;

/// Which task a call is about.
#[derive(Debug, Clone, Copy)]
pub struct TaskAt<'a> {
    /// Its place in the curriculum; none for pre-training.
    pub id: Option<TaskId>,
    /// The name that errors and events have of it.
    pub name: &'a str,
    /// The seed of the run.
    pub seed: u64,
}

impl TaskAt<'_> {
    /// The number that random streams count tasks with: 0 is pre-training, 1 the first task.
    pub fn number(&self) -> usize {
        self.id.map_or(0, TaskId::number)
    }
}

/// The samples of a step: new ones of the task, and old ones that the method brings back.
#[derive(Debug)]
pub struct Batch<'a, S> {
    /// Positions in the task's samples, and the samples.
    pub new: Vec<(usize, &'a S)>,
    /// Samples of older tasks.
    pub old: Vec<(StoredSample, &'a S)>,
}

impl<'a, S> Batch<'a, S> {
    /// All samples, the new ones first.
    pub fn samples(&self) -> impl Iterator<Item = &'a S> {
        self.new.iter().map(|(_, sample)| *sample).chain(self.old.iter().map(|(_, sample)| *sample))
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.new.len() + self.old.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The losses of a batch and their gradient.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gradients {
    /// The mean loss of the batch.
    pub loss: f64,
    /// A second term of the loss that is reported apart; 0 without one.
    pub auxiliary_loss: f64,
    /// The gradient of the loss with respect to the parameters that the task trains, flat. Methods may change it.
    pub parameters: Vec<f32>,
    /// Gradients of parameters that methods leave alone, as the keys of prompts.
    pub auxiliary: Vec<Vec<f32>>,
}

/// How far the parameters have moved since the task began: elements `first..first + values.len()` of all parameters.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// The position of the first trained element among all parameters, which may grow from task to task.
    pub first: usize,
    /// Value now less value at the beginning of the task, in the order of [`Gradients::parameters`].
    pub values: Cow<'a, [f32]>,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// The learning rate that was used.
    pub lr: f64,
    /// Seconds that the optimiser took.
    pub optimiser_seconds: f64,
}

/// That which learns: prompts, adapters, or weights.
///
/// Results must not depend on anything but the arguments and the learner's own state, or a resumed run ends elsewhere.
pub trait Learner {
    /// A sample as the learner reads it.
    type Sample;
    /// What exists while a task is being learnt, as the state of the optimiser. The loop keeps it.
    type Training;
    /// What the learner tells beside the loop's own events.
    type Note;

    /// The name of this kind of learner, for saved states.
    fn kind(&self) -> &'static str;

    /// Everything that decides what this learner computes, as JSON. A saved run is only taken up by a learner with the same.
    fn identity(&self) -> serde_json::Value;

    /// Whether a task trains parameters that older tasks have trained. If not, nothing needs to hold them back.
    fn shares_parameters(&self) -> bool {
        true
    }

    /// The order of a task's `n` samples in a pass, from 0.
    fn order(&self, task: &TaskAt<'_>, epoch: usize, n: usize) -> Vec<usize> {
        permutation(&mut stream(task.seed, "order", [task.number() as u64, epoch as u64]), n)
    }

    /// Looks at the samples of the pre-training tasks, of which there may be none. `None` if it was stopped before it was done.
    ///
    /// # Errors
    /// The learner's own; nothing is changed then.
    fn begin_pretraining(
        &mut self,
        _samples: &[Self::Sample],
        _task: &TaskAt<'_>,
        _report: &mut Reporter<'_, Self::Note>,
    ) -> Result<Option<()>, Failure> {
        Ok(Some(()))
    }

    /// Makes ready to learn a task of at least one sample. `None` if it was stopped before it was done.
    ///
    /// # Errors
    /// The learner's own; nothing is changed then.
    fn begin_task(
        &mut self,
        samples: &[Self::Sample],
        task: &TaskAt<'_>,
        report: &mut Reporter<'_, Self::Note>,
    ) -> Result<Option<Self::Training>, Failure>;

    /// Takes note of a task that has no samples.
    ///
    /// # Errors
    /// The learner's own; nothing is changed then.
    fn skip_task(
        &mut self,
        _task: &TaskAt<'_>,
        _report: &mut Reporter<'_, Self::Note>,
    ) -> Result<(), Failure> {
        Ok(())
    }

    /// Losses and gradient of a batch. The gradient of a sample must not depend on its neighbours in the batch but by the mean.
    ///
    /// # Errors
    /// The learner's own, or a loss or gradient that is not finite.
    fn gradients(
        &self,
        training: &Self::Training,
        task: &TaskAt<'_>,
        batch: &Batch<'_, Self::Sample>,
    ) -> Result<Gradients, Failure>;

    /// One optimiser step; learning rates are multiplied by `factor`.
    ///
    /// # Errors
    /// The learner's own; nothing is changed then.
    fn step(
        &mut self,
        training: &mut Self::Training,
        gradients: &Gradients,
        factor: f64,
    ) -> Result<StepReport, Failure>;

    /// How far the trained parameters have moved since the task began.
    fn change<'t>(&'t self, training: &'t Self::Training) -> Change<'t>;

    /// Takes up what was learnt; what it returns goes with [`Event::Learnt`](crate::Event::Learnt).
    ///
    /// # Errors
    /// The learner's own; nothing is changed then.
    fn end_task(
        &mut self,
        training: &Self::Training,
        samples: &[Self::Sample],
        task: &TaskAt<'_>,
    ) -> Result<Self::Note, Failure>;

    /// The gradient of the loss of one sample, as the learner answers it now that a task has ended, with respect to all parameters.
    ///
    /// # Errors
    /// The learner's own, or a gradient that is not finite.
    fn gradient_of(&self, sample: &Self::Sample) -> Result<Vec<f32>, Failure>;

    /// Writes everything that it has computed; `training` if a task is being learnt.
    fn save(&self, training: Option<&Self::Training>, section: &mut Section);

    /// Takes back what [`Self::save`] wrote; the training if a task was being learnt.
    ///
    /// # Errors
    /// If something is missing, of another shape, or for a learner of other sizes. The learner is not used after an error.
    fn load(&mut self, section: &Section) -> Result<Option<Self::Training>, SectionError>;
}
