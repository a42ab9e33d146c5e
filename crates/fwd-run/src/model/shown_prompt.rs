//! What a language model is given for one sample, for people to read.

use super::backbone::Backbone;
use anyhow::{Result, ensure};
use fwd_models::{Sample, SegmentKind};
use fwd_prompt::{FrozenModel, Place, PromptPool};
use serde::Serialize;
use std::fmt;

/// The input of a language model, in the order in which it reads it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownPrompt {
    /// What follows each other.
    pub parts: Vec<PromptPart>,
    /// The tokens of all parts.
    pub n_tokens: usize,
}

/// A part of a [`ShownPrompt`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum PromptPart {
    /// Soft prompts.
    Prompt {
        /// Those of all prompts that the sample selects.
        n_tokens: usize,
    },
    /// An image as the language model sees it.
    Image {
        /// Visual tokens.
        n_tokens: usize,
    },
    /// Words of the prompt, and special tokens.
    Text {
        /// What the tokenizer makes of the ids again, special tokens written out.
        text: String,
        /// The number of ids that the text is.
        n_tokens: usize,
    },
}

/// The text, and `[image 576 tokens]` or `[prompt 16 tokens]` where it is none.
impl fmt::Display for ShownPrompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                PromptPart::Prompt { n_tokens } => write!(f, "[prompt {n_tokens} tokens]")?,
                PromptPart::Image { n_tokens } => write!(f, "[image {n_tokens} tokens]")?,
                PromptPart::Text { text, .. } => f.write_str(text)?,
            }
        }
        Ok(())
    }
}

impl Backbone {
    /// What the language model is given for an instruction, of which `sample` holds the features, behind the prompts that it selects.
    ///
    /// # Errors
    /// Those of the tokenizer and of the chat template; a sample of another instruction.
    pub fn shown_prompt(&self, instruction: &str, sample: &Sample, pool: &PromptPool) -> Result<ShownPrompt> {
        let model = &*self.model;
        let (width, image) = (model.prompt_dims().model, model.image_token());
        let ids = self.reader().prompt_ids(instruction)?;
        let mut ids = ids.into_iter().filter(|&id| Some(id) != image);
        let n_prompt = pool.select(&model.queries(sample)?)?.prompts.len() * pool.prompt_len();
        let prompt = (n_prompt > 0).then_some(PromptPart::Prompt { n_tokens: n_prompt });
        let mut parts = Vec::new();
        for segment in sample.segments.iter().filter(|segment| !segment.embeds.is_empty()) {
            let n_tokens = segment.embeds.len() / width;
            parts.push(match segment.kind {
                SegmentKind::Prompt => PromptPart::Prompt { n_tokens },
                SegmentKind::Image => PromptPart::Image { n_tokens },
                SegmentKind::Text => {
                    let of_part: Vec<u32> = ids.by_ref().take(n_tokens).collect();
                    ensure!(of_part.len() == n_tokens, "the sample is not one of this instruction");
                    PromptPart::Text { text: self.processor.text.decode_with_special(&of_part)?, n_tokens }
                }
            });
        }
        let place = match pool.place() {
            Place::Front => model.prompt_place().segment().min(parts.len()),
            Place::End => parts.len(),
        };
        parts.splice(place..place, prompt);
        let n_tokens = parts.iter().map(PromptPart::n_tokens).sum();
        Ok(ShownPrompt { parts, n_tokens })
    }
}

impl PromptPart {
    fn n_tokens(&self) -> usize {
        match self {
            Self::Prompt { n_tokens } | Self::Image { n_tokens } | Self::Text { n_tokens, .. } => *n_tokens,
        }
    }
}
