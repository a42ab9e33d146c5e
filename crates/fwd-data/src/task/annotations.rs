//! What predictions are scored against: the names, questions and answers of one split of one task, whatever format holds them.
//! Images are not looked at.

use super::reader::read_unanswered;
use super::set::{TaskSet, asked_and_right, splits};
use crate::bench::{self, INDEX_FILE, Metric, Split, Stage, record_name, spelt_out};
use crate::error::{DataError, Result};
use std::path::Path;

/// One annotated sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// The name by which predictions refer to the sample: its own, or `TASK/SPLIT/NUMBER`.
    pub id: String,
    /// The question as it stands in the file, without the prompt of the task.
    pub question: String,
    /// The right answers. For a multiple choice whose options the prompt lists, they hold the letter and the text of the right option.
    pub answers: Vec<String>,
}

/// The samples of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotations {
    /// The name of the task.
    pub task: String,
    /// How it is scored.
    pub metric: Metric,
    /// The samples, in the order of the files.
    pub samples: Vec<Annotation>,
    /// The names of samples that are not scored: images all of whose captions are marked as rejected. Predictions for them do not count.
    pub left_out: Vec<String>,
}

/// Reads the annotations of one split of a task. The path may be anything that [`open`](super::open) opens.
///
/// # Errors
/// [`DataError::UnknownTask`], [`DataError::Config`] for a split that the task has not, [`DataError::NoTaskFile`] for one whose file is missing, and those of
/// [`read`](super::read), naming file, record and key.
pub fn annotations(path: &Path, task: &str, split: Split) -> Result<Annotations> {
    if path.join(INDEX_FILE).is_file() {
        let (metric, records) = bench::read_task(path, task)?;
        let records = records.into_iter().filter(|record| record.split == split).enumerate();
        let samples = records.map(|(i, record)| Annotation {
            id: record.id.unwrap_or_else(|| record_name(task, split, i)),
            question: record.instruction,
            answers: record.answers,
        });
        return Ok(Annotations {
            task: task.to_owned(),
            metric,
            samples: samples.collect(),
            left_out: Vec::new(),
        });
    }
    let set = TaskSet::open(path)?;
    let spec = set.task(task)?;
    let references = set.references(spec, Err)?;
    let Some((_, name, names)) = splits(spec).find(|(other, ..)| *other == split) else {
        let what = format!("task `{}` has no {}", spec.name, split.name());
        return Err(DataError::Config { path: set.dir.clone(), what });
    };
    let (mut samples, mut left_out) = (Vec::new(), Vec::new());
    for file in set.files(spec, name, names)? {
        let mut records = read_unanswered(&file, spec.format)?;
        left_out.append(&mut records.left_out.rejected_images);
        for record in records {
            let record = record?;
            let Some((prompt, answers)) = asked_and_right(spec, references.as_ref(), split, &file, &record)?
            else {
                left_out.push(record.name());
                continue;
            };
            let id = record.id.unwrap_or_else(|| record_name(&spec.name, split, samples.len()));
            let answers = spelt_out(spec.metric(), &prompt, answers);
            samples.push(Annotation { id, question: record.instruction, answers });
        }
    }
    Ok(Annotations { task: spec.name.clone(), metric: spec.metric(), samples, left_out })
}

/// The names of the tasks in the order in which they are learnt, without those of pre-training. The path may be anything that
/// [`open`](super::open) opens.
///
/// # Errors
/// As [`Benchmark::open`](crate::bench::Benchmark::open) and [`TaskSet::open`].
pub fn sequence(path: &Path) -> Result<Vec<String>> {
    if path.join(INDEX_FILE).is_file() {
        return bench::read_sequence(path);
    }
    let set = TaskSet::open(path)?;
    let mut tasks: Vec<_> =
        set.tasks.into_iter().filter(|spec| spec.stage != Some(Stage::Pretraining)).collect();
    if tasks.iter().any(|spec| spec.order.is_some()) {
        tasks.retain(|spec| spec.order.is_some());
        tasks.sort_by_key(|spec| spec.order);
    }
    Ok(tasks.into_iter().map(|spec| spec.name).collect())
}
