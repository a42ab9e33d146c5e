//! Hugging Face parquet: data sets as their hub stores them, a column `image` of `{bytes, path}` beside text columns.
//!
//! The columns are called as the keys of test questions, or `conversations` as in LLaVA's; structures and lists are read as in JSON. Where
//! `bytes` is null, the path below the image root counts. All codecs of the format are read: snappy, the hub's default, zstd, gzip, brotli, LZ4.
//!
//! A damaged file may make the library panic or run without end, for the sizes in it are not checked against each other. So it runs in
//! a thread of its own, whose rows must come in time, and what it does becomes an error of the file.

use super::fields::{Fields, blob};
use super::record::TaskRecord;
use super::source::other_kind;
use super::{llava, questions};
use crate::error::{DataError, Result};
use crate::fence;
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row};
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// How long the library may take for a row; the first of a group takes as long as decoding a page of each column.
const TIME_LIMIT: Duration = Duration::from_secs(120);
/// How many rows are read ahead.
const AHEAD: usize = 4;

/// What the reading thread sends: nothing once the file is open, then its rows, or what is wrong with the file.
type Message = std::result::Result<Option<Row>, String>;

/// Reads a file row by row.
pub(super) struct ParquetRecords {
    path: PathBuf,
    messages: Receiver<Message>,
    n_read: usize,
    is_at_end: bool,
    /// Made and not yet given out.
    ready: VecDeque<TaskRecord>,
}

