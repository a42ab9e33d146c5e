//! What becomes of records that cannot be used, and a list of those that were left out.

use crate::error::{DataError, Result};
use serde::{Deserialize, Serialize};

/// What becomes of a record that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBad {
    /// It is an error.
    #[default]
    Refuse,
    /// It is left out, counted and listed; every image is decoded once to find out.
    Skip,
}

/// Records that were left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Skipped {
    /// Number of records.
    pub n_records: usize,
    /// The reasons, one a record; at most 1000.
    pub reasons: Vec<String>,
}

impl Skipped {
    /// Lists a record that is left out, or gives its error back where none may be.
    pub(crate) fn take(&mut self, error: DataError, on_bad: OnBad) -> Result<()> {
        if on_bad == OnBad::Refuse {
            return Err(error);
        }
        self.list(error.with_cause());
        Ok(())
    }

    /// Counts a record that is left out, and keeps the reason while there are not too many.
    pub fn list(&mut self, reason: String) {
        const MOST: usize = 1000;
        self.n_records += 1;
        if self.reasons.len() < MOST {
            self.reasons.push(reason);
        }
    }
}
