//! LLaVA-1.5: CLIP -> a map of two layers -> language model (Liu et al. 2024).
//!
//! The text says where images stand. Its placeholders are replaced in their order over the whole batch, row by row, so that a sample can
//! have several images or none. What the language model reads of a sample is
//!
//! ```text
//! BOS   prompts   words   image   words   image   words …
//! ```
//!
//! in which the first token is a segment of its own, because soft prompts go behind it.

use super::features::FrozenFeatures;
use super::model::{Instructions, MultimodalModel, PromptPlace, Reading};
use super::sample::gathered;
use crate::bridge::Projector;
use crate::config::{LlavaConfig, SpecialTokens, TextConfig};
use crate::error::{ModelError, Result};
use crate::language::{LanguageModel, SegmentKind, embedding_names, language_model, redundant};
use crate::tap::Tap;
use crate::vision::{VisionTower, VisionTransformer};
use crate::weights::{Checkpoint, Precision, Redundant, Scope, Weights};
use candle_core::{DType, Device, Tensor};
use fwd_ops::{MapChange, in_pool};
use fwd_prompt::Dims;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const LANGUAGE: &str = "language_model";
const VISION: &str = "vision_tower.vision_model";
const PROJECTOR: &str = "multi_modal_projector";

/// A LLaVA-1.5. Cloning it copies no parameters.
#[derive(Debug, Clone)]
pub struct Llava {
    config: LlavaConfig,
    tokens: SpecialTokens,
    vision: VisionTower,
    projector: Projector,
    language: Arc<dyn LanguageModel>,
}

/// Where the tokens of a batch come from: rows of the texts' embeddings, which are numbered over the whole batch, and then rows of the
/// images.
#[derive(Debug, PartialEq)]
struct Layout {
    /// The ids of all words, row by row, without images and padding.
    words: Vec<i64>,
    samples: Vec<Placed>,
}

/// One sample of a [`Layout`].
#[derive(Debug, PartialEq)]
struct Placed {
    segments: Vec<(SegmentKind, Vec<u32>)>,
    n_words: usize,
    /// The images of which it has tokens.
    images: BTreeSet<usize>,
}

impl LlavaConfig {
    pub(super) fn reading(&self) -> Reading {
        // One image is expected beside the text.
        let max_instruction_tokens = self.text.max_tokens().map(|n| n.saturating_sub(self.n_visual_tokens()));
        Reading {
            bridge_reads_instruction: false,
            bridge_vocab_size: None,
            max_bridge_tokens: None,
            max_instruction_tokens,
            is_encoder_decoder: matches!(self.text, TextConfig::T5(_)),
            has_images_in_text: true,
            reads_images: true,
            uses_chat_template: true,
            image_token: Some(self.image_token),
            vocab_size: self.text.vocab_size(),
        }
    }
}

impl Llava {
    /// Loads a Hugging Face directory: `config.json`, `generation_config.json` (optional) and weights, under the names of transformers 4 or
    /// 5 ([`Checkpoint::open`]). The layers of the vision tower behind the one that the projector reads are not loaded.
    ///
    /// # Errors
    /// [`ModelError`] that names the file, and for tensors lists all that are missing, unexpected, misshapen or not finite.
    pub fn load(dir: &Path, precision: impl Into<Precision>, device: &Device) -> Result<Self> {
        let config = LlavaConfig::read(&dir.join("config.json"))?;
        Self::load_with(dir, config, precision, device)
    }

    /// As [`Self::load`], with a configuration from elsewhere.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(
        dir: &Path,
        config: LlavaConfig,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Self> {
        let tokens = SpecialTokens::read(&dir.join("generation_config.json"), &config.text)?;
        let mut checkpoint = Checkpoint::open(dir, precision, device)?;
        let model = Self::new(config, &mut checkpoint)?;
        let embeddings = embedding_names(&model.config.text, LANGUAGE);
        let n_layers = model.config.n_vision_layers();
        checkpoint.finish(|name| {
            let is_unused = is_unused_vision(name, n_layers);
            redundant(name, &embeddings).or_else(|| is_unused.then_some(Redundant::Unused))
        })?;
        Ok(Self { tokens, ..model })
    }

    /// Builds the model from any source of parameters, which has them under the names of the Hub.
    ///
    /// # Errors
    /// [`ModelError::Config`] for an impossible configuration, or an error of the source.
    pub fn new(config: LlavaConfig, weights: &mut dyn Weights) -> Result<Self> {
        config.check().map_err(|what| ModelError::Config { origin: "model configuration".into(), what })?;
        let mut root = Scope::new(weights, "");
        let tower = VisionTransformer::up_to(&config.vision, config.n_vision_layers(), root.at(VISION))?;
        let projector = Projector::new(&config, root.at(PROJECTOR))?;
        let language = language_model(&config.text, weights, LANGUAGE)?;
        let tokens = SpecialTokens::of(&config.text);
        Ok(Self { config, tokens, vision: VisionTower::of(tower), projector, language })
    }