impl ParquetRecords {
    /// Reads the schema.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let io = |source| DataError::Io { path: path.into(), source };
        let mut file = fwd_files::open(path).map_err(io)?;
        let n_bytes = file.metadata().map_err(io)?.len();
        let mut start = Vec::new();
        file.by_ref().take(64).read_to_end(&mut start).map_err(io)?;
        file.rewind().map_err(io)?;
        if let Some(what) = other_kind(&start) {
            return Err(DataError::TaskSyntax { path: path.into(), at: 0, what: what.into() });
        }
        let (sender, messages) = sync_channel(AHEAD);
        let worker = thread::Builder::new().name("fenced".into());
        let read = move || {
            if let Err(what) = fence::caught(|| send_rows(file, n_bytes, &sender)) {
                // Nobody may be listening any more.
                let _ = sender.send(Err(format!("the file is damaged: {what}")));
            }
        };
        worker.spawn(read).map_err(io)?;
        let (path, ready) = (path.to_path_buf(), VecDeque::new());
        let mut records = Self { path, messages, n_read: 0, is_at_end: false, ready };
        records.receive()?;
        Ok(records)
    }

    /// The next row; none at the end, and none for the file being open.
    fn receive(&mut self) -> Result<Option<Row>> {
        let what = match self.messages.recv_timeout(TIME_LIMIT) {
            Ok(Ok(row)) => return Ok(row),
            Ok(Err(what)) => what,
            Err(RecvTimeoutError::Timeout) => {
                format!("decoding it has taken longer than {} s; the file is damaged", TIME_LIMIT.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => "the file is damaged: the decoder gave up".into(),
        };
        self.is_at_end = true;
        let what = if self.n_read > 0 { format!("{what} (behind record {})", self.n_read - 1) } else { what };
        Err(DataError::TaskSyntax { path: self.path.clone(), at: 0, what })
    }

    fn parsed(&self, index: usize, row: &Row) -> Result<Vec<TaskRecord>> {
        let mut blobs = Vec::new();
        let columns = row.get_column_iter();
        let map: Map<String, Value> =
            columns.map(|(name, field)| (name.clone(), value_of(name, field, &mut blobs))).collect();
        let fields = Fields { path: &self.path, index, map: &map, blobs: &blobs };
        let has_turns = fields.get(&llava::KEYS).is_some();
        if has_turns { llava::records(&fields) } else { questions::records(&fields) }
    }
}

impl Iterator for ParquetRecords {
    type Item = Result<TaskRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(Ok(record));
            }
            if self.is_at_end {
                return None;
            }
            let row = match self.receive() {
                Ok(Some(row)) => row,
                Ok(None) => {
                    self.is_at_end = true;
                    return None;
                }
                Err(error) => return Some(Err(error)),
            };
            let index = self.n_read;
            self.n_read += 1;
            match self.parsed(index, &row) {
                Ok(records) => self.ready.extend(records),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Sends that the file is open, its rows, and that they have ended, until an error or until nobody listens any more.
fn send_rows(file: File, n_bytes: u64, sender: &SyncSender<Message>) {
    let opened = SerializedFileReader::new(file).map_err(|error| error.to_string());
    let opened = opened.and_then(|reader| check_sizes(reader.metadata(), n_bytes).map(|()| reader));
    let rows = match opened {
        Ok(reader) => RowIter::from_file_into(Box::new(reader)),
        Err(what) => {
            // Nobody may be listening any more, here and below.
            let _ = sender.send(Err(what));
            return;
        }
    };
    let rows = rows.map(|row| row.map(Some).map_err(|error| error.to_string()));
    for message in std::iter::once(Ok(None)).chain(rows).chain(std::iter::once(Ok(None))) {
        let is_last = message.is_err();
        if sender.send(message).is_err() || is_last {
            return;
        }
    }
}

/// Sizes that lead beyond the file, before anything is allocated after them.
fn check_sizes(metadata: &ParquetMetaData, n_bytes: u64) -> std::result::Result<(), String> {
    for (i, group) in metadata.row_groups().iter().enumerate() {
        for column in group.columns() {
            let name = column.column_path().string();
            let starts = [Some(column.data_page_offset()), column.dictionary_page_offset()];
            let start = starts.into_iter().flatten().min().unwrap_or_default();
            let end = start
                .checked_add(column.compressed_size())
                .filter(|_| start >= 0 && column.compressed_size() >= 0);
            if end.and_then(|end| u64::try_from(end).ok()).is_none_or(|end| end > n_bytes) {
                return Err(format!(
                    "column `{name}` of row group {i} leads beyond the end of the file; it is truncated or damaged"
                ));
            }
            if column.num_values() < 0 || group.num_rows() < 0 {
                return Err(format!(
                    "column `{name}` of row group {i} has a negative number of values; the file is damaged"
                ));
            }
        }
    }
    Ok(())
}

/// A field as JSON has it; bytes that are no text go to the others and are referred to. Dates, decimal numbers and maps are passed over.
fn value_of(name: &str, field: &Field, blobs: &mut Vec<Vec<u8>>) -> Value {
    match field {
        Field::Bool(truth) => Value::from(*truth),
        Field::Str(text) => Value::from(text.clone()),
        Field::Byte(number) => Value::from(*number),
        Field::Short(number) => Value::from(*number),
        Field::Int(number) => Value::from(*number),
        Field::Long(number) => Value::from(*number),
        Field::UByte(number) => Value::from(*number),
        Field::UShort(number) => Value::from(*number),
        Field::UInt(number) => Value::from(*number),
        Field::ULong(number) => Value::from(*number),
        // The shortest decimal that is this number, not the digits of its double.
        Field::Float(number) => number.to_string().parse::<f64>().map_or(Value::Null, Value::from),
        Field::Double(number) => Value::from(*number),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) if name != "bytes" => Value::from(text),
            _ => {
                blobs.push(bytes.data().to_vec());
                blob(blobs.len() - 1)
            }
        },
        Field::Group(parts) => {
            let parts = parts.get_column_iter();
            parts
                .map(|(name, part)| (name.clone(), value_of(name, part, blobs)))
                .collect::<Map<_, _>>()
                .into()
        }
        Field::ListInternal(list) => list.elements().iter().map(|item| value_of("", item, blobs)).collect(),
        _ => Value::Null,
    }
}
