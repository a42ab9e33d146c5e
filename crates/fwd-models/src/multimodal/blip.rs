//! BLIP-2 and InstructBLIP: vision tower -> Q-Former -> linear projection -> language model.
//!
//! The input of the language model is `[visual tokens ; instruction]`, unless the configuration puts the first tokens of the instruction in front
//! (`image_after`), also where the instruction begins with a token of its own
//! (LLaMA, OPT), as transformers has it. The published language models are FlanT5, OPT and Vicuna; any other [`LanguageModel`] of the
//! projection's width can take their place ([`Blip::with_language`]).

use super::features::FrozenFeatures;
use super::model::{Instructions, MultimodalModel, PromptPlace, Reading};
use crate::bridge::{Projection, QFormer, QFormerText};
use crate::config::{ModelConfig, ModelKind, SpecialTokens, TextConfig};
use crate::error::{ModelError, Result};
use crate::language::{
    LanguageInput, LanguageModel, Segment, SegmentKind, embedding_names, language_model, redundant,
};
use crate::tap::Tap;
use crate::trainable::{FirstValues, Trainable};
use crate::vision::VisionTower;
use crate::weights::{Checkpoint, Precision, Redundant, Scope, Weights};
use candle_core::{DType, Device, Tensor};
use fwd_ops::{Compute, MapChange, Weight, in_pool};
use fwd_prompt::Dims;
use std::path::Path;
use std::sync::Arc;

/// How the parameters of the language model are named.
const LANGUAGE: &str = "language_model";

/// A BLIP-2 or InstructBLIP. Cloning it copies no parameters.
#[derive(Debug, Clone)]
pub struct Blip {
    config: ModelConfig,
    tokens: SpecialTokens,
    vision: VisionTower,
    qformer: QFormer,
    projection: Projection,
    language: Arc<dyn LanguageModel>,
}

impl ModelConfig {
    pub(super) fn reading(&self) -> Reading {
        let bridge_reads_instruction = self.kind == ModelKind::InstructBlip;
        Reading {
            bridge_reads_instruction,
            // The Q-Former of BLIP-2 reads no instruction.
            bridge_vocab_size: bridge_reads_instruction.then_some(self.qformer.vocab_size),
            max_bridge_tokens: bridge_reads_instruction.then_some(self.qformer.max_position_embeddings),
            // T5 has relative positions; the others have positions for image and text.
            max_instruction_tokens: self.text.max_tokens().map(|n| n.saturating_sub(self.num_query_tokens)),
            is_encoder_decoder: matches!(self.text, TextConfig::T5(_)),
            has_images_in_text: false,
            reads_images: true,
            uses_chat_template: self.uses_chat_template,
            image_token: self.image_token_index.and_then(|id| u32::try_from(id).ok()),
            vocab_size: self.text.vocab_size(),
        }
    }
}

impl Blip {
    /// Loads a Hugging Face directory: `config.json`, `generation_config.json` (optional), `model.safetensors` or shards with
    /// their index. The weight files are memory-mapped and converted tensor by tensor.
    ///
    /// # Errors
    /// [`ModelError`] that names the file, and for tensors lists all that are missing, unexpected, misshapen or not finite.
    pub fn load(dir: &Path, precision: impl Into<Precision>, device: &Device) -> Result<Self> {
        let config = ModelConfig::read(&dir.join("config.json"))?;
        Self::load_with(dir, config, precision, device)
    }

    /// As [`Self::load`], with a configuration from elsewhere.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(
        dir: &Path,
        config: ModelConfig,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Self> {
        let tokens = SpecialTokens::read(&dir.join("generation_config.json"), &config.text)?;
        let mut checkpoint = Checkpoint::open(dir, precision, device)?;
        let model = Self::new(config, &mut checkpoint)?;
        let embeddings = embedding_names(&model.config.text, LANGUAGE);
        checkpoint.finish(|name| redundant_of_blip(name, &embeddings))?;
        Ok(Self { tokens, ..model })
    }

