//! The model under the continual algorithm, with the error type of this program, so that scoring may fail in its own ways.

use crate::failure::{Failure, fail};
use fwd_models::{Blip, BlipSample};
use fwd_prompt::{Dims, Embeddings, FrozenModel, LossGradient, PromptBatch, Queries};

/// A [`Blip`] whose errors are [`Failure`]s.
pub(crate) struct Frozen<'a>(pub(crate) &'a Blip);

impl FrozenModel for Frozen<'_> {
    type Features = BlipSample;
    type Error = Failure;

    fn dims(&self) -> Dims {
        self.0.dims()
    }

    fn embeddings(&self, sample: &BlipSample) -> Result<Embeddings, Failure> {
        self.0.embeddings(sample).map_err(fail)
    }

    fn queries(&self, sample: &BlipSample) -> Result<Queries, Failure> {
        self.0.queries(sample).map_err(fail)
    }

    fn loss_gradient(&self, batch: &[&BlipSample], prompts: &PromptBatch) -> Result<LossGradient, Failure> {
        self.0.loss_gradient(batch, prompts).map_err(fail)
    }
}
