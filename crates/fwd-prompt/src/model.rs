//! What the algorithm needs of a frozen model: embeddings, queries, and the gradient of the loss with respect to prompt tokens.
//!
//! The algorithm sees rows of numbers. Whether they come from images, text or both, and which network reads them, is the
//! model's business.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// Widths of a model's vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct Queries<'a> {
    /// `(d_v)`: as the pooled output of the frozen vision tower.
    pub image: Cow<'a, [f32]>,
    /// `(d_t)`: as the mean of the frozen embeddings of the instruction.
    pub text: Cow<'a, [f32]>,
}

/// The input embeddings of one sample: no padding, no prompts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings<'a> {
    /// `(n_image, d)` row-major: the visual tokens; empty without an image.
    pub image: Cow<'a, [f32]>,
    /// `(n_text, d)` row-major: the instruction's tokens; empty without a text.
    pub text: Cow<'a, [f32]>,
}

/// Where a sample reads its prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In front of everything; in LLaVA behind the token that begins a sequence.
    #[default]
    Front,
    /// Behind the image and the instruction, next to the answer. A decoder-only model may then keep what it has computed of these, and run and
    /// differentiate prompt and answer only. Ours, not the paper's.
    End,
}

impl Place {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The prompt tokens of a batch, to be put beside each sample's embeddings ([`Place`]). Samples may have different numbers of them, and
/// none at all.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptBatch {
    /// The tokens of all samples one after another, `(Σ lengths, d)` row-major.
    pub values: Vec<f32>,
    /// The number of tokens of each sample; 0 for a sample that the pool has nothing for.
    pub lengths: Vec<usize>,
    /// Width d of a token.
    pub dim: usize,
    /// Where a sample reads them.
    pub place: Place,
}

impl PromptBatch {
    /// The number of tokens of every sample, if it is the same for all; 0 for an empty batch.
    pub fn uniform_length(&self) -> Option<usize> {
        let first = self.lengths.first().copied().unwrap_or_default();
        self.lengths.iter().all(|&length| length == first).then_some(first)
    }

    /// The samples of each length, so that a model that wants equal lengths can run them group by group. Groups come in the order of
    /// their first sample, samples in theirs.
    ///
    /// # Examples
    /// ```
    /// use fwd_prompt::{Place, PromptBatch};
    /// let batch = PromptBatch { values: vec![1.0, 2.0, 3.0], lengths: vec![1, 0, 2], dim: 1, place: Place::Front };
    /// let groups = batch.groups();
    /// assert_eq!((groups.len(), groups[2].samples.clone()), (3, vec![2]));
    /// assert_eq!((groups[2].prompts.values.clone(), groups[1].prompts.lengths.clone()), (vec![2.0, 3.0], vec![0]));
    /// ```
    pub fn groups(&self) -> Vec<PromptGroup> {
        let mut groups: Vec<PromptGroup> = Vec::new();
        let mut start = 0;
        for (sample, &length) in self.lengths.iter().enumerate() {
            let values = &self.values[start * self.dim..(start + length) * self.dim];
            start += length;
            let at = groups.iter().position(|group| group.prompts.lengths[0] == length);
            let at = at.unwrap_or_else(|| {
                let (dim, place) = (self.dim, self.place);
                let prompts = PromptBatch { values: Vec::new(), lengths: Vec::new(), dim, place };
                groups.push(PromptGroup { samples: Vec::new(), prompts });
                groups.len() - 1
            });
            groups[at].samples.push(sample);
            groups[at].prompts.values.extend_from_slice(values);
            groups[at].prompts.lengths.push(length);
        }
        groups
    }
}

/// The samples of a batch that have the same number of prompt tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptGroup {
    /// Their positions in the batch.
    pub samples: Vec<usize>,
    /// Their prompts.
    pub prompts: PromptBatch,
}

/// The loss of a batch and its gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct LossGradient {
    /// The mean loss of the batch, in the model's unit (nats a token for a language model).
    pub loss: f64,
    /// dLoss/dPrompt, in the shape of [`PromptBatch::values`].
    pub gradient: Vec<f32>,
}

