//! A benchmark made from pictures: from folders, each a class, or from a table of images, questions and answers.
//!
//! In a folder of pictures each sub-folder is a class, and its name, with spaces for underscores, the answer. If no sub-folder holds
//! pictures itself, each is a task and its own sub-folders are the classes. Sub-folders called `train`, `val` and `test` are the splits of
//! the task that they are in; without them a share of each class is drawn for the test. Pictures are found at any depth below a class.
//!
//! What is made is a description, `tasks.toml`, and the folder `records`. Pictures stay where they are.

use super::convert::{make_folder, write_file};
use super::description::{self, FileNames, Kind, TaskSpec};
use super::presets::slug;
use super::reader::read;
use super::record::{ImageSource, TaskRecord};
use super::set::DESCRIPTION;
use crate::bench::{ContentHash, INDEX_FILE};
use crate::error::{DataError, Result};
use crate::shown::shown;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The folder of the files of records.
const RECORDS: &str = "records";
/// How deep folders are searched.
const MAX_DEPTH: usize = 32;

/// How a benchmark is made.
#[derive(Debug, Clone)]
pub struct Init {
    /// What is drawn for the test depends on it, on the share and on the paths of the images, and on nothing else.
    pub seed: u64,
    /// The share of the images of each class, or of the table, that is drawn for the test, between 0 and 1.
    pub test_share: f64,
    /// What is asked about each picture of a class.
    pub question: String,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    /// The description.
    pub description: PathBuf,
    /// The tasks, in its order.
    pub tasks: Vec<MadeTask>,
    /// Files that look like pictures and are in no task: of another format than PNG, JPEG and WebP, in no class, or symbolic links.
    pub passed_over: Vec<PathBuf>,
}

/// A task that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MadeTask {
    /// The name that commands know it by, made of the name of its folder or table.
    pub name: String,
    /// The number of its classes; none for a task from a table.
    pub n_classes: Option<usize>,
    /// The number of records of each split that it has.
    pub n_records: BTreeMap<&'static str, usize>,
}

/// A line of a file of records.
#[derive(Serialize)]
struct Question {
    #[serde(skip_serializing_if = "Option::is_none")]
    question_id: Option<String>,
    image: String,
    text: String,
    answers: Vec<String>,
}

/// Pictures by class.
type Classes = BTreeMap<String, Vec<String>>;
/// Records by split.
type Splits = BTreeMap<&'static str, Vec<Question>>;

/// Makes a benchmark in a folder of pictures, or in the folder of a table in CSV. A folder without pictures in sub-folders may hold the
/// table.
///
/// # Errors
/// [`DataError::Config`] for a folder without classes, a class of which there is no other, or a share that is none; [`DataError::Io`] if
/// there is a benchmark already, or a file cannot be written; those of [`read`] for a table.
pub fn init(from: &Path, options: &Init) -> Result<Made> {
    if !(options.test_share > 0.0 && options.test_share < 1.0) {
        return Err(config(from, "the share of the test must lie between 0 and 1"));
    }
    let mut passed_over = Vec::new();
    let (dir, tasks) = if from.is_dir() {
        let tasks = from_pictures(from, options, &mut passed_over)?;
        match tasks.is_empty().then(|| only_table(from)).flatten() {
            Some(table) => (from, vec![from_table(&table, options)?]),
            None => (from, tasks),
        }
    } else {
        let dir = from.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        (dir, vec![from_table(from, options)?])
    };
    if tasks.is_empty() {
        return Err(config(
            dir,
            "there are no PNG, JPEG or WebP pictures in sub-folders, one for each class, and no table in CSV",
        ));
    }
    let description = dir.join(DESCRIPTION);
    for taken in [&description, &dir.join(INDEX_FILE)] {
        if taken.exists() {
            let source = io::Error::new(
                ErrorKind::AlreadyExists,
                "there is a benchmark already, which is not overwritten",
            );
            return Err(DataError::Io { path: taken.clone(), source });
        }
    }
    let specs: Vec<TaskSpec> = tasks.iter().map(|(spec, _, _)| spec.clone()).collect();
    description::validate(&description, &specs)?;
    let text = description::write(&description, &specs)?;
    let files = tasks
        .iter()
        .flat_map(|(spec, _, splits)| splits.iter().map(move |(split, lines)| (spec, split, lines)));
    make_folder(&dir.join(RECORDS), |folder| {
        files.clone().try_for_each(|(spec, split, lines)| {
            write_file(&folder.join(format!("{}-{split}.jsonl", spec.name)), |file| {
                lines.iter().try_for_each(|line| {
                    serde_json::to_writer(&mut *file, line)?;
                    file.write_all(b"\n")
                })
            })
        })
    })?;
    write_file(&description, |file| file.write_all(text.as_bytes()))?;
    let tasks = tasks.iter().map(|(spec, n_classes, splits)| MadeTask {
        name: spec.name.clone(),
        n_classes: *n_classes,
        n_records: splits.iter().map(|(split, lines)| (*split, lines.len())).collect(),
    });
    Ok(Made { tasks: tasks.collect(), description, passed_over })
}

