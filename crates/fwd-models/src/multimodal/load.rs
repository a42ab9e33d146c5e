//! A model directory by the name of its architecture.

use super::blip::Blip;
use super::model::{MultimodalModel, Reading};
use crate::config::{ModelConfig, read_json};
use crate::error::{ModelError, Result};
use crate::weights::WeightDtype;
use candle_core::Device;
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
struct Architecture {
    model_type: String,
}

/// Reads from the `config.json` of a directory what [`load`] of it would do with an instruction; no weights are read.
///
/// # Errors
/// As [`load`] for the configuration.
pub fn reading(dir: &Path) -> Result<Reading> {
    let path = dir.join("config.json");
    let Architecture { model_type } = read_json(&path)?;
    match model_type.as_str() {
        "blip-2" | "instructblip" => Ok(ModelConfig::read(&path)?.reading()),
        _ => Err(unsupported(&path, &model_type)),
    }
}

fn unsupported(path: &Path, model_type: &str) -> ModelError {
    let what = format!("model_type `{model_type}` is not supported; `blip-2` and `instructblip` are");
    ModelError::Config { origin: path.display().to_string(), what }
}

/// Loads the model that a Hugging Face directory holds: `model_type` in its `config.json` says which one it is.
///
/// # Errors
/// [`ModelError::Config`] that names an architecture which this crate does not have, else those of [`Blip::load`].
pub fn load(dir: &Path, dtype: WeightDtype, device: &Device) -> Result<Box<dyn MultimodalModel>> {
    let path = dir.join("config.json");
    let Architecture { model_type } = read_json(&path)?;
    match model_type.as_str() {
        "blip-2" | "instructblip" => Ok(Box::new(Blip::load(dir, dtype, device)?)),
        _ => Err(unsupported(&path, &model_type)),
    }
}