/// The loss of a batch and its gradients with respect to everything that the model reads.
#[derive(Debug, Clone, PartialEq)]
pub struct InputGradient {
    /// The loss, and its gradient with respect to the prompt tokens.
    pub prompts: LossGradient,
    /// For each sample dLoss/dEmbedding, in the shapes of [`FrozenModel::embeddings`].
    pub embeddings: Vec<Embeddings<'static>>,
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
    fn embeddings<'s>(&'s self, sample: &'s Self::Features) -> Result<Embeddings<'s>, Self::Error>;

    /// The queries of a sample. They are asked for at every step, so they should be computed once and kept in `Features`.
    ///
    /// # Errors
    /// The model's own.
    fn queries<'s>(&'s self, sample: &'s Self::Features) -> Result<Queries<'s>, Self::Error>;

    /// The mean loss of a batch behind its prompts, and the gradient with respect to them. Samples may have different numbers of prompt
    /// tokens ([`PromptBatch::groups`]).
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

    /// The loss of [`Self::loss_gradient`] alone, which a model may find without a backward pass.
    ///
    /// # Errors
    /// The model's own.
    fn loss(&self, batch: &[&Self::Features], prompts: &PromptBatch) -> Result<f64, Self::Error> {
        Ok(self.loss_gradient(batch, prompts)?.loss)
    }

    /// The sample with other input embeddings in the place of its own, of the same shapes, which an [`InputMap`](crate::InputMap) has
    /// made of them; its queries and its target stay. None if this model takes no other embeddings than its own.
    ///
    /// # Errors
    /// The model's own.
    fn with_embeddings(
        &self,
        sample: &Self::Features,
        embeddings: &Embeddings<'_>,
    ) -> Result<Option<Self::Features>, Self::Error> {
        let _ = (sample, embeddings);
        Ok(None)
    }

    /// [`Self::loss_gradient`], and the gradient with respect to the samples' embeddings. None if this model has none of those.
    ///
    /// # Errors
    /// The model's own.
    fn input_gradient(
        &self,
        batch: &[&Self::Features],
        prompts: &PromptBatch,
    ) -> Result<Option<InputGradient>, Self::Error> {
        let _ = (batch, prompts);
        Ok(None)
    }
}

macro_rules! through_pointers {
    ($($pointer:ty),+) => {$(
        impl<M: FrozenModel + ?Sized> FrozenModel for $pointer {
            type Features = M::Features;
            type Error = M::Error;

            fn dims(&self) -> Dims {
                (**self).dims()
            }

            fn embeddings<'s>(&'s self, sample: &'s Self::Features) -> Result<Embeddings<'s>, Self::Error> {
                (**self).embeddings(sample)
            }

            fn queries<'s>(&'s self, sample: &'s Self::Features) -> Result<Queries<'s>, Self::Error> {
                (**self).queries(sample)
            }

            fn loss_gradient(
                &self,
                batch: &[&Self::Features],
                prompts: &PromptBatch,
            ) -> Result<LossGradient, Self::Error> {
                (**self).loss_gradient(batch, prompts)
            }

            fn loss(&self, batch: &[&Self::Features], prompts: &PromptBatch) -> Result<f64, Self::Error> {
                (**self).loss(batch, prompts)
            }

            fn with_embeddings(
                &self,
                sample: &Self::Features,
                embeddings: &Embeddings<'_>,
            ) -> Result<Option<Self::Features>, Self::Error> {
                (**self).with_embeddings(sample, embeddings)
            }

            fn input_gradient(
                &self,
                batch: &[&Self::Features],
                prompts: &PromptBatch,
            ) -> Result<Option<InputGradient>, Self::Error> {
                (**self).input_gradient(batch, prompts)
            }
        }
    )+};
}

// A trainer may borrow its model or share it.
through_pointers!(&M, Arc<M>, Box<M>);
