//! The elements of a JSON array, or the lines of a JSONL file, one at a time: a file of gigabytes takes the memory of its
//! longest record.
//!
//! The scanner only finds where a value ends, by its brackets and quotation marks; serde_json reads the value.

use super::source::{MAX_RECORD, Source};
use crate::error::{DataError, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// Where the elements stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `[element, …]`.
    Array,
    /// `{…, "key": [element, …], …}`.
    Under(&'static str),
    /// One element a line.
    Lines,
}

const TRUNCATED: &str = "the file ends inside the array; it is truncated";

/// A value of the file.
pub(super) struct Element {
    /// Its number, counted from 0.
    pub(super) index: usize,
    /// Where it begins.
    at: u64,
    bytes: Vec<u8>,
}

/// The elements of a file; after an error outside a record there are no more.
pub(super) struct Elements {
    source: Source,
    shape: Shape,
    n_read: usize,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Start,
    Inside,
    End,
}

impl Elements {
    pub(super) fn open(path: &Path, shape: Shape) -> Result<Self> {
        Ok(Self { source: Source::open(path)?, shape, n_read: 0, state: State::Start })
    }

    /// Finds the next element.
    fn advance(&mut self) -> Result<Option<Element>> {
        if self.shape == Shape::Lines {
            return self.line();
        }
        if self.state == State::Start {
            match self.shape {
                Shape::Under(key) => {
                    if find_key(&mut self.source, &[key])?.is_none() {
                        return Err(self.source.syntax(format!("the file has no key `{key}`")));
                    }
                }
                Shape::Array | Shape::Lines => {}
            }
            expect(&mut self.source, b'[')?;
            self.state = State::Inside;
        }
        match self.source.peek_past_space()? {
            Some(b']') => {
                self.source.consume(1);
                if self.shape == Shape::Array && self.source.peek_past_space()?.is_some() {
                    return Err(self.source.syntax("text after the end of the array"));
                }
                return Ok(None);
            }
            None => return Err(self.source.syntax(TRUNCATED)),
            Some(_) if self.n_read > 0 => expect(&mut self.source, b',')?,
            Some(_) => {}
        }
        match self.source.peek_past_space()? {
            Some(b']') => return Err(self.source.syntax("a comma before the end of the array")),
            None => return Err(self.source.syntax(TRUNCATED)),
            Some(_) => {}
        }
        let (at, mut bytes) = (self.source.at(), Vec::new());
        read_value(&mut self.source, Some(&mut bytes)).map_err(|error| self.inside(error))?;
        Ok(Some(self.element(at, bytes)))
    }

    fn line(&mut self) -> Result<Option<Element>> {
        if self.source.peek_past_space()?.is_none() {
            return Ok(None);
        }
        let (at, mut bytes) = (self.source.at(), Vec::new());
        loop {
            let chunk = self.source.chunk()?;
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let n_bytes = end.unwrap_or(chunk.len());
            bytes.extend(&chunk[..n_bytes]);
            self.source.consume(n_bytes);
            if bytes.len() > MAX_RECORD {
                return Err(self.inside(too_long(&self.source)));
            }
            if end.is_some() || n_bytes == 0 {
                return Ok(Some(self.element(at, bytes)));
            }
        }
    }

    fn element(&mut self, at: u64, bytes: Vec<u8>) -> Element {
        self.n_read += 1;
        Element { index: self.n_read - 1, at, bytes }
    }

    /// An error of the scanner as one of the record it stands in.
    fn inside(&self, error: DataError) -> DataError {
        match error {
            DataError::TaskSyntax { path, at, what } => {
                let what = format!("byte {at}: {what}");
                DataError::TaskRecord { path, index: self.n_read, key: None, what }
            }
            other => other,
        }
    }
}

impl Iterator for Elements {
    type Item = Result<Element>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::End {
            return None;
        }
        let next = self.advance().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.state = State::End;
        }
        next
    }
}

