//! A [`Benchmark`] on disk again: in the packed format of [`bench`](crate::bench), or as LLaVA JSON in CoIN's layout.
//!
//! Each folder is made under another name beside its place, its files are flushed to the disk, and it is renamed: an interrupt leaves
//! nothing half done. Images are written one at a time, so that the images need not fit into memory.

use super::description::{self, FileNames, Kind, TaskSpec};
use super::images::relative;
use super::set::DESCRIPTION;
use crate::bench::{
    BenchTask, Benchmark, INDEX_FILE, Index, Line, MAGIC, Metric, Record, Split, TaskEntry, VERSION,
    record_head, record_name,
};
use crate::blank::BLANK;
use crate::error::{DataError, Result};
use image::ImageFormat;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Writes a benchmark in the packed format, with the images that its records use.
///
/// # Errors
/// [`DataError::Io`] if `out` exists and is not an empty folder, or a file cannot be written; [`DataError::Pack`] for an image whose
/// name is too long or that is too large; an image that cannot be read.
pub fn to_packed(bench: &Benchmark, out: &Path) -> Result<()> {
    make_folder(out, |dir| {
        let index = Index { version: VERSION, tasks: bench.tasks.iter().map(TaskEntry::from).collect() };
        write_file(&dir.join(INDEX_FILE), |file| {
            serde_json::to_writer_pretty(&mut *file, &index)?;
            file.write_all(b"\n")
        })?;
        for task in &bench.tasks {
            write_file(&dir.join("tasks").join(format!("{}.jsonl", task.name)), |file| {
                for record in &task.records {
                    serde_json::to_writer(&mut *file, &Line::from(record))?;
                    file.write_all(b"\n")?;
                }
                Ok(())
            })?;
        }
        let mut folders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for key in used_images(bench.tasks.iter()) {
            let folder = key.split('/').next().unwrap_or_default();
            if relative(key).is_err() || folder.is_empty() || folder == "tasks" {
                return Err(refused(dir, key));
            }
            folders.entry(folder).or_default().push(key);
        }
        folders.iter().try_for_each(|(folder, keys)| write_pack(bench, &dir.join(folder), keys))
    })
}

/// Writes a benchmark as LLaVA JSON in CoIN's layout: `TASK/train.json`, `TASK/val.json`, `TASK/test.json`, the images in
/// `TASK/images`, and a description that says what the layout cannot.
///
/// # Errors
/// As [`to_packed`].
pub fn to_llava(bench: &Benchmark, out: &Path) -> Result<()> {
    make_folder(out, |dir| {
        let specs = bench.tasks.iter().map(|task| write_llava_task(bench, task, dir));
        let specs: Vec<TaskSpec> = specs.collect::<Result<_>>()?;
        let path = dir.join(DESCRIPTION);
        let text = description::write(&path, &specs)?;
        write_file(&path, |file| file.write_all(text.as_bytes()))
    })
}

/// A training record as LLaVA has it.
#[derive(Serialize)]
struct Conversation<'a> {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    conversations: [Turn<'a>; 2],
    /// All right answers, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    answers: Option<&'a [String]>,
}

#[derive(Serialize)]
struct Turn<'a> {
    from: &'static str,
    value: std::borrow::Cow<'a, str>,
}

/// A test record as CoIN has it.
#[derive(Serialize)]
struct Question<'a> {
    question_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answers: Option<&'a [String]>,
}

fn write_llava_task(bench: &Benchmark, task: &BenchTask, dir: &Path) -> Result<TaskSpec> {
    let mut paths: BTreeMap<&str, String> = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for key in used_images(std::iter::once(task)).into_iter().filter(|key| *key != BLANK) {
        let bytes = bench.image(key)?;
        let path = format!("{}/images/{}", task.name, file_name(key, &bytes));
        if relative(key).is_err() || !taken.insert(path.clone()) {
            return Err(refused(dir, key));
        }
        write_file(&dir.join(&path), |file| file.write_all(&bytes))?;
        paths.insert(key, path);
    }
    let mut spec = TaskSpec::new(task.name.clone(), kind_of(task.metric));
    spec.title = Some(task.title.clone());
    spec.scorer = Some(task.metric);
    spec.stage = Some(task.stage);
    spec.synthetic = task.synthetic;
    spec.order = task.order;
    for (split, name, place) in [
        (Split::Train, "train", &mut spec.train),
        (Split::Val, "val", &mut spec.val),
        (Split::Test, "test", &mut spec.test),
    ] {
        if task.split(split).next().is_none() {
            continue;
        }
        let path = format!("{}/{name}.json", task.name);
        write_file(&dir.join(&path), |file| {
            let mut separator = "[\n";
            for (i, record) in task.split(split).enumerate() {
                file.write_all(separator.as_bytes())?;
                separator = ",\n";
                let id = record.id.clone().unwrap_or_else(|| record_name(&task.name, split, i));
                let image = paths.get(record.image.as_str()).map(String::as_str);
                match split {
                    Split::Train => serde_json::to_writer(&mut *file, &conversation(record, id, image))?,
                    _ => serde_json::to_writer(&mut *file, &question(record, id, image))?,
                }
            }
            file.write_all(b"\n]\n")
        })?;
        *place = Some(FileNames::One(path));
    }
    Ok(spec)
}