/// A task, the number of its classes, and its records.
type Task = (TaskSpec, Option<usize>, Splits);

/// The tasks of a folder of pictures; none if no sub-folder has any.
fn from_pictures(dir: &Path, options: &Init, passed_over: &mut Vec<PathBuf>) -> Result<Vec<Task>> {
    let Listing { folders, pictures, others } = list(dir)?;
    let own = folders.iter().map(|name| Ok((name, list(&dir.join(name))?))).collect::<Result<Vec<_>>>()?;
    let have_splits = !folders.is_empty() && folders.iter().all(|name| split_of(name).is_some());
    let is_one_task = have_splits || own.iter().any(|(_, listing)| !listing.pictures.is_empty());
    passed_over.extend(pictures.iter().chain(&others).map(|name| dir.join(name)));
    let mut tasks = Vec::new();
    if is_one_task {
        let absolute = dir.canonicalize().map_err(|source| DataError::Io { path: dir.into(), source })?;
        let name = absolute.file_name().and_then(|name| name.to_str()).unwrap_or("pictures").to_owned();
        tasks.extend(of_folder(dir, "", &name, options, passed_over)?);
        return Ok(tasks);
    }
    for (name, listing) in own.iter().filter(|(name, _)| *name != RECORDS) {
        passed_over.extend(listing.others.iter().map(|other| dir.join(name).join(other)));
        tasks.extend(of_folder(dir, &format!("{name}/"), name, options, passed_over)?);
    }
    Ok(tasks)
}

/// The task of the folder `dir/below`, whose sub-folders are classes, or splits that hold them; none if it has no pictures.
fn of_folder(
    dir: &Path,
    below: &str,
    name: &str,
    options: &Init,
    passed_over: &mut Vec<PathBuf>,
) -> Result<Option<Task>> {
    let folders = list(&dir.join(below))?.folders;
    let mut splits: BTreeMap<&'static str, Classes> = BTreeMap::new();
    if !folders.is_empty() && folders.iter().all(|folder| split_of(folder).is_some()) {
        for folder in &folders {
            let listing = list(&dir.join(below).join(folder))?;
            let stray = listing.pictures.iter().chain(&listing.others);
            passed_over.extend(stray.map(|name| dir.join(below).join(folder).join(name)));
            let classes = classes(dir, &format!("{below}{folder}/"), &listing.folders, passed_over)?;
            splits.entry(split_of(folder).unwrap_or("train")).or_default().extend(classes);
        }
    } else {
        for (class, pictures) in classes(dir, below, &folders, passed_over)? {
            let n_test = n_test(pictures.len(), options.test_share);
            let mut drawn = pictures;
            drawn.sort_by_cached_key(|picture| draw(options.seed, picture));
            let mut rest = drawn.split_off(n_test);
            for (split, pictures) in [("test", &mut drawn), ("train", &mut rest)] {
                pictures.sort();
                if !pictures.is_empty() {
                    splits.entry(split).or_default().insert(class.clone(), std::mem::take(pictures));
                }
            }
        }
    }
    let n_classes = splits.values().flat_map(Classes::keys).collect::<BTreeSet<_>>().len();
    match n_classes {
        0 => return Ok(None),
        1 => {
            return Err(config(
                &dir.join(below),
                "all pictures are of one class; a task needs two, each a sub-folder",
            ));
        }
        _ => {}
    }
    let question = |class: &str, image: String| Question {
        question_id: Some(image.clone()),
        image,
        text: options.question.clone(),
        answers: vec![class.to_owned()],
    };
    let splits: Splits = splits
        .into_iter()
        .map(|(split, classes)| {
            let lines = classes.into_iter().flat_map(|(class, pictures)| {
                pictures.into_iter().map(move |picture| (class.clone(), picture))
            });
            (split, lines.map(|(class, picture)| question(&class, picture)).collect())
        })
        .collect();
    Ok(Some((spec(name, Kind::Classification, &splits)?, Some(n_classes), splits)))
}

/// The pictures of each class, whose folders lie in `dir/below`.
fn classes(dir: &Path, below: &str, folders: &[String], passed_over: &mut Vec<PathBuf>) -> Result<Classes> {
    let mut classes = Classes::new();
    for folder in folders {
        let mut pictures = Vec::new();
        walk(dir, &format!("{below}{folder}"), 0, &mut pictures, passed_over)?;
        if !pictures.is_empty() {
            classes.entry(folder.replace('_', " ")).or_default().append(&mut pictures);
        }
    }
    Ok(classes)
}

