//! A language model alone: a Hugging Face directory whose `config.json` is that of a LLaMA, an OPT or a T5.

use super::decoder::CausalLm;
use super::model::LanguageModel;
use super::t5::T5;
use crate::config::{SpecialTokens, TextConfig};
use crate::error::Result;
use crate::weights::{Checkpoint, Redundant, WeightDtype, Weights};
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

/// Loads a directory with `config.json`, `generation_config.json` (optional) and weights: the model, and the ids that generation
/// starts from, ends with and fills up with.
///
/// # Errors
/// Those of [`TextConfig::read`] and [`SpecialTokens::read`]; [`ModelError`](crate::ModelError) that lists all tensors that are
/// missing, unexpected, misshapen or not finite.
pub fn load_language_model(
    dir: &Path,
    dtype: WeightDtype,
    device: &Device,
) -> Result<(Arc<dyn LanguageModel>, SpecialTokens)> {
    let config = TextConfig::read(&dir.join("config.json"))?;
    let tokens = SpecialTokens::read(&dir.join("generation_config.json"), &config)?;
    let mut checkpoint = Checkpoint::open(dir, dtype, device)?;
    let model = language_model(&config, &mut checkpoint, "")?;
    let copies = embedding_names(&config, "");
    checkpoint.finish(|name| copies.iter().any(|copy| copy == name).then_some(Redundant::CopyOf(&copies)))?;
    Ok((model, tokens))
}