fn conversation<'a>(record: &'a Record, id: String, image: Option<&'a str>) -> Conversation<'a> {
    let mark = if image.is_some() { "<image>\n" } else { "" };
    let answer = record.answers.first().map_or("", String::as_str);
    Conversation {
        id,
        image,
        conversations: [
            Turn { from: "human", value: format!("{mark}{}", record.instruction).into() },
            Turn { from: "gpt", value: answer.into() },
        ],
        answers: (record.answers.len() > 1).then_some(&record.answers),
    }
}

fn question<'a>(record: &'a Record, question_id: String, image: Option<&'a str>) -> Question<'a> {
    let (answer, answers) = match record.answers.as_slice() {
        [one] => (Some(one.as_str()), None),
        several => (None, Some(several)),
    };
    Question { question_id, image, text: &record.instruction, answer, answers }
}

fn kind_of(metric: Metric) -> Kind {
    match metric {
        Metric::MultipleChoice => Kind::MultipleChoice,
        Metric::Grounding => Kind::Grounding,
        _ if metric.is_of_captions() => Kind::Caption,
        _ => Kind::Vqa,
    }
}

/// The key with the ending of its format, unless it has one.
fn file_name(key: &str, bytes: &[u8]) -> String {
    if ImageFormat::from_path(key).is_ok() {
        return key.to_owned();
    }
    let extension = image::guess_format(bytes).ok().and_then(|format| format.extensions_str().first());
    extension.map_or_else(|| key.to_owned(), |extension| format!("{key}.{extension}"))
}

/// The images of some tasks, ascending.
fn used_images<'a>(tasks: impl Iterator<Item = &'a BenchTask>) -> BTreeSet<&'a str> {
    tasks.flat_map(|task| &task.records).map(|record| record.image.as_str()).collect()
}

fn refused(dir: &Path, key: &str) -> DataError {
    let what = format!("the image `{key}` has a name that no file here can have");
    DataError::Pack { path: dir.into(), what }
}

fn write_pack(bench: &Benchmark, folder: &Path, keys: &[&str]) -> Result<()> {
    let path = folder.join("images.pack");
    let mut failure = None;
    let written = write_file(&path, |file| {
        file.write_all(MAGIC)?;
        for key in keys {
            let part = bench.image(key).and_then(|bytes| {
                let head = record_head(key, bytes.len())
                    .map_err(|what| DataError::Pack { path: path.clone(), what })?;
                Ok((head, bytes))
            });
            match part {
                Ok((head, bytes)) => {
                    file.write_all(&head)?;
                    file.write_all(&bytes)?;
                }
                Err(error) => {
                    failure = Some(error);
                    // The error that is returned is `failure`; this one keeps the incomplete pack from its place.
                    return Err(io::Error::other("the pack is incomplete"));
                }
            }
        }
        Ok(())
    });
    failure.map_or(written, Err)
}

/// Writes a file whole or not at all; folders on the way are made.
pub(super) fn write_file(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    fwd_files::write_atomically_with(path, fill).map_err(|source| DataError::Io { path: path.into(), source })
}

/// Makes a folder whole or not at all.
pub(super) fn make_folder(out: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let io = |source| DataError::Io { path: out.into(), source };
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(io)?;
    let is_taken = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != ErrorKind::NotFound,
    };
    if is_taken {
        return Err(io(io::Error::new(ErrorKind::AlreadyExists, "something is there already")));
    }
    fwd_files::sweep(parent);
    let made = fwd_files::temporary_folder(parent).map_err(io)?;
    fill(made.path())?;
    if out.exists() {
        fs::remove_dir(out).map_err(io)?;
    }
    made.persist(out).map_err(io)?;
    #[cfg(unix)]
    fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(io)?;
    Ok(())
}
