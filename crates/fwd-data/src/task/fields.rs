//! The keys of one record, read with errors that name file, record and key.

use super::json::kind;
use super::literal;
use crate::error::{DataError, Result};
use crate::shown::shown;
use serde_json::{Map, Value};
use std::path::Path;

/// The only key of an object that stands for bytes, with their number among those of the record. No JSON key is called so by accident.
const BLOB: &str = "\0bytes";

/// An object of a file.
pub(super) struct Fields<'a> {
    /// The file that the record was read from, for errors.
    pub(super) path: &'a Path,
    /// The record, counted from 0.
    pub(super) index: usize,
    /// The keys of the record and their values.
    pub(super) map: &'a Map<String, Value>,
    /// What the values hold that is no text, where the format has such values; [`blob`] refers to it.
    pub(super) blobs: &'a [Vec<u8>],
}

/// A value that stands for the bytes of this number.
#[cfg(feature = "parquet")]
pub(super) fn blob(number: usize) -> Value {
    Value::Object(Map::from_iter([(BLOB.to_owned(), Value::from(number))]))
}

impl Fields<'_> {
    /// The bytes that an object stands for; none for any other object.
    pub(super) fn blob(&self, object: &Map<String, Value>) -> Option<&[u8]> {
        let number = object.get(BLOB)?.as_u64()?;
        self.blobs.get(usize::try_from(number).ok()?).map(Vec::as_slice)
    }

    /// An error about the value of a key.
    pub(super) fn fail(&self, key: &str, what: impl Into<String>) -> DataError {
        let (path, key) = (self.path.into(), Some(key.into()));
        DataError::TaskRecord { path, index: self.index, key, what: what.into() }
    }

    /// An error that this key, or another that may stand for it, is missing.
    pub(super) fn missing(&self, keys: &[&str]) -> DataError {
        let others = keys.get(1..).unwrap_or_default();
        let others: Vec<_> = others.iter().map(|key| format!("`{key}`")).collect();
        let or = if others.is_empty() { String::new() } else { format!("; nor is {}", others.join(" or ")) };
        self.fail(keys.first().copied().unwrap_or_default(), format!("is missing{or}"))
    }

    /// The first of some keys that is there and not null.
    pub(super) fn get<'k>(&self, keys: &[&'k str]) -> Option<(&'k str, &Value)> {
        keys.iter()
            .find_map(|&key| self.map.get(key).filter(|value| !value.is_null()).map(|value| (key, value)))
    }

    /// The string under the first of some keys that is there; none if no key is there.
    pub(super) fn text(&self, keys: &[&str]) -> Result<Option<&str>> {
        self.get(keys)
            .map(|(key, value)| {
                value
                    .as_str()
                    .ok_or_else(|| self.fail(key, format!("expected a string, found {}", kind(value))))
            })
            .transpose()
    }

    /// The string under the first of some keys; an error if no key is there.
    pub(super) fn required(&self, keys: &[&str]) -> Result<&str> {
        self.text(keys)?.ok_or_else(|| self.missing(keys))
    }

    /// A name, which may be written as a number; `1.0` is the name `1`.
    pub(super) fn label(&self, keys: &[&str]) -> Result<Option<String>> {
        let Some((key, value)) = self.get(keys) else { return Ok(None) };
        let whole = value.as_f64().filter(|number| value.is_f64() && number.fract() == 0.0);
        // Adding 0 makes 0 of -0.
        whole.map_or_else(|| self.as_text(key, value), |number| Ok(format!("{:.0}", number + 0.0))).map(Some)
    }

    /// The name of the record, from `question_id` or `id`.
    pub(super) fn id(&self) -> Result<Option<String>> {
        self.label(&["question_id", "id"])
    }

    /// Right answers: one, a list, or a list of objects with a key `answer`; a string may hold a list in JSON or in Python. None if no key
    /// is there.
    pub(super) fn answers(&self) -> Result<Option<Vec<String>>> {
        let is_none = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        let several = self.get(&["answers"]).filter(|(_, value)| !is_none(value));
        let Some((key, value)) = several.or_else(|| self.get(&["answer", "answers"])) else {
            return Ok(None);
        };
        // A list of numbers under `answer` may be a box.
        let is_meant = |list: &Vec<Value>| key == "answers" || list.iter().any(Value::is_string);
        let parsed = value.as_str().and_then(literal::list).filter(is_meant).map(Value::Array);
        let answers = match parsed.as_ref().unwrap_or(value) {
            Value::Array(items) => items
                .iter()
                .map(|item| self.as_text(key, item.get("answer").unwrap_or(item)))
                .collect::<Result<_>>()?,
            one => vec![self.as_text(key, one)?],
        };
        Ok(Some(answers))
    }

    /// Exactly N numbers, in a list or in a string that holds a list.
    pub(super) fn numbers<const N: usize>(&self, keys: &[&str]) -> Result<Option<[f64; N]>> {
        let Some((key, value)) = self.get(keys) else { return Ok(None) };
        let parsed: Option<Value> = value.as_str().and_then(|text| serde_json::from_str(text).ok());
        let list = parsed.as_ref().unwrap_or(value).as_array();
        let numbers: Option<Vec<f64>> = list.and_then(|list| list.iter().map(Value::as_f64).collect());
        let numbers = numbers.and_then(|numbers| <[f64; N]>::try_from(numbers).ok());
        numbers.map(Some).ok_or_else(|| {
            self.fail(key, format!("expected {N} numbers, found {}", shown(&value.to_string())))
        })
    }

    fn as_text(&self, key: &str, value: &Value) -> Result<String> {
        match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            other => Err(self.fail(key, format!("expected a string or a number, found {}", kind(other)))),
        }
    }
}
