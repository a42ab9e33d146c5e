//! A language model alone, as a model that answers instructions: images are passed over.
//!
//! The input of the language model is the instruction, as its chat template writes it if there is one. What a prompt pool is asked with is the
//! mean of the instruction's embeddings; the image query is a zero, whose cosine with every key is 0.

use super::features::FrozenFeatures;
use super::model::{Instructions, MultimodalModel, Reading};
use crate::config::{SpecialTokens, TextConfig};
use crate::error::{ModelError, Result};
use crate::language::{LanguageInput, LanguageModel, Segment, SegmentKind, load_language_model};
use crate::tap::Tap;
use crate::weights::{Precision, Weights};
use candle_core::{DType, Device, Tensor};
use fwd_ops::MapChange;
use fwd_prompt::Dims;
use std::path::Path;
use std::sync::Arc;

/// A LLaMA, an OPT or a T5 without a vision tower. Cloning it copies no parameters.
#[derive(Debug, Clone)]
pub struct TextOnly {
    config: TextConfig,
    tokens: SpecialTokens,
    language: Arc<dyn LanguageModel>,
}

impl TextConfig {
    /// What a language model alone does with an instruction.
    pub(super) fn reading(&self) -> Reading {
        Reading {
            reads_images: false,
            bridge_reads_instruction: false,
            bridge_vocab_size: None,
            max_bridge_tokens: None,
            max_instruction_tokens: self.max_tokens(),
            is_encoder_decoder: matches!(self, Self::T5(_)),
            has_images_in_text: false,
            uses_chat_template: true,
            image_token: None,
            vocab_size: self.vocab_size(),
        }
    }
}

impl TextOnly {
    /// Loads a Hugging Face directory of a language model: `config.json`, `generation_config.json` (optional), and weights as safetensors
    /// files or as a GGUF file.
    ///
    /// # Errors
    /// Those of [`load_language_model`].
    pub fn load(dir: &Path, precision: impl Into<Precision>, device: &Device) -> Result<Self> {
        let config = TextConfig::read(&dir.join("config.json"))?;
        let (language, tokens) = load_language_model(dir, precision, device)?;
        Ok(Self { config, tokens, language })
    }
}

impl MultimodalModel for TextOnly {
    fn prompt_dims(&self) -> Dims {
        let model = self.language.d_model();
        Dims { model, image_query: 1, text_query: model }
    }

    fn device(&self) -> &Device {
        self.language.device()
    }

    fn language(&self) -> &dyn LanguageModel {
        &*self.language
    }

    fn special_tokens(&self) -> &SpecialTokens {
        &self.tokens
    }

    fn image_size(&self) -> usize {
        1
    }

    fn reads_images(&self) -> bool {
        false
    }

    fn uses_chat_template(&self) -> bool {
        true
    }

    fn bridge_reads_instruction(&self) -> bool {
        false
    }

    fn max_instruction_tokens(&self) -> Option<usize> {
        self.config.max_tokens()
    }

    fn image_features(&self, pixels: &Tensor, _: &mut Tap<'_>) -> Result<Tensor> {
        Ok(Tensor::zeros((pixels.dim(0)?, 1, 1), DType::F32, self.device())?)
    }

    fn features_of(
        &self,
        image_features: &Tensor,
        instructions: &Instructions,
        _: &mut Tap<'_>,
    ) -> Result<FrozenFeatures> {
        let Instructions { ids, mask, qformer } = instructions;
        let batch = ids.dim(0)?;
        if mask.dims() != ids.dims() || image_features.dim(0)? != batch || qformer.is_some() {
            let what = format!(
                "{} images, ids {:?}, mask {:?}, {} for a bridge",
                image_features.dim(0)?,
                ids.shape(),
                mask.shape(),
                if qformer.is_some() { "texts" } else { "none" }
            );
            return Err(ModelError::input("features", what));
        }
        let embeds = self.language.embed(ids)?;
        let mask = mask.to_dtype(DType::F32)?.to_device(self.device())?;
        let text = Segment::new(SegmentKind::Text, embeds, &mask)?;
        Ok(FrozenFeatures {
            text_query: text.mean()?,
            image_query: Tensor::zeros((batch, 1), DType::F32, self.device())?,
            input: LanguageInput::new(vec![text])?,
        })
    }

    fn with_parameters(&self, weights: &mut dyn Weights) -> Result<Box<dyn MultimodalModel>> {
        let mut model = self.clone();
        if let Some(language) = self.language.with_parameters(weights, "")? {
            model.language = language;
        }
        Ok(Box::new(model))
    }

    fn with_maps(&self, change: &mut MapChange<'_>) -> Result<Box<dyn MultimodalModel>> {
        let mut model = self.clone();
        if let Some(language) = self.language.with_maps(change)? {
            model.language = language;
        }
        Ok(Box::new(model))
    }

    fn bridge_parameters(&self) -> &'static [&'static str] {
        &[]
    }

    fn vision_parameters(&self) -> &'static [&'static str] {
        &[]
    }
}