    /// Builds the model from any source of parameters.
    ///
    /// # Errors
    /// [`ModelError::Config`] for an impossible configuration, or an error of the source.
    pub fn new(config: ModelConfig, weights: &mut dyn Weights) -> Result<Self> {
        config.check().map_err(|what| ModelError::Config { origin: "model configuration".into(), what })?;
        let mut root = Scope::new(weights, "");
        let vision = VisionTower::new(&config.vision, root.same())?;
        let qformer = QFormer::new(&config, root.same())?;
        let projection = Projection::new(&config, root)?;
        let language = language_model(&config.text, weights, LANGUAGE)?;
        let tokens = SpecialTokens::of(&config.text);
        Ok(Self { config, tokens, vision, qformer, projection, language })
    }

    /// Builds a model of which a checkpoint holds some parts: these are frozen. What it lacks gets its first values from `source` and is
    /// returned as well, to be trained.
    ///
    /// # Errors
    /// [`ModelError::Config`] for an impossible configuration; [`ModelError::Tensors`] with all that is wrong in the checkpoint; an error
    /// of the source.
    pub fn with_trained(
        config: ModelConfig,
        mut frozen: Checkpoint,
        source: FirstValues<'_>,
        device: &Device,
    ) -> Result<(Self, Trainable)> {
        let embeddings = embedding_names(&config.text, LANGUAGE);
        let mut model = None;
        let trainable = Trainable::record(source, device, |trained| {
            model = Some(Self::new(config, &mut Parts { frozen: &mut frozen, trained })?);
            Ok(())
        })?;
        frozen.finish(|name| redundant_of_blip(name, &embeddings))?;
        let built = model.ok_or_else(|| ModelError::input("with_trained", "no model was built"))?;
        Ok((built, trainable))
    }

    /// The same model with another language model behind the projection. The ids of generation stay;
    /// [`Self::with_special_tokens`] changes them.
    ///
    /// # Errors
    /// [`ModelError::Input`] unless its width is that of the projection, or if it is on another device.
    pub fn with_language(self, language: Arc<dyn LanguageModel>) -> Result<Self> {
        let (width, wanted) = (language.d_model(), self.projection.d_model());
        if width != wanted {
            let what = format!("the language model has width {width}, the projection leads to {wanted}");
            return Err(ModelError::input("with_language", what));
        }
        if !language.device().same_device(self.language.device()) {
            let (of_language, own) = (language.device().location(), self.language.device().location());
            let what = format!("the language model is on {of_language:?}, the rest on {own:?}");
            return Err(ModelError::input("with_language", what));
        }
        Ok(Self { language, ..self })
    }

    /// The same model with other ids to start from, to end with and to fill up with.
    ///
    /// # Errors
    /// [`ModelError::Input`] if an id is outside the vocabulary.
    pub fn with_special_tokens(self, tokens: SpecialTokens) -> Result<Self> {
        let vocab_size = self.language.vocab_size();
        tokens.check(vocab_size).map_err(|what| ModelError::input("with_special_tokens", what))?;
        Ok(Self { tokens, ..self })
    }

    /// What the parts are and how large they are, as `config.json` says it.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// BLIP-2 or InstructBLIP.
    pub fn kind(&self) -> ModelKind {
        self.config.kind
    }

    /// What turns pixels into the features that the Q-Former attends to.
    pub fn vision(&self) -> &VisionTower {
        &self.vision
    }

    /// Image features and instruction -> visual tokens, in the embedding space of the language model.
    ///
    /// # Shapes
    /// `image`: what [`VisionTower::features`] gives -> `(batch, n_queries, d_model)`.
    ///
    /// # Errors
    /// [`ModelError::Input`] for an instruction that the Q-Former cannot read.
    pub fn visual_tokens(
        &self,
        image: &Tensor,
        text: Option<&QFormerText>,
        tap: &mut Tap<'_>,
    ) -> Result<Tensor> {
        in_pool(|| {
            let queries = self.qformer.forward(&self.vision.tokens(image)?, text, tap)?;
            let visual = self.projection.forward(&queries)?;
            tap.see("language_projection", &visual);
            Ok(visual)
        })
    }

