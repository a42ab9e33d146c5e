//! The loss curve of a pre-training.

use crate::files::read_to_string;
use anyhow::Result;
use std::path::Path;

/// The loss curve as CSV: step, mean training loss since the line before, validation loss of each task.
pub(super) struct Curve {
    text: String,
}

impl Curve {
    /// What is on disk of it up to a step; `tasks` are those whose validation loss is watched.
    pub(super) fn read(path: &Path, step: usize, tasks: &[&str]) -> Result<Self> {
        let mut text = format!("step,loss,{}\n", tasks.join(","));
        if step > 0 && path.exists() {
            let old = read_to_string(path)?;
            let is_kept = |line: &&str| {
                line.split(',').next().and_then(|n| n.parse().ok()).is_some_and(|n: usize| n <= step)
            };
            for line in old.lines().skip(1).filter(is_kept) {
                text.push_str(line);
                text.push('\n');
            }
        }
        Ok(Self { text })
    }

    /// A line: the losses after so many steps.
    pub(super) fn add(&mut self, step: usize, loss: f64, watched: &[f64]) {
        let losses: Vec<String> =
            std::iter::once(loss).chain(watched.iter().copied()).map(|l| format!("{l:.4}")).collect();
        self.text.push_str(&format!("{step},{}\n", losses.join(",")));
    }

    /// The whole curve.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}
