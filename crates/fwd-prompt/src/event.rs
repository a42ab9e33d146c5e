//! What a run tells while it goes on: a typed stream that a program turns into progress bars, logs and files.

use crate::ledger::Interference;
use serde::Serialize;
use std::path::PathBuf;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A sample's embeddings went into a task's Gram matrix.
    Embedded {
        /// The task.
        task: String,
        /// Samples so far.
        done: usize,
        /// Samples of the task.
        of: usize,
    },
    /// A task has its subspace.
    Subspace {
        /// The task.
        task: String,
        /// Rows of embeddings seen.
        n_rows: u64,
        /// Its directions.
        rank: usize,
        /// The share of its energy that older subspaces held.
        captured_before: f64,
        /// The share that they hold with the new directions.
        captured: f64,
        /// Directions that are still free.
        capacity_left: usize,
    },
    /// All directions belong to tasks now: later ones get no subspace of their own.
    CapacityExhausted {
        /// The task.
        task: String,
    },
    /// A task without samples: it opens no prompts and is not trained, only scored.
    NoSamples {
        /// The task.
        task: String,
    },
    /// The rule leaves nothing to change (neither V_0 nor V_t under `fwd-strict`, or a full space under `residual`): the prompts
    /// stay as they are, only their keys learn.
    NothingAllowed {
        /// The task.
        task: String,
    },
    /// One training step.
    Step {
        /// The task.
        task: String,
        /// From 1.
        step: usize,
        /// Steps of the task.
        of: usize,
        /// The model's loss before the step.
        loss: f64,
        /// The key term of the loss.
        key_loss: f64,
        /// The method's penalty on the change of the prompts; 0 for a method without one.
        penalty: f64,
        /// Norm of the prompt gradient before clipping, the penalty's included.
        grad_norm: f64,
        /// Learning rate of the prompts.
        lr: f64,
        /// Wall time of the step, in seconds.
        seconds: f64,
        /// Wall time of the projected optimiser step in it, in seconds.
        optimiser_seconds: f64,
    },
    /// A sample's gradient went into the Fisher information of a task, whose last step is done.
    Fisher {
        /// The task.
        task: String,
        /// Samples so far.
        done: usize,
        /// Samples that it is made of.
        of: usize,
    },
    /// A task is learnt.
    Learnt {
        /// The task.
        task: String,
        /// How much of the change of the prompts lies in each older subspace.
        interference: Vec<Interference>,
        /// The projected optimiser's share of the time of the steps since the start or the resume.
        optimiser_share: f64,
    },
    /// One entry of the score matrix.
    Scored {
        /// After so many tasks.
        after: usize,
        /// The task that was scored.
        task: String,
        /// Its score, 0–100.
        score: f64,
    },
    /// The state is on disk.
    Saved {
        /// The manifest.
        path: PathBuf,
    },
}
