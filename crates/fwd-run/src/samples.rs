//! The samples of a run after the frozen pass: what is learnt, what is scored, and what pre-training is remembered by.

use crate::config::RunConfig;
use crate::model::{FeatureStore, Sample};
use crate::observer::Progress;
use anyhow::{Result, ensure};
use fwd_data::bench::{BenchTask, Record, Split, record_name};

/// The name under which all pre-training tasks together stand among tasks.
pub use fwd_continual::PRETRAINING;

/// A sample that is scored, with the record it came from.
#[derive(Debug)]
pub struct Case<'a> {
    /// The record's own name, or `TASK/SPLIT/NUMBER`, counted from 0 in the order of the file.
    pub question_id: String,
    /// Question, answers and image, as the benchmark has them.
    pub record: &'a Record,
    /// What the frozen model computed of image and instruction, with the first answer as the target.
    pub sample: Sample,
}

/// A task with what is scored of it.
#[derive(Debug)]
pub struct Exam<'a> {
    /// The task, which says how it is scored.
    pub task: &'a BenchTask,
    /// The samples that are scored, in the order of the file.
    pub cases: Vec<Case<'a>>,
}

/// Everything that a run reads.
#[derive(Debug)]
pub struct Samples<'a> {
    /// Training samples of each task; none if nothing is trained.
    pub train: Vec<Vec<Sample>>,
    /// What is scored of each task.
    pub exams: Vec<Exam<'a>>,
    /// Of which the subspace of pre-training is made.
    pub pretraining: Vec<Sample>,
    /// What is scored of each pre-training task.
    pub retention: Vec<Exam<'a>>,
}

/// Records that go through the frozen pass together.
struct Part<'a> {
    task: &'a BenchTask,
    records: Vec<(usize, &'a Record)>,
}

impl<'a> Part<'a> {
    /// At most `limit` records of a split, spread evenly over it.
    fn new(task: &'a BenchTask, split: Split, limit: usize) -> Self {
        let all: Vec<(usize, &Record)> = task.split(split).enumerate().collect();
        let records = spread(all.len(), limit).map(|i| all[i]).collect();
        Self { task, records }
    }

    fn samples(&self, store: &FeatureStore<'_>, progress: &dyn Progress) -> Result<Vec<Sample>> {
        progress.say(&format!("frozen features: {}", self.task.name));
        store.samples(&self.records.iter().map(|(_, record)| *record).collect::<Vec<_>>(), progress)
    }

    fn exam(self, split: Split, store: &FeatureStore<'_>, progress: &dyn Progress) -> Result<Exam<'a>> {
        let samples = self.samples(store, progress)?;
        let cases = self.records.into_iter().zip(samples).map(|((i, record), sample)| {
            let own = record.id.clone();
            let question_id = own.unwrap_or_else(|| record_name(&self.task.name, split, i));
            Case { question_id, record, sample }
        });
        Ok(Exam { task: self.task, cases: cases.collect() })
    }
}

impl<'a> Samples<'a> {
    /// The frozen pass over all that a run needs, with progress.
    ///
    /// # Errors
    /// A task without samples to score, an unreadable image, an error of the model, an interrupt.
    pub fn prepare(
        store: &FeatureStore<'_>,
        tasks: &[&'a BenchTask],
        pretraining: &[&'a BenchTask],
        config: &RunConfig,
    ) -> Result<Self> {
        let n_train = if config.method.trains() { config.training_samples.unwrap_or(usize::MAX) } else { 0 };
        let share = config.pretraining_samples.div_ceil(pretraining.len().max(1));
        let is_pretraining_used = config.method.needs_pretraining() && share > 0;
        let pretraining = if is_pretraining_used { pretraining } else { &[] };
        let part = |tasks: &[&'a BenchTask], split, limit| -> Vec<Part<'a>> {
            tasks.iter().map(|task| Part::new(task, split, limit)).collect()
        };
        let train = part(tasks, Split::Train, n_train);
        let exams = part(tasks, config.split, usize::MAX);
        let base = part(pretraining, Split::Train, share);
        let retention = part(pretraining, config.split, config.retention_samples);
        for exam in exams.iter().chain(&retention) {
            let split = config.split.name();
            ensure!(!exam.records.is_empty(), "task `{}` has no records in `{split}`", exam.task.name);
        }
        let all = [&train, &exams, &base, &retention].into_iter().flatten();
        let progress = store.observer().begin("frozen features", all.map(|part| part.records.len()).sum());
        let samples = |parts: Vec<Part<'a>>| -> Result<Vec<Vec<Sample>>> {
            parts.iter().map(|part| part.samples(store, &*progress)).collect()
        };
        let exam = |parts: Vec<Part<'a>>| -> Result<Vec<Exam<'a>>> {
            parts.into_iter().map(|part| part.exam(config.split, store, &*progress)).collect()
        };
        Ok(Self {
            train: samples(train)?,
            exams: exam(exams)?,
            pretraining: samples(base)?.concat(),
            retention: exam(retention)?,
        })
    }
}

/// At most `limit` training samples of a task, spread evenly.
///
/// # Errors
/// As [`Samples::prepare`].
pub fn training(store: &FeatureStore<'_>, task: &BenchTask, limit: usize) -> Result<Vec<Sample>> {
    let part = Part::new(task, Split::Train, limit);
    ensure!(!part.records.is_empty(), "task `{}` has no records in `train`", task.name);
    let progress = store.observer().begin("frozen features", part.records.len());
    part.samples(store, &*progress)
}

/// At most `limit` of the numbers below `n`, spread evenly over them.
pub fn spread(n: usize, limit: usize) -> impl Iterator<Item = usize> {
    let taken = n.min(limit);
    (0..taken).map(move |i| i * n / taken)
}

/// What is scored of one task in a split.
///
/// # Errors
/// As [`Samples::prepare`].
pub fn exam<'a>(
    store: &FeatureStore<'_>,
    task: &'a BenchTask,
    split: Split,
    limit: usize,
) -> Result<Exam<'a>> {
    let part = Part::new(task, split, limit);
    ensure!(!part.records.is_empty(), "task `{}` has no records in `{}`", task.name, split.name());
    let progress = store.observer().begin("frozen features", part.records.len());
    part.exam(split, store, &*progress)
}
