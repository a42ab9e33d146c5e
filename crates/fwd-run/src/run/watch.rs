//! The loop's events as progress, remarks, log lines and seconds.

use super::losses::{LossLog, LossPoint};
use super::timing::Timing;
use crate::observer::{Observer, Progress};
use fwd_adapters::LoraNote;
use fwd_continual::{Event, Moment};
use fwd_prompt::PromptNote;
use std::fmt::Write;
use std::time::Instant;

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
            Self::Started { block, scores } => {
                let scores: Vec<String> =
                    scores.iter().map(|(task, score)| format!("{task} {score:.3}")).collect();
                let from =
                    block.as_ref().map_or("normal numbers".to_owned(), |block| format!("those of {block}"));
                tracing::info!("prompts of {task} begin with {from}; library: {}", scores.join(", "));
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

impl Remark for LoraNote {
    fn log(&self, task: &str) {
        match self {
            Self::NothingAllowed { n_maps, of } => tracing::warn!(
                "{task}: of {n_maps} of {of} adapted maps the rule leaves nothing to change; fewer directions a task (subspace.task_energy, \
                 subspace.pretrained_energy, subspace.max_rank) leave more"
            ),
            Self::Interference(found) => {
                let worst = found.iter().filter(|of| of.forbidden).map(|of| of.leakage).fold(0.0, f64::max);
                if !found.is_empty() {
                    tracing::info!("{task}: at most {worst:.1e} of an adapter lies in a forbidden subspace");
                }
            }
            _ => {}
        }
    }
}

impl Remark for () {
    fn log(&self, _task: &str) {}
}

/// What a run of the loop has before it.
pub(super) struct Ahead {
    /// The names of the tasks, in the order in which they are learnt.
    pub(super) tasks: Vec<String>,
    /// The training samples of each, to which its steps are in proportion.
    pub(super) n_samples: Vec<usize>,
    /// Whether each task has the same number of steps instead.
    pub(super) has_fixed_steps: bool,
    /// The columns of the matrix of scores.
    pub(super) n_columns: usize,
}

/// Seconds of something that happens again and again.
#[derive(Default)]
struct Mean {
    sum: f64,
    n: usize,
}

impl Mean {
    fn add(&mut self, seconds: f64) {
        self.sum += seconds;
        self.n += 1;
    }

    fn get(&self) -> f64 {
        self.sum / self.n.max(1) as f64
    }
}

/// Follows one run of the loop.
pub(super) struct Watch<'o> {
    observer: &'o dyn Observer,
    ahead: Ahead,
    /// Seconds of a step and of a score.
    step: Mean,
    score: Mean,
    /// The task that was learnt last and its number of steps.
    learnt: Option<(usize, usize)>,
    /// When the last event came.
    last: Instant,
    /// What is shown: a phase of a task, its name, and how far it is.
    shown: Option<(&'static str, String, Box<dyn Progress + 'o>)>,
    losses: LossLog,
    /// Scores of the row that is being filled, ready to be shown.
    row: String,
    n_scored: usize,
}

impl<'o> Watch<'o> {
    /// So many scores of the matrix' current row are known; losses are added to a file.
    pub(super) fn new(ahead: Ahead, n_scored: usize, losses: LossLog, observer: &'o dyn Observer) -> Self {
        let (step, score, last) = (Mean::default(), Mean::default(), Instant::now());
        let (learnt, shown, row) = (None, None, String::new());
        Self { observer, ahead, step, score, learnt, last, shown, losses, row, n_scored }
    }

