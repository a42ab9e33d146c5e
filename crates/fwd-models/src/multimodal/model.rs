//! What a program asks of a multimodal model.

use super::features::FrozenFeatures;
use super::sample::{Sample, batched};
use crate::bridge::QFormerText;
use crate::config::SpecialTokens;
use crate::error::Result;
use crate::language::{LanguageInput, LanguageModel};
use crate::tap::Tap;
use crate::weights::Weights;
use candle_core::{Device, Tensor};
use fwd_ops::MapChange;
use fwd_prompt::Dims;
use std::fmt::Debug;

/// A batch of instructions as the model reads them.
#[derive(Debug, Clone)]
pub struct Instructions {
    /// Language-model tokens `(batch, tokens)`, i64; with image tokens where images stand if
    /// [`MultimodalModel::has_images_in_text`], else without.
    pub ids: Tensor,
    /// `(batch, tokens)`, 1 for a token and 0 for padding.
    pub mask: Tensor,
    /// The same instructions for a bridge that reads them too ([`MultimodalModel::bridge_reads_instruction`]).
    pub qformer: Option<QFormerText>,
}

/// Where soft prompts stand in the input of the language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PromptPlace {
    /// In front of everything.
    #[default]
    Front,
    /// Right behind the first segment of every sample, which is what begins a sequence and nothing else: a token, or those that begin a turn
    /// of a chat.
    AfterBos,
}

impl PromptPlace {
    /// The segment in front of which prompts go ([`LanguageInput::with_prompt_at`]).
    pub fn segment(self) -> usize {
        match self {
            Self::Front => 0,
            Self::AfterBos => 1,
        }
    }
}

/// What a model does with an instruction, as its configuration alone says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// As [`MultimodalModel::bridge_reads_instruction`].
    pub bridge_reads_instruction: bool,
    /// As [`MultimodalModel::bridge_vocab_size`].
    pub bridge_vocab_size: Option<usize>,
    /// As [`MultimodalModel::max_bridge_tokens`].
    pub max_bridge_tokens: Option<usize>,
    /// As [`MultimodalModel::max_instruction_tokens`].
    pub max_instruction_tokens: Option<usize>,
    /// As [`LanguageModel::is_encoder_decoder`].
    pub is_encoder_decoder: bool,
    /// As [`MultimodalModel::has_images_in_text`].
    pub has_images_in_text: bool,
    /// As [`MultimodalModel::reads_images`].
    pub reads_images: bool,
    /// As [`MultimodalModel::uses_chat_template`].
    pub uses_chat_template: bool,
    /// As [`MultimodalModel::image_token`].
    pub image_token: Option<u32>,
    /// As [`LanguageModel::vocab_size`].
    pub vocab_size: usize,
}

impl Reading {
    /// What a loaded model does with an instruction.
    pub fn of(model: &dyn MultimodalModel) -> Self {
        Self {
            bridge_reads_instruction: model.bridge_reads_instruction(),
            bridge_vocab_size: model.bridge_vocab_size(),
            max_bridge_tokens: model.max_bridge_tokens(),
            max_instruction_tokens: model.max_instruction_tokens(),
            is_encoder_decoder: model.language().is_encoder_decoder(),
            has_images_in_text: model.has_images_in_text(),
            reads_images: model.reads_images(),
            uses_chat_template: model.uses_chat_template(),
            image_token: model.image_token(),
            vocab_size: model.language().vocab_size(),
        }
    }
}

/// A model that answers instructions about images: a vision tower, a bridge, and a language model.
///
/// Images, masks, ids and labels may be on the CPU, whatever device the parameters are on; ids and labels are best kept there.
pub trait MultimodalModel: Debug + Send + Sync {
    /// The widths of prompt tokens and of the queries that a prompt pool is asked with.
    fn prompt_dims(&self) -> Dims;

    /// Where the parameters are, and the results will be.
    fn device(&self) -> &Device;

    /// The language model, which reads the input and writes the answer.
    fn language(&self) -> &dyn LanguageModel;

    /// The ids that generation starts from, ends with and fills up with.
    fn special_tokens(&self) -> &SpecialTokens;

    /// The side of the square images that the vision tower was trained on, in pixels.
    fn image_size(&self) -> usize;

    /// Whether the bridge reads the instruction beside the image, with a vocabulary of its own. [`Instructions::qformer`] must
    /// then be given, and must be absent otherwise.
    fn bridge_reads_instruction(&self) -> bool;

