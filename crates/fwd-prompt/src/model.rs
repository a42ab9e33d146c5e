//! What the algorithm needs of a frozen model: embeddings, queries, and the gradient of the loss with respect to prompt tokens.
//!
//! The algorithm sees rows of numbers. Whether they come from images, text or both, and which network reads them, is the
//! model's business.

/// Widths of a model's vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dims {
    /// d: an input embedding, and so a prompt token.
    pub model: usize,
    /// d_v: an image query; 0 for a model without images.
    pub image_query: usize,
    /// d_t: a text query; 0 for a model without text.
    pub text_query: usize,
}

/// What a sample asks the prompt pool with.
#[derive(Debug, Clone, PartialEq)]
pub struct Queries {
    /// `(d_v)`: as the pooled output of the frozen vision tower.
    pub image: Vec<f32>,
    /// `(d_t)`: as the mean of the frozen embeddings of the instruction.
    pub text: Vec<f32>,
}

/// The input embeddings of one sample: no padding, no prompts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// `(n_image, d)` row-major: the visual tokens; empty without an image.
    pub image: Vec<f32>,
    /// `(n_text, d)` row-major: the instruction's tokens; empty without a text.
    pub text: Vec<f32>,
}

/// The prompt tokens of a batch, `(batch, n_tokens, d)` row-major, to be put in front of each sample's embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptBatch {
    /// The values.
    pub values: Vec<f32>,
    /// Samples.
    pub batch: usize,
    /// Prompt tokens of a sample; 0 before any task was learnt.
    pub n_tokens: usize,
    /// d.
    pub dim: usize,
}

/// The loss of a batch and its gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct LossGradient {
    /// The mean loss of the batch, in the model's unit (nats a token for a language model).
    pub loss: f64,
    /// dLoss/dPrompt, in the shape of [`PromptBatch::values`].
    pub gradient: Vec<f32>,
}

/// A model whose weights stay as they are, and that reads soft prompts in front of its input.
///
/// `Features` is what the model keeps of one sample after its frozen part has run once: everything that does not depend on
/// prompts, target included; it may as well be a handle to something on disk.
pub trait FrozenModel {
    /// A sample after the frozen pass.
    type Features;
    /// What can go wrong.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The widths of all vectors.
    fn dims(&self) -> Dims;

    /// The input embeddings of a sample, of which the subspaces are made.
    ///
    /// # Errors
    /// The model's own.
    fn embeddings(&self, sample: &Self::Features) -> Result<Embeddings, Self::Error>;

    /// The queries of a sample.
    ///
    /// # Errors
    /// The model's own.
    fn queries(&self, sample: &Self::Features) -> Result<Queries, Self::Error>;

    /// The mean loss of a batch behind its prompts, and the gradient with respect to them.
    ///
    /// Must not depend on anything but its arguments, or a resumed run ends elsewhere.
    ///
    /// # Errors
    /// The model's own.
    fn loss_gradient(
        &self,
        batch: &[&Self::Features],
        prompts: &PromptBatch,
    ) -> Result<LossGradient, Self::Error>;
}
