//! A set of tasks, which is described in TOML, published, or discovered in a folder in CoIN's layout, and read into one [`Benchmark`].
//!
//! CoIN's layout is `TASK/train.json` and `TASK/test.json`, the paths of images beginning at the common folder. Which tasks a
//! folder holds is found by the names of its sub-folders: those of a published benchmark get its kinds and scorers.

use super::description::{self, FileNames, Kind, TaskSpec};
use super::images::{self, ImageRoot};
use super::presets::{Preset, TEST, TRAIN, VAL, is_same_task, slug};
use super::reader::{no_answer, read_unanswered};
use super::record::{ImageSource, TaskRecord};
use super::references::References;
use crate::bench::{BenchTask, Benchmark, INDEX_FILE, Record, Split, Stage, spelt_out};
use crate::blank::{BLANK, blank_image};
use crate::error::{DataError, Result, file, unknown_task};
use crate::image_file::{ImageLimits, RgbImage};
use crate::loose::LooseImages;
use crate::skip::{OnBad, Remarks, Skipped};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The description that a folder may hold.
pub(super) const DESCRIPTION: &str = "tasks.toml";
/// The longest description that is read.
const MAX_DESCRIPTION: u64 = 4 << 20;

/// Tasks and the folder that their paths begin at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSet {
    /// The folder that relative paths begin at.
    pub dir: PathBuf,
    /// The tasks, in the order in which they are learnt.
    pub tasks: Vec<TaskSpec>,
}

/// A benchmark, and what was left out of it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// All tasks with the records that can be used.
    pub bench: Benchmark,
    /// The records that were left out, with the reasons.
    pub skipped: Skipped,
}

/// Opens whatever `path` is: a folder with `benchmark.json`, one with `tasks.toml`, one in CoIN's layout, or a description.
///
/// # Errors
/// As [`Benchmark::open`], [`TaskSet::open`] and [`TaskSet::load`].
pub fn open(path: &Path, on_bad: OnBad) -> Result<Loaded> {
    if path.join(INDEX_FILE).is_file() {
        let (bench, mut skipped) = Benchmark::open_with(path, on_bad)?;
        for task in &bench.tasks {
            let without_image = task.records.iter().filter(|record| record.image == BLANK).count();
            remember(&mut skipped, Remarks { without_image, ..Remarks::new(&task.name) });
        }
        return Ok(Loaded { bench, skipped });
    }
    TaskSet::open(path)?.load(on_bad)
}

