//! What a benchmark consists of: tasks, their splits and stages, and the records of each.

use fwd_eval::Metric;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// Part of a task's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The records that a task is learnt from.
    Train,
    /// The records by which choices such as the step size are made.
    Val,
    /// The records whose scores are reported.
    Test,
}

/// When a task is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The task is learnt before the backbone is frozen.
    Pretraining,
    /// The task is learnt afterwards, as one of a sequence.
    Downstream,
}

/// One question about one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The split that the record belongs to.
    pub split: Split,
    /// The name of the record in the file that it was first read from; none if it had none.
    pub id: Option<String>,
    /// The key of the image, `folder/name`.
    pub image: String,
    /// What the model is asked.
    pub instruction: String,
    /// The right answers, of which the first is the training target. For a multiple choice whose options the instruction lists, they
    /// hold the letter and the text of the right option.
    pub answers: Vec<String>,
}

/// A task with all its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchTask {
    /// Short name: lower-case letters, digits and hyphens.
    pub name: String,
    /// What the task is about, in a few words for people to read.
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
    /// The name of the split in files: `train`, `val` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

/// The name of a record that has none of its own, `TASK/SPLIT/NUMBER`; numbers count from 0 in each split.
pub fn record_name(task: &str, split: Split, number: usize) -> String {
    format!("{task}/{}/{number}", split.name())
}

/// The SHA-256 of some content, displayed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub(super) [u8; 32]);

impl ContentHash {
    /// The hash of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest as 32 bytes.
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
