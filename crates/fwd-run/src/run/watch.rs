//! The loop's events as progress, remarks, log lines and seconds.

use super::losses::{LossLog, LossPoint};
use super::timing::Timing;
use crate::observer::{Observer, Progress};
use fwd_continual::{Event, Moment};
use fwd_prompt::PromptNote;
use std::fmt::Write;

/// What a learner tells of its own, as lines of the log.
pub(super) trait Remark {
    /// Logs what it tells of a task.
    fn log(&self, task: &str);
}

impl Remark for PromptNote {
    fn log(&self, task: &str) {
        match self {
            Self::Subspace { n_rows, rank, captured_before, captured, capacity_left } => tracing::info!(
                "subspace of {task}: {rank} directions of {n_rows} embeddings, energy {captured_before:.3} -> \
                 {captured:.3}, {capacity_left} directions left"
            ),
            Self::CapacityExhausted => {
                tracing::warn!("after {task} no direction is left: later tasks get no subspace of their own");
            }
            Self::NothingAllowed => {
                tracing::warn!("the rule leaves nothing to change for {task}; only its keys learn");
            }
            Self::Interference(interference) => {
                let forbidden = interference.iter().filter(|i| i.forbidden).map(|i| i.leakage);
                tracing::info!("interference of {task}: leakage {:.1e}", forbidden.fold(0.0, f64::max));
            }
            _ => {}
        }
    }
}

impl Remark for () {
    fn log(&self, _task: &str) {}
}

/// Follows one run of the loop.
pub(super) struct Watch<'o> {
    observer: &'o dyn Observer,
    /// What is shown: a phase of a task, its name, and how far it is.
    shown: Option<(&'static str, String, Box<dyn Progress + 'o>)>,
    losses: LossLog,
    n_columns: usize,
    /// Scores of the row that is being filled, ready to be shown.
    row: String,
    n_scored: usize,
}

impl<'o> Watch<'o> {
    /// A matrix of so many columns, of whose current row so many scores are known; losses are added to a file.
    pub(super) fn new(
        (n_columns, n_scored): (usize, usize),
        losses: LossLog,
        observer: &'o dyn Observer,
    ) -> Self {
        Self { observer, shown: None, losses, n_columns, row: String::new(), n_scored }
    }

    /// Takes note of an event.
    pub(super) fn see<N: Remark>(&mut self, event: &Event<N>, timing: &mut Timing) {
        match event {
            Event::Examined { task, done, of } => self.show("subspace", task, *done, *of),
            Event::Remembered { task, done, of } => self.show("sensitivity", task, *done, *of),
            Event::NoSamples { task } => {
                tracing::warn!("task {task} has no training samples; it is only scored")
            }
            Event::Step { task, step, of, loss, grad_norm, seconds, optimiser_seconds, .. } => {
                timing.training += seconds;
                timing.optimiser += optimiser_seconds;
                let (task_name, loss, grad_norm) = (task.clone(), *loss, *grad_norm);
                self.losses.add(&LossPoint { task: task_name, step: *step, of: *of, loss, grad_norm });
                self.show("learning", task, *step, *of);
                if let Some((_, _, progress)) = &self.shown {
                    progress.say(&format!("learning {task}, loss {loss:.3}"));
                }
                tracing::debug!("{task} step {step}/{of}: loss {loss:.4}, gradient {grad_norm:.3e}");
            }
            Event::Learnt { task, optimiser_share, note } => {
                self.shown = None;
                note.log(task);
                tracing::info!(
                    "learnt {task}: {:.2} % of the steps is the optimiser",
                    100.0 * optimiser_share
                );
            }
            Event::Scored { moment, task, score } => self.scored(*moment, task, *score),
            Event::Saved { path } => tracing::debug!("saved {}", path.display()),
            Event::Note { task, note } => {
                self.shown = None;
                note.log(task);
            }
            _ => {}
        }
    }

    fn show(&mut self, phase: &'static str, task: &str, done: usize, of: usize) {
        let is_shown = self.shown.as_ref().is_some_and(|(p, t, _)| *p == phase && t == task);
        if !is_shown {
            // The old work ends before the new one begins.
            self.shown = None;
            let progress = self.observer.begin(&format!("{phase} {task}"), of);
            self.shown = Some((phase, task.to_owned(), progress));
        }
        if let Some((_, _, progress)) = &self.shown {
            progress.set(done);
        }
        if done == of {
            self.shown = None;
        }
    }

    fn scored(&mut self, moment: Moment, task: &str, score: f64) {
        let after = moment.n_learnt();
        tracing::info!("after {after} tasks, {task}: {score:.2}");
        let _ = write!(self.row, "  {task} {score:.1}");
        self.n_scored += 1;
        if self.n_scored == self.n_columns {
            self.observer.note(&format!("after {after}:{}", self.row));
            (self.row, self.n_scored) = (String::new(), 0);
        }
    }
}
