//! A language model alone: a Hugging Face directory whose `config.json` is that of a LLaMA, an OPT or a T5.

use super::decoder::CausalLm;
use super::model::LanguageModel;
use super::t5::T5;
use crate::config::{SpecialTokens, TextConfig};
use crate::error::{ModelError, Result};
use crate::weights::{Checkpoint, Precision, Redundant, WeightFile, Weights, gguf_file};
use candle_core::Device;
use std::path::Path;
use std::sync::Arc;

/// Builds the language model that a configuration describes, from parameters under `prefix` (`prefix.name`), or without one.
///
/// # Errors
/// [`ModelError::Config`](crate::ModelError::Config) for an impossible configuration, or an error of the source.
pub fn language_model(
    config: &TextConfig,
    weights: &mut dyn Weights,
    prefix: &str,
) -> Result<Arc<dyn LanguageModel>> {
    Ok(match config {
        TextConfig::T5(config) => Arc::new(T5::new(config, weights, prefix)?),
        config => Arc::new(CausalLm::new(config, weights, prefix)?),
    })
}

/// The full names under which checkpoints may keep copies of the embedding table; the first that is there counts.
pub(crate) fn embedding_names(config: &TextConfig, prefix: &str) -> Vec<String> {
    match config {
        TextConfig::T5(_) => T5::embedding_names(prefix).to_vec(),
        config => CausalLm::embedding_names(config, prefix),
    }
}

/// What a tensor that published checkpoints hold beside what the model needs must be: a copy of the tied embedding.
pub(crate) fn redundant<'a>(name: &str, embeddings: &'a [String]) -> Option<Redundant<'a>> {
    embeddings.iter().any(|embedding| embedding == name).then_some(Redundant::CopyOf(embeddings))
}

/// Loads a language model alone: the model, and the ids that generation starts from, ends with and fills up with.
///
/// `path` is a directory with `config.json`, `generation_config.json` (optional) and weights; or a GGUF file of a LLaMA, or a directory
/// with one and without `config.json`, whose metadata then say what the model is.
///
/// # Errors
/// Those of [`TextConfig::read`] and [`SpecialTokens::read`]; [`ModelError`](crate::ModelError) that lists all tensors that are
/// missing, unexpected, misshapen or not finite.
pub fn load_language_model(
    path: &Path,
    precision: impl Into<Precision>,
    device: &Device,
) -> Result<(Arc<dyn LanguageModel>, SpecialTokens)> {
    let json = path.join("config.json");
    let (config, mut checkpoint) = if path.is_dir() && json.exists() {
        (TextConfig::read(&json)?, Checkpoint::open(path, precision, device)?)
    } else {
        let file = if path.is_dir() { gguf_file(path)?.unwrap_or(json) } else { path.into() };
        (gguf_config(&file)?, Checkpoint::open_file(&file, precision, device)?)
    };
    let tokens = SpecialTokens::read(&path.join("generation_config.json"), &config)?;
    let model = language_model(&config, &mut checkpoint, "")?;
    let copies = embedding_names(&config, "");
    checkpoint.finish(|name| redundant(name, &copies))?;
    Ok((model, tokens))
}

/// The configuration in the metadata of a GGUF file.
fn gguf_config(path: &Path) -> Result<TextConfig> {
    let fail = |what| ModelError::Config { origin: path.display().to_string(), what };
    let Some(value) = WeightFile::open(path)?.config()? else {
        return Err(fail(
            "has no metadata that say what model it holds; put its config.json beside it".into(),
        ));
    };
    let config = TextConfig::parse(value, "llama").map_err(fail)?;
    config.check().map_err(fail)?;
    Ok(config)
}
