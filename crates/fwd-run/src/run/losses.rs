//! The loss of every training step: `losses.jsonl`, one JSON object a line.
//!
//! A line is added at once after each step. A run that was killed goes on from its last saved state and trains some steps a second time;
//! their lines are taken away first, so that the file ends as that of an unbroken run.

use super::paths::RunPaths;
use crate::files::write_atomically;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// The largest file that is read: some 10 million steps.
const MAX_BYTES: u64 = 1 << 30;

/// A training step with its loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossPoint {
    /// The name of the task; under the method `joint` all of them are one.
    pub task: String,
    /// The number of the step within the task, from 1.
    pub step: usize,
    /// Steps of the task.
    pub of: usize,
    /// The mean cross entropy over the labels of the step's samples, before the step, in nats.
    pub loss: f64,
    /// The norm of the gradient before clipping.
    pub grad_norm: f64,
}

/// The losses of a run by task, in the order in which the tasks were learnt, each by step; nothing for a run without the file.
///
/// # Errors
/// That names the damaged line, or says that the file is too large.
pub fn read_losses(dir: &Path) -> Result<Vec<Vec<LossPoint>>> {
    let path = RunPaths::new(dir).losses();
    if !path.exists() {
        return Ok(Vec::new());
    }
    let failed = || format!("cannot read {}", path.display());
    let text = fwd_files::read_to_string(&path, MAX_BYTES).with_context(failed)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut tasks: Vec<(String, BTreeMap<usize, LossPoint>)> = Vec::new();
    for (i, line) in whole.lines().enumerate() {
        let point: LossPoint = serde_json::from_str(line)
            .with_context(|| format!("{}, line {}, is damaged; delete the file", path.display(), i + 1))?;
        // Steps of a task follow one another, so the last one is found first.
        let place = tasks.iter().rposition(|(name, _)| *name == point.task).unwrap_or(tasks.len());
        if place == tasks.len() {
            tasks.push((point.task.clone(), BTreeMap::new()));
        }
        tasks[place].1.insert(point.step, point);
    }
    Ok(tasks.into_iter().map(|(_, points)| points.into_values().collect()).collect())
}

/// The file while a run adds to it.
pub(super) struct LossLog {
    /// None after a line could not be written: losses are no reason to stop a run.
    file: Option<File>,
}

impl LossLog {
    /// Opens the file of a run that goes on: lines of steps that are trained again, by task and step, are taken away, and so are those
    /// that nobody can read.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub(super) fn open(paths: &RunPaths, is_kept: impl Fn(&str, usize) -> bool) -> Result<Self> {
        let path = paths.losses();
        if path.exists() {
            let old = fwd_files::read(&path, MAX_BYTES);
            let old = old.with_context(|| format!("cannot read {}", path.display()))?;
            let stands = |line: &&[u8]| {
                line.ends_with(b"\n")
                    && serde_json::from_slice::<LossPoint>(line)
                        .is_ok_and(|point| is_kept(&point.task, point.step))
            };
            let kept = old.split_inclusive(|byte| *byte == b'\n').filter(stands).collect::<Vec<_>>().concat();
            if kept != old {
                write_atomically(&path, &kept)?;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file: Some(file) })
    }

    /// Adds a step.
    pub(super) fn add(&mut self, point: &LossPoint) {
        let Some(file) = &mut self.file else { return };
        let line = serde_json::to_string(point).unwrap_or_default();
        if let Err(error) = file.write_all(format!("{line}\n").as_bytes()) {
            tracing::warn!("{error}: losses from step {} of {} on are not kept", point.step, point.task);
            self.file = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(task: &str, step: usize, loss: f64) -> LossPoint {
        LossPoint { task: task.to_owned(), step, of: 3, loss, grad_norm: 1.0 }
    }

    #[test]
    fn a_step_that_is_trained_again_counts_once_and_a_torn_line_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let paths = RunPaths::new(dir.path());
        assert_eq!(read_losses(dir.path()).unwrap(), Vec::<Vec<LossPoint>>::new());
        let mut log = LossLog::open(&paths, |_, _| true).unwrap();
        for (task, step, loss) in [("b", 1, 3.0), ("b", 2, 2.0), ("a", 1, 9.0)] {
            log.add(&point(task, step, loss));
        }
        let torn = |text: &str| {
            let mut file = OpenOptions::new().append(true).open(paths.losses()).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        torn("{\"task\":\"a\",\"st");
        assert_eq!(read_losses(dir.path()).unwrap().len(), 2);
        // The run goes on from step 1 of `b`.
        let mut log = LossLog::open(&paths, |task, step| task == "b" && step <= 1).unwrap();
        log.add(&point("b", 2, 2.5));
        let found = read_losses(dir.path()).unwrap();
        assert_eq!(found, [vec![point("b", 1, 3.0), point("b", 2, 2.5)]]);
        torn("no JSON\n");
        let message = format!("{:#}", read_losses(dir.path()).unwrap_err());
        assert!(message.contains("losses.jsonl, line 3, is damaged"), "{message}");
    }
}
