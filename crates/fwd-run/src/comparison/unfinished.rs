//! A run that is not finished, read from its directory: how far it is, and its scores so far.

use crate::method::Method;
use crate::run::{Manifest, RunPaths, Timing, place_of};
use anyhow::{Context, Result};
use fwd_continual::{LoopState, SavedState, ScoreMatrix, Stage};
use std::path::{Path, PathBuf};

/// A run that is not finished.
#[derive(Debug)]
pub struct UnfinishedRun {
    /// The run directory.
    pub dir: PathBuf,
    /// Configuration, hashes, program and machine.
    pub manifest: Manifest,
    /// Its seconds so far; zeros if there is no readable file of them.
    pub timing: Timing,
    /// The scores so far: one row a moment, one column a task, and of pre-training one more; no row where nothing was saved yet, and
    /// none under methods whose loop does not score each task (`joint`, `zero-shot`).
    pub scores: ScoreMatrix,
    /// For each task, whether it was learnt and scored.
    pub is_finished: Vec<bool>,
    /// What the run would do next, in words.
    pub place: String,
}

impl UnfinishedRun {
    /// Reads a run directory without a result.
    ///
    /// # Errors
    /// If it is none, or if its saved state is damaged or of another version.
    pub fn read(dir: &Path) -> Result<Self> {
        let manifest = Manifest::read(dir)?;
        let paths = RunPaths::new(dir);
        let timing = Timing::read(&paths.timing());
        let tasks = &manifest.run.config.tasks;
        let mut scores = ScoreMatrix { n_tasks: tasks.len(), rows: Vec::new() };
        let mut is_finished = vec![false; tasks.len()];
        let mut place = None;
        match manifest.run.config.method {
            Method::Independent => {
                for (task, is_finished) in tasks.iter().zip(&mut is_finished) {
                    let Some(state) = state(&paths, Some(task))? else { break };
                    scores.rows.resize(2, Vec::new());
                    for (row, of_task) in scores.rows.iter_mut().zip(&state.scores.rows) {
                        row.extend(of_task.first());
                    }
                    *is_finished = state.stage == Stage::Done;
                    place = Some(place_of(&state.stage, std::slice::from_ref(task)));
                }
            }
            // Its loop knows all tasks as one.
            Method::Joint => {
                place = state(&paths, None)?.map(|s| place_of(&s.stage, &["all tasks".to_owned()]))
            }
            Method::ZeroShot => {
                let answered = tasks.iter().map(|task| paths.answers(0, task).is_file());
                is_finished = answered.collect();
            }
            _ => {
                if let Some(state) = state(&paths, None)? {
                    let (n_columns, rows) = (tasks.len(), &state.scores.rows);
                    for (t, is_finished) in is_finished.iter_mut().enumerate() {
                        *is_finished = rows.get(t + 1).is_some_and(|row| row.len() >= n_columns);
                    }
                    place = Some(place_of(&state.stage, tasks));
                    scores = state.scores;
                }
            }
        }
        let place = place.unwrap_or_else(|| "the beginning: nothing is saved yet".to_owned());
        Ok(Self { dir: dir.to_path_buf(), manifest, timing, scores, is_finished, place })
    }

    /// How many tasks were learnt and scored.
    pub fn n_finished(&self) -> usize {
        self.is_finished.iter().filter(|is_finished| **is_finished).count()
    }
}

/// What the loop saved in a run directory, if it saved anything.
fn state(paths: &RunPaths, task: Option<&str>) -> Result<Option<LoopState>> {
    let dir = paths.state(task);
    if !SavedState::exists(&dir) {
        return Ok(None);
    }
    let failed = || format!("cannot tell how far {} is", paths.dir().display());
    let state = SavedState::load(&dir).with_context(failed)?;
    LoopState::of(&state).with_context(failed).map(Some)
}