    /// What the parts are and how large they are, as `config.json` says it.
    pub fn config(&self) -> &LlavaConfig {
        &self.config
    }

    /// What turns pixels into the features that the projector reads.
    pub fn vision(&self) -> &VisionTower {
        &self.vision
    }

    /// Image features -> visual tokens, in the embedding space of the language model.
    ///
    /// # Shapes
    /// `image`: what [`VisionTower::features`] gives of `n` images -> `(n, n_visual_tokens, d_model)`.
    ///
    /// # Errors
    /// Features of another width.
    pub fn visual_tokens(&self, image: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        in_pool(|| {
            let selected = self.vision.tokens(image)?;
            tap.see("vision.selected", &selected);
            let visual = self.projector.forward(&selected, tap)?;
            tap.see("image_features", &visual);
            Ok(visual)
        })
    }

    /// Finds the images in the texts. `ids` has one placeholder for each of `n_images`, or one for each visual token.
    fn layout(&self, instructions: &Instructions, n_images: usize) -> Result<Layout> {
        let refuse = |what: String| ModelError::input("instruction", what);
        let ids: Vec<Vec<i64>> = instructions.ids.to_dtype(DType::I64)?.to_vec2()?;
        let mask: Vec<Vec<f32>> = instructions.mask.to_dtype(DType::F32)?.to_vec2()?;
        let placeholder = i64::from(self.config.image_token);
        let real = |(ids, mask): (&Vec<i64>, &Vec<f32>)| -> Vec<i64> {
            ids.iter().zip(mask).filter(|(_, m)| **m != 0.0).map(|(id, _)| *id).collect()
        };
        let rows: Vec<Vec<i64>> = ids.iter().zip(&mask).map(real).collect();
        let n_tokens = self.config.n_visual_tokens();
        let n_placeholders = rows.iter().flatten().filter(|&&id| id == placeholder).count();
        // How many visual tokens a placeholder stands for.
        let each = match n_placeholders {
            n if n == n_images => n_tokens,
            n if n == n_images * n_tokens => 1,
            n => {
                return Err(refuse(format!(
                    "the texts have {n} image tokens ({placeholder}) for {n_images} images; one for each image is expected, or one \
                     for each of their {n_tokens} visual tokens ({})",
                    n_images * n_tokens
                )));
            }
        };
        let n_words = rows.iter().map(Vec::len).sum::<usize>() - n_placeholders;
        let (mut words, mut next_visual) = (Vec::with_capacity(n_words), 0);
        let mut samples = Vec::with_capacity(rows.len());
        for (i, row) in rows.iter().enumerate() {
            match row.first() {
                None => return Err(refuse(format!("text {i} has no token"))),
                Some(&id) if id == placeholder => {
                    return Err(refuse(format!(
                        "text {i} begins with an image token ({placeholder}); it must begin with the token that begins a sequence ({})",
                        self.tokens.bos
                    )));
                }
                Some(_) => {}
            }
            let (first_word, mut images) = (words.len(), BTreeSet::new());
            let mut segments: Vec<(SegmentKind, Vec<u32>)> = Vec::new();
            for (j, &id) in row.iter().enumerate() {
                let (kind, tokens) = if id == placeholder {
                    let visual = next_visual..next_visual + each;
                    next_visual = visual.end;
                    images.extend([visual.start / n_tokens, (visual.end - 1) / n_tokens]);
                    (SegmentKind::Image, n_words + visual.start..n_words + visual.end)
                } else {
                    words.push(id);
                    (SegmentKind::Text, words.len() - 1..words.len())
                };
                let tokens = tokens.map(|at| at as u32);
                match segments.last_mut() {
                    // The first token stays alone.
                    Some((last, rows)) if *last == kind && j > 1 => rows.extend(tokens),
                    _ => segments.push((kind, tokens.collect())),
                }
            }
            samples.push(Placed { segments, n_words: words.len() - first_word, images });
        }
        Ok(Layout { words, samples })
    }

    /// The mean over the images of each sample of what the pool is asked with, `(batch, d_v)`; zeros without an image.
    fn image_query(&self, image: &Tensor, samples: &[Placed]) -> Result<Tensor> {
        let (n_images, batch) = (image.dim(0)?, samples.len());
        if n_images == 0 {
            let shape = (batch, self.config.vision.query_width());
            return Ok(Tensor::zeros(shape, DType::F32, self.device())?);
        }
        let mut shares = vec![0f32; batch * n_images];
        for (row, sample) in shares.chunks_exact_mut(n_images).zip(samples) {
            sample.images.iter().for_each(|&i| row[i] = 1.0 / sample.images.len() as f32);
        }
        let shares = Tensor::from_vec(shares, (batch, n_images), self.device())?;
        Ok(shares.matmul(&self.vision.query(image)?)?)
    }
}

