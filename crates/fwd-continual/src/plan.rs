//! What the loop itself is told: seed, batches, passes, and how often it saves.

use crate::error::{ContinualError, Result};
use crate::schedule::Schedule;
use serde::{Deserialize, Serialize};

/// How a run goes through its samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Plan {
    /// The seed of every random stream.
    pub seed: u64,
    /// Passes over the samples of a task, each in an order of its own.
    pub epochs: usize,
    /// Exactly so many steps for each task instead, over as many passes as they take.
    pub steps: Option<usize>,
    /// Samples of a step; the last step of an epoch may have fewer.
    pub batch_size: usize,
    /// The factor that the learner multiplies its learning rates with.
    pub schedule: Schedule,
    /// The state is saved every so many steps, and after each stage in any case; 0: after each stage only. It changes nothing that
    /// is computed, and is no part of a saved state.
    #[serde(skip)]
    pub save_every: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self { seed: 0, epochs: 8, steps: None, batch_size: 16, schedule: Schedule::default(), save_every: 0 }
    }
}

impl Plan {
    /// Refuses values that cannot be.
    ///
    /// # Errors
    /// [`ContinualError::Config`].
    pub fn check(&self) -> Result<()> {
        if self.batch_size == 0 {
            return Err(ContinualError::Config("batch_size is 0, must be at least 1".to_owned()));
        }
        Ok(())
    }
}
