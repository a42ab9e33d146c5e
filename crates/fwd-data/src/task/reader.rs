//! The records of a file of any format, one at a time.

use super::coco::LeftOut;
use super::fields::Fields;
use super::format::Format;
use super::json::{Element, Elements, Shape};
#[cfg(feature = "parquet")]
use super::parquet;
use super::record::TaskRecord;
use super::{coco, csv, llava, questions, textvqa};
use crate::error::{DataError, Result};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// The records of a file, in its order; after an error in one record the next can still be read.
pub struct Records {
    records: Box<dyn Iterator<Item = Result<TaskRecord>>>,
    /// Captions of the file that are in none of the records.
    pub(super) left_out: LeftOut,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

impl Iterator for Records {
    type Item = Result<TaskRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        self.records.next()
    }
}

/// Opens a file of records. Without a format, [`Format::of`] tells it.
///
/// One record is in memory at a time; for COCO all captions are, too.
///
/// # Errors
/// [`DataError::Io`] and [`DataError::TaskSyntax`]. The iterator's errors name file, record and key; a record without an answer, or
/// whose image cannot be used, is one of them. [`DataError::TaskSyntax`] ends the file: it was cut, or is damaged so that nothing behind
/// that place can be read.
pub fn read(path: &Path, format: Option<Format>) -> Result<Records> {
    let path_of = path.to_path_buf();
    let Records { records, left_out } = read_unanswered(path, format)?;
    let answered = records.map(move |record| {
        let record = record?;
        record.usable_image(&path_of)?;
        if record.answers.is_empty() {
            return Err(no_answer(&path_of, record.index));
        }
        Ok(record)
    });
    Ok(Records { records: Box::new(answered), left_out })
}

pub(super) fn no_answer(path: &Path, index: usize) -> DataError {
    let what = "is missing; nor is `answers`".into();
    DataError::TaskRecord { path: path.into(), index, key: Some("answer".into()), what }
}

/// As [`read`], but records may have no answers, as another file may hold them, and images that cannot be used, as not everyone looks at
/// them.
pub(super) fn read_unanswered(path: &Path, format: Option<Format>) -> Result<Records> {
    let format = format.map_or_else(|| Format::of(path), Ok)?;
    let elements = |shape, parse| -> Result<Box<dyn Iterator<Item = Result<TaskRecord>>>> {
        Ok(Box::new(JsonRecords::open(path, shape, parse)?))
    };
    let mut left_out = LeftOut::default();
    let records = match format {
        Format::Llava => elements(Shape::Array, llava::records)?,
        Format::LlavaLines => elements(Shape::Lines, llava::records)?,
        Format::Test => elements(Shape::Array, questions::records)?,
        Format::TestLines => elements(Shape::Lines, questions::records)?,
        Format::TextVqa => elements(Shape::Under("data"), textvqa::records)?,
        Format::Coco => {
            let (records, captions) = coco::CocoRecords::open(path)?;
            left_out = captions;
            Box::new(records)
        }
        Format::Csv => Box::new(csv::CsvRecords::open(path)?),
        #[cfg(feature = "parquet")]
        Format::Parquet => Box::new(parquet::ParquetRecords::open(path)?),
        #[cfg(not(feature = "parquet"))]
        Format::Parquet => {
            let what = "this program was built without parquet; build it again with \
                        `cargo install --path crates/fwd-cli --features parquet`";
            return Err(DataError::Config { path: path.into(), what: what.into() });
        }
    };
    Ok(Records { records, left_out })
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
        (self.parse)(&Fields { path: &self.path, index: element.index, map: &map, blobs: &[] })
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
