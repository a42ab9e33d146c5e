//! The elements of a JSON array, or the lines of a JSONL file, one at a time: a file of gigabytes takes the memory of its
//! longest record.
//!
//! The scanner only finds where a value ends, by its brackets and quotation marks; serde_json reads the value. A value that the scanner
//! cannot find the end of is a fault of the file and not of one record: nobody knows what follows it.

use super::source::{MAX_RECORD, Source};
use crate::error::{DataError, Result};
use crate::shown::shown;
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
const CUT_VALUE: &str = "the file ends inside a value; it is truncated";

/// A value of the file.
pub(super) struct Element {
    /// Its number, counted from 0.
    pub(super) index: usize,
    /// Where it begins.
    at: u64,
    bytes: Vec<u8>,
    /// Whether the file ends with it, without the end of a line.
    is_open: bool,
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
            if let Shape::Under(key) = self.shape
                && find_key(&mut self.source, &[key])?.is_none()
            {
                return Err(self.source.syntax(format!("the file has no key `{key}`")));
            }
            expect(&mut self.source, b'[')?;
            self.state = State::Inside;
        }
        match self.source.peek_past_space()? {
            Some(b']') => {
                self.source.consume(1);
                if let Shape::Under(key) = self.shape {
                    finish_object(&mut self.source, key)?;
                }
                if self.source.peek_past_space()?.is_some() {
                    let what = if self.shape == Shape::Array { "array" } else { "object" };
                    return Err(self.source.syntax(format!("text after the end of the {what}")));
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
        read_value(&mut self.source, Some(&mut bytes)).map_err(|error| self.inside(at, error))?;
        Ok(Some(self.element(at, bytes, false)))
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
                return Err(self.inside(at, too_long(&self.source)));
            }
            if end.is_some() || n_bytes == 0 {
                return Ok(Some(self.element(at, bytes, end.is_none())));
            }
        }
    }

    fn element(&mut self, at: u64, bytes: Vec<u8>, is_open: bool) -> Element {
        self.n_read += 1;
        Element { index: self.n_read - 1, at, bytes, is_open }
    }

    /// An error of the scanner with the record that it stands in, which begins at a byte.
    fn inside(&self, start: u64, error: DataError) -> DataError {
        match error {
            DataError::TaskSyntax { path, at, what } => {
                let what = format!("{what} (record {}, which begins at byte {start})", self.n_read);
                DataError::TaskSyntax { path, at, what }
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
    /// Whole numbers of more than 64 bits become strings with all their digits, as names may be such numbers.
    ///
    /// # Errors
    /// [`DataError::TaskRecord`] with the place of the fault: invalid UTF-8, invalid JSON, another value than an object.
    /// [`DataError::TaskSyntax`] if the file ends within the element.
    pub(super) fn object(&self, path: &Path) -> Result<Map<String, Value>> {
        let fail = |what| DataError::TaskRecord { path: path.into(), index: self.index, key: None, what };
        let cut = || {
            let at = self.at + self.bytes.len() as u64;
            let what = format!("{CUT_VALUE} (record {}, which begins at byte {})", self.index, self.at);
            DataError::TaskSyntax { path: path.into(), at, what }
        };
        if let Err(error) = std::str::from_utf8(&self.bytes) {
            if self.is_open && error.error_len().is_none() {
                return Err(cut());
            }
            return Err(fail(format!("byte {}: this is not UTF-8", self.at + error.valid_up_to() as u64)));
        }
        match serde_json::from_slice(&self.bytes) {
            Ok(Value::Object(mut map)) => {
                if map.values().any(Value::is_f64) {
                    keep_digits(&mut map, &self.bytes);
                }
                Ok(map)
            }
            Ok(other) => Err(fail(format!("expected an object, found {}", kind(&other)))),
            Err(error) if self.is_open && error.is_eof() => Err(cut()),
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

    /// Whether it begins and ends with braces, but for white space.
    pub(super) fn has_braces(&self) -> bool {
        let text = self.bytes.trim_ascii();
        text.starts_with(b"{") && text.ends_with(b"}")
    }
}

/// Whole numbers that serde_json has rounded, as strings with their digits; `bytes` is what the object was read from.
fn keep_digits(map: &mut Map<String, Value>, bytes: &[u8]) {
    let mut rest = bytes.trim_ascii_start().get(1..).unwrap_or_default();
    // The bytes are valid JSON, so that the scanner finds key, colon and value in turn.
    let mut next = || {
        rest = rest.trim_ascii_start();
        let separators = rest.iter().take_while(|byte| b",:".contains(byte)).count();
        rest = rest[separators..].trim_ascii_start();
        let (part, after) = rest.split_at(Scan::default().feed(rest).0);
        rest = after;
        part
    };
    loop {
        let (key, number) = (next(), next());
        if key.is_empty() {
            return;
        }
        let is_whole = number.strip_prefix(b"-").unwrap_or(number).iter().all(u8::is_ascii_digit);
        let key = serde_json::from_slice::<String>(key).unwrap_or_default();
        if let Some(value) = map.get_mut(&key).filter(|value| value.is_f64() && is_whole) {
            *value = Value::String(String::from_utf8_lossy(number).into_owned());
        }
    }
}

/// What a value is, for messages.
pub(super) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "a truth value".into(),
        Value::Number(number) => format!("the number {}", shown(&number.to_string())),
        Value::String(_) => "a string".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// Goes to the value of the first of some keys of the object that the file is; none if it has none of them.
pub(super) fn find_key<'a>(source: &mut Source, keys: &[&'a str]) -> Result<Option<&'a str>> {
    expect(source, b'{')?;
    while let Some(name) = next_key(source)? {
        if let Some(&key) = keys.iter().find(|&&key| key == name) {
            return Ok(Some(key));
        }
        source.peek_past_space()?;
        read_value(source, None)?;
    }
    Ok(None)
}

/// Passes over the rest of an object behind the value of one of its keys, which must not come again.
fn finish_object(source: &mut Source, key: &str) -> Result<()> {
    while let Some(name) = next_key(source)? {
        if name == key {
            return Err(source.syntax(format!("the key `{key}` stands twice")));
        }
        source.peek_past_space()?;
        read_value(source, None)?;
    }
    Ok(())
}

/// The next key of an object, with its colon; none at the end of the object.
fn next_key(source: &mut Source) -> Result<Option<String>> {
    if source.peek_past_space()? == Some(b',') {
        source.consume(1);
    }
    match source.peek_past_space()? {
        Some(b'}') => {
            source.consume(1);
            return Ok(None);
        }
        Some(b'"') => {}
        Some(_) => return Err(source.syntax("expected a key in quotation marks")),
        None => return Err(source.syntax("the file ends inside the object; it is truncated")),
    }
    let mut name = Vec::new();
    read_value(source, Some(&mut name))?;
    expect(source, b':')?;
    serde_json::from_slice(&name).map(Some).map_err(|_| source.syntax("the key is damaged"))
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
            return Err(source.syntax(CUT_VALUE));
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
        if is_done && scan.is_crossed {
            return Err(
                source.syntax("the brackets do not match, so that nobody knows where the record ends")
            );
        }
        if is_done {
            return Ok(());
        }
    }
}

/// How far into a value the scanner is.
#[derive(Default)]
struct Scan {
    /// The brackets that are open.
    open: Vec<u8>,
    /// Whether a bracket was closed by one of another kind. Where the value ends is a guess then.
    is_crossed: bool,
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
                        if self.open.is_empty() {
                            return (i + 1, true);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b',' | b']' | b'}' if self.open.is_empty() => return (i, true),
                _ if self.is_scalar && byte.is_ascii_whitespace() => return (i, true),
                b'"' if !self.is_scalar => self.in_string = true,
                b'{' | b'[' => self.open.push(byte),
                b'}' | b']' => {
                    let opened = if byte == b'}' { b'{' } else { b'[' };
                    self.is_crossed |= self.open.pop() != Some(opened);
                    if self.open.is_empty() {
                        return (i + 1, true);
                    }
                }
                _ => self.is_scalar = self.open.is_empty(),
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
