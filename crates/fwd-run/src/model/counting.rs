//! How long texts are in the tokens of a model, with or without its weights.

use super::backbone::Backbone;
use anyhow::Result;
use fwd_data::Processor;
use fwd_models::Reading;
use std::path::Path;

/// Counts tokens as a model reads them.
pub trait CountTokens: Sync {
    /// The longest instruction that the model has positions for, in tokens as [`Self::count_instruction_tokens`] counts them; none if it
    /// has no such limit.
    fn max_instruction_tokens(&self) -> Option<usize>;

    /// The tokens of an instruction, special tokens included, as the part of the model counts them that limits them.
    ///
    /// # Errors
    /// Those of the tokenizer.
    fn count_instruction_tokens(&self, instruction: &str) -> Result<usize>;

    /// The tokens of an answer that is to be learnt, end of sequence included.
    ///
    /// # Errors
    /// Those of the tokenizer.
    fn count_answer_tokens(&self, answer: &str) -> Result<usize>;
}

impl CountTokens for Backbone {
    fn max_instruction_tokens(&self) -> Option<usize> {
        self.max_instruction_tokens()
    }

    fn count_instruction_tokens(&self, instruction: &str) -> Result<usize> {
        self.count_instruction_tokens(instruction)
    }

    fn count_answer_tokens(&self, answer: &str) -> Result<usize> {
        self.count_answer_tokens(answer)
    }
}

/// The tokenizers of a model directory, opened without its weights: these may have gigabytes.
#[derive(Debug)]
pub struct ModelTokenizers {
    processor: Processor,
    reading: Reading,
}

impl ModelTokenizers {
    /// Opens the tokenizers and the configuration of a model directory.
    ///
    /// # Errors
    /// That names the file that is missing or damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self { reading: fwd_models::reading(dir)?, processor: Processor::open(dir)? })
    }
}

impl CountTokens for ModelTokenizers {
    fn max_instruction_tokens(&self) -> Option<usize> {
        self.reading.max_instruction_tokens
    }

    fn count_instruction_tokens(&self, instruction: &str) -> Result<usize> {
        let own = self.processor.qformer.as_ref().filter(|_| self.reading.bridge_reads_instruction);
        let text = self.processor.text.without_image_token(instruction);
        Ok(own.unwrap_or(&self.processor.text).encode(&text)?.len())
    }

    fn count_answer_tokens(&self, answer: &str) -> Result<usize> {
        let text = &self.processor.text;
        Ok(text.encode(&text.without_image_token(answer))?.len())
    }
}
