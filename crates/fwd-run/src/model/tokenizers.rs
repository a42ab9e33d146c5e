//! The tokenizers of a model without its weights.

use super::reader::{Reader, Template, TextFormat};
use anyhow::Result;
use fwd_data::Processor;
use std::path::Path;

/// The tokenizers of a model directory, opened without its weights: these may have gigabytes.
#[derive(Debug)]
pub struct ModelTokenizers {
    processor: Processor,
    format: TextFormat,
}

impl ModelTokenizers {
    /// Opens the tokenizers and the configuration of a model directory. Without a `template` prompts are written as
    /// [`ModelOptions`](super::ModelOptions) says.
    ///
    /// # Errors
    /// That names the file that is missing or damaged.
    pub fn open(dir: &Path, template: Option<Template>) -> Result<Self> {
        let reading = fwd_models::reading(dir)?;
        let mut processor = Processor::open(dir)?;
        processor.text = processor.text.for_model(reading.vocab_size, reading.image_token);
        // Which id ends an answer changes no count.
        let format = TextFormat::open(dir, template, reading, 0)?;
        Ok(Self { processor, format })
    }

    /// What counts tokens with them.
    pub fn reader(&self) -> Reader<'_> {
        Reader { processor: &self.processor, format: &self.format }
    }
}
