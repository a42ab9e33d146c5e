//! Reading a JSON file, and the checks that several parts of a configuration share. What is wrong is said in one line that
//! names the field by its path in `config.json`.

use crate::error::{ModelError, Result};
use fwd_ops::Activation;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

/// Most layers of a stack.
pub(crate) const LAYERS: usize = 1 << 10;
/// Longest side, sequence or list of heads.
pub(crate) const LENGTH: usize = 1 << 14;
/// Widest layer, and the largest vocabulary.
pub(crate) const WIDTH: usize = 1 << 24;

/// The largest JSON file that is read, in bytes; the index of a model of 100,000 tensors has 10 MB.
const LARGEST: u64 = 64 << 20;

/// Reads a JSON file.
///
/// # Errors
/// [`ModelError::Io`]; [`ModelError::Config`] for another kind of file; [`ModelError::Json`].
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text =
        fwd_files::read(path, LARGEST).map_err(|source| ModelError::Io { path: path.into(), source })?;
    if let Some(what) = fwd_files::foreign(&text) {
        return Err(ModelError::Config { origin: path.display().to_string(), what: what.into() });
    }
    serde_json::from_slice(&text).map_err(|source| ModelError::Json { path: path.into(), source })
}

/// What is wrong with the first of all ids of tokens in a configuration that is none, at any depth: an id is a whole number, and not
/// negative, but for the padding of LLaMA-1, which is −1: `model_type` beside it is `llama` then.
pub(crate) fn token_ids(value: &Value, path: &str) -> std::result::Result<(), String> {
    let Value::Object(fields) = value else { return Ok(()) };
    let is_llama = value["model_type"] == "llama";
    for (key, value) in fields {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if !(key.ends_with("_token_id") || key == "image_token_index") {
            token_ids(value, &path)?;
            continue;
        }
        let is_id = |value: &Value| value.as_u64().is_some_and(|id| id <= u64::from(u32::MAX));
        let is_good = match value {
            Value::Null => true,
            Value::Number(id) if key == "pad_token_id" && is_llama && id.as_i64() == Some(-1) => true,
            Value::Array(ids) => ids.iter().all(is_id),
            id => is_id(id),
        };
        if !is_good {
            let found: String = value.to_string().chars().take(60).collect();
            return Err(format!(
                "{path} is {found}; the id of a token is a whole number from 0, or null for none"
            ));
        }
    }
    Ok(())
}

/// Refuses weights that were quantised, which bitsandbytes, GPTQ and AWQ say in `quantization_config`.
pub(crate) fn not_quantised(config: &Value) -> std::result::Result<(), String> {
    let parts = [config, &config["text_config"]];
    match parts.iter().map(|part| &part["quantization_config"]).find(|quantised| !quantised.is_null()) {
        None => Ok(()),
        Some(quantised) => Err(format!(
            "the weights are quantised ({:.40}), which is not supported; use the original, whose weights `dtype = \"q4\"` or \"q8\" quantises \
             on loading, or if there is none load this one in transformers, call `dequantize()` and save it again",
            quantised["quant_method"].as_str().unwrap_or("by an unknown method")
        )),
    }
}

pub(crate) fn activation(origin: &str, name: &str) -> Result<Activation> {
    Activation::from_hf_name(name).ok_or_else(|| ModelError::Config {
        origin: origin.into(),
        what: format!("activation `{name}` is not known; gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu and silu are"),
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