    /// [`MultimodalModel::with_parameters`], which for this type need not be boxed.
    ///
    /// # Errors
    /// An error of the source.
    pub fn with_parameters(&self, weights: &mut dyn Weights) -> Result<Self> {
        let mut model = self.clone();
        let mut root = Scope::new(weights, "");
        model.vision = self.vision.with_parameters(&self.config.vision, root.same())?;
        model.qformer = self.qformer.with_parameters(&self.config, root.same())?;
        if root.has("language_projection.weight") {
            model.projection = Projection::new(&self.config, root.same())?;
        }
        if let Some(language) = self.language.with_parameters(weights, LANGUAGE)? {
            model.language = language;
        }
        Ok(model)
    }

    /// The instruction that Hugging Face assumes when none is given: the single token `bos`, for `batch` samples.
    ///
    /// # Errors
    /// An error of candle.
    pub fn empty_instructions(
        &self,
        batch: usize,
        qformer: Option<QFormerText>,
        device: &Device,
    ) -> Result<Instructions> {
        let ids = Tensor::full(i64::from(self.tokens.bos), (batch, 1), device)?;
        Ok(Instructions { ids, mask: Tensor::ones((batch, 1), DType::F32, device)?, qformer })
    }

    /// Takes the image placeholders off the front of Hugging Face `input_ids`, whose attention mask loses the same columns.
    ///
    /// # Errors
    /// [`ModelError::Input`] if a row does not begin with exactly `num_query_tokens` placeholders, or has one elsewhere.
    pub fn without_placeholders(&self, input_ids: &Tensor, mask: &Tensor) -> Result<(Tensor, Tensor)> {
        let n = self.config.num_query_tokens;
        if mask.dims() != input_ids.dims() {
            let what = format!("mask {:?} does not fit ids {:?}", mask.shape(), input_ids.shape());
            return Err(ModelError::input("input_ids", what));
        }
        let Some(placeholder) = self.config.image_token_index else {
            return Ok((input_ids.clone(), mask.clone()));
        };
        let rows: Vec<Vec<i64>> = input_ids.to_dtype(DType::I64)?.to_vec2()?;
        for (i, row) in rows.iter().enumerate() {
            let leading = row.iter().take_while(|&&id| id == placeholder).count();
            let all = row.iter().filter(|&&id| id == placeholder).count();
            if leading != n || all != n {
                let what = format!(
                    "row {i} has {all} image placeholders ({placeholder}), {leading} of them in front; {n} in front expected"
                );
                return Err(ModelError::input("input_ids", what));
            }
        }
        let rest = input_ids.dim(1)? - n;
        Ok((input_ids.narrow(1, n, rest)?.contiguous()?, mask.narrow(1, n, rest)?.contiguous()?))
    }
}

impl MultimodalModel for Blip {
    fn prompt_dims(&self) -> Dims {
        let model = self.language.d_model();
        Dims { model, image_query: self.config.vision.query_width(), text_query: model }
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
        self.config.vision.image_size
    }

    fn uses_chat_template(&self) -> bool {
        self.config.uses_chat_template
    }

    fn bridge_reads_instruction(&self) -> bool {
        self.config.reading().bridge_reads_instruction
    }

    fn max_instruction_tokens(&self) -> Option<usize> {
        self.config.reading().max_instruction_tokens
    }

    fn max_bridge_tokens(&self) -> Option<usize> {
        self.config.reading().max_bridge_tokens
    }

    fn bridge_vocab_size(&self) -> Option<usize> {
        self.config.reading().bridge_vocab_size
    }

    fn image_token(&self) -> Option<u32> {
        self.config.reading().image_token
    }

    fn prompt_place(&self) -> PromptPlace {
        if self.config.image_after == 0 { PromptPlace::Front } else { PromptPlace::AfterBos }
    }

    fn image_features(&self, pixels: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        in_pool(|| self.vision.features(pixels, tap))
    }