impl TaskSet {
    /// Reads a description, or looks for tasks in a folder.
    ///
    /// # Errors
    /// [`DataError::Io`], or [`DataError::Config`] for a damaged description or a folder without tasks.
    pub fn open(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { path.join(DESCRIPTION) } else { path.to_path_buf() };
        if path.is_dir() && !file.exists() {
            return Self::discover(path);
        }
        let text = fwd_files::read_to_string(&file, MAX_DESCRIPTION)
            .map_err(|source| DataError::Io { path: file.clone(), source })?;
        let tasks = description::parse(&file, &text)?;
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self { dir: dir.into(), tasks })
    }

    /// The tasks of a published benchmark, whose folders lie in `dir`.
    pub fn preset(preset: Preset, dir: &Path) -> Self {
        Self { dir: dir.into(), tasks: preset.tasks() }
    }

    /// The tasks whose folders lie in `dir`.
    fn discover(dir: &Path) -> Result<Self> {
        let folders = task_folders(dir)?;
        if folders.is_empty() {
            let what = format!(
                "no tasks here: neither benchmark.json nor {DESCRIPTION}, nor a folder with {} or {}",
                TRAIN.join(", "),
                TEST.join(", ")
            );
            return Err(DataError::Config { path: dir.into(), what });
        }
        let is_here = |names: &[&str]| names.iter().any(|name| folders.iter().any(|folder| folder == name));
        let preset = Preset::fitting(&folders);
        let known = preset.into_iter().flat_map(|preset| preset.folders().zip(preset.tasks()));
        let known: Vec<_> = known.filter(|(names, _)| is_here(names)).collect();
        let is_known = |folder: &&String| known.iter().any(|(names, _)| names.contains(&folder.as_str()));
        let others: Vec<_> = folders.iter().filter(|folder| !is_known(folder)).collect();
        let mut tasks: Vec<_> = known.into_iter().map(|(_, task)| task).collect();
        tasks.extend(others.into_iter().map(|folder| unpublished(dir, folder)));
        description::validate(dir, &tasks)?;
        Ok(Self { dir: dir.into(), tasks })
    }

    /// Reads all records; images are looked up and not yet decoded.
    ///
    /// # Errors
    /// [`DataError`] naming file, record and key for the first record that cannot be used, unless those are to be skipped; a
    /// missing file, or one that ends early or is damaged outside its records, is always an error.
    pub fn load(&self, on_bad: OnBad) -> Result<Loaded> {
        let mut loader =
            Loader { set: self, on_bad, images: LooseImages::default(), skipped: Skipped::default() };
        let mut records: Vec<Vec<Sourced>> =
            self.tasks.iter().map(|spec| loader.records(spec)).collect::<Result<_>>()?;
        if on_bad == OnBad::Skip {
            loader.drop_undecodable(&mut records);
        }
        let has_order = self.tasks.iter().any(|spec| spec.order.is_some());
        let mut tasks = Vec::with_capacity(self.tasks.len());
        for (i, (spec, records)) in self.tasks.iter().zip(records).enumerate() {
            if records.is_empty() {
                let what = format!("task `{}` has no records", spec.name);
                return Err(DataError::Config { path: self.dir.clone(), what });
            }
            let stage = spec.stage.unwrap_or(Stage::Downstream);
            let place = (!has_order && stage == Stage::Downstream).then_some(i as u32 + 1);
            tasks.push(BenchTask {
                name: spec.name.clone(),
                title: spec.title.clone().unwrap_or_else(|| spec.name.clone()),
                stage,
                metric: spec.metric(),
                synthetic: spec.synthetic,
                order: spec.order.or(place),
                records: records.into_iter().map(|sourced| sourced.record).collect(),
            });
        }
        Ok(Loaded { bench: Benchmark::of_loose(tasks, loader.images)?, skipped: loader.skipped })
    }

    /// The task of a name; the names that a published task's folder may have are its names too.
    ///
    /// # Errors
    /// [`DataError::UnknownTask`], with a suggestion if a task has a similar name.
    pub fn task(&self, name: &str) -> Result<&TaskSpec> {
        let named = self.tasks.iter().find(|spec| spec.name == name);
        let spec = named.or_else(|| self.tasks.iter().find(|spec| is_same_task(name, &spec.name)));
        spec.ok_or_else(|| unknown_task(self.tasks.iter().map(|spec| spec.name.as_str()), name))
    }

    /// The files of a split: the first of its names that is there, or all that the first matching pattern stands for.
    pub(super) fn files(
        &self,
        spec: &TaskSpec,
        split: &'static str,
        names: &FileNames,
    ) -> Result<Vec<PathBuf>> {
        let tried: Vec<PathBuf> = names.names().iter().map(|name| self.dir.join(name)).collect();
        let files = tried.iter().map(|path| matching(path)).find(|files| !files.is_empty());
        files.ok_or_else(|| DataError::NoTaskFile { task: spec.name.clone(), split, tried })
    }

    /// The image root of a task: the first of its folders that is there.
    pub(super) fn image_root(&self, spec: &TaskSpec) -> Result<ImageRoot> {
        let here = FileNames::One(".".into());
        let names = spec.image_root.as_ref().unwrap_or(&here);
        let tried: Vec<PathBuf> = names.names().iter().map(|name| self.dir.join(name)).collect();
        match tried.iter().find(|path| path.is_dir()) {
            Some(path) => ImageRoot::open(path),
            None => Err(DataError::NoTaskFile { task: spec.name.clone(), split: "images", tried }),
        }
    }

    /// The answers of val and test, where they are kept apart and that file is there; errors of its records go to `on_bad`.
    pub(super) fn references(
        &self,
        spec: &TaskSpec,
        on_bad: impl FnMut(DataError) -> Result<()>,
    ) -> Result<Option<References>> {
        let names = spec.references.iter().flat_map(FileNames::names);
        let path = names.map(|name| self.dir.join(name)).find(|path| path.is_file());
        path.map(|path| References::open(&path, on_bad)).transpose()
    }
}