    /// The longest instruction that the language model has positions for, in its tokens, without prompts and answer. None if there is
    /// no limit.
    fn max_instruction_tokens(&self) -> Option<usize> {
        None
    }

    /// The longest instruction that the bridge has positions for, in tokens of its vocabulary. None if it reads no instruction or has no
    /// limit.
    fn max_bridge_tokens(&self) -> Option<usize> {
        None
    }

    /// Whether an image stands where the ids of the instruction have [`Self::image_token`], once for each image. Otherwise the image stands in
    /// front of the instruction, and the ids must not have it.
    fn has_images_in_text(&self) -> bool {
        false
    }

    /// Whether images say anything to the model. A language model alone passes them over.
    fn reads_images(&self) -> bool {
        true
    }

    /// Whether the model was trained with the prompts that its chat template writes, if its directory has one.
    fn uses_chat_template(&self) -> bool {
        self.has_images_in_text()
    }

    /// The tokens that the bridge has embeddings for; none if it reads no instruction.
    fn bridge_vocab_size(&self) -> Option<usize> {
        None
    }

    /// The id that stands for a visual token in the vocabulary of the language model. No text may have it.
    fn image_token(&self) -> Option<u32> {
        None
    }

    /// Where soft prompts stand in the language model's input. [`Self::features_of`] and [`Self::input`] give inputs that say so
    /// themselves.
    fn prompt_place(&self) -> PromptPlace {
        PromptPlace::Front
    }

    /// What the vision network computes of images. It depends on nothing but the pixels and never changes, so it can be kept on
    /// disk.
    ///
    /// # Shapes
    /// `pixels (batch, 3, image_size, image_size)`, f32, normalised as the processor does it -> `(batch, tokens, channels)`, f32,
    /// on the device of the parameters.
    ///
    /// # Errors
    /// [`ModelError::Input`](crate::ModelError::Input) for another image size.
    fn image_features(&self, pixels: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor>;

    /// What the model computes before any prompt is involved, from what [`Self::image_features`] gave. Parameters that are
    /// tracked get gradients.
    ///
    /// `image_features` are those of one image for each sample, in the order of the samples; with [`Self::has_images_in_text`] those of
    /// all images in the order in which the texts name them, row by row, of which a sample may have none or several.
    ///
    /// # Errors
    /// [`ModelError::Input`](crate::ModelError::Input) if the batch sizes differ or the bridge cannot read the instruction; ids
    /// outside the vocabulary.
    fn features_of(
        &self,
        image_features: &Tensor,
        instructions: &Instructions,
        tap: &mut Tap<'_>,
    ) -> Result<FrozenFeatures>;

    /// The same model with the parts that `weights` has parameters of made anew from them: tracked ones are trained, and what
    /// it has nothing of stays frozen. The vision network itself always stays.
    ///
    /// # Errors
    /// An error of the source.
    fn with_parameters(&self, weights: &mut dyn Weights) -> Result<Box<dyn MultimodalModel>>;

    /// The same model with what `change` makes of the linear maps of language model and bridge ([`LanguageModel::with_maps`]). The vision
    /// network stays as it is.
    ///
    /// # Errors
    /// Those of `change`; a map of other widths.
    fn with_maps(&self, change: &mut MapChange<'_>) -> Result<Box<dyn MultimodalModel>>;

    /// The prefixes of the names of the bridge's parameters, which full fine-tuning trains.
    fn bridge_parameters(&self) -> &'static [&'static str];

    /// The prefixes of the names of the parameters that belong to the vision tower. [`Self::with_parameters`] takes some of them
    /// (the neck of EfficientNet-Lite0), fine-tuning leaves them as they are.
    fn vision_parameters(&self) -> &'static [&'static str];

    /// [`Self::image_features`] and [`Self::features_of`] in one.
    ///
    /// # Errors
    /// Those of both.
    fn features(
        &self,
        pixels: &Tensor,
        instructions: &Instructions,
        tap: &mut Tap<'_>,
    ) -> Result<FrozenFeatures> {
        let image = self.image_features(pixels, tap)?;
        self.features_of(&image, instructions, tap)
    }

    /// The input of the language model for some samples, without prompts: their segments in order, padded to the longest.
    ///
    /// # Errors
    /// [`ModelError::Input`](crate::ModelError::Input) if a sample does not have the model's width, and for no sample at all.
    fn input(&self, batch: &[&Sample]) -> Result<LanguageInput> {
        let input = batched(batch, self.language().d_model(), self.device())?;
        input.with_prompt_at(self.prompt_place().segment())
    }
}
