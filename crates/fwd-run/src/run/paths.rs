//! The names of the files in a run directory; nobody else spells them.
//!
//! ```text
//! manifest.json       what the run is: configuration, hashes of data and model, program, machine, start, records left out
//! state/              where training goes on
//! predictions/        after-T/TASK.jsonl
//! ranks/              after-T.json: directions of the input embeddings
//! outputs/            TASK.safetensors: what the model said of a task's answers when it was learnt; after-T.json: how far that moved
//! adapters/           of a finished run with adapters: all-tasks/ or TASK/, each in PEFT's format
//! metrics.json, .csv  the result; a run that has it is finished
//! losses.jsonl        the loss of every training step
//! timing.json         seconds
//! log.txt             the log
//! lock                held by the process that works here
//! ```
//! Frozen features lie beside run directories, in `.fwd-cache`, because runs share them.

use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};

/// The folder of frozen features, in the folder that holds run directories or in a model directory.
pub(crate) const CACHE: &str = ".fwd-cache";

const MANIFEST: &str = "manifest.json";
const METRICS_JSON: &str = "metrics.json";
const METRICS_CSV: &str = "metrics.csv";
const LOSSES: &str = "losses.jsonl";
const TIMING: &str = "timing.json";
const LOG: &str = "log.txt";
const LOCK: &str = "lock";
const STATE: &str = "state";
const PREDICTIONS: &str = "predictions";
const PRETRAINING: &str = "pretraining";
const RANKS: &str = "ranks";
const OUTPUTS: &str = "outputs";
const ADAPTERS: &str = "adapters";

/// The files of one run directory, whether or not they are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPaths {
    dir: PathBuf,
}

impl RunPaths {
    /// Those of the run directory `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The run directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the run is ([`Manifest`](super::Manifest)).
    pub fn manifest(&self) -> PathBuf {
        self.dir.join(MANIFEST)
    }

    /// The result ([`RunMetrics`](super::RunMetrics)); it is written last.
    pub fn metrics_json(&self) -> PathBuf {
        self.dir.join(METRICS_JSON)
    }

    /// The same numbers as a table: kind, after, name, value.
    pub fn metrics_csv(&self) -> PathBuf {
        self.dir.join(METRICS_CSV)
    }

    /// The loss of every training step ([`LossPoint`](super::LossPoint)).
    pub fn losses(&self) -> PathBuf {
        self.dir.join(LOSSES)
    }

    /// Where the time went ([`Timing`](super::Timing)).
    pub fn timing(&self) -> PathBuf {
        self.dir.join(TIMING)
    }

    /// What was logged in all sessions of the run.
    pub fn log(&self) -> PathBuf {
        self.dir.join(LOG)
    }

    /// The file whose lock the process holds that works on the run; it names that process.
    pub fn lock(&self) -> PathBuf {
        self.dir.join(LOCK)
    }

    /// The folder where training goes on. Under the method `independent` each task has one of its own, and is named.
    pub fn state(&self, task: Option<&str>) -> PathBuf {
        let state = self.dir.join(STATE);
        task.map_or(state.clone(), |task| state.join(task))
    }

    /// Refuses to begin where an older version of this crate has left weights that this one does not read.
    pub(super) fn refuse_old_parameters(&self) -> Result<()> {
        let path = self.state(None).join("parameters.safetensors");
        ensure!(
            !path.exists(),
            "{} was written by an older version of this program, which this one cannot go on from; to begin the run again, delete {}",
            path.display(),
            self.dir.display()
        );
        Ok(())
    }

    /// The folder of all answers.
    pub fn predictions(&self) -> PathBuf {
        self.dir.join(PREDICTIONS)
    }

    /// The answers to a task's samples when `after` tasks were learnt.
    pub fn answers(&self, after: usize, task: &str) -> PathBuf {
        self.predictions().join(after_name(after)).join(format!("{task}.jsonl"))
    }

    /// The answers to a pre-training task's samples when `after` tasks were learnt.
    pub fn pretraining_answers(&self, after: usize, task: &str) -> PathBuf {
        self.predictions().join(after_name(after)).join(PRETRAINING).join(format!("{task}.jsonl"))
    }

    /// The folder of the ranks of input embeddings.
    pub fn ranks_dir(&self) -> PathBuf {
        self.dir.join(RANKS)
    }

    /// The ranks when `after` tasks were learnt ([`RankStage`](super::RankStage)).
    pub fn ranks(&self, after: usize) -> PathBuf {
        self.ranks_dir().join(format!("{}.json", after_name(after)))
    }

    /// What the model said of a task's answers right after the task was learnt.
    pub(super) fn reference_outputs(&self, task: &str) -> PathBuf {
        self.dir.join(OUTPUTS).join(format!("{task}.safetensors"))
    }

    /// How far the outputs of each older task have moved when `after` tasks were learnt.
    pub(super) fn moved_outputs(&self, after: usize) -> PathBuf {
        self.dir.join(OUTPUTS).join(format!("{}.json", after_name(after)))
    }

    /// The folder of the adapters that were learnt, each a folder in PEFT's format.
    pub fn adapters(&self) -> PathBuf {
        self.dir.join(ADAPTERS)
    }

    /// Where frozen features are kept: in `given`, or beside the run directory.
    pub fn cache(&self, given: Option<&Path>) -> PathBuf {
        match given {
            Some(dir) => dir.to_path_buf(),
            None => self.dir.parent().unwrap_or(Path::new(".")).join(CACHE),
        }
    }

    /// Whether the run is finished: its result is there.
    pub fn is_finished(&self) -> bool {
        self.metrics_json().is_file()
    }

    /// Whether a process that was killed before it wrote the manifest may have left a file of this name.
    pub(super) fn precedes_manifest(name: &str) -> bool {
        name == LOCK || name == LOG
    }
}

/// The name of a moment: after so many tasks.
fn after_name(after: usize) -> String {
    format!("after-{after}")
}
