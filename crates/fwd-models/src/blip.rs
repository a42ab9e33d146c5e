//! BLIP-2 and InstructBLIP: vision tower -> Q-Former -> linear projection -> T5.
//!
//! The frozen part (everything before the language model) and the language model are separate calls, so that the features
//! of a sample are computed once and kept: [`Blip::features`], then [`T5::score`] or [`T5::generate`] on
//! [`FrozenFeatures::input`], with or without soft prompts in front.

use crate::config::{ModelConfig, ModelKind, SpecialTokens};
use crate::error::{ModelError, Result};
use crate::qformer::{QFormer, QFormerText};
use crate::t5::{LanguageInput, T5};
use crate::tap::Tap;
use crate::vision::{Neck, VisionTower};
use crate::weights::{Checkpoint, Scope, WeightDtype, Weights};
use candle_core::{DType, Device, Tensor};
use fwd_ops::{Linear, Norm, in_pool};
use std::path::Path;

/// A frozen BLIP-2 or InstructBLIP with a FlanT5 language model.
#[derive(Debug, Clone)]
pub struct Blip {
    config: ModelConfig,
    tokens: SpecialTokens,
    vision: VisionTower,
    qformer: QFormer,
    projection: Projection,
    language: T5,
}

/// The map from Q-Former to language model.
#[derive(Debug, Clone)]
struct Projection {
    map: Linear,
    norm: Norm,
}

impl Projection {
    fn new(config: &ModelConfig, mut root: Scope<'_>) -> Result<Self> {
        let (d_model, d_qformer) = (config.text.d_model, config.qformer.hidden_size);
        let map = root.linear("language_projection", d_model, d_qformer, true)?;
        let norm = if config.projection_norm {
            root.rms_norm("language_projection_norm", d_model, config.text.layer_norm_epsilon)?
        } else {
            Norm::identity()
        };
        Ok(Self { map, norm })
    }
}

/// A batch of instructions as the model reads them.
#[derive(Debug, Clone)]
pub struct Instructions {
    /// Language-model tokens `(batch, tokens)`, i64, without image placeholders.
    pub ids: Tensor,
    /// `(batch, tokens)`, 1 for a token and 0 for padding.
    pub mask: Tensor,
    /// The same instruction for the Q-Former of InstructBLIP.
    pub qformer: Option<QFormerText>,
}

/// What the frozen part computes for a batch; none of it depends on a prompt.
#[derive(Debug, Clone)]
pub struct FrozenFeatures {
    /// `(batch, n_queries, d_model)`: the image as the language model sees it.
    pub visual_tokens: Tensor,
    /// `(batch, tokens, d_model)`: the instruction's embeddings.
    pub text_embeds: Tensor,
    /// `(batch, tokens)` in f32.
    pub text_mask: Tensor,
    /// `(batch, d_vision)`: class token after the final norm, the image query of a prompt pool.
    pub image_query: Tensor,
    /// `(batch, d_model)`: masked mean of the instruction's embeddings, the text query of a prompt pool.
    pub text_query: Tensor,
}

impl FrozenFeatures {
    /// `[visual tokens ; instruction]` with its mask.
    ///
    /// # Errors
    /// An error of candle.
    pub fn input(&self) -> Result<LanguageInput> {
        let (batch, n, _) = self.visual_tokens.dims3()?;
        let ones = Tensor::ones((batch, n), DType::F32, self.text_mask.device())?;
        Ok(LanguageInput {
            embeds: Tensor::cat(&[&self.visual_tokens, &self.text_embeds], 1)?,
            mask: Tensor::cat(&[&ones, &self.text_mask], 1)?,
        })
    }
}

impl Blip {
    /// Loads a Hugging Face directory: `config.json`, `generation_config.json` (optional), `model.safetensors` or shards with
    /// their index. The weight files are memory-mapped and converted tensor by tensor.
    ///
    /// # Errors
    /// [`ModelError`] that names the file, and for tensors lists all that are missing, unexpected, misshapen or not finite.
    pub fn load(dir: &Path, dtype: WeightDtype, device: &Device) -> Result<Self> {
        let config = ModelConfig::read(&dir.join("config.json"))?;
        Self::load_with(dir, config, dtype, device)
    }

