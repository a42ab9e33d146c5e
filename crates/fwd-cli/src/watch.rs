//! The trainer's events as progress bars, remarks, log lines and seconds.

use crate::progress::{self, Bar};
use crate::timing::Timing;
use fwd_prompt::Event;
use std::fmt::Write;

/// Follows one run of the trainer.
pub(crate) struct Watch {
    /// What the bar shows: a phase and a task.
    bar: Option<(&'static str, String, Bar)>,
    n_columns: usize,
    /// Scores of the row that is being filled, ready to be shown.
    row: String,
    n_scored: usize,
}

impl Watch {
    /// A matrix of so many columns, of whose current row so many scores are known.
    pub(crate) fn new(n_columns: usize, n_scored: usize) -> Self {
        Self { bar: None, n_columns, row: String::new(), n_scored }
    }

    /// Takes note of an event.
    pub(crate) fn see(&mut self, event: &Event, timing: &mut Timing) {
        match event {
            Event::Embedded { task, done, of } => self.show("subspace", task, *done, *of),
            Event::Fisher { task, done, of } => self.show("sensitivity", task, *done, *of),
            Event::Subspace { task, n_rows, rank, captured_before, captured, capacity_left } => {
                self.bar = None;
                tracing::info!(
                    "subspace of {task}: {rank} directions of {n_rows} embeddings, energy {captured_before:.3} -> \
                     {captured:.3}, {capacity_left} directions left"
                );
            }
            Event::CapacityExhausted { task } => {
                tracing::warn!("after {task} no direction is left: later tasks get no subspace of their own");
            }
            Event::NoSamples { task } => {
                tracing::warn!("task {task} has no training samples; it is only scored")
            }
            Event::NothingAllowed { task } => {
                tracing::warn!("the rule leaves nothing to change for {task}; only its keys learn");
            }
            Event::Step { task, step, of, loss, grad_norm, seconds, optimiser_seconds, .. } => {
                timing.training += seconds;
                timing.optimiser += optimiser_seconds;
                self.show("learning", task, *step, *of);
                if let Some((_, _, bar)) = &self.bar {
                    bar.say(format!("learning {task}, loss {loss:.3}"));
                }
                tracing::debug!("{task} step {step}/{of}: loss {loss:.4}, gradient {grad_norm:.3e}");
            }
            Event::Learnt { task, interference, optimiser_share } => {
                self.bar = None;
                let forbidden = interference.iter().filter(|i| i.forbidden).map(|i| i.leakage);
                let leakage = forbidden.fold(0.0, f64::max);
                tracing::info!(
                    "learnt {task}: leakage {leakage:.1e}, {:.2} % of the steps is the projected optimiser",
                    100.0 * optimiser_share
                );
            }
            Event::Scored { after, task, score } => self.scored(*after, task, *score),
            Event::Saved { path } => tracing::debug!("saved {}", path.display()),
            _ => {}
        }
    }

    fn show(&mut self, phase: &'static str, task: &str, done: usize, of: usize) {
        let is_shown = self.bar.as_ref().is_some_and(|(p, t, _)| *p == phase && t == task);
        if !is_shown {
            // The old bar goes before the new one comes.
            self.bar = None;
            self.bar = Some((phase, task.to_owned(), progress::bar(format!("{phase} {task}"), of)));
        }
        if let Some((_, _, bar)) = &self.bar {
            bar.set(done);
        }
        if done == of {
            self.bar = None;
        }
    }

    fn scored(&mut self, after: usize, task: &str, score: f64) {
        tracing::info!("after {after} tasks, {task}: {score:.2}");
        let _ = write!(self.row, "  {task} {score:.1}");
        self.n_scored += 1;
        if self.n_scored == self.n_columns {
            progress::note(&format!("after {after}:{}", self.row));
            (self.row, self.n_scored) = (String::new(), 0);
        }
    }
}
