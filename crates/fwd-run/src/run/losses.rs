//! The loss of every training step: `losses.jsonl`, one JSON object a line.
//!
//! Lines are only ever added, at once after each step. A run that was killed goes on from its last saved state and trains some steps
//! a second time, with the same result; of such a step the last line counts. A line that a killed process has not finished is no line.

use super::paths::RunPaths;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
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
        let place = tasks.iter().position(|(name, _)| *name == point.task).unwrap_or(tasks.len());
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
    /// Opens the file of a run, and takes an unfinished last line away.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn open(paths: &RunPaths) -> Result<Self> {
        let path = paths.losses();
        let open = OpenOptions::new().create(true).read(true).append(true).open(&path);
        let ready = open.and_then(|mut file| cut_unfinished(&mut file).map(|()| file));
        let file = ready.with_context(|| format!("cannot write {}", path.display()))?;
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

/// Cuts a file off behind its last line end.
fn cut_unfinished(file: &mut File) -> std::io::Result<()> {
    /// Longer than any line.
    const TAIL: u64 = 1 << 16;
    let len = file.metadata()?.len();
    let start = len.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    (&mut *file).take(TAIL).read_to_end(&mut tail)?;
    let kept = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end as u64 + 1);
    if start + kept < len { file.set_len(start + kept) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(task: &str, step: usize, loss: f64) -> LossPoint {
        LossPoint { task: task.to_owned(), step, of: 3, loss, grad_norm: 1.0 }
    }

    #[test]
    fn a_step_that_was_trained_twice_counts_once_and_a_torn_line_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let paths = RunPaths::new(dir.path());
        assert_eq!(read_losses(dir.path()).unwrap(), Vec::<Vec<LossPoint>>::new());
        let mut log = LossLog::open(&paths).unwrap();
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
        let mut log = LossLog::open(&paths).unwrap();
        log.add(&point("b", 2, 2.5));
        let found = read_losses(dir.path()).unwrap();
        assert_eq!(found, [vec![point("b", 1, 3.0), point("b", 2, 2.5)], vec![point("a", 1, 9.0)]]);
        torn("no JSON\n");
        let message = format!("{:#}", read_losses(dir.path()).unwrap_err());
        assert!(message.contains("losses.jsonl, line 5, is damaged"), "{message}");
    }
}
