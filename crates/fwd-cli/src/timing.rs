//! Where the time of a run went. Kept apart from the metrics, which are the same for every run of one configuration.

use crate::files::{read_json, write_json};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Seconds, added up over all sessions of a run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Timing {
    /// How often the run was started or taken up again.
    pub(crate) sessions: u32,
    /// Everything.
    pub(crate) total: f64,
    /// The frozen pass.
    pub(crate) frozen: f64,
    /// Training steps.
    pub(crate) training: f64,
    /// The projected optimiser within them.
    pub(crate) optimiser: f64,
    /// Answers and scores.
    pub(crate) scoring: f64,
}

impl Timing {
    /// That of the sessions so far; nothing if there is no readable file.
    pub(crate) fn read(path: &Path) -> Self {
        read_json(path).unwrap_or_default()
    }

    /// Writes the sum of the sessions so far and this one.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn write_sum(&self, before: &Self, path: &Path) -> Result<()> {
        let sum = Self {
            sessions: before.sessions + 1,
            total: before.total + self.total,
            frozen: before.frozen + self.frozen,
            training: before.training + self.training,
            optimiser: before.optimiser + self.optimiser,
            scoring: before.scoring + self.scoring,
        };
        write_json(path, &sum)
    }
}