impl MultimodalModel for Llava {
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

    fn bridge_reads_instruction(&self) -> bool {
        false
    }

    fn max_instruction_tokens(&self) -> Option<usize> {
        self.config.reading().max_instruction_tokens
    }

    fn image_token(&self) -> Option<u32> {
        Some(self.config.image_token)
    }

    fn has_images_in_text(&self) -> bool {
        self.config.reading().has_images_in_text
    }

    fn prompt_place(&self) -> PromptPlace {
        PromptPlace::AfterBos
    }

    fn image_features(&self, pixels: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        if pixels.dim(0)? == 0 {
            let shape = (0, 1 + self.config.n_visual_tokens(), self.config.vision.hidden_size);
            return Ok(Tensor::zeros(shape, DType::F32, self.device())?);
        }
        in_pool(|| self.vision.features(pixels, tap))
    }

    /// [`Instructions::ids`] have one image token for an image, or one for each of its visual tokens.
    fn features_of(
        &self,
        image_features: &Tensor,
        instructions: &Instructions,
        tap: &mut Tap<'_>,
    ) -> Result<FrozenFeatures> {
        if instructions.mask.dims() != instructions.ids.dims() || instructions.ids.dims().len() != 2 {
            let what = format!("ids {:?}, mask {:?}", instructions.ids.shape(), instructions.mask.shape());
            return Err(ModelError::input("features", what));
        }
        if instructions.qformer.is_some() {
            return Err(ModelError::input("features", "the bridge of LLaVA reads no instruction"));
        }
        let n_images = image_features.dim(0)?;
        let Layout { words, samples } = self.layout(instructions, n_images)?;
        let image = image_features.to_device(self.device())?;
        let words = self.language.embed(&Tensor::new(words, &Device::Cpu)?)?;
        let table = if n_images == 0 {
            words.clone()
        } else {
            let visual = self.visual_tokens(&image, tap)?;
            Tensor::cat(&[&words, &visual.flatten(0, 1)?], 0)?
        };
        let mut first = 0;
        let mut means = Vec::with_capacity(samples.len());
        for sample in &samples {
            means.push(words.narrow(0, first, sample.n_words)?.mean(0)?);
            first += sample.n_words;
        }
        let image_query = self.image_query(&image, &samples)?;
        let segments: Vec<_> = samples.into_iter().map(|sample| sample.segments).collect();
        let input = gathered(&table, &segments)?.with_prompt_at(self.prompt_place().segment())?;
        Ok(FrozenFeatures { input, image_query, text_query: Tensor::stack(&means, 0)? })
    }

    fn with_parameters(&self, weights: &mut dyn Weights) -> Result<Box<dyn MultimodalModel>> {
        let mut model = self.clone();
        let mut root = Scope::new(weights, PROJECTOR);
        if root.has("linear_1.weight") {
            model.projector = Projector::new(&self.config, root.same())?;
        }
        if let Some(language) = self.language.with_parameters(weights, LANGUAGE)? {
            model.language = language;
        }
        Ok(Box::new(model))
    }

    fn with_maps(&self, change: &mut MapChange<'_>) -> Result<Box<dyn MultimodalModel>> {
        let mut model = self.clone();
        model.projector = self.projector.with_maps(change)?;
        if let Some(language) = self.language.with_maps(change)? {
            model.language = language;
        }
        Ok(Box::new(model))
    }

    fn bridge_parameters(&self) -> &'static [&'static str] {
        &["multi_modal_projector."]
    }

    fn vision_parameters(&self) -> &'static [&'static str] {
        &["vision_tower."]
    }
}

/// Whether a tensor belongs to the vision tower behind its first `n_layers` layers, of which nothing is computed.
fn is_unused_vision(name: &str, n_layers: usize) -> bool {
    let Some(part) = name.strip_prefix(VISION).and_then(|rest| rest.strip_prefix('.')) else { return false };
    let layer = || part.strip_prefix("encoder.layers.")?.split('.').next()?.parse::<usize>().ok();
    part.starts_with("post_layernorm.") || layer().is_some_and(|layer| layer >= n_layers)
}

#[cfg(test)]
mod tests {
    use super::is_unused_vision;

    #[test]
    fn what_is_behind_the_feature_layer_is_unused() {
        let unused = |rest: &str| is_unused_vision(&format!("vision_tower.vision_model.{rest}"), 2);
        assert!(unused("encoder.layers.2.mlp.fc1.bias") && unused("encoder.layers.10.mlp.fc1.bias"));
        assert!(unused("post_layernorm.weight"));
        assert!(!unused("encoder.layers.1.mlp.fc1.bias") && !unused("embeddings.extra"));
        assert!(!is_unused_vision("language_model.model.layers.5.mlp.up_proj.weight", 2));
    }
}
