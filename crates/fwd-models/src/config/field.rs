//! Reading a JSON file, and the checks that several parts of a configuration share. What is wrong is said in one line that
//! names the field by its path in `config.json`.

use crate::error::{ModelError, Result};
use fwd_ops::Activation;
use serde::de::DeserializeOwned;
use std::fs;
use std::path::Path;

/// Most layers of a stack.
pub(crate) const LAYERS: usize = 1 << 10;
/// Longest side, sequence or list of heads.
pub(crate) const LENGTH: usize = 1 << 14;
/// Widest layer, and the largest vocabulary.
pub(crate) const WIDTH: usize = 1 << 24;

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(|source| ModelError::Io { path: path.into(), source })?;
    serde_json::from_slice(&text).map_err(|source| ModelError::Json { path: path.into(), source })
}

pub(crate) fn activation(origin: &str, name: &str) -> Result<Activation> {
    Activation::from_hf_name(name).ok_or_else(|| ModelError::Config {
        origin: origin.into(),
        what: format!("activation `{name}` is not known; gelu, gelu_new, gelu_pytorch_tanh and relu are"),
    })
}

/// The first of the named values that is 0, if any is.
pub(crate) fn not_zero(fields: &[(&str, usize)]) -> std::result::Result<(), String> {
    match fields.iter().find(|(_, value)| *value == 0) {
        Some((name, _)) => Err(format!("{name} must not be 0")),
        None => Ok(()),
    }
}

/// Sizes far above any real model are refused before they overflow or exhaust the memory.
pub(crate) fn at_most(fields: &[(&str, usize, usize)]) -> std::result::Result<(), String> {
    match fields.iter().find(|(_, value, most)| value > most) {
        Some((name, value, most)) => Err(format!("{name} {value} is absurd, at most {most} is supported")),
        None => Ok(()),
    }
}

/// An epsilon lies in `0..1`.
pub(crate) fn epsilon(name: &str, value: f64) -> std::result::Result<(), String> {
    if (0.0..1.0).contains(&value) { Ok(()) } else { Err(format!("{name} {value} must lie in 0..1")) }
}

/// The heads of an attention share its width evenly.
pub(crate) fn divides(part: &str, width: usize, heads: usize) -> std::result::Result<(), String> {
    if width.is_multiple_of(heads) {
        return Ok(());
    }
    Err(format!("{part}: hidden_size {width} is not a multiple of {heads} heads"))
}
