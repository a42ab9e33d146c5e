//! The trait that every method of continual learning implements, and what its calls see.

use crate::curriculum::{StoredSample, TaskId, TaskInfo};
use crate::error::Failure;
use crate::learner::Change;
use crate::plan::Plan;
use crate::saved::{Section, SectionError};
use serde_json::Value;

/// What a run does against forgetting beside what its learner does. It owns its options, its memory and its saved tensors.
///
/// Whatever is not said about a method has a default that adds nothing, bit for bit.
pub trait Method: Send {
    /// The name on command lines and in files.
    fn name(&self) -> &'static str;

    /// What it adds, as a phrase for lists.
    fn about(&self) -> &'static str;

    /// Everything that decides what it does, as JSON; a saved run is only taken up with the same.
    fn options(&self) -> Value {
        Value::Null
    }

    /// Refuses options that cannot be.
    ///
    /// # Errors
    /// A sentence that names the key, its value and what it may be.
    fn check(&self, _plan: &Plan) -> Result<(), String> {
        Ok(())
    }

    /// How many samples of each batch are old ones. A batch does not grow by them.
    fn n_rehearsed(&self, _plan: &Plan) -> usize {
        0
    }

    /// The old samples of a step, as many as [`Self::n_rehearsed`] says.
    fn rehearsed(&self, _step: &StepAt<'_>) -> Vec<StoredSample> {
        Vec::new()
    }

    /// Changes the gradient of a step before it is clipped. Returns the penalty that its change is the gradient of; 0 for none.
    ///
    /// # Errors
    /// Its own, or those of the gradients that it asks for.
    fn adjust(&self, _step: &mut StepView<'_>) -> Result<f64, Failure> {
        Ok(0.0)
    }

    /// Takes what it wants to remember of a task that has just been learnt. `None` if it was stopped before it was done; then, and
    /// after an error, the method must be as it was.
    ///
    /// # Errors
    /// Its own, or those of the gradients that it asks for.
    fn remember(&mut self, _task: &mut TaskView<'_>) -> Result<Option<()>, Failure> {
        Ok(Some(()))
    }

    /// The samples of learnt tasks that it keeps.
    fn stored_samples(&self) -> &[StoredSample] {
        &[]
    }

    /// Writes its memory.
    fn save(&self, _section: &mut Section) {}

    /// Takes back what [`Self::save`] wrote.
    ///
    /// # Errors
    /// If something is missing, of another shape, or names a sample that is none of the tasks'.
    fn load(&mut self, _section: &Section, _tasks: &[TaskInfo]) -> Result<(), SectionError> {
        Ok(())
    }
}

/// Which step a call is about.
#[derive(Debug, Clone, Copy)]
pub struct StepAt<'a> {
    /// How the run goes through its samples.
    pub plan: &'a Plan,
    /// The task that is learnt.
    pub task: TaskId,
    /// The number of the step within the task, from 0.
    pub step: usize,
}

/// Computes the gradient of the mean loss of stored samples with respect to the parameters that the task trains.
pub type GradientOf<'a> = &'a mut dyn FnMut(&[StoredSample]) -> Result<Vec<f32>, Failure>;

/// A step between its gradient and the optimiser.
pub struct StepView<'a> {
    /// Which step it is.
    pub at: StepAt<'a>,
    /// Computes how far the parameters have moved since the task began.
    pub change: &'a dyn Fn() -> Change<'a>,
    /// The gradient of the batch, one element for each trained parameter.
    pub gradient: &'a mut [f32],
    /// Further gradients, of old samples.
    pub gradient_of: GradientOf<'a>,
}

impl std::fmt::Debug for StepView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepView")
            .field("at", &self.at)
            .field("gradient", &self.gradient)
            .finish_non_exhaustive()
    }
}

/// Computes the gradients of samples of the learnt task one by one, with respect to all parameters, and shows each. `None` if the
/// run was stopped meanwhile.
pub type EachGradient<'a> =
    &'a mut dyn FnMut(&[usize], &mut dyn FnMut(&[f32])) -> Result<Option<()>, Failure>;

/// A task that has just been learnt.
pub struct TaskView<'a> {
    /// How the run goes through its samples.
    pub plan: &'a Plan,
    /// The task that was learnt.
    pub task: TaskId,
    /// All tasks of the curriculum, by name and size.
    pub tasks: &'a [TaskInfo],
    /// Whether later tasks train the same parameters again.
    pub shares_parameters: bool,
    /// Gradients of its samples, by their positions.
    pub gradients: EachGradient<'a>,
}

impl std::fmt::Debug for TaskView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskView")
            .field("task", &self.task)
            .field("tasks", &self.tasks)
            .finish_non_exhaustive()
    }
}

/// Nothing beside what the learner does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Method for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn about(&self) -> &'static str {
        "nothing more"
    }
}
