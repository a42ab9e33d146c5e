//! The samples of a run after the frozen pass: what is learnt, what is scored, and what pre-training is remembered by.

use crate::config::RunConfig;
use crate::features::FeatureStore;
use crate::progress;
use anyhow::{Result, ensure};
use fwd_data::bench::{BenchTask, Record, Split, record_name};
use fwd_models::BlipSample;

/// A sample that is scored, with the record it came from.
pub(crate) struct Case<'a> {
    /// The record's own name, or `TASK/SPLIT/NUMBER`, counted from 0 in the order of the file.
    pub(crate) question_id: String,
    /// The record.
    pub(crate) record: &'a Record,
    /// Its features.
    pub(crate) sample: BlipSample,
}

/// A task with what is scored of it.
pub(crate) struct Exam<'a> {
    /// The task.
    pub(crate) task: &'a BenchTask,
    /// Its samples.
    pub(crate) cases: Vec<Case<'a>>,
}

/// Everything that a run reads.
pub(crate) struct Samples<'a> {
    /// Training samples of each task; none if nothing is trained.
    pub(crate) train: Vec<Vec<BlipSample>>,
    /// What is scored of each task.
    pub(crate) exams: Vec<Exam<'a>>,
    /// Of which the subspace of pre-training is made.
    pub(crate) pretraining: Vec<BlipSample>,
    /// What is scored of each pre-training task.
    pub(crate) retention: Vec<Exam<'a>>,
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

    fn samples(&self, store: &FeatureStore<'_>, bar: &progress::Bar) -> Result<Vec<BlipSample>> {
        bar.say(format!("frozen features: {}", self.task.name));
        store.samples(&self.records.iter().map(|(_, record)| *record).collect::<Vec<_>>(), bar)
    }

    fn exam(self, split: Split, store: &FeatureStore<'_>, bar: &progress::Bar) -> Result<Exam<'a>> {
        let samples = self.samples(store, bar)?;
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
    pub(crate) fn prepare(
        store: &FeatureStore<'_>,
        tasks: &[&'a BenchTask],
        pretraining: &[&'a BenchTask],
        config: &RunConfig,
    ) -> Result<Self> {
        let n_train = if config.method.trains() { usize::MAX } else { 0 };
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
            let split = split_name(config.split);
            ensure!(!exam.records.is_empty(), "task `{}` has no records in `{split}`", exam.task.name);
        }
        let all = [&train, &exams, &base, &retention].into_iter().flatten();
        let bar = progress::bar("frozen features", all.map(|part| part.records.len()).sum());
        let samples = |parts: Vec<Part<'a>>| -> Result<Vec<Vec<BlipSample>>> {
            parts.iter().map(|part| part.samples(store, &bar)).collect()
        };
        let exam = |parts: Vec<Part<'a>>| -> Result<Vec<Exam<'a>>> {
            parts.into_iter().map(|part| part.exam(config.split, store, &bar)).collect()
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
pub(crate) fn training(store: &FeatureStore<'_>, task: &BenchTask, limit: usize) -> Result<Vec<BlipSample>> {
    let part = Part::new(task, Split::Train, limit);
    ensure!(!part.records.is_empty(), "task `{}` has no records in `train`", task.name);
    let bar = progress::bar("frozen features", part.records.len());
    part.samples(store, &bar)
}

/// At most `limit` of the numbers below `n`, spread evenly over them.
pub(crate) fn spread(n: usize, limit: usize) -> impl Iterator<Item = usize> {
    let taken = n.min(limit);
    (0..taken).map(move |i| i * n / taken)
}

/// What is scored of one task in a split.
///
/// # Errors
/// As [`Samples::prepare`].
pub(crate) fn exam<'a>(
    store: &FeatureStore<'_>,
    task: &'a BenchTask,
    split: Split,
    limit: usize,
) -> Result<Exam<'a>> {
    let part = Part::new(task, split, limit);
    ensure!(!part.records.is_empty(), "task `{}` has no records in `{}`", task.name, split_name(split));
    let bar = progress::bar("frozen features", part.records.len());
    part.exam(split, store, &bar)
}

/// The name of a split in files.
pub(crate) fn split_name(split: Split) -> &'static str {
    split.name()
}