impl Element {
    /// The object that the element is.
    ///
    /// # Errors
    /// [`DataError::TaskRecord`] with the place of the fault: invalid UTF-8, invalid JSON, another value than an object.
    pub(super) fn object(&self, path: &Path) -> Result<Map<String, Value>> {
        let fail = |what| DataError::TaskRecord { path: path.into(), index: self.index, key: None, what };
        if let Err(error) = std::str::from_utf8(&self.bytes) {
            return Err(fail(format!("byte {}: this is not UTF-8", self.at + error.valid_up_to() as u64)));
        }
        match serde_json::from_slice(&self.bytes) {
            Ok(Value::Object(map)) => Ok(map),
            Ok(other) => Err(fail(format!("expected an object, found {}", kind(&other)))),
            Err(error) => {
                let before = self.bytes.split(|&byte| byte == b'\n').take(error.line().saturating_sub(1));
                let line_start: usize = before.map(|line| line.len() + 1).sum();
                let at = self.at + (line_start + error.column().saturating_sub(1)) as u64;
                let what = error.to_string();
                let what = what.split(" at line ").next().unwrap_or_default();
                Err(fail(format!("byte {at}: {what}")))
            }
        }
    }
}

/// What a value is, for messages.
pub(super) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "a truth value".into(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(_) => "a string".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// Goes to the value of the first of some keys of the object that the file is; none if it has none of them.
pub(super) fn find_key<'a>(source: &mut Source, keys: &[&'a str]) -> Result<Option<&'a str>> {
    expect(source, b'{')?;
    loop {
        match source.peek_past_space()? {
            Some(b'}') => return Ok(None),
            Some(b',') => source.consume(1),
            _ => {}
        }
        let mut name = Vec::new();
        if source.peek_past_space()? != Some(b'"') {
            return Err(source.syntax("expected a key in quotation marks"));
        }
        read_value(source, Some(&mut name))?;
        expect(source, b':')?;
        let name: String = serde_json::from_slice(&name).map_err(|_| source.syntax("the key is damaged"))?;
        if let Some(&key) = keys.iter().find(|&&key| key == name) {
            return Ok(Some(key));
        }
        source.peek_past_space()?;
        read_value(source, None)?;
    }
}

fn expect(source: &mut Source, wanted: u8) -> Result<()> {
    let next = source.peek_past_space()?;
    if next == Some(wanted) {
        source.consume(1);
        return Ok(());
    }
    let found =
        next.map_or_else(|| "the end of the file".into(), |byte| format!("`{}`", byte.escape_ascii()));
    Err(source.syntax(format!("expected `{}`, found {found}", char::from(wanted))))
}

fn too_long(source: &Source) -> DataError {
    source.syntax(format!("the record is longer than {} MiB", MAX_RECORD >> 20))
}

/// Reads or, without `out`, passes over one value.
fn read_value(source: &mut Source, mut out: Option<&mut Vec<u8>>) -> Result<()> {
    let mut scan = Scan::default();
    let mut n_kept = 0;
    loop {
        let chunk = source.chunk()?;
        if chunk.is_empty() {
            return Err(source.syntax("the file ends inside a value; it is truncated"));
        }
        let (n_bytes, is_done) = scan.feed(chunk);
        if let Some(out) = &mut out {
            out.extend(&chunk[..n_bytes]);
            n_kept += n_bytes;
        }
        source.consume(n_bytes);
        if n_kept > MAX_RECORD {
            return Err(too_long(source));
        }
        if is_done {
            return Ok(());
        }
    }
}

/// How far into a value the scanner is.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    is_scalar: bool,
}

impl Scan {
    /// How many of the bytes belong to the value, and whether it ends there.
    fn feed(&mut self, chunk: &[u8]) -> (usize, bool) {
        for (i, &byte) in chunk.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return (i + 1, true);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b',' | b']' | b'}' if self.depth == 0 => return (i, true),
                _ if self.is_scalar && byte.is_ascii_whitespace() => return (i, true),
                b'"' if !self.is_scalar => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return (i + 1, true);
                    }
                }
                _ => self.is_scalar = self.depth == 0,
            }
        }
        (chunk.len(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::Scan;

    #[test]
    fn a_value_ends_at_the_same_byte_however_it_is_cut() {
        for (value, rest) in [
            (r#"{"a":[1,{"b":"}]"}],"c":"\\\"]"}"#, ",1]"),
            (r#"["[",["\\"]]"#, "]"),
            (r#""x\"y\\""#, " ,"),
            ("-1.5e3", ",2"),
            ("null", "\n]"),
            ("{}", "{}"),
            ("[]", "]"),
        ] {
            let text = format!("{value}{rest}").into_bytes();
            assert_eq!(Scan::default().feed(&text), (value.len(), true), "{value}");
            for cut in 1..text.len() {
                let mut scan = Scan::default();
                let (head, is_done) = scan.feed(&text[..cut]);
                let n_bytes = if is_done { head } else { head + scan.feed(&text[cut..]).0 };
                assert_eq!(n_bytes, value.len(), "{value} cut at {cut}");
            }
        }
    }
}
