//! A model directory by the name of its architecture.

use super::blip::Blip;
use super::llava::Llava;
use super::model::{MultimodalModel, Reading};
use super::text_only::TextOnly;
use crate::config::{LlavaConfig, ModelConfig, TextConfig, read_json};
use crate::error::{ModelError, Result};
use crate::weights::Precision;
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
        "llava" | "llava_llama" => Ok(LlavaConfig::read(&path)?.reading()),
        "llama" | "opt" | "t5" => Ok(TextConfig::read(&path)?.reading()),
        _ => Err(unsupported(&path, &model_type)),
    }
}

fn unsupported(path: &Path, model_type: &str) -> ModelError {
    let what = format!(
        "model_type `{}` is not supported; `blip-2`, `instructblip` and `llava` are, and the language models `llama`, `opt` and `t5`",
        model_type.chars().take(60).collect::<String>().escape_debug()
    );
    ModelError::Config { origin: path.display().to_string(), what }
}

/// Loads the model that a Hugging Face directory holds: `model_type` in its `config.json` says which one it is.
///
/// # Errors
/// [`ModelError::Directory`] for what is no model directory, [`ModelError::Config`] that names an architecture which this crate does
/// not have, else those of [`Blip::load`] and [`Llava::load`].
pub fn load(
    dir: &Path,
    precision: impl Into<Precision>,
    device: &Device,
) -> Result<Box<dyn MultimodalModel>> {
    check_directory(dir)?;
    let path = dir.join("config.json");
    let Architecture { model_type } = read_json(&path)?;
    match model_type.as_str() {
        "blip-2" | "instructblip" => Ok(Box::new(Blip::load(dir, precision, device)?)),
        // The second one is that of the original code, of which the configuration is refused with what to do.
        "llava" | "llava_llama" => Ok(Box::new(Llava::load(dir, precision, device)?)),
        "llama" | "opt" | "t5" => Ok(Box::new(TextOnly::load(dir, precision, device)?)),
        _ => Err(unsupported(&path, &model_type)),
    }
}

/// Says what a path is that leads to no model directory.
fn check_directory(dir: &Path) -> Result<()> {
    let has = |name: &str| dir.join(name).exists();
    let what = if dir.extension().is_some_and(|end| end == "gguf") && dir.is_file() {
        "is a language model alone; put it into the folder of a model, with config.json and the safetensors file of its other parts"
    } else if dir.is_file() {
        "is a file; name the folder of a model, with config.json and its weights in it"
    } else if !dir.is_dir() {
        "there is no such folder"
    } else if has("config.json") {
        return Ok(());
    } else if has("adapter_config.json") {
        "is a PEFT adapter and not a model; merge it in Python (`merge_and_unload()`) and save the result"
    } else if has("snapshots") && has("refs") {
        "is a folder of the Hugging Face cache; name the folder below its `snapshots`"
    } else if has("model_index.json") {
        "is a pipeline of diffusers, which is not supported"
    } else if has("manifest.json") {
        "has a manifest.json and no config.json: it is a run and not a model"
    } else {
        "is no model: it has no config.json; name the folder of a BLIP-2, InstructBLIP or LLaVA in Hugging Face's layout"
    };
    Err(ModelError::Directory { dir: dir.into(), what: what.into() })
}