    /// As [`Self::load`], with a configuration from elsewhere.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(dir: &Path, config: ModelConfig, dtype: WeightDtype, device: &Device) -> Result<Self> {
        let tokens = SpecialTokens::read(&dir.join("generation_config.json"), &config.text)?;
        let mut checkpoint = Checkpoint::open(dir, dtype, device)?;
        let model = Self::new(config, &mut checkpoint)?;
        checkpoint.finish(is_redundant)?;
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
        let qformer = QFormer::of(&config, root.same())?;
        let projection = Projection::new(&config, root.same())?;
        let language = T5::new(&config.text, root.at("language_model"))?;
        let tokens = SpecialTokens::of(&config.text);
        Ok(Self { config, tokens, vision, qformer, projection, language })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the parameters are, and the results will be. Images, masks, ids and labels may be on the CPU all the same; ids and labels
    /// are best kept there.
    pub fn device(&self) -> &Device {
        self.language.device()
    }

    /// BLIP-2 or InstructBLIP.
    pub fn kind(&self) -> ModelKind {
        self.config.kind
    }

    /// Start, end and padding ids of generation.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.tokens
    }

    /// The language model.
    pub fn language(&self) -> &T5 {
        &self.language
    }

    /// The vision tower.
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
            let visual = self.projection.norm.forward(&self.projection.map.forward(&queries)?)?;
            tap.see("language_projection", &visual);
            Ok(visual)
        })
    }

    /// Everything that does not depend on a prompt, for one batch. Records no gradient.
    ///
    /// # Errors
    /// [`ModelError::Input`] for another image size or an instruction that the Q-Former cannot read; ids outside the vocabulary.
    pub fn features(
        &self,
        pixels: &Tensor,
        instructions: &Instructions,
        tap: &mut Tap<'_>,
    ) -> Result<FrozenFeatures> {
        let image = in_pool(|| self.vision.features(pixels, tap))?;
        self.features_of(&image, instructions, tap)
    }

    /// The same from what [`VisionTower::features`] gave for the images. Parameters that are tracked get gradients.
    ///
    /// # Errors
    /// As [`Self::features`].
    pub fn features_of(
        &self,
        image: &Tensor,
        instructions: &Instructions,
        tap: &mut Tap<'_>,
    ) -> Result<FrozenFeatures> {
        let (batch, tokens) = instructions.ids.dims2()?;
        if instructions.mask.dims() != [batch, tokens] || image.dim(0)? != batch {
            let what = format!(
                "{} images, ids {:?}, mask {:?}",
                image.dim(0)?,
                instructions.ids.shape(),
                instructions.mask.shape()
            );
            return Err(ModelError::input("features", what));
        }
        let image = image.to_device(self.device())?;
        let visual_tokens = self.visual_tokens(&image, instructions.qformer.as_ref(), tap)?;
        let image_query = self.vision.query(&image)?;
        let text_embeds = self.language.embed(&instructions.ids)?;
        let text_mask = instructions.mask.to_dtype(DType::F32)?.to_device(self.device())?;
        let count = text_mask.sum_keepdim(1)?.maximum(1f32)?;
        let text_query =
            text_embeds.broadcast_mul(&text_mask.unsqueeze(2)?)?.sum(1)?.broadcast_div(&count)?;
        Ok(FrozenFeatures { visual_tokens, text_embeds, text_mask, image_query, text_query })
    }

    /// The same model with the parts that `weights` has parameters of made anew from them: tracked ones are trained, and what
    /// it has nothing of stays frozen. The vision network itself always stays.
    ///
    /// # Errors
    /// An error of the source.
    pub fn with_parameters(&self, weights: &mut dyn Weights) -> Result<Self> {
        let mut model = self.clone();
        let mut root = Scope::new(weights, "");
        if let VisionTower::Lite0(_, neck) = &mut model.vision
            && root.has("vision_model.neck.map.weight")
        {
            *neck = Neck::new(&self.config.vision, root.at("vision_model.neck"))?;
        }
        if root.has("query_tokens") {
            model.qformer = QFormer::of(&self.config, root.same())?;
        }
        if root.has("language_projection.weight") {
            model.projection = Projection::new(&self.config, root.same())?;
        }
        if root.has("language_model.shared.weight") {
            model.language = T5::new(&self.config.text, root.at("language_model"))?;
        }
        Ok(model)
    }

    /// The instruction that Hugging Face assumes when none is given: the single token `bos`.
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

/// Tensors that published checkpoints hold beside what the model needs: copies of tied embeddings, index buffers.
fn is_redundant(name: &str) -> bool {
    matches!(
        name,
        "language_model.encoder.embed_tokens.weight"
            | "language_model.decoder.embed_tokens.weight"
            | "qformer.embeddings.position_ids"
    )
}
