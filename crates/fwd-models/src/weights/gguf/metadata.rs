//! The metadata of a GGUF file: keys and their values.

use std::collections::BTreeMap;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    /// A list of texts that was wanted.
    Texts(Vec<String>),
    /// A list of 32-bit numbers that was wanted.
    Numbers(Vec<u64>),
    /// Another list, or a text of more than some hundred bytes, which nothing here needs.
    Long,
}

/// Keys and their values.
#[derive(Debug)]
pub(in crate::weights) struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    pub(super) fn new(values: BTreeMap<String, Value>) -> Self {
        Self(values)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.0.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A whole number, if the key is there; what is wrong with another value.
    pub(super) fn whole(&self, key: &str) -> std::result::Result<Option<u64>, String> {
        match self.0.get(key) {
            None => Ok(None),
            Some(&Value::Unsigned(value)) => Ok(Some(value)),
            Some(&Value::Signed(value)) if value >= 0 => Ok(Some(value.unsigned_abs())),
            Some(Value::Long) => Err(format!("`{key}` is a list; one number for all layers is supported")),
            Some(other) => Err(format!("`{key}` is {other:?} and no whole number")),
        }
    }

    pub(super) fn float(&self, key: &str) -> Option<f64> {
        match self.0.get(key) {
            Some(&Value::Float(value)) => Some(value),
            _ => None,
        }
    }
}
