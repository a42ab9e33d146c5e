//! The tokenizers of a model without its weights.

use super::reader::{Reader, Template, TextFormat};
use anyhow::{Result, ensure};
use fwd_data::Processor;
use fwd_models::Reading;
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
    /// That names the file that is missing or damaged, also a tokenizer for the bridge where it reads the instruction.
    pub fn open(dir: &Path, template: Option<Template>) -> Result<Self> {
        let reading = fwd_models::reading(dir)?;
        let processor = processor_of(dir, &reading)?;
        // Which id ends an answer changes no count.
        let format = TextFormat::open(dir, template, reading, 0)?;
        Ok(Self { processor, format })
    }

    /// What counts tokens with them.
    pub fn reader(&self) -> Reader<'_> {
        Reader { processor: &self.processor, format: &self.format }
    }
}

/// The processor in the directory of a model that reads so, its tokenizers bound to the tables of embeddings that the model has.
///
/// # Errors
/// That names the file that is missing or damaged, also a tokenizer for the bridge where it reads the instruction.
pub(crate) fn processor_of(dir: &Path, reading: &Reading) -> Result<Processor> {
    let mut processor =
        if reading.reads_images { Processor::open(dir)? } else { Processor::without_images(dir)? };
    processor.text = processor.text.for_model(reading.vocab_size, reading.image_token);
    if let Some(vocab_size) = reading.bridge_vocab_size {
        processor.qformer = processor.qformer.map(|tokenizer| tokenizer.for_model(vocab_size, None));
    }
    ensure!(
        processor.qformer.is_some() || !reading.bridge_reads_instruction,
        "{}: InstructBLIP needs it; if there is a vocab.txt, `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)` \
         of transformers makes it",
        dir.join("qformer_tokenizer/tokenizer.json").display()
    );
    Ok(processor)
}
