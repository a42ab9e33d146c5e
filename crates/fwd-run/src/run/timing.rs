//! Where the time of a run went. Kept apart from the metrics, which are the same for every run of one configuration.

use crate::files::{read_json, write_json};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Seconds and counts, added up over all sessions of a run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// How often the run was started or taken up again.
    pub sessions: u32,
    /// From beginning to end, loading of the model excluded.
    pub total: f64,
    /// Loading what is kept of the frozen pass, and computing the rest.
    pub frozen: f64,
    /// Training steps, the optimiser included.
    pub training: f64,
    /// The projected optimiser within them.
    pub optimiser: f64,
    /// Generating answers and scoring them.
    pub scoring: f64,
    /// How many answers were scored; 0 under `finetune`, whose answers are not counted.
    pub answers: u64,
    /// Those of them that were not generated, because nothing in front of their batch had changed since it was asked last.
    pub repeated: u64,
}

impl Timing {
    /// That of the sessions so far; nothing if there is no readable file.
    pub fn read(path: &Path) -> Self {
        read_json(path).unwrap_or_default()
    }

    /// Writes the sum of the sessions so far and this one.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_sum(&self, before: &Self, path: &Path) -> Result<()> {
        let sum = Self {
            sessions: before.sessions + 1,
            total: before.total + self.total,
            frozen: before.frozen + self.frozen,
            training: before.training + self.training,
            optimiser: before.optimiser + self.optimiser,
            scoring: before.scoring + self.scoring,
            answers: before.answers + self.answers,
            repeated: before.repeated + self.repeated,
        };
        write_json(path, &sum)
    }
}