    fn features_of(
        &self,
        image_features: &Tensor,
        instructions: &Instructions,
        tap: &mut Tap<'_>,
    ) -> Result<FrozenFeatures> {
        let (batch, tokens) = instructions.ids.dims2()?;
        if instructions.mask.dims() != [batch, tokens] || image_features.dim(0)? != batch {
            let what = format!(
                "{} images, ids {:?}, mask {:?}",
                image_features.dim(0)?,
                instructions.ids.shape(),
                instructions.mask.shape()
            );
            return Err(ModelError::input("features", what));
        }
        let image = image_features.to_device(self.device())?;
        let visual_tokens = self.visual_tokens(&image, instructions.qformer.as_ref(), tap)?;
        let image_query = self.vision.query(&image)?;
        let text_embeds = self.language.embed(&instructions.ids)?;
        let text = Segment::new(SegmentKind::Text, text_embeds, &instructions.mask)?;
        let text_query = text.mean()?;
        let visual = Segment::full(SegmentKind::Image, visual_tokens)?;
        let n_before = self.config.image_after;
        let segments = if n_before == 0 { vec![visual, text] } else { around(visual, &text, n_before)? };
        let input = LanguageInput::new(segments)?.with_prompt_at(self.prompt_place().segment())?;
        Ok(FrozenFeatures { input, image_query, text_query })
    }

    fn with_parameters(&self, weights: &mut dyn Weights) -> Result<Box<dyn MultimodalModel>> {
        Ok(Box::new(Blip::with_parameters(self, weights)?))
    }

    fn with_maps(&self, change: &mut MapChange<'_>) -> Result<Box<dyn MultimodalModel>> {
        let mut model = self.clone();
        model.qformer = self.qformer.with_maps(change)?;
        model.projection = self.projection.with_maps(change)?;
        if let Some(language) = self.language.with_maps(change)? {
            model.language = language;
        }
        Ok(Box::new(model))
    }

    fn bridge_parameters(&self) -> &'static [&'static str] {
        &["query_tokens", "qformer.", "language_projection"]
    }

    fn vision_parameters(&self) -> &'static [&'static str] {
        &["vision_model."]
    }
}

/// An image behind the first `n` tokens of a text, and in front of the others.
fn around(image: Segment, text: &Segment, n: usize) -> Result<Vec<Segment>> {
    let (_, n_tokens, _) = text.embeds.dims3()?;
    let mask = text.mask.to_vec2::<f32>()?;
    if mask.iter().any(|row| row.iter().take(n).filter(|&&mask| mask != 0.0).count() < n) {
        let what = format!(
            "an instruction of fewer than the {n} tokens that stand in front of the image, or with padding there"
        );
        return Err(ModelError::input("features", what));
    }
    let part = |from: usize, len: usize| -> Result<Segment> {
        let (embeds, mask) = (text.embeds.narrow(1, from, len)?, text.mask.narrow(1, from, len)?);
        Segment::new(SegmentKind::Text, embeds.contiguous()?, &mask.contiguous()?)
    };
    let mut segments = vec![part(0, n)?, image];
    if n_tokens > n {
        segments.push(part(n, n_tokens - n)?);
    }
    Ok(segments)
}

/// The parameters of a model of which some are frozen.
struct Parts<'a> {
    frozen: &'a mut Checkpoint,
    trained: &'a mut dyn Weights,
}

impl Weights for Parts<'_> {
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        if self.frozen.has(name) { self.frozen.get(name, shape) } else { self.trained.get(name, shape) }
    }

    fn weight(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight> {
        if self.frozen.has(name) { self.frozen.weight(name, shape) } else { self.trained.weight(name, shape) }
    }

    /// Trained maps compute in f32 whatever this says.
    fn compute(&self) -> Compute {
        self.frozen.compute()
    }

    fn has(&self, name: &str) -> bool {
        self.frozen.has(name) || self.trained.has(name)
    }
}

/// As [`redundant`] of the language model, and what DINOv2 puts in the place of patches in pre-training alone.
fn redundant_of_blip<'a>(name: &str, embeddings: &'a [String]) -> Option<Redundant<'a>> {
    let mask = (name == "vision_model.embeddings.mask_token").then_some(Redundant::Unused);
    mask.or_else(|| redundant(name, embeddings))
}
