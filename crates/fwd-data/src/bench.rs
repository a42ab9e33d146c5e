//! The embedded benchmark on disk: tasks of (image, instruction, answer) records in train, validation and test splits.
//!
//! A folder holds `benchmark.json` (the tasks), `tasks/NAME.jsonl` (one record a line) and images: `SOURCE/images.pack` (see
//! [`Pack`]), or plain image files, which are then called `SOURCE/FILE`. [`Benchmark::open`] refuses what could fail later, and [`check`] looks for leaks between splits.

mod check;
mod pack;

pub use check::{CheckReport, Overlap, check};
pub use fwd_eval::Metric;
pub use pack::Pack;
pub(crate) use pack::{MAGIC, record_head};

use crate::error::{DataError, Result, unknown_task};
use crate::image_file::{ImageLimits, RgbImage};
use crate::task::{LooseImages, OnBad, Skipped};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The version of `benchmark.json` that this code reads and writes.
pub(crate) const VERSION: u32 = 1;

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

/// A benchmark in memory.
#[derive(Debug, Clone)]
pub struct Benchmark {
    /// The tasks, in the order of `benchmark.json`.
    pub tasks: Vec<BenchTask>,
    /// Folder -> its images.
    packs: BTreeMap<String, Pack>,
    /// Images that are in no pack.
    loose: Arc<LooseImages>,
    hash: ContentHash,
}

