//! Tasks as the field keeps them on disk: LLaVA conversations, test questions, TextVQA, COCO captions, CSV and parquet.
//!
//! [`read`] streams the records of one file, whatever its format, in bounded memory; a [`TaskSet`] describes the files of several
//! tasks, or finds them in a folder, and [`open`] makes a [`Benchmark`](crate::bench::Benchmark) of it; [`check`] looks for what
//! makes scores worthless; [`convert`] writes the packed format and the LLaVA layout; [`annotations`] are what predictions are
//! scored against.
//!
//! ```no_run
//! use fwd_data::task::{self, OnBad};
//! let loaded = task::open("cl_dataset".as_ref(), OnBad::Refuse)?;
//! println!("{} tasks", loaded.bench.tasks.len());
//! # Ok::<(), fwd_data::DataError>(())
//! ```

mod annotations;
mod check;
mod coco;
pub mod convert;
mod csv;
mod description;
mod fields;
mod images;
mod json;
mod leaks;
mod llava;
#[cfg(feature = "parquet")]
mod parquet;
mod presets;
mod references;
mod set;
mod source;
mod tests_json;
mod textvqa;

pub use annotations::{Annotation, Annotations, annotations, sequence};
pub use check::{Finding, Findings, TaskReport, check};
pub use description::{FileNames, Kind, TaskSpec};
pub use images::ImageRoot;
pub(crate) use images::LooseImages;
pub(crate) use leaks::states_answer;
pub use leaks::{Closing, Share};
pub use presets::{Preset, is_same_task};
pub use set::{Loaded, OnBad, Skipped, TaskSet, open};

use crate::error::{DataError, Result};
use fields::Fields;
use json::{Element, Elements, Shape};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What is asked about an image, as it stands in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRecord {
    /// Its name in the file; none if it has none.
    pub id: Option<String>,
    /// The element or row that it was read from, counted from 0.
    pub index: usize,
    /// The image; none for a question without one.
    pub image: Option<ImageSource>,
    /// What the model is asked; empty where the file holds captions only.
    pub instruction: String,
    /// What is right; the first is the training target.
    pub answers: Vec<String>,
    /// Width and height of the image in pixels, where they are given.
    pub size: Option<[f64; 2]>,
    /// The right box `x1, y1, x2, y2`, where one is given.
    pub bbox: Option<[f64; 4]>,
}

impl TaskRecord {
    /// Its name in the file, or its number where it has none.
    pub fn name(&self) -> String {
        self.id.clone().unwrap_or_else(|| self.index.to_string())
    }
}

/// Where a record's image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A path below the image root.
    Path(String),
    /// An encoded image within the file.
    Bytes(Vec<u8>),
}

/// How a file holds its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Format {
    /// A JSON array of conversations.
    Llava,
    /// A JSON array of questions.
    Test,
    /// Questions in JSON, one a line.
    TestLines,
    /// TextVQA's `{"data": […]}`.
    TextVqa,
    /// COCO captions.
    Coco,
    /// Comma-separated values with a header.
    Csv,
    /// Hugging Face parquet.
    Parquet,
}

impl Format {
    /// The format of a file, by its name and its first record.
    ///
    /// # Errors
    /// [`DataError::Io`], or [`DataError::TaskSyntax`] for a file of none of the formats.
    pub fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "jsonl" => return Ok(Self::TestLines),
            "csv" => return Ok(Self::Csv),
            "parquet" => return Ok(Self::Parquet),
            _ => {}
        }
        let mut source = source::Source::open(path)?;
        match source.peek_past_space()? {
            Some(b'[') => {
                let first = Elements::open(path, Shape::Array)?.next().transpose()?;
                let object = first.map(|element| element.object(path)).transpose()?.unwrap_or_default();
                Ok(if object.contains_key("conversations") { Self::Llava } else { Self::Test })
            }
            Some(b'{') => Ok(match json::find_key(&mut source, &["data", "annotations", "images"])? {
                Some("data") => Self::TextVqa,
                Some(_) => Self::Coco,
                None => Self::TestLines,
            }),
            Some(_) => Err(source.syntax("this is neither a JSON array nor a JSON object")),
            None => Err(source.syntax("the file is empty")),
        }
    }
}

