//! Experience replay (Chaudhry et al. 2019): some samples of learnt tasks stay in a buffer and are learnt again along with new ones.

use super::buffer::{BufferPolicy, drawn, updated};
use super::interface::{Method, StepAt, TaskView};
use crate::curriculum::{StoredSample, TaskInfo};
use crate::error::Failure;
use crate::plan::Plan;
use crate::saved::{Section, SectionError};
use crate::streams::stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Experience replay: `round(batch_share · batch_size)` samples of every batch come from a buffer of old ones, so a batch stays as
/// large as without replay and an epoch takes more steps (set `training.steps` for equal budgets).
///
/// The buffer holds places in the [`Curriculum`](crate::Curriculum), whose samples are the caller's; it takes up a task when that is
/// learnt, and is empty during the first one. A step draws its old samples without repetition, all of them if there are fewer. What
/// an old sample trains is the learner's choice.
///
/// # Source
/// Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning". There a batch of new samples is joined by as many old
/// ones; here the share is chosen and the batch does not grow.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayConfig {
    /// Samples that the buffer holds at most, of all tasks together.
    pub size: usize,
    /// The share of old samples in a batch, in (0, 1).
    pub batch_share: f64,
    /// Which samples it holds.
    pub policy: BufferPolicy,
}

impl Default for ReplayConfig {
    fn default() -> Self {
        Self { size: 100, batch_share: 0.5, policy: BufferPolicy::default() }
    }
}

impl ReplayConfig {
    fn n_old(&self, batch_size: usize) -> usize {
        (self.batch_share * batch_size as f64).round() as usize
    }
}

/// Experience replay with its buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    config: ReplayConfig,
    buffer: Vec<StoredSample>,
}

impl Replay {
    /// An empty buffer.
    pub fn new(config: ReplayConfig) -> Self {
        Self { config, buffer: Vec::new() }
    }
}

impl Method for Replay {
    fn name(&self) -> &'static str {
        "replay"
    }

    fn about(&self) -> &'static str {
        "samples of older tasks from a buffer among the new ones"
    }

    fn options(&self) -> Value {
        json!(self.config)
    }

    fn check(&self, plan: &Plan) -> Result<(), String> {
        let (share, batch) = (self.config.batch_share, plan.batch_size);
        let n_old = self.config.n_old(batch);
        Err(if self.config.size == 0 {
            "method.replay.size is 0, must be at least 1".to_owned()
        } else if !(share > 0.0 && share < 1.0) {
            format!("method.replay.batch_share is {share}, must be above 0 and below 1")
        } else if n_old == 0 || n_old >= batch {
            format!(
                "method.replay.batch_share is {share}: a batch of {batch} would have {n_old} old samples, but must \
                 have at least one old and one new"
            )
        } else {
            return Ok(());
        })
    }

    fn n_rehearsed(&self, plan: &Plan) -> usize {
        self.config.n_old(plan.batch_size).min(self.buffer.len())
    }

    fn rehearsed(&self, step: &StepAt<'_>) -> Vec<StoredSample> {
        let n = self.n_rehearsed(step.plan);
        let mut rng = stream(step.plan.seed, "replay", [step.task.number() as u64, step.step as u64]);
        drawn(&mut rng, &self.buffer, n)
    }

    fn remember(&mut self, task: &mut TaskView<'_>) -> Result<Option<()>, Failure> {
        let ReplayConfig { size, policy, .. } = self.config;
        self.buffer = updated((size, policy), &self.buffer, task);
        Ok(Some(()))
    }

    fn stored_samples(&self) -> &[StoredSample] {
        &self.buffer
    }

    fn save(&self, section: &mut Section) {
        section.save_samples("buffer", &self.buffer);
    }

    fn load(&mut self, section: &Section, tasks: &[TaskInfo]) -> Result<(), SectionError> {
        self.buffer = section.load_samples("buffer", tasks)?;
        Ok(())
    }
}