/// The splits that a task has, with their names and files.
pub(super) fn splits(spec: &TaskSpec) -> impl Iterator<Item = (Split, &'static str, &FileNames)> {
    let all = [
        (Split::Train, "train", &spec.train),
        (Split::Val, "val", &spec.val),
        (Split::Test, "test", &spec.test),
    ];
    all.into_iter().filter_map(|(split, name, files)| Some((split, name, files.as_ref()?)))
}

/// What the model is asked for a record, and what is right: the record's own answers, or those kept apart. None if it is not asked, since
/// those kept apart are all marked as rejected.
///
/// # Errors
/// [`DataError::TaskRecord`] if either is missing or empty.
pub(super) fn asked_and_right(
    spec: &TaskSpec,
    references: Option<&References>,
    split: Split,
    path: &Path,
    record: &TaskRecord,
) -> Result<Option<(String, Vec<String>)>> {
    let fail = |key: &str, what: &str| {
        let (path, key) = (path.into(), Some(key.into()));
        DataError::TaskRecord { path, index: record.index, key, what: what.into() }
    };
    let answers = match references.filter(|_| split != Split::Train) {
        Some(references) => match references.of(path, record)? {
            rejected if rejected.is_empty() => return Ok(None),
            answers => answers,
        },
        None => record.answers.clone(),
    };
    if answers.is_empty() {
        return Err(no_answer(path, record.index));
    }
    if answers.iter().any(|answer| answer.trim().is_empty()) {
        return Err(fail("answer", "is empty"));
    }
    let instruction = spec.prompted(&record.instruction);
    if instruction.trim().is_empty() {
        return Err(fail("text", "the instruction is empty; give the task a `prompt`"));
    }
    Ok(Some((instruction, answers)))
}

/// The files that a path stands for, ascending: itself, or with `*` in its last part those that fit.
fn matching(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let Some((start, end)) = name.split_once('*') else {
        return if path.is_file() { vec![path.to_path_buf()] } else { Vec::new() };
    };
    let fits =
        |name: &str| name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end);
    let entries = path.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(fits))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

/// Names of the sub-folders that hold a file of records.
fn task_folders(dir: &Path) -> Result<Vec<String>> {
    let io = |source| DataError::Io { path: dir.into(), source };
    let mut folders = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let has_records = TRAIN.iter().chain(TEST).any(|file| path.join(file).is_file());
        if let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| has_records) {
            folders.push(name.to_owned());
        }
    }
    folders.sort();
    Ok(folders)
}

/// The task of a folder that no published benchmark has.
fn unpublished(dir: &Path, folder: &str) -> TaskSpec {
    let files = |names: &[&str]| {
        let path = names.iter().map(|file| format!("{folder}/{file}")).find(|path| dir.join(path).is_file());
        path.map(FileNames::One)
    };
    let mut spec = TaskSpec::new(slug(folder), Kind::Vqa);
    spec.title = Some(folder.to_owned());
    (spec.train, spec.val, spec.test) = (files(TRAIN), files(VAL), files(TEST));
    spec
}

/// The key of an image: its path from the folder of the set, so that tasks share what they share on disk.
fn key(place: &Place<'_>, image: &str) -> String {
    let image = images::relative(image).unwrap_or_default();
    match place.below {
        Some(below) if !below.is_empty() => format!("{below}/{image}"),
        Some(_) if image.contains('/') => image,
        _ => format!("{}/{image}", place.spec.name),
    }
}

/// Reads the records of a set.
struct Loader<'a> {
    set: &'a TaskSet,
    on_bad: OnBad,
    images: LooseImages,
    skipped: Skipped,
}

/// A record and where it was read.
struct Sourced {
    record: Record,
    path: Arc<Path>,
    index: usize,
}

/// Where a record comes from.
struct Place<'a> {
    spec: &'a TaskSpec,
    split: (Split, &'static str),
    path: &'a Path,
    root: &'a ImageRoot,
    /// The root from the folder of the set; none if it lies elsewhere.
    below: Option<&'a str>,
    references: Option<&'a References>,
}

