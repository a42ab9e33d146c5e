//! A benchmark: its tasks in memory, the places of its images, and the hash of both.

use super::hash::feed;
use super::index::{INDEX_FILE, TaskEntry, read, read_index, read_records, task_file};
use super::pack::{Places, read_folder, read_pack};
use super::record::{BenchTask, ContentHash, Record, Stage};
use crate::blank::{BLANK, blank_image};
use crate::error::{DataError, Result, unknown_task};
use crate::image_file::{ImageLimits, RgbImage};
use crate::loose::{LooseImages, Place};
use crate::skip::{OnBad, Skipped};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A benchmark: its tasks in memory, and its images in packs or in files.
#[derive(Debug, Clone)]
pub struct Benchmark {
    /// The tasks, in the order of `benchmark.json`.
    pub tasks: Vec<BenchTask>,
    /// The images, by key.
    images: Arc<Places>,
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

    /// Opens a benchmark as [`Self::open`] does. Under [`OnBad::Skip`] it leaves out records that cannot be used, and those whose
    /// images cannot be decoded; the hash depends on which are left out.
    pub(crate) fn open_with(dir: &Path, on_bad: OnBad) -> Result<(Self, Skipped)> {
        let mut hasher = Sha256::new();
        let mut images = read_images(dir, &mut hasher)?;
        let (bytes, entries) = read_index(dir)?;
        feed(&mut hasher, INDEX_FILE, &bytes);
        let (mut tasks, mut skipped) = (Vec::with_capacity(entries.len()), Skipped::default());
        for entry in entries {
            let path = task_file(dir, &entry.name);
            let bytes = read(&path)?;
            feed(&mut hasher, &entry.name, &bytes);
            let read: Vec<_> = read_records(&bytes, entry.metric).collect();
            let is_blank = |(_, record): &(usize, std::result::Result<Record, String>)| {
                record.as_ref().is_ok_and(|record| record.image == BLANK)
            };
            if !images.contains_key(BLANK) && read.iter().any(is_blank) {
                let mut blank = LooseImages::default();
                blank.insert_bytes(BLANK, &blank_image()?)?;
                images.extend(blank.into_places());
            }
            let broken = if on_bad == OnBad::Skip { undecodable(&images, &read) } else { BTreeMap::new() };
            let mut records = Vec::with_capacity(read.len());
            for (line, record) in read {
                let usable = record.and_then(|record| match images.get(&record.image) {
                    None => Err(format!("there is no image `{}`", record.image)),
                    Some(_) => broken.get(&record.image).map_or(Ok(record), |what| Err(what.clone())),
                });
                match usable {
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
        Ok((Self { tasks, images: Arc::new(images), hash }, skipped))
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
        let images = loose.into_places();
        for (key, place) in &images {
            feed(&mut hasher, key, &place.n_bytes()?.to_le_bytes());
        }
        let hash = ContentHash(hasher.finalize().into());
        Ok(Self { tasks, images: Arc::new(images), hash })
    }

    /// The encoded image of a key, read anew each time.
    ///
    /// # Errors
    /// [`DataError::UnknownImage`], or [`DataError::Io`] naming the file if it cannot be read or has become shorter.
    pub fn image(&self, key: &str) -> Result<Vec<u8>> {
        self.place(key)?.read()
    }

    /// The hash of the encoded image of a key.
    ///
    /// # Errors
    /// As [`Self::image`].
    pub fn content_hash(&self, key: &str) -> Result<ContentHash> {
        let mut hasher = Sha256::new();
        self.place(key)?.stream(|chunk| hasher.update(chunk))?;
        Ok(ContentHash(hasher.finalize().into()))
    }

    fn place(&self, key: &str) -> Result<&Place> {
        self.images.get(key).ok_or_else(|| DataError::UnknownImage { key: key.into() })
    }

    /// The task of a name.
    ///
    /// # Errors
    /// [`DataError::UnknownTask`], with a suggestion if a task has a similar name.
    pub fn task(&self, name: &str) -> Result<&BenchTask> {
        let task = self.tasks.iter().find(|task| task.name == name);
        task.ok_or_else(|| unknown_task(self.tasks.iter().map(|task| task.name.as_str()), name))
    }

    /// The default downstream sequence: all tasks that have an order, sorted by it.
    pub fn sequence(&self) -> Vec<&BenchTask> {
        let mut tasks: Vec<_> = self.tasks.iter().filter(|task| task.order.is_some()).collect();
        tasks.sort_by_key(|task| task.order);
        tasks
    }

    /// The pre-training tasks, in the order of `benchmark.json`.
    pub fn pretraining(&self) -> Vec<&BenchTask> {
        self.tasks.iter().filter(|task| task.stage == Stage::Pretraining).collect()
    }

    /// The hash of all tasks, records and images; for images that are in no pack it covers key and length only.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// The number of images, both in packs and out of them.
    pub fn n_images(&self) -> usize {
        self.images.keys().filter(|key| *key != BLANK).count()
    }
}

/// The images of all folders below `dir`: of each its `images.pack`, or its image files if it has none.
fn read_images(dir: &Path, hasher: &mut Sha256) -> Result<Places> {
    let io = |source| DataError::Io { path: dir.into(), source };
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .map_err(io)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<std::io::Result<_>>()
        .map_err(io)?;
    paths.retain(|path| path.is_dir());
    paths.sort();
    let mut images = Places::new();
    for path in paths {
        let folder = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let packed = path.join("images.pack");
        let more =
            if packed.is_file() { read_pack(&packed, &folder, hasher)? } else { read_folder(&path, hasher)? };
        if let Some(key) = more.keys().find(|key| key.split('/').next() != Some(&folder)) {
            let what =
                format!("the image `{key}` belongs to another folder; keys here begin with `{folder}/`");
            return Err(DataError::Pack { path: packed, what });
        }
        images.extend(more);
    }
    Ok(images)
}

/// The images of some records that cannot be decoded, with the reason.
fn undecodable(
    images: &Places,
    records: &[(usize, std::result::Result<Record, String>)],
) -> BTreeMap<String, String> {
    let keys: BTreeSet<&str> =
        records.iter().filter_map(|(_, record)| Some(record.as_ref().ok()?.image.as_str())).collect();
    let reason = |key: &str| {
        let bytes = images.get(key)?.read();
        let decoded = bytes.and_then(|bytes| RgbImage::decode(&bytes, key, ImageLimits::default()));
        Some((key.to_owned(), decoded.err()?.with_cause()))
    };
    keys.into_par_iter().filter_map(reason).collect()
}
