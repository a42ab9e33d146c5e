//! The formats of files of records, and how a file's format is told.

use super::json::{Elements, Shape, find_key};
use super::llava;
use super::source::Source;
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::path::Path;

/// The format of a file of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Format {
    /// A JSON array of conversations.
    Llava,
    /// Conversations in JSON, one a line.
    LlavaLines,
    /// A JSON array of questions.
    Test,
    /// Questions in JSON, one a line.
    TestLines,
    /// TextVQA's `{"data": […]}`.
    TextVqa,
    /// COCO captions, `{"images": […], "annotations": […]}`.
    Coco,
    /// Comma-separated values whose first line names the columns.
    Csv,
    /// Hugging Face parquet.
    Parquet,
}

impl Format {
    /// Tells the format of a file by the ending of its name and by its first records; a damaged record tells nothing.
    ///
    /// # Errors
    /// [`DataError::Io`](crate::DataError::Io), or [`DataError::TaskSyntax`](crate::DataError::TaskSyntax) for a file of none of the formats.
    pub fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "jsonl" => return Self::by_records(path, Shape::Lines),
            "csv" => return Ok(Self::Csv),
            "parquet" => return Ok(Self::Parquet),
            _ => {}
        }
        let mut source = Source::open(path)?;
        match source.peek_past_space()? {
            Some(b'[') => Self::by_records(path, Shape::Array),
            Some(b'{') if has_lines(path)? => Self::by_records(path, Shape::Lines),
            Some(b'{') => {
                const KEYS: [&str; 7] =
                    ["data", "annotations", "conversations", "messages", "text", "question", "instruction"];
                match find_key(&mut source, &KEYS)? {
                    Some("data") => Ok(Self::TextVqa),
                    Some("annotations") => Ok(Self::Coco),
                    Some(_) => Self::by_records(path, Shape::Lines),
                    None => match find_key(&mut Source::open(path)?, &["images"])? {
                        Some(_) => Ok(Self::Coco),
                        None => Ok(Self::TestLines),
                    },
                }
            }
            Some(_) => Err(source.syntax("this is neither a JSON array nor a JSON object")),
            None => Err(source.syntax("the file is empty")),
        }
    }

    /// Conversations or questions, as the first record says that can be read.
    fn by_records(path: &Path, shape: Shape) -> Result<Self> {
        /// How many records are looked at.
        const FEW: usize = 100;
        let mut has_turns = false;
        for element in Elements::open(path, shape)?.take(FEW) {
            if let Ok(object) = element?.object(path) {
                has_turns = llava::KEYS.iter().any(|key| object.contains_key(*key));
                break;
            }
        }
        Ok(match (shape, has_turns) {
            (Shape::Lines, true) => Self::LlavaLines,
            (Shape::Lines, false) => Self::TestLines,
            (_, true) => Self::Llava,
            (_, false) => Self::Test,
        })
    }
}

/// Whether the first two lines with text are both objects, damaged or not: then it is an object a line, whatever the file is called.
fn has_lines(path: &Path) -> Result<bool> {
    let mut lines = Elements::open(path, Shape::Lines)?;
    for _ in 0..2 {
        // A line longer than a record is that of one large object.
        match lines.next() {
            Some(Ok(line)) if line.has_braces() => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}