/// The records of a file, in its order; after an error in one record the next can still be read.
pub struct Records(Box<dyn Iterator<Item = Result<TaskRecord>>>);

impl Iterator for Records {
    type Item = Result<TaskRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// The records of a file; without a format, of that which [`Format::of`] finds.
///
/// Memory: one record, and for COCO all captions.
///
/// # Errors
/// [`DataError::Io`] and [`DataError::TaskSyntax`]. The iterator's errors name file, record and key; a record without an answer
/// is one of them.
pub fn read(path: &Path, format: Option<Format>) -> Result<Records> {
    let path_of = path.to_path_buf();
    let answered = read_unanswered(path, format)?.map(move |record| {
        let record = record?;
        if record.answers.is_empty() {
            return Err(no_answer(&path_of, record.index));
        }
        Ok(record)
    });
    Ok(Records(Box::new(answered)))
}

fn no_answer(path: &Path, index: usize) -> DataError {
    let what = "is missing; nor is `answers`".into();
    DataError::TaskRecord { path: path.into(), index, key: Some("answer".into()), what }
}

/// As [`read`], but records may have no answers: another file may hold them.
fn read_unanswered(path: &Path, format: Option<Format>) -> Result<Records> {
    let format = format.map_or_else(|| Format::of(path), Ok)?;
    let elements = |shape, parse| -> Result<Box<dyn Iterator<Item = Result<TaskRecord>>>> {
        Ok(Box::new(JsonRecords::open(path, shape, parse)?))
    };
    let records = match format {
        Format::Llava => elements(Shape::Array, llava::records)?,
        Format::Test => elements(Shape::Array, tests_json::records)?,
        Format::TestLines => elements(Shape::Lines, tests_json::records)?,
        Format::TextVqa => elements(Shape::Under("data"), textvqa::records)?,
        Format::Coco => Box::new(coco::CocoRecords::open(path)?),
        Format::Csv => Box::new(csv::CsvRecords::open(path)?),
        #[cfg(feature = "parquet")]
        Format::Parquet => Box::new(parquet::ParquetRecords::open(path)?),
        #[cfg(not(feature = "parquet"))]
        Format::Parquet => {
            let what = "this program was built without parquet; build it with the feature `parquet`".into();
            return Err(DataError::Config { path: path.into(), what });
        }
    };
    Ok(Records(records))
}

/// The records that one object makes.
type Parse = fn(&Fields<'_>) -> Result<Vec<TaskRecord>>;

/// Records of JSON objects.
struct JsonRecords {
    path: PathBuf,
    elements: Elements,
    parse: Parse,
    /// Made and not yet given out.
    ready: VecDeque<TaskRecord>,
}

impl JsonRecords {
    fn open(path: &Path, shape: Shape, parse: Parse) -> Result<Self> {
        Ok(Self { path: path.into(), elements: Elements::open(path, shape)?, parse, ready: VecDeque::new() })
    }

    fn parsed(&self, element: &Element) -> Result<Vec<TaskRecord>> {
        let map = element.object(&self.path)?;
        (self.parse)(&Fields { path: &self.path, index: element.index, map: &map })
    }
}

impl Iterator for JsonRecords {
    type Item = Result<TaskRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(Ok(record));
            }
            match self.elements.next()?.and_then(|element| self.parsed(&element)) {
                Ok(records) => self.ready.extend(records),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The text without the token `<image>`, wherever it stands; the two sides are joined by a line break if one was between them.
fn without_image_token(text: &str) -> String {
    let mut parts = text.split("<image>");
    let mut joined = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (left, right) = (joined.trim_end(), part.trim_start());
        let gaps = [&joined[left.len()..], &part[..part.len() - right.len()]];
        let breaks = gaps.iter().any(|gap| gap.contains('\n'));
        let separator = match (left.is_empty() || right.is_empty(), breaks) {
            (true, _) => "",
            (false, true) => "\n",
            (false, false) => " ",
        };
        joined = format!("{left}{separator}{right}");
    }
    joined.trim().to_owned()
}

#[cfg(test)]
mod tests;