    /// Takes note of an event.
    pub(super) fn see<N: Remark>(&mut self, event: &Event<N>, timing: &mut Timing) {
        let since_last = std::mem::replace(&mut self.last, Instant::now()).elapsed().as_secs_f64();
        match event {
            Event::Examined { task, done, of } => self.show("subspace", task, *done, *of),
            Event::Remembered { task, done, of } => self.show("sensitivity", task, *done, *of),
            Event::NoSamples { task } => {
                tracing::warn!("task {task} has no training samples; it is only scored")
            }
            Event::Step { task, step, of, loss, grad_norm, seconds, optimiser_seconds, .. } => {
                timing.training += seconds;
                timing.optimiser += optimiser_seconds;
                self.step.add(*seconds);
                self.learnt = self.ahead.tasks.iter().position(|name| name == task).map(|at| (at, *of));
                let (task_name, loss, grad_norm) = (task.clone(), *loss, *grad_norm);
                self.losses.add(&LossPoint { task: task_name, step: *step, of: *of, loss, grad_norm });
                self.show("learning", task, *step, *of);
                let text = format!("learning {task}{}, loss {loss:.3}", self.place(task, *step, *of));
                if let Some((_, _, progress)) = &self.shown {
                    progress.say(&text);
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
            Event::Scored { moment, task, score } => {
                self.score.add(since_last);
                self.scored(*moment, task, *score);
            }
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
        if self.n_scored == self.ahead.n_columns {
            let left = self.left_after_row(after).map_or_else(String::new, |left| format!("  ({left} left)"));
            self.observer.note(&format!("after {after}:{}{left}", self.row));
            (self.row, self.n_scored) = (String::new(), 0);
        }
    }

    /// Which task of how many it is, and about how long the whole run takes from here; empty for a single task.
    fn place(&self, task: &str, step: usize, of: usize) -> String {
        let n = self.ahead.tasks.len();
        let Some(at) = self.ahead.tasks.iter().position(|other| other == task).filter(|_| n > 1) else {
            return String::new();
        };
        let steps = (of - step.min(of)) as f64 + self.steps_after(at, of);
        let scores = (n - at) * self.ahead.n_columns;
        let seconds = self.step.get() * steps + self.score.get() * scores as f64;
        format!(" ({} of {n}, {} in all)", at + 1, span(seconds))
    }

    /// About how long the rest of the run takes when a row of scores is full; none while no step was seen.
    fn left_after_row(&self, n_learnt: usize) -> Option<String> {
        let n_left = self.ahead.tasks.len().checked_sub(n_learnt).filter(|&n| n > 0)?;
        let (at, of) = self.learnt?;
        let training = self.step.get() * self.steps_after(at, of);
        let scoring = self.score.get() * (n_left * self.ahead.n_columns) as f64;
        Some(span(training + scoring))
    }

    /// About how many steps follow after the task at `at`, which has `of`.
    fn steps_after(&self, at: usize, of: usize) -> f64 {
        let later = &self.ahead.n_samples[at + 1..];
        if self.ahead.has_fixed_steps {
            return (of * later.len()) as f64;
        }
        let per_sample = of as f64 / self.ahead.n_samples[at].max(1) as f64;
        per_sample * later.iter().sum::<usize>() as f64
    }
}

/// A span of time for people to read.
fn span(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match minutes {
        0..2 => format!("{seconds:.0} s"),
        2..120 => format!("{minutes} min"),
        _ => format!("{} h {:02} min", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::Silent;
    use crate::run::RunPaths;

    #[test]
    fn the_time_that_is_left_counts_later_tasks_and_their_scores() {
        let ahead = Ahead {
            tasks: vec!["a".into(), "b".into(), "c".into()],
            n_samples: vec![10, 20, 30],
            has_fixed_steps: false,
            n_columns: 3,
        };
        let dir = tempfile::tempdir().unwrap();
        let losses = LossLog::open(&RunPaths::new(dir.path()), |_, _| true).unwrap();
        let mut watch = Watch::new(ahead, 0, losses, &Silent);
        watch.step.add(10.0);
        watch.score.add(100.0);
        // 4 steps of its own, 5 · (20 + 30) / 10 of the others, and three rows of three scores.
        assert_eq!(watch.place("a", 1, 5), " (1 of 3, 20 min in all)");
        assert_eq!(watch.left_after_row(3), None);
        assert_eq!(watch.left_after_row(1), None);
        watch.learnt = Some((0, 5));
        // 25 steps and six scores to come.
        assert_eq!(watch.left_after_row(1).as_deref(), Some("14 min"));
        assert_eq!(watch.place("other", 1, 5), "");
        assert_eq!([span(59.0), span(7500.0)], ["59 s", "2 h 05 min"]);
    }
}