impl Benchmark {
    /// Reads all tasks and images below `dir`.
    ///
    /// # Errors
    /// [`DataError`] naming file, line and key: a missing or damaged file, a field or split that does not exist, an empty
    /// instruction or answer, a record whose image is not there, a task name or an order given twice.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self::open_with(dir, OnBad::Refuse)?.0)
    }

    /// As [`Self::open`]; under [`OnBad::Skip`] records that cannot be used are left out, also those whose images cannot be decoded.
    /// The hash knows which.
    pub(crate) fn open_with(dir: &Path, on_bad: OnBad) -> Result<(Self, Skipped)> {
        let mut hasher = Sha256::new();
        let packs = open_packs(dir, &mut hasher)?;
        let entries = read_index(&dir.join("benchmark.json"), &mut hasher)?;
        let (mut tasks, mut skipped) = (Vec::with_capacity(entries.len()), Skipped::default());
        for entry in entries {
            let path = task_file(dir, &entry.name);
            let bytes = read(&path)?;
            feed(&mut hasher, &entry.name, &bytes);
            let read: Vec<_> = read_records(&bytes, entry.metric).collect();
            let broken = if on_bad == OnBad::Skip { undecodable(&packs, &read) } else { BTreeMap::new() };
            let mut records = Vec::with_capacity(read.len());
            for (line, record) in read {
                let found = record.and_then(|record| match find_image(&packs, &record.image) {
                    None => Err(format!("there is no image `{}`", record.image)),
                    Some(_) => broken.get(&record.image).map_or(Ok(record), |what| Err(what.clone())),
                });
                match found {
                    Ok(record) => records.push(record),
                    Err(what) => {
                        skipped.take(DataError::Record { path: path.clone(), line, what }, on_bad)?;
                        feed(&mut hasher, "left out", &(line as u64).to_le_bytes());
                    }
                }
            }
            if records.is_empty() {
                let what = "the task has no records".into();
                return Err(DataError::Record { path, line: 1, what });
            }
            let TaskEntry { name, title, stage, metric, synthetic, order } = entry;
            tasks.push(BenchTask { name, title, stage, metric, synthetic, order, records });
        }
        let hash = ContentHash(hasher.finalize().into());
        Ok((Self { tasks, packs, loose: Arc::default(), hash }, skipped))
    }

    /// A benchmark whose images are in no pack. Its hash sees the tasks, and of the images their keys and lengths: reading all of
    /// them would take as long as using them.
    pub(crate) fn of_loose(tasks: Vec<BenchTask>, loose: LooseImages) -> Result<Self> {
        let mut hasher = Sha256::new();
        for task in &tasks {
            feed(&mut hasher, &task.name, task.title.as_bytes());
            feed(&mut hasher, "kind", &[task.stage as u8, task.metric as u8, u8::from(task.synthetic)]);
            feed(&mut hasher, "order", &task.order.map_or(0, |order| u64::from(order) + 1).to_le_bytes());
            for record in &task.records {
                feed(&mut hasher, &record.image, record.instruction.as_bytes());
                feed(&mut hasher, "split", &[record.split as u8]);
                record.id.iter().for_each(|id| feed(&mut hasher, "id", id.as_bytes()));
                record.answers.iter().for_each(|answer| feed(&mut hasher, "answer", answer.as_bytes()));
            }
        }
        for key in loose.keys() {
            feed(&mut hasher, key, &loose.len_of(key)?.to_le_bytes());
        }
        let hash = ContentHash(hasher.finalize().into());
        Ok(Self { tasks, packs: BTreeMap::new(), loose: Arc::new(loose), hash })
    }

    /// The encoded image of a key. An image that is in no pack stays in memory once it was asked for; [`Self::image`] does
    /// not keep it.
    ///
    /// # Errors
    /// [`DataError::UnknownImage`], [`DataError::Io`] if its file cannot be read.
    pub fn image_bytes(&self, key: &str) -> Result<&[u8]> {
        match find_image(&self.packs, key) {
            Some(bytes) => Ok(bytes),
            None => self.loose.kept(key),
        }
    }

    /// The encoded image of a key, read anew each time if it is in no pack.
    ///
    /// # Errors
    /// As [`Self::image_bytes`].
    pub fn image(&self, key: &str) -> Result<Cow<'_, [u8]>> {
        match find_image(&self.packs, key) {
            Some(bytes) => Ok(Cow::Borrowed(bytes)),
            None => self.loose.read(key).map(Cow::Owned),
        }
    }

    /// The hash of the encoded image of a key.
    ///
    /// # Errors
    /// As [`Self::image_bytes`].
    pub fn content_hash(&self, key: &str) -> Result<ContentHash> {
        Ok(ContentHash::of(&self.image(key)?))
    }

    /// The task of a name.
    ///
    /// # Errors
    /// [`DataError::UnknownTask`], with a suggestion if a task has a similar name.
    pub fn task(&self, name: &str) -> Result<&BenchTask> {
        let found = self.tasks.iter().find(|task| task.name == name);
        found.ok_or_else(|| unknown_task(self.tasks.iter().map(|task| task.name.as_str()), name))
    }

    /// The default downstream sequence: the tasks that have an order, by it.
    pub fn sequence(&self) -> Vec<&BenchTask> {
        let mut tasks: Vec<_> = self.tasks.iter().filter(|task| task.order.is_some()).collect();
        tasks.sort_by_key(|task| task.order);
        tasks
    }

    /// The pre-training tasks, in the order of `benchmark.json`.
    pub fn pretraining(&self) -> Vec<&BenchTask> {
        self.tasks.iter().filter(|task| task.stage == Stage::Pretraining).collect()
    }

    /// The hash of tasks, records and images.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// Number of images, in packs and out of them.
    pub fn n_images(&self) -> usize {
        self.packs.values().map(Pack::len).sum::<usize>() + self.loose.keys().count()
    }
}

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
    name: String,
    title: String,
    stage: Stage,
    metric: Metric,
    synthetic: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<u32>,
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
    image: String,
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
        Self { split, question_id, image, instruction, answer, answers }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| DataError::Io { path: path.into(), source })
}

