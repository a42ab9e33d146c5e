//! What a benchmark consists of: tasks, their splits and stages, and the records of each.

use fwd_eval::Metric;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// Part of a task's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What is learnt from.
    Train,
    /// What choices are made by.
    Val,
    /// What is reported.
    Test,
}

/// When a task is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Before the backbone is frozen.
    Pretraining,
    /// Afterwards, in a sequence.
    Downstream,
}

/// One question about one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The split it belongs to.
    pub split: Split,
    /// Its name in the file that it was first read from; none if it had none.
    pub id: Option<String>,
    /// Key of the image, `folder/name`.
    pub image: String,
    /// What the model is asked.
    pub instruction: String,
    /// What is right; the first is the training target. Of a multiple choice whose options the instruction lists, the letter and the
    /// text of the right one are among them.
    pub answers: Vec<String>,
}

/// A task with all its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchTask {
    /// Short name: lower-case letters, digits and hyphens.
    pub name: String,
    /// What the task is about.
    pub title: String,
    /// When it is learnt.
    pub stage: Stage,
    /// How its answers are scored.
    pub metric: Metric,
    /// Whether its pictures were drawn or arranged by a program.
    pub synthetic: bool,
    /// Place in the default downstream sequence; none for a task outside it.
    pub order: Option<u32>,
    /// The records, in the order of the file.
    pub records: Vec<Record>,
}

impl BenchTask {
    /// The records of one split, in the order of the file.
    pub fn split(&self, split: Split) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.split == split)
    }

    /// The names of the records of one split, by which predictions are told apart: their own, or [`record_name`].
    pub fn ids(&self, split: Split) -> impl Iterator<Item = String> {
        self.split(split).enumerate().map(move |(i, record)| match &record.id {
            Some(id) => id.clone(),
            None => record_name(&self.name, split, i),
        })
    }
}

impl Split {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

/// The name of the record of this number, from 0, of a task's split: `TASK/SPLIT/NUMBER`.
pub fn record_name(task: &str, split: Split, number: usize) -> String {
    format!("{task}/{}/{number}", split.name())
}

/// SHA-256 of some content; displayed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The hash of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
