//! The gradient of a batch behind prompts, and behind a map of the input if there is one.

use crate::error::PromptError;
use crate::gradient::{BatchGradient, input_gradient, loss_gradient};
use crate::learner::PromptLearner;
use crate::map::{MapTraining, mapped};
use crate::model::{FrozenModel, LossGradient, PromptBatch};
use fwd_continual::Failure;

impl<M: FrozenModel> PromptLearner<M> {
    /// The loss of a batch, its gradient with respect to the prompt tokens, and that of the map if there is one.
    pub(crate) fn gradient(
        &self,
        samples: &[&M::Features],
        prompts: &PromptBatch,
        training: Option<&MapTraining>,
    ) -> Result<BatchGradient, Failure> {
        let (Some(training), Some(map)) = (training, &self.prompts.pool.map) else {
            let result = loss_gradient(&self.model, samples, prompts)?;
            return Ok(BatchGradient { loss: result.loss, prompts: result.gradient, map: None });
        };
        let map = map.moved(training);
        let own =
            samples.iter().map(|sample| self.model.embeddings(sample)).collect::<Result<Vec<_>, _>>()?;
        let read = samples.iter().map(|sample| mapped(&map, &self.model, sample));
        let read = read.collect::<Result<Vec<_>, PromptError>>()?;
        let result = input_gradient(&self.model, &read.iter().collect::<Vec<_>>(), prompts)?;
        let of_map = training.gradient(&own, &result.embeddings)?;
        let LossGradient { loss, gradient: prompts } = result.prompts;
        Ok(BatchGradient { loss, prompts, map: Some(of_map) })
    }
}