/// Adds a part to the hash of the benchmark, so that no byte can move from one part to another unseen.
fn feed(hasher: &mut Sha256, name: &str, bytes: &[u8]) {
    hasher.update((name.len() as u64).to_le_bytes());
    hasher.update(name);
    hasher.update((bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// The images of all folders below `dir`, by folder: its `images.pack`, or its image files if it has none.
fn open_packs(dir: &Path, hasher: &mut Sha256) -> Result<BTreeMap<String, Pack>> {
    let io = |source| DataError::Io { path: dir.into(), source };
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .map_err(io)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<std::io::Result<_>>()
        .map_err(io)?;
    paths.retain(|path| path.is_dir());
    paths.sort();
    let mut packs = BTreeMap::new();
    for path in paths {
        let folder = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let packed = path.join("images.pack");
        let pack = if packed.is_file() { Pack::open(&packed)? } else { Pack::of_files(&path)? };
        if pack.is_empty() {
            continue;
        }
        if let Some(key) = pack.keys().find(|key| key.split('/').next() != Some(&folder)) {
            let what =
                format!("the image `{key}` belongs to another folder; keys here begin with `{folder}/`");
            return Err(DataError::Pack { path: packed, what });
        }
        feed(hasher, &folder, pack.file());
        packs.insert(folder, pack);
    }
    Ok(packs)
}

fn find_image<'a>(packs: &'a BTreeMap<String, Pack>, key: &str) -> Option<&'a [u8]> {
    packs.get(key.split('/').next()?)?.get(key)
}

/// The task entries of `benchmark.json`, checked.
fn read_index(path: &Path, hasher: &mut Sha256) -> Result<Vec<TaskEntry>> {
    let bytes = read(path)?;
    feed(hasher, "benchmark.json", &bytes);
    let fail = |what: String| DataError::Config { path: path.into(), what };
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
    Ok(index.tasks)
}

/// The file of a task's records.
fn task_file(dir: &Path, name: &str) -> PathBuf {
    dir.join("tasks").join(format!("{name}.jsonl"))
}

/// The records of a task file with their lines, from 1, or what is wrong there; whether their images are there is left open.
fn read_records<'a>(
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
        return Err(format!("an answer about the image `{}` is empty", line.image));
    }
    if line.instruction.trim().is_empty() {
        return Err(format!("the instruction about the image `{}` is empty", line.image));
    }
    let answers = spelt_out(metric, &line.instruction, answers);
    let Line { split, question_id: id, image, instruction, .. } = line;
    Ok(Record { split, id, image, instruction, answers })
}

/// The answers, for a multiple choice with what the instruction tells of the right option.
pub(crate) fn spelt_out(metric: Metric, instruction: &str, answers: Vec<String>) -> Vec<String> {
    match metric {
        Metric::MultipleChoice => fwd_eval::option_answers(instruction, &answers),
        _ => answers,
    }
}

/// The images of some records that cannot be decoded, with the reason.
fn undecodable(
    packs: &BTreeMap<String, Pack>,
    records: &[(usize, std::result::Result<Record, String>)],
) -> BTreeMap<String, String> {
    let keys: BTreeSet<&str> =
        records.iter().filter_map(|(_, record)| Some(record.as_ref().ok()?.image.as_str())).collect();
    let reason = |key: &str| {
        let decoded = RgbImage::decode(find_image(packs, key)?, key, ImageLimits::default());
        Some((key.to_owned(), decoded.err()?.to_string()))
    };
    keys.into_par_iter().filter_map(reason).collect()
}

/// The records of a task in a folder, with its metric, without any look at images.
///
/// # Errors
/// As [`Benchmark::open`].
pub(crate) fn read_task(dir: &Path, name: &str) -> Result<(Metric, Vec<Record>)> {
    let entries = read_index(&dir.join("benchmark.json"), &mut Sha256::new())?;
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
/// As [`Benchmark::open`].
pub(crate) fn read_sequence(dir: &Path) -> Result<Vec<String>> {
    let mut entries = read_index(&dir.join("benchmark.json"), &mut Sha256::new())?;
    entries.retain(|entry| entry.order.is_some());
    entries.sort_by_key(|entry| entry.order);
    Ok(entries.into_iter().map(|entry| entry.name).collect())
}
