//! Comma-separated values (RFC 4180) with a header, as spreadsheets and pandas write them.
//!
//! The columns are called as the keys of test questions: `image`, `question` (or `text`), `answer`, and where they are given
//! `question_id`, `answers` (a list in JSON or as Python writes it), `size`, `answer_bbox`. Fields in quotation marks may hold commas, line
//! breaks and doubled quotation marks. A name that ends in `.0` is the whole number that pandas has made a decimal of.
//!
//! A file that ends within a row was cut. A quotation mark that is not closed takes in the rows behind it, so that no row after it can be
//! trusted: both are faults of the file, not of a record.

use super::fields::Fields;
use super::questions;
use super::record::TaskRecord;
use super::source::{MAX_RECORD, Source};
use crate::error::{DataError, Result};
use crate::shown::shown;
use serde_json::{Map, Value};
use std::path::Path;

/// The records of a table, one a row.
pub(super) struct CsvRecords {
    source: Source,
    header: Vec<String>,
    n_read: usize,
    is_at_end: bool,
}

impl CsvRecords {
    /// Reads the header.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut source = Source::open(path)?;
        let Some(header) = row(&mut source, None)? else {
            return Err(source.syntax("the file is empty; it needs a header"));
        };
        if header.is_strange {
            return Err(source.syntax("the header has text behind a closing quotation mark"));
        }
        let header =
            header.cells.into_iter().map(|name| String::from_utf8(name).map(|name| name.trim().to_owned()));
        let header: Vec<String> = header
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| source.syntax("the header is not UTF-8"))?;
        if let Some((i, name)) = header.iter().enumerate().find(|(i, name)| header[..*i].contains(name)) {
            return Err(source.syntax(format!(
                "the header names `{}` again in column {}",
                shown(name),
                i + 1
            )));
        }
        if !header.iter().any(|name| ["text", "question", "instruction"].contains(&name.as_str())) {
            let columns = header.join("`, `");
            return Err(
                source.syntax(format!("the header has no column `question` or `text` among `{columns}`"))
            );
        }
        Ok(Self { source, header, n_read: 0, is_at_end: false })
    }

    fn advance(&mut self) -> Result<Option<TaskRecord>> {
        let Some(Row { cells, is_open, has_breaks, is_strange }) = row(&mut self.source, Some(self.n_read))?
        else {
            return Ok(None);
        };
        let index = self.n_read;
        let what = format!("{} fields under {} columns", cells.len(), self.header.len());
        if is_open && cells.len() < self.header.len() {
            return Err(self
                .source
                .syntax(format!("the file ends inside record {index}, with {what}; it is truncated")));
        }
        if has_breaks && (is_strange || cells.len() != self.header.len()) {
            let what = format!(
                "record {index} has {what} and line breaks within quotation marks; one of these is missing or should be doubled"
            );
            return Err(self.source.syntax(what));
        }
        self.n_read += 1;
        let path = self.source.path();
        if is_strange || cells.len() != self.header.len() {
            let what = if is_strange { "text stands behind a closing quotation mark".into() } else { what };
            return Err(DataError::TaskRecord { path: path.into(), index, key: None, what });
        }
        let mut map = Map::new();
        for (name, cell) in self.header.iter().zip(cells).filter(|(_, cell)| !cell.is_empty()) {
            let cell = String::from_utf8(cell).map_err(|_| DataError::TaskRecord {
                path: path.into(),
                index,
                key: Some(name.clone()),
                what: "this is not UTF-8".into(),
            })?;
            map.insert(name.clone(), Value::String(cell));
        }
        for name in ["question_id", "id"] {
            if let Some(Value::String(id)) = map.get_mut(name)
                && let Some(whole) = id.strip_suffix(".0").filter(|whole| whole.parse::<i64>().is_ok())
            {
                *id = whole.to_owned();
            }
        }
        questions::record(&Fields { path, index, map: &map, blobs: &[] }).map(Some)
    }
}

impl Iterator for CsvRecords {
    type Item = Result<TaskRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_at_end {
            return None;
        }
        let n_before = self.n_read;
        let next = self.advance().transpose();
        // Behind an error of the file there is no place to go on from.
        self.is_at_end = !matches!(next, Some(Ok(_))) && self.n_read == n_before;
        next
    }
}

/// A row of the table.
struct Row {
    cells: Vec<Vec<u8>>,
    /// Whether the file ends with it, without the end of a line.
    is_open: bool,
    /// Whether a field has line breaks.
    has_breaks: bool,
    /// Whether text stands between a closing quotation mark and the next comma.
    is_strange: bool,
}

/// The next row that is not empty; `index` names it in errors, none is the header.
fn row(source: &mut Source, index: Option<usize>) -> Result<Option<Row>> {
    if source.peek_past_space()?.is_none() {
        return Ok(None);
    }
    let start = source.at();
    let name = index.map_or_else(|| "the header".into(), |index| format!("record {index}"));
    let mut row = Row { cells: Vec::new(), is_open: false, has_breaks: false, is_strange: false };
    let (mut cell, mut is_quoted, mut was_quoted) = (Vec::new(), false, false);
    loop {
        if source.at() - start > MAX_RECORD as u64 {
            let what = format!("{name}, the row at byte {start}, is longer than {} MiB", MAX_RECORD >> 20);
            return Err(source.syntax(what));
        }
        let Some(byte) = source.peek()? else {
            if is_quoted {
                let what = format!(
                    "the file ends inside the quotation marks of {name}, the row at byte {start}; it is truncated"
                );
                return Err(source.syntax(what));
            }
            row.is_open = true;
            break;
        };
        source.consume(1);
        match byte {
            b'"' if is_quoted && source.peek()? == Some(b'"') => {
                source.consume(1);
                cell.push(b'"');
            }
            b'"' if is_quoted => (is_quoted, was_quoted) = (false, true),
            b'"' if cell.is_empty() && !was_quoted => is_quoted = true,
            b',' if !is_quoted => {
                row.cells.push(std::mem::take(&mut cell));
                was_quoted = false;
            }
            b'\n' if !is_quoted => break,
            other => {
                row.has_breaks |= other == b'\n';
                row.is_strange |= was_quoted && !other.is_ascii_whitespace();
                // White space behind a closing quotation mark is none of the field.
                if !was_quoted {
                    cell.push(other);
                }
            }
        }
    }
    if !was_quoted && cell.last() == Some(&b'\r') {
        cell.pop();
    }
    row.cells.push(cell);
    Ok(Some(row))
}
