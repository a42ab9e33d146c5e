//! What must hold beyond the form of a benchmark: no image in two splits, none in pre-training and downstream, all decodable.
//!
//! Images are compared by the hash of their bytes, never by name; questions about no image by their texts. Missing images and empty
//! answers do not come this far: [`Benchmark::open`] refuses them, naming file and line.

use super::benchmark::Benchmark;
use super::record::{BenchTask, ContentHash, Record, Split, Stage};
use crate::blank::BLANK;
use crate::image_file::{ImageLimits, RgbImage};
use crate::leaks::states_answer;
use crate::skip::Skipped;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

/// Equal images where there must be none, or equal texts of questions about none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overlap {
    /// Where the first image is used, as `task/split`.
    pub first: String,
    /// Where the second image is used, as `task/split`.
    pub second: String,
    /// Number of different images, or texts, that both use.
    pub n_images: usize,
    /// The keys of one pair of equal images, or the text twice.
    pub example: (String, String),
}

/// What [`check`] has to report about a benchmark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Number of tasks.
    pub n_tasks: usize,
    /// Number of records of all tasks.
    pub n_records: usize,
    /// Number of images in the packs.
    pub n_images: usize,
    /// Images that two splits of one task share.
    pub between_splits: Vec<Overlap>,
    /// Images that pre-training shares with a downstream task.
    pub with_pretraining: Vec<Overlap>,
    /// Images that cannot be decoded, with the reason.
    pub undecodable: Vec<String>,
    /// Records that ask the same of the same image in one task, as `task: image: instruction`.
    pub duplicate_records: Vec<String>,
    /// Scored records of tasks over ten annotators with another number of answers, as `task/split/number: n answers`.
    pub answers_not_ten: Vec<String>,
    /// Scored records whose instruction states the answer, as `task/split/number: answer`.
    pub stated_answers: Vec<String>,
    /// Tasks without records in a split, as `task: split`.
    pub empty_splits: Vec<String>,
    /// Records that a model refuses, as whoever has the model found them; [`check`] itself knows none.
    pub refused_by_model: Vec<String>,
    /// Records that were left out when the benchmark was opened. They do not count as wrong.
    pub left_out: Skipped,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.between_splits.is_empty()
            && self.with_pretraining.is_empty()
            && self.undecodable.is_empty()
            && self.duplicate_records.is_empty()
            && self.answers_not_ten.is_empty()
            && self.stated_answers.is_empty()
            && self.empty_splits.is_empty()
            && self.refused_by_model.is_empty()
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} tasks, {} records, {} images", self.n_tasks, self.n_records, self.n_images)?;
        overlaps(f, "images in two splits of a task", &self.between_splits)?;
        overlaps(f, "images in pre-training and downstream", &self.with_pretraining)?;
        list(f, "undecodable images", &self.undecodable)?;
        list(f, "records given twice", &self.duplicate_records)?;
        list(f, "records without ten answers", &self.answers_not_ten)?;
        list(f, "instructions that state the answer", &self.stated_answers)?;
        list(f, "splits without records", &self.empty_splits)?;
        list(f, "records that the model refuses", &self.refused_by_model)?;
        if self.left_out.n_records > 0 {
            writeln!(f, "records left out: {}", self.left_out.n_records)?;
            self.left_out.reasons.iter().try_for_each(|reason| writeln!(f, "  {reason}"))?;
        }
        self.left_out.remarks.iter().try_for_each(|remarks| writeln!(f, "{remarks}"))?;
        write!(f, "{}", if self.is_clean() { "clean" } else { "NOT clean" })
    }
}

fn overlaps(f: &mut fmt::Formatter<'_>, what: &str, overlaps: &[Overlap]) -> fmt::Result {
    writeln!(f, "{what}: {}", overlaps.iter().map(|overlap| overlap.n_images).sum::<usize>())?;
    for Overlap { first, second, n_images, example: (a, b) } in overlaps {
        writeln!(f, "  {n_images} in {first} and {second}, such as `{a}` = `{b}`")?;
    }
    Ok(())
}

fn list(f: &mut fmt::Formatter<'_>, what: &str, entries: &[String]) -> fmt::Result {
    writeln!(f, "{what}: {}", entries.len())?;
    entries.iter().try_for_each(|line| writeln!(f, "  {line}"))
}

/// Looks for leaks between splits and stages, damaged images and records given twice; `left_out` are the records that opening left out.
pub fn check(bench: &Benchmark, left_out: Skipped) -> CheckReport {
    // A record that was added after opening may name an image that is not there: it has no content to compare.
    let hash_of: HashMap<&str, ContentHash> = used_images(bench)
        .into_par_iter()
        .filter_map(|key| Some((key, bench.content_hash(key).ok()?)))
        .collect();
    CheckReport {
        n_tasks: bench.tasks.len(),
        n_records: bench.tasks.iter().map(|task| task.records.len()).sum(),
        n_images: bench.n_images(),
        between_splits: bench.tasks.iter().flat_map(|task| between_splits(task, &hash_of)).collect(),
        with_pretraining: with_pretraining(bench, &hash_of),
        undecodable: undecodable(bench),
        duplicate_records: bench.tasks.iter().flat_map(duplicate_records).collect(),
        answers_not_ten: bench.tasks.iter().flat_map(answers_not_ten).collect(),
        stated_answers: bench.tasks.iter().flat_map(stated_answers).collect(),
        empty_splits: bench.tasks.iter().flat_map(empty_splits).collect(),
        refused_by_model: Vec::new(),
        left_out,
    }
}

