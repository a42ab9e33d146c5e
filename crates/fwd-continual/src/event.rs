//! What a run tells while it goes on: a typed stream that a program turns into progress bars, logs and files.

use crate::curriculum::Moment;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Something that happened. `N` is what the learner has to tell beside ([`Learner::Note`](crate::Learner::Note)).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event<N> {
    /// The learner has looked at a sample before the first step of a task.
    Examined {
        /// The name of the task.
        task: String,
        /// Samples so far.
        done: usize,
        /// Samples of the task.
        of: usize,
    },
    /// A task without samples: it is not trained, only scored.
    NoSamples {
        /// The name of the task.
        task: String,
    },
    /// One training step.
    Step {
        /// The name of the task.
        task: String,
        /// The number of the step within the task, from 1.
        step: usize,
        /// Steps of the task.
        of: usize,
        /// The learner's loss before the step.
        loss: f64,
        /// A second term of the loss that the learner reports apart, as the key term of prompts; 0 without one.
        auxiliary_loss: f64,
        /// The method's penalty on the change of the parameters; 0 for a method without one.
        penalty: f64,
        /// Norm of the gradient before clipping, the penalty's included.
        grad_norm: f64,
        /// Learning rate of the step.
        lr: f64,
        /// Wall time of the step, in seconds.
        seconds: f64,
        /// Wall time of the optimiser in it, in seconds.
        optimiser_seconds: f64,
    },
    /// The last step of a task is done and the learner has taken up what it learnt.
    Learnt {
        /// The name of the task.
        task: String,
        /// The optimiser's share of the time of the steps since the start or the resume, in [0, 1].
        optimiser_share: f64,
        /// What the learner says of its change.
        note: N,
    },
    /// A method that remembers something of a learnt task has looked at one of its samples.
    Remembered {
        /// The name of the task.
        task: String,
        /// Samples so far.
        done: usize,
        /// Samples that it looks at.
        of: usize,
    },
    /// One entry of the score matrix.
    Scored {
        /// The moment of the score: the row of the score matrix.
        moment: Moment,
        /// The name of the column.
        task: String,
        /// The score, 0–100.
        score: f64,
    },
    /// The state is on disk.
    Saved {
        /// The manifest of the saved state.
        path: PathBuf,
    },
    /// The learner tells something of its own.
    Note {
        /// The name of the task.
        task: String,
        /// What it tells.
        note: N,
    },
}

/// Sees every [`Event`]; `Break` stops the run at the next safe point.
pub type Observe<'o, N> = &'o mut dyn FnMut(&Event<N>) -> ControlFlow<()>;

/// Takes events from learners and methods to the observer, and remembers the wish to stop.
pub struct Reporter<'o, N> {
    observe: Observe<'o, N>,
    is_stopped: bool,
}

impl<N> std::fmt::Debug for Reporter<'_, N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("is_stopped", &self.is_stopped).finish_non_exhaustive()
    }
}

impl<'o, N> Reporter<'o, N> {
    /// Tells everything to `observe`.
    pub fn new(observe: Observe<'o, N>) -> Self {
        Self { observe, is_stopped: false }
    }

    /// Passes an event on.
    pub fn tell(&mut self, event: Event<N>) {
        self.is_stopped |= (self.observe)(&event).is_break();
    }

    /// Stops the run as if the observer had asked for it.
    pub(crate) fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// Whether the observer has asked to stop: a learner then returns `None` from what it cannot finish soon.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }
}
