//! The text files of a benchmark: `benchmark.json`, which lists the tasks, and `tasks/NAME.jsonl`, one record a line.

use super::record::{BenchTask, Record, Split, Stage};
use crate::blank::BLANK;
use crate::error::{DataError, Result, unknown_task};
use fwd_eval::Metric;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The file that lists the tasks of a benchmark.
pub(crate) const INDEX_FILE: &str = "benchmark.json";
/// The version of [`INDEX_FILE`] that this code reads and writes.
pub(crate) const VERSION: u32 = 1;

/// `benchmark.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Index {
    pub(crate) version: u32,
    pub(crate) tasks: Vec<TaskEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskEntry {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) stage: Stage,
    pub(super) metric: Metric,
    #[serde(default)]
    pub(super) synthetic: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) order: Option<u32>,
}

impl From<&BenchTask> for TaskEntry {
    fn from(task: &BenchTask) -> Self {
        let BenchTask { name, title, stage, metric, synthetic, order, records: _ } = task;
        let (name, title) = (name.clone(), title.clone());
        Self { name, title, stage: *stage, metric: *metric, synthetic: *synthetic, order: *order }
    }
}

/// A line of a task file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    split: Split,
    #[serde(skip_serializing_if = "Option::is_none")]
    question_id: Option<String>,
    /// None for a question about no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    instruction: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answers: Option<Vec<String>>,
}

impl From<&Record> for Line {
    fn from(record: &Record) -> Self {
        let Record { split, id: question_id, image, instruction, mut answers } = record.clone();
        let answer = if answers.len() == 1 { answers.pop() } else { None };
        let answers = if answer.is_none() { Some(answers) } else { None };
        Self { split, question_id, image: Some(image), instruction, answer, answers }
    }
}

/// The longest text file of a benchmark that is read: its records are kept in memory.
const MAX_TEXT: u64 = 2 << 30;

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    fwd_files::read(path, MAX_TEXT).map_err(|source| DataError::Io { path: path.into(), source })
}

/// The bytes of the folder's `benchmark.json`, and its task entries, which were checked.
pub(super) fn read_index(dir: &Path) -> Result<(Vec<u8>, Vec<TaskEntry>)> {
    let path = dir.join(INDEX_FILE);
    let bytes = read(&path)?;
    let fail = |what: String| DataError::Config { path: path.clone(), what };
    let index: Index = serde_json::from_slice(&bytes).map_err(|e| fail(e.to_string()))?;
    if index.version != VERSION {
        return Err(fail(format!(
            "version {} is unknown; this program reads version {VERSION}",
            index.version
        )));
    }
    let (mut names, mut orders) = (BTreeSet::new(), BTreeSet::new());
    for TaskEntry { name, stage, order, .. } in &index.tasks {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(fail(format!(
                "task `{name}`: a name has lower-case letters, digits and hyphens only"
            )));
        }
        if !names.insert(name) {
            return Err(fail(format!("task `{name}` is listed twice")));
        }
        if let Some(order) = order {
            if *stage != Stage::Downstream {
                return Err(fail(format!("task `{name}`: only downstream tasks have an order")));
            }
            if !orders.insert(*order) {
                return Err(fail(format!("task `{name}`: the order {order} is taken by another task")));
            }
        }
    }
    Ok((bytes, index.tasks))
}

/// The file of a task's records.
pub(super) fn task_file(dir: &Path, name: &str) -> PathBuf {
    dir.join("tasks").join(format!("{name}.jsonl"))
}

/// The records of a task file with their lines, from 1, or what is wrong there; whether their images are there is left open.
pub(super) fn read_records<'a>(
    bytes: &'a [u8],
    metric: Metric,
) -> impl Iterator<Item = (usize, std::result::Result<Record, String>)> + 'a {
    let lines =
        bytes.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    lines.map(move |(i, line)| (i + 1, read_record(line, metric)))
}

fn read_record(line: &[u8], metric: Metric) -> std::result::Result<Record, String> {
    let line: Line = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    let answers = match (line.answer, line.answers) {
        (Some(answer), None) => vec![answer],
        (None, Some(answers)) => answers,
        _ => return Err("needs either `answer` or `answers`".into()),
    };
    if answers.is_empty() || answers.iter().any(|answer| answer.trim().is_empty()) {
        return Err(format!("an answer about {} is empty", about(line.image.as_deref())));
    }
    if line.instruction.trim().is_empty() {
        return Err(format!("the instruction about {} is empty", about(line.image.as_deref())));
    }
    let answers = spelt_out(metric, &line.instruction, answers);
    let Line { split, question_id: id, image, instruction, .. } = line;
    let image = image.unwrap_or_else(|| BLANK.to_owned());
    Ok(Record { split, id, image, instruction, answers })
}

fn about(image: Option<&str>) -> String {
    image.map_or_else(|| "no image".to_owned(), |image| format!("the image `{image}`"))
}

/// The answers, for a multiple choice with what the instruction tells of the right option.
pub(crate) fn spelt_out(metric: Metric, instruction: &str, answers: Vec<String>) -> Vec<String> {
    match metric {
        Metric::MultipleChoice => fwd_eval::option_answers(instruction, &answers),
        _ => answers,
    }
}

/// The records of a task in a folder, with its metric, without any look at images.
///
/// # Errors
/// As [`Benchmark::open`](super::Benchmark::open).
pub(crate) fn read_task(dir: &Path, name: &str) -> Result<(Metric, Vec<Record>)> {
    let (_, entries) = read_index(dir)?;
    let entry = entries.iter().find(|entry| entry.name == name);
    let names = entries.iter().map(|entry| entry.name.as_str());
    let metric = entry.map(|entry| entry.metric).ok_or_else(|| unknown_task(names, name))?;
    let path = task_file(dir, name);
    let bytes = read(&path)?;
    let record = |(line, record): (usize, std::result::Result<Record, String>)| {
        record.map_err(|what| DataError::Record { path: path.clone(), line, what })
    };
    Ok((metric, read_records(&bytes, metric).map(record).collect::<Result<_>>()?))
}

/// The names of the tasks of a folder that have an order, by it.
///
/// # Errors
/// As [`Benchmark::open`](super::Benchmark::open).
pub(crate) fn read_sequence(dir: &Path) -> Result<Vec<String>> {
    let (_, mut entries) = read_index(dir)?;
    entries.retain(|entry| entry.order.is_some());
    entries.sort_by_key(|entry| entry.order);
    Ok(entries.into_iter().map(|entry| entry.name).collect())
}
