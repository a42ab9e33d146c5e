//! The keys of one record, read with errors that name file, record and key.

use super::json::kind;
use crate::error::{DataError, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// An object of a file.
pub(super) struct Fields<'a> {
    /// The file that the record was read from, for errors.
    pub(super) path: &'a Path,
    /// The record, counted from 0.
    pub(super) index: usize,
    /// The keys of the record and their values.
    pub(super) map: &'a Map<String, Value>,
}

impl Fields<'_> {
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

    /// A name, which may be written as a number.
    pub(super) fn label(&self, keys: &[&str]) -> Result<Option<String>> {
        self.get(keys).map(|(key, value)| self.as_label(key, value)).transpose()
    }

    /// The name of the record, from `question_id` or `id`.
    pub(super) fn id(&self) -> Result<Option<String>> {
        self.label(&["question_id", "id"])
    }

    /// Right answers: one, a list, or a list of objects with a key `answer`; a string may hold a list in JSON. None if no key
    /// is there.
    pub(super) fn answers(&self) -> Result<Option<Vec<String>>> {
        let Some((key, value)) = self.get(&["answers", "answer"]) else { return Ok(None) };
        let list = value.as_str().filter(|text| key == "answers" && text.trim_start().starts_with('['));
        let parsed: Option<Value> = list.and_then(|text| serde_json::from_str(text).ok());
        let answers = match parsed.as_ref().unwrap_or(value) {
            Value::Array(items) => items
                .iter()
                .map(|item| self.as_label(key, item.get("answer").unwrap_or(item)))
                .collect::<Result<_>>()?,
            one => vec![self.as_label(key, one)?],
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
        numbers.map(Some).ok_or_else(|| self.fail(key, format!("expected {N} numbers, found {value}")))
    }

    /// The path of the only image of the record; none if no key is there or the path is empty.
    pub(super) fn image(&self, keys: &[&str]) -> Result<Option<String>> {
        if let Some((key, Value::Array(list))) = self.get(keys) {
            return Err(self.fail(key, format!("{} images; a record has one", list.len())));
        }
        Ok(self.text(keys)?.filter(|image| !image.is_empty()).map(str::to_owned))
    }

    fn as_label(&self, key: &str, value: &Value) -> Result<String> {
        match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            other => Err(self.fail(key, format!("expected a string or a number, found {}", kind(other)))),
        }
    }
}