impl Loader<'_> {
    fn records(&mut self, spec: &TaskSpec) -> Result<Vec<Sourced>> {
        let root = self.set.image_root(spec)?;
        let references = self.set.references(spec, |error| self.skip(error))?;
        let mut records = Vec::new();
        let mut remarks = Remarks::new(&spec.name);
        references.iter().for_each(|references| references.left_out.remark(&mut remarks));
        let dir = self.set.dir.canonicalize().ok();
        let below = dir.and_then(|dir| root.path().strip_prefix(dir).ok().map(Path::to_path_buf));
        let below = below.map(|below| below.to_string_lossy().replace('\\', "/"));
        for (split, name, files) in splits(spec) {
            for path in self.set.files(spec, name, files)? {
                let path: Arc<Path> = path.into();
                let place = Place {
                    spec,
                    split: (split, name),
                    path: &path,
                    root: &root,
                    below: below.as_deref(),
                    references: references.as_ref(),
                };
                let read = read_unanswered(&path, spec.format)?;
                read.left_out.remark(&mut remarks);
                remarks.rejected_images += read.left_out.rejected_images.len();
                for record in read {
                    let record = record
                        .and_then(|record| Ok((record.index, self.record(&place, record, &mut remarks)?)));
                    match record {
                        Ok((index, Some(record))) => {
                            records.push(Sourced { record, path: path.clone(), index })
                        }
                        Ok((_, None)) => remarks.rejected_images += 1,
                        Err(error) => {
                            let lacks_image = matches!(error, DataError::TokenWithoutImage { .. });
                            remarks.token_without_image += usize::from(lacks_image);
                            self.skip(error)?;
                        }
                    }
                }
            }
        }
        remember(&mut self.skipped, remarks);
        Ok(records)
    }

    /// The record of the benchmark; none if it is not asked.
    fn record(
        &mut self,
        place: &Place<'_>,
        record: TaskRecord,
        remarks: &mut Remarks,
    ) -> Result<Option<Record>> {
        let Place { spec, split: (split, split_name), path, root, references, .. } = *place;
        let Some((instruction, answers)) = asked_and_right(spec, references, split, path, &record)? else {
            return Ok(None);
        };
        let image = match record.usable_image(path)? {
            Some(ImageSource::Path(image)) => {
                let file = root.resolve(image, &origin(path, record.index))?;
                let key = key(place, image);
                self.images.insert_file(&key, file)?;
                key
            }
            Some(ImageSource::Bytes(bytes)) => {
                let file = path.file_stem().unwrap_or_default().to_string_lossy();
                let key = format!("{}/{split_name}/{file}-{}", spec.name, record.index);
                self.images.insert_bytes(&key, bytes)?;
                key
            }
            None => {
                if !self.images.contains(BLANK) {
                    self.images.insert_bytes(BLANK, &blank_image()?)?;
                }
                BLANK.to_owned()
            }
        };
        record.remark(remarks);
        let answers = spelt_out(spec.metric(), &instruction, answers);
        Ok(Some(Record { split, id: record.id, image, instruction, answers }))
    }

    /// Leaves a record out, or refuses to; a file that is damaged outside its records is never passed over.
    fn skip(&mut self, error: DataError) -> Result<()> {
        let is_record = matches!(
            error,
            DataError::TaskRecord { .. }
                | DataError::TokenWithoutImage { .. }
                | DataError::ImagePath { .. }
                | DataError::Image { .. }
        );
        if is_record { self.skipped.take(error, self.on_bad) } else { Err(error) }
    }

    /// Leaves out the records whose images cannot be decoded.
    fn drop_undecodable(&mut self, tasks: &mut [Vec<Sourced>]) {
        let images = &self.images;
        let keys: Vec<&str> = images.keys().collect();
        let broken: BTreeMap<String, String> = keys
            .into_par_iter()
            .filter_map(|key| {
                let decoded =
                    images.read(key).and_then(|bytes| RgbImage::decode(&bytes, key, ImageLimits::default()));
                Some((key.to_owned(), decoded.err()?.to_string()))
            })
            .collect();
        for records in tasks {
            records.retain(|Sourced { record, path, index }| {
                let reason = broken.get(&record.image);
                if let Some(reason) = reason {
                    self.skipped.list(format!("{}: {reason}", origin(path, *index)));
                }
                reason.is_none()
            });
        }
        broken.keys().for_each(|key| self.images.remove(key));
    }
}

/// The name of a record in errors about its image.
pub(super) fn origin(path: &Path, index: usize) -> String {
    format!("{}, record {index}", file(path))
}

/// Keeps the remarks about a task if there are any.
fn remember(skipped: &mut Skipped, remarks: Remarks) {
    skipped.remarks.extend(Some(remarks).filter(|remarks| !remarks.is_empty()));
}
