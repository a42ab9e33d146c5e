//! Multimodal models as [`FrozenModel`]s: what the continual algorithm asks of a sample, and the loss behind its prompts.

use crate::error::{ModelError, Result};
use crate::multimodal::{Blip, MultimodalModel, Sample, padded};
use crate::tap::Tap;
use candle_core::{Device, Var};
use fwd_ops::IGNORE_INDEX;
use fwd_prompt::{Dims, Embeddings, FrozenModel, LossGradient, PromptBatch, Queries};

impl FrozenModel for dyn MultimodalModel {
    type Features = Sample;
    type Error = ModelError;

    fn dims(&self) -> Dims {
        self.prompt_dims()
    }

    fn embeddings(&self, sample: &Sample) -> Result<Embeddings> {
        Ok(Embeddings { image: sample.image_rows().into_owned(), text: sample.text_rows().into_owned() })
    }

    fn queries(&self, sample: &Sample) -> Result<Queries> {
        Ok(Queries { image: sample.image_query.clone(), text: sample.text_query.clone() })
    }

    fn loss_gradient(&self, batch: &[&Sample], prompts: &PromptBatch) -> Result<LossGradient> {
        let shape = (prompts.batch, prompts.n_tokens, prompts.dim);
        let prompt = Var::from_slice(&prompts.values, shape, self.device())?;
        let input = self.input(batch)?.with_prompt(&prompt)?;
        let labels: Vec<&[i64]> = batch.iter().map(|s| &s.labels[..]).collect();
        let labels = padded(&labels, IGNORE_INDEX, &Device::Cpu)?;
        let loss = self.language().score(&input, &labels, &mut Tap::none())?.loss;
        let gradient = fwd_ops::backward(&loss, &[("prompt", &prompt)])?;
        Ok(LossGradient {
            loss: f64::from(loss.to_scalar::<f32>()?),
            gradient: gradient[0].flatten_all()?.to_vec1()?,
        })
    }
}

impl FrozenModel for Blip {
    type Features = Sample;
    type Error = ModelError;

    fn dims(&self) -> Dims {
        self.prompt_dims()
    }

    fn embeddings(&self, sample: &Sample) -> Result<Embeddings> {
        (self as &dyn MultimodalModel).embeddings(sample)
    }

    fn queries(&self, sample: &Sample) -> Result<Queries> {
        (self as &dyn MultimodalModel).queries(sample)
    }

    fn loss_gradient(&self, batch: &[&Sample], prompts: &PromptBatch) -> Result<LossGradient> {
        (self as &dyn MultimodalModel).loss_gradient(batch, prompts)
    }
}
