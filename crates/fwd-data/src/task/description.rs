//! What a task is and where its files are, in TOML.
//!
//! ```toml
//! [[task]]
//! name = "textvqa"
//! kind = "vqa"                                  # vqa, classification, multiple-choice, grounding or caption
//! image_root = "."                              # as all paths, from the folder of this file
//! train = ["TextVQA/train.json", "TextVQA/train_4w.json"]   # the first that is there
//! test = "TextVQA/val.json"
//! references = "TextVQA_0.5.1_val.json"         # answers for val and test, where those files have none
//! prompt = "{instruction}\nAnswer in a word."   # without it the instruction itself
//! scorer = "text-vqa"                           # without it that of the kind
//! ```
//!
//! A `*` in the name of a file stands for all files that fit, one after another: `train-*.parquet`. `name`, `kind` and one of the
//! splits must be there. An unknown key is an error with a suggestion.

use super::format::Format;
use crate::bench::{Metric, Stage};
use crate::error::{DataError, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What one task is, and where its files are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Short name: lower-case letters, digits and hyphens.
    pub name: String,
    /// A line for people to read; without it the name is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The kind of answer that the task asks for.
    pub kind: Kind,
    /// Where the paths of images begin; without it the folder of the description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_root: Option<FileNames>,
    /// The files of training records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<FileNames>,
    /// The files of validation records, by which choices are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val: Option<FileNames>,
    /// The files of test records, whose scores are reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<FileNames>,
    /// Answers of val and test by the records' names, where they are kept apart: TextVQA or COCO captions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<FileNames>,
    /// The format of the files of all splits; without it each file is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// What the model is asked, with `{instruction}` where the instruction of the record belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// How answers are scored; without it the kind decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scorer: Option<Metric>,
    /// When the task is learnt; without it downstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Whether its pictures were made by a program.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub synthetic: bool,
    /// The place in the sequence. If no task of a set has one, the tasks are learnt in the order of the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<u32>,
}

/// One file, or several names that it may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected the name of a file or a list of such names")]
pub enum FileNames {
    /// The only name that the file may have.
    One(String),
    /// Several names, of which the first that exists counts.
    Any(Vec<String>),
}

impl FileNames {
    /// The names, the preferred one first.
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Any(names) => names,
        }
    }
}

/// What kind of answer a task is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A short answer to a question about an image.
    Vqa,
    /// The name of the class that the image shows.
    Classification,
    /// One of the options that the prompt lists.
    MultipleChoice,
    /// The corners of a box in the image.
    Grounding,
    /// A sentence that describes the image.
    Caption,
}

impl TaskSpec {
    /// A task without files.
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            title: None,
            kind,
            image_root: None,
            train: None,
            val: None,
            test: None,
            references: None,
            format: None,
            prompt: None,
            scorer: None,
            stage: None,
            synthetic: false,
            order: None,
        }
    }

    /// The metric by which answers are scored: the `scorer`, or what the kind decides.
    pub fn metric(&self) -> Metric {
        self.scorer.unwrap_or(match self.kind {
            Kind::Vqa | Kind::Classification => Metric::Exact,
            Kind::MultipleChoice => Metric::MultipleChoice,
            Kind::Grounding => Metric::Grounding,
            Kind::Caption => Metric::RougeL,
        })
    }

    /// The prompt of the task with the instruction of a record put in.
    pub fn prompted(&self, instruction: &str) -> String {
        self.prompt
            .as_ref()
            .map_or_else(|| instruction.to_owned(), |prompt| prompt.replace("{instruction}", instruction))
    }
}

/// All keys that a task may have.
const KEYS: [&str; 14] = [
    "name",
    "title",
    "kind",
    "image_root",
    "train",
    "val",
    "test",
    "references",
    "format",
    "prompt",
    "scorer",
    "stage",
    "synthetic",
    "order",
];

#[derive(Serialize, Deserialize)]
struct File {
    task: Vec<TaskSpec>,
}

/// The tasks of a description.
///
/// # Errors
/// [`DataError::Config`] for a damaged file, an unknown key or value, a task without splits, a name that is malformed or stands twice.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<TaskSpec>> {
    let fail = |what: String| DataError::Config { path: path.into(), what };
    let syntax = |error: toml::de::Error| {
        let start = error.span().and_then(|span| text.get(..span.start));
        let line =
            start.map_or_else(String::new, |start| format!("line {}: ", start.matches('\n').count() + 1));
        fail(format!("{line}{}", error.message()))
    };
    let table: toml::Table = text.parse().map_err(syntax)?;
    refuse_unknown(table.keys(), &["task"]).map_err(fail)?;
    let tasks = table.get("task").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (i, task) in tasks.iter().enumerate() {
        let keys = task.as_table().into_iter().flat_map(toml::Table::keys);
        refuse_unknown(keys, &KEYS).map_err(|what| fail(format!("task {i}: {what}")))?;
    }
    let File { task: tasks } = toml::from_str(text).map_err(syntax)?;
    validate(path, &tasks)?;
    Ok(tasks)
}

/// What must hold of the tasks of a set, described or found.
pub(super) fn validate(path: &Path, tasks: &[TaskSpec]) -> Result<()> {
    let fail = |what: String| DataError::Config { path: path.into(), what };
    for (i, task) in tasks.iter().enumerate() {
        let name = &task.name;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(fail(format!(
                "task `{name}`: a name has lower-case letters, digits and hyphens only"
            )));
        }
        if tasks[..i].iter().any(|other| other.name == *name) {
            return Err(fail(format!("task `{name}` is listed twice")));
        }
        if task.order.is_some() && tasks[..i].iter().any(|other| other.order == task.order) {
            return Err(fail(format!("task `{name}`: its order is taken by another task")));
        }
        if task.order.is_some() && task.stage == Some(Stage::Pretraining) {
            return Err(fail(format!("task `{name}`: only downstream tasks have an order")));
        }
        if task.train.is_none() && task.val.is_none() && task.test.is_none() {
            return Err(fail(format!("task `{name}` has none of `train`, `val` and `test`")));
        }
    }
    Ok(())
}

/// The description of tasks, as [`parse`] reads it.
pub(super) fn write(path: &Path, tasks: &[TaskSpec]) -> Result<String> {
    toml::to_string(&File { task: tasks.to_vec() })
        .map_err(|error| DataError::Config { path: path.into(), what: error.to_string() })
}

fn refuse_unknown<'a>(
    keys: impl IntoIterator<Item = &'a String>,
    known: &[&str],
) -> std::result::Result<(), String> {
    let Some(key) = keys.into_iter().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
    let similarity = |other: &&&str| strsim::jaro_winkler(other, key);
    let nearest = known.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    let hint = nearest.filter(|other| similarity(other) > 0.7);
    let hint = hint.map_or_else(String::new, |other| format!("; did you mean `{other}`?"));
    Err(format!("unknown key `{key}`{hint}"))
}