/// All pictures of a folder and of the folders in it.
fn walk(
    dir: &Path,
    below: &str,
    depth: usize,
    pictures: &mut Vec<String>,
    passed_over: &mut Vec<PathBuf>,
) -> Result<()> {
    let folder = dir.join(below);
    if depth > MAX_DEPTH {
        return Err(config(&folder, "the folders lie too deep in each other"));
    }
    let listing = list(&folder)?;
    pictures.extend(listing.pictures.iter().map(|name| format!("{below}/{name}")));
    passed_over.extend(listing.others.iter().map(|name| folder.join(name)));
    listing
        .folders
        .iter()
        .try_for_each(|name| walk(dir, &format!("{below}/{name}"), depth + 1, pictures, passed_over))
}

/// The task of a table; all questions about one image are in one split.
fn from_table(table: &Path, options: &Init) -> Result<Task> {
    let mut questions = Vec::new();
    for record in read(table, None)? {
        let TaskRecord { id, index, image, instruction, answers, .. } = record?;
        let Some(ImageSource::Path(image)) = image else {
            let (path, key) = (table.into(), Some("image".into()));
            return Err(DataError::TaskRecord {
                path,
                index,
                key,
                what: "is missing; every row needs the path of a picture".into(),
            });
        };
        questions.push(Question { question_id: id, image, text: instruction, answers });
    }
    let mut images: Vec<String> = questions.iter().map(|question| question.image.clone()).collect();
    images.sort();
    images.dedup();
    if images.len() < 2 {
        return Err(config(
            table,
            "a table needs two pictures or more, to have some to learn from and some to test on",
        ));
    }
    images.sort_by_cached_key(|image| draw(options.seed, image));
    images.truncate(n_test(images.len(), options.test_share));
    let drawn = BTreeSet::from_iter(images);
    let (test, train) =
        questions.into_iter().partition(|question: &Question| drawn.contains(&question.image));
    let splits = Splits::from([("train", train), ("test", test)]);
    let name = table.file_stem().and_then(|name| name.to_str()).unwrap_or("table");
    Ok((spec(name, Kind::Vqa, &splits)?, None, splits))
}

/// A description of the task whose records these are.
fn spec(name: &str, kind: Kind, splits: &Splits) -> Result<TaskSpec> {
    let slug = slug(name);
    if slug.is_empty() {
        let what = format!(
            "`{}` has no letters or digits that the name of a task could be made of; rename it",
            shown(name)
        );
        return Err(config(Path::new(name), &what));
    }
    let mut spec = TaskSpec::new(slug, kind);
    spec.title = Some(name.to_owned());
    let file = |split: &str| {
        splits.contains_key(split).then(|| FileNames::One(format!("{RECORDS}/{}-{split}.jsonl", spec.name)))
    };
    let (train, val, test) = (file("train"), file("val"), file("test"));
    (spec.train, spec.val, spec.test) = (train, val, test);
    Ok(spec)
}

/// What lies in a folder, by name.
struct Listing {
    folders: Vec<String>,
    pictures: Vec<String>,
    /// Pictures that cannot be read.
    others: Vec<String>,
}

fn list(dir: &Path) -> Result<Listing> {
    let io = |source| DataError::Io { path: dir.into(), source };
    let mut listing = Listing { folders: Vec::new(), pictures: Vec::new(), others: Vec::new() };
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let kind = entry.file_type().map_err(io)?;
        let file_name = entry.file_name();
        let name = file_name.to_str().filter(|name| !name.starts_with('.'));
        let ending = Path::new(&file_name).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let is_read = ["png", "jpg", "jpeg", "webp"].contains(&ending.to_ascii_lowercase().as_str());
        let is_other =
            ["gif", "bmp", "tif", "tiff", "heic", "avif"].contains(&ending.to_ascii_lowercase().as_str());
        match name {
            Some(name) if kind.is_dir() => listing.folders.push(name.to_owned()),
            Some(name) if kind.is_file() && is_read => listing.pictures.push(name.to_owned()),
            _ if is_read || is_other => listing.others.push(file_name.to_string_lossy().into_owned()),
            _ => {}
        }
    }
    listing.folders.sort();
    listing.pictures.sort();
    listing.others.sort();
    Ok(listing)
}

/// The only table of a folder; none if there are several.
fn only_table(dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    let mut tables =
        entries.filter(|path| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("csv")));
    tables.next().filter(|_| tables.next().is_none())
}

/// The split that a folder is called after.
fn split_of(folder: &str) -> Option<&'static str> {
    match folder.to_ascii_lowercase().as_str() {
        "train" | "training" => Some("train"),
        "val" | "valid" | "validation" => Some("val"),
        "test" | "testing" => Some("test"),
        _ => None,
    }
}

/// How many of so many are drawn: at least one, and at least one is left; none of a single one.
fn n_test(n: usize, share: f64) -> usize {
    ((n as f64 * share).round() as usize).max(1).min(n.saturating_sub(1))
}

/// A number that is drawn for an image.
fn draw(seed: u64, image: &str) -> ContentHash {
    ContentHash::of(format!("{seed}\n{image}").as_bytes())
}

fn config(path: &Path, what: &str) -> DataError {
    DataError::Config { path: path.into(), what: what.into() }
}
