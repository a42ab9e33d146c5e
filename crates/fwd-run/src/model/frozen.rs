//! The model under the continual algorithm, with an error type of this crate, so that scoring may fail in its own ways.

use crate::error::{Failure, fail};
use fwd_models::{Blip as Model, BlipSample as Sample};
use fwd_prompt::{Dims, Embeddings, FrozenModel, LossGradient, PromptBatch, Queries};

/// A [`Model`] whose errors are [`Failure`]s.
pub struct Frozen<'a>(pub &'a Model);

impl FrozenModel for Frozen<'_> {
    type Features = Sample;
    type Error = Failure;

    fn dims(&self) -> Dims {
        self.0.dims()
    }

    fn embeddings(&self, sample: &Sample) -> Result<Embeddings, Failure> {
        self.0.embeddings(sample).map_err(fail)
    }

    fn queries(&self, sample: &Sample) -> Result<Queries, Failure> {
        self.0.queries(sample).map_err(fail)
    }

    fn loss_gradient(&self, batch: &[&Sample], prompts: &PromptBatch) -> Result<LossGradient, Failure> {
        self.0.loss_gradient(batch, prompts).map_err(fail)
    }
}