/// The images of all records, ascending.
fn used_images(bench: &Benchmark) -> Vec<&str> {
    let keys = bench.tasks.iter().flat_map(|task| &task.records).map(|record| record.image.as_str());
    keys.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Content -> a key with it, of the records that `pick` takes.
fn contents<'a>(
    tasks: impl Iterator<Item = &'a BenchTask>,
    split: Option<Split>,
    hash_of: &HashMap<&str, ContentHash>,
) -> BTreeMap<ContentHash, &'a str> {
    tasks
        .flat_map(|task| &task.records)
        .filter(|record| split.is_none_or(|split| record.split == split))
        .filter_map(|record| {
            // Of a question about no image its text is the content.
            if record.image == BLANK {
                return Some((ContentHash::of(record.instruction.as_bytes()), record.instruction.as_str()));
            }
            Some((*hash_of.get(record.image.as_str())?, record.image.as_str()))
        })
        .collect()
}

fn overlap(
    first: (String, &BTreeMap<ContentHash, &str>),
    second: (String, &BTreeMap<ContentHash, &str>),
) -> Option<Overlap> {
    let shared: Vec<_> = first.1.iter().filter_map(|(hash, a)| Some((*a, *second.1.get(hash)?))).collect();
    let (a, b) = shared.first()?;
    let example = ((*a).to_owned(), (*b).to_owned());
    Some(Overlap { first: first.0, second: second.0, n_images: shared.len(), example })
}

fn between_splits(task: &BenchTask, hash_of: &HashMap<&str, ContentHash>) -> Vec<Overlap> {
    let of = |split| contents(std::iter::once(task), Some(split), hash_of);
    let name = |split: &str| format!("{}/{split}", task.name);
    let (train, val, test) = (of(Split::Train), of(Split::Val), of(Split::Test));
    [
        overlap((name("train"), &train), (name("val"), &val)),
        overlap((name("train"), &train), (name("test"), &test)),
        overlap((name("val"), &val), (name("test"), &test)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn with_pretraining(bench: &Benchmark, hash_of: &HashMap<&str, ContentHash>) -> Vec<Overlap> {
    let of_stage = |stage| bench.tasks.iter().filter(move |task| task.stage == stage);
    let pretraining = contents(of_stage(Stage::Pretraining), None, hash_of);
    of_stage(Stage::Downstream)
        .filter_map(|task| {
            let own = contents(std::iter::once(task), None, hash_of);
            overlap(("pre-training".into(), &pretraining), (task.name.clone(), &own))
        })
        .collect()
}

fn undecodable(bench: &Benchmark) -> Vec<String> {
    used_images(bench)
        .into_par_iter()
        .filter_map(|key| {
            let decoded =
                bench.image(key).and_then(|bytes| RgbImage::decode(&bytes, key, ImageLimits::default()));
            decoded.err().map(|error| error.with_cause())
        })
        .collect()
}

fn duplicate_records(task: &BenchTask) -> Vec<String> {
    let mut seen = HashSet::new();
    let twice = task.records.iter().filter(|record| !seen.insert((&record.image, &record.instruction)));
    twice.map(|record| format!("{}: {}: {}", task.name, record.image, record.instruction)).collect()
}

/// The records of val and test with their names.
fn scored(task: &BenchTask) -> impl Iterator<Item = (String, &Record)> {
    [Split::Val, Split::Test].into_iter().flat_map(|split| task.ids(split).zip(task.split(split)))
}

fn answers_not_ten(task: &BenchTask) -> Vec<String> {
    let Some(due) = task.metric.answers_due() else { return Vec::new() };
    let other = scored(task).filter(|(_, record)| record.answers.len() != due);
    other.map(|(id, record)| format!("{id}: {} answers", record.answers.len())).collect()
}

fn stated_answers(task: &BenchTask) -> Vec<String> {
    let stated = |(id, record): (String, &Record)| {
        states_answer(&record.instruction, &record.answers).map(|answer| format!("{id}: {answer}"))
    };
    scored(task).filter_map(stated).collect()
}

fn empty_splits(task: &BenchTask) -> Vec<String> {
    [(Split::Train, "train"), (Split::Val, "val"), (Split::Test, "test")]
        .into_iter()
        .filter(|(split, _)| task.split(*split).next().is_none())
        .map(|(_, name)| format!("{}: {name}", task.name))
        .collect()
}
