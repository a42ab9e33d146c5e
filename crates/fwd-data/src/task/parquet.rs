//! Hugging Face parquet: data sets as their hub stores them, a column `image` of `{bytes, path}` beside text columns.
//!
//! The columns are called as the keys of test questions; columns of other types are passed over. Where `bytes` is null, the path below
//! the image root counts. Compression: snappy, the hub's default, or none.

use super::fields::Fields;
use super::questions;
use super::record::{ImageSource, TaskRecord};
use crate::error::{DataError, Result};
use ::parquet::file::reader::SerializedFileReader;
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row};
use serde_json::{Map, Value};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Reads a file row by row.
pub(super) struct ParquetRecords {
    path: PathBuf,
    rows: RowIter<'static>,
    n_read: usize,
    is_at_end: bool,
}

impl ParquetRecords {
    /// Reads the schema.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| DataError::Io { path: path.into(), source })?;
        let reader = SerializedFileReader::new(file).map_err(|error| DataError::TaskSyntax {
            path: path.into(),
            at: 0,
            what: error.to_string(),
        })?;
        let rows = RowIter::from_file_into(Box::new(reader));
        Ok(Self { path: path.into(), rows, n_read: 0, is_at_end: false })
    }

    fn record(&self, index: usize, row: &Row) -> Result<TaskRecord> {
        let mut image = None;
        let mut map = Map::new();
        for (name, field) in row.get_column_iter() {
            match field {
                Field::Group(parts) if name == "image" => image = image_of(parts),
                field => {
                    if let Some(value) = value_of(field) {
                        map.insert(name.clone(), value);
                    }
                }
            }
        }
        let fields = Fields { path: &self.path, index, map: &map };
        let record = questions::records(&fields)?.into_iter().next();
        let mut record = record.ok_or_else(|| fields.missing(&["text"]))?;
        record.image = image.or(record.image);
        Ok(record)
    }
}

impl Iterator for ParquetRecords {
    type Item = Result<TaskRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_at_end {
            return None;
        }
        let row = self.rows.next()?;
        let index = self.n_read;
        self.n_read += 1;
        Some(match row {
            Ok(row) => self.record(index, &row),
            Err(error) => {
                self.is_at_end = true;
                let (path, what) = (self.path.clone(), error.to_string());
                Err(DataError::TaskRecord { path, index, key: None, what })
            }
        })
    }
}

fn image_of(parts: &Row) -> Option<ImageSource> {
    let part =
        |wanted: &str| parts.get_column_iter().find(|(name, _)| *name == wanted).map(|(_, field)| field);
    match (part("bytes"), part("path")) {
        (Some(Field::Bytes(bytes)), _) => Some(ImageSource::Bytes(bytes.data().to_vec())),
        (_, Some(Field::Str(path))) => Some(ImageSource::Path(path.clone())),
        _ => None,
    }
}

/// Strings, numbers and lists of them.
fn value_of(field: &Field) -> Option<Value> {
    Some(match field {
        Field::Str(text) => Value::from(text.clone()),
        Field::Byte(number) => Value::from(*number),
        Field::Short(number) => Value::from(*number),
        Field::Int(number) => Value::from(*number),
        Field::Long(number) => Value::from(*number),
        Field::UInt(number) => Value::from(*number),
        Field::ULong(number) => Value::from(*number),
        Field::Float(number) => Value::from(*number),
        Field::Double(number) => Value::from(*number),
        Field::ListInternal(list) => list.elements().iter().filter_map(value_of).collect(),
        _ => return None,
    })
}
