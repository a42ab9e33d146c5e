//! Comma-separated values (RFC 4180) with a header, as spreadsheets and pandas write them.
//!
//! The columns are called as the keys of test questions: `image`, `question` (or `text`), `answer`, and where they are given
//! `question_id`, `answers` (a JSON list), `size`, `answer_bbox`. Fields in quotation marks may hold commas, line breaks and doubled
//! quotation marks.

use super::fields::Fields;
use super::questions;
use super::record::TaskRecord;
use super::source::{MAX_RECORD, Source};
use crate::error::{DataError, Result};
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
        let header =
            header.into_iter().map(|name| String::from_utf8(name).map(|name| name.trim().to_owned()));
        let header: Vec<String> = header
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| source.syntax("the header is not UTF-8"))?;
        if let Some((i, name)) = header.iter().enumerate().find(|(i, name)| header[..*i].contains(name)) {
            return Err(source.syntax(format!("the header names `{name}` again in column {}", i + 1)));
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
        let Some(cells) = row(&mut self.source, Some(self.n_read))? else { return Ok(None) };
        let index = self.n_read;
        self.n_read += 1;
        let path = self.source.path();
        if cells.len() != self.header.len() {
            let what = format!("{} fields under {} columns", cells.len(), self.header.len());
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
        let records = questions::records(&Fields { path, index, map: &map })?;
        Ok(records.into_iter().next())
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
        // An error before the end of the row was found leaves no place to go on from.
        self.is_at_end = !matches!(next, Some(Ok(_))) && self.n_read == n_before;
        next
    }
}

/// The fields of the next row that is not empty; `index` names it in errors, none is the header.
fn row(source: &mut Source, index: Option<usize>) -> Result<Option<Vec<Vec<u8>>>> {
    let fail = |source: &Source, what: String| match index {
        Some(index) => DataError::TaskRecord { path: source.path().into(), index, key: None, what },
        None => source.syntax(format!("in the header: {what}")),
    };
    if source.peek_past_space()?.is_none() {
        return Ok(None);
    }
    let start = source.at();
    let (mut cells, mut cell, mut is_quoted) = (Vec::new(), Vec::new(), false);
    loop {
        if source.at() - start > MAX_RECORD as u64 {
            return Err(fail(
                source,
                format!("the row at byte {start} is longer than {} MiB", MAX_RECORD >> 20),
            ));
        }
        let Some(byte) = source.peek()? else {
            if is_quoted {
                return Err(fail(source, format!("the row at byte {start} ends inside quotation marks")));
            }
            break;
        };
        source.consume(1);
        match byte {
            b'"' if is_quoted && source.peek()? == Some(b'"') => {
                source.consume(1);
                cell.push(b'"');
            }
            b'"' if is_quoted || cell.is_empty() => is_quoted = !is_quoted,
            b',' if !is_quoted => cells.push(std::mem::take(&mut cell)),
            b'\n' if !is_quoted => break,
            other => cell.push(other),
        }
    }
    if cell.last() == Some(&b'\r') {
        cell.pop();
    }
    cells.push(cell);
    Ok(Some(cells))
}
