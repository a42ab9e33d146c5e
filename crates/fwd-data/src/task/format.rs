//! The formats of files of records, and how a file's format is told.

use super::json::{Elements, Shape, find_key};
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
    /// Tells the format of a file by the ending of its name and by its first record.
    ///
    /// # Errors
    /// [`DataError::Io`](crate::DataError::Io), or [`DataError::TaskSyntax`](crate::DataError::TaskSyntax) for a file of none of the formats.
    pub fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "jsonl" => return Ok(Self::TestLines),
            "csv" => return Ok(Self::Csv),
            "parquet" => return Ok(Self::Parquet),
            _ => {}
        }
        let mut source = Source::open(path)?;
        match source.peek_past_space()? {
            Some(b'[') => {
                let first = Elements::open(path, Shape::Array)?.next().transpose()?;
                let object = first.map(|element| element.object(path)).transpose()?.unwrap_or_default();
                Ok(if object.contains_key("conversations") { Self::Llava } else { Self::Test })
            }
            Some(b'{') => Ok(match find_key(&mut source, &["data", "annotations", "images"])? {
                Some("data") => Self::TextVqa,
                Some(_) => Self::Coco,
                None => Self::TestLines,
            }),
            Some(_) => Err(source.syntax("this is neither a JSON array nor a JSON object")),
            None => Err(source.syntax("the file is empty")),
        }
    }
}
