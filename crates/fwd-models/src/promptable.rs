//! Multimodal models behind soft prompts: what the continual algorithm asks of a sample, the loss with its gradient, and answers.
//!
//! The samples of a batch may have different numbers of prompt tokens. Samples of equal numbers run together, so that nothing is
//! padded and the result of a sample does not depend on what the others have.

use crate::error::{ModelError, Result};
use crate::generate::{GenerationConfig, Hypothesis, generate};
use crate::language::LanguageInput;
use crate::multimodal::{Blip, Llava, MultimodalModel, Sample, padded};
use crate::tap::Tap;
use candle_core::{Device, Tensor, Var};
use fwd_ops::IGNORE_INDEX;
use fwd_prompt::{Dims, Embeddings, FrozenModel, LossGradient, PromptBatch, PromptGroup, Queries};

impl FrozenModel for dyn MultimodalModel + '_ {
    type Features = Sample;
    type Error = ModelError;

    fn dims(&self) -> Dims {
        self.prompt_dims()
    }

    fn embeddings<'s>(&'s self, sample: &'s Sample) -> Result<Embeddings<'s>> {
        Ok(Embeddings { image: sample.image_rows(), text: sample.text_rows() })
    }

    fn queries<'s>(&'s self, sample: &'s Sample) -> Result<Queries<'s>> {
        Ok(Queries { image: sample.image_query[..].into(), text: sample.text_query[..].into() })
    }

    fn loss_gradient(&self, batch: &[&Sample], prompts: &PromptBatch) -> Result<LossGradient> {
        check(batch, prompts)?;
        if let Some(n_tokens) = prompts.uniform_length() {
            return loss_gradient(self, batch, prompts, n_tokens);
        }
        let mut loss = 0.0;
        let mut gradients = vec![Vec::new(); batch.len()];
        for (PromptGroup { samples, prompts }, group, share) in groups(batch, prompts) {
            let n_tokens = prompts.lengths[0];
            let of_group = loss_gradient(self, &group, &prompts, n_tokens)?;
            loss += share * of_group.loss;
            let rows = of_group.gradient.chunks_exact((n_tokens * prompts.dim).max(1));
            for (i, row) in samples.into_iter().zip(rows) {
                gradients[i] = row.iter().map(|g| (share * f64::from(*g)) as f32).collect();
            }
        }
        Ok(LossGradient { loss, gradient: gradients.concat() })
    }

    fn loss(&self, batch: &[&Sample], prompts: &PromptBatch) -> Result<f64> {
        check(batch, prompts)?;
        let mut loss = 0.0;
        for (PromptGroup { prompts, .. }, group, share) in groups(batch, prompts) {
            let mut input = self.input(&group)?;
            if let Some(prompt) = tensor(&prompts, self.device())? {
                input = input.with_prompt(&prompt)?;
            }
            loss += share * f64::from(loss_of(self, &group, &input)?.to_scalar::<f32>()?);
        }
        Ok(loss)
    }
}

/// The samples of each number of prompt tokens, with their share of the loss: that is a mean over label tokens, so each group counts by
/// its own.
fn groups<'s>(
    batch: &[&'s Sample],
    prompts: &PromptBatch,
) -> impl Iterator<Item = (PromptGroup, Vec<&'s Sample>, f64)> {
    let n_labels = |samples: &[&Sample]| {
        samples.iter().flat_map(|s| &s.labels).filter(|&&id| id != IGNORE_INDEX).count() as f64
    };
    let all = n_labels(batch);
    prompts.groups().into_iter().map(move |group| {
        let samples: Vec<&Sample> = group.samples.iter().map(|&i| batch[i]).collect();
        let share = n_labels(&samples) / all;
        (group, samples, share)
    })
}

/// The loss of a batch whose input is ready.
fn loss_of(model: &(dyn MultimodalModel + '_), batch: &[&Sample], input: &LanguageInput) -> Result<Tensor> {
    let labels: Vec<&[i64]> = batch.iter().map(|s| &s.labels[..]).collect();
    let labels = padded(&labels, IGNORE_INDEX, &Device::Cpu)?;
    Ok(model.language().score(input, &labels, &mut Tap::none())?.loss)
}

/// What every model does as a [`MultimodalModel`].
macro_rules! frozen_model {
    ($($model:ty),*) => {$(
        impl FrozenModel for $model {
            type Features = Sample;
            type Error = ModelError;

            fn dims(&self) -> Dims {
                self.prompt_dims()
            }

            fn embeddings<'s>(&'s self, sample: &'s Sample) -> Result<Embeddings<'s>> {
                (self as &dyn MultimodalModel).embeddings(sample)
            }

            fn queries<'s>(&'s self, sample: &'s Sample) -> Result<Queries<'s>> {
                (self as &dyn MultimodalModel).queries(sample)
            }

            fn loss_gradient(&self, batch: &[&Sample], prompts: &PromptBatch) -> Result<LossGradient> {
                (self as &dyn MultimodalModel).loss_gradient(batch, prompts)
            }

            fn loss(&self, batch: &[&Sample], prompts: &PromptBatch) -> Result<f64> {
                (self as &dyn MultimodalModel).loss(batch, prompts)
            }
        }
    )*};
}
frozen_model!(Blip, Llava);

/// The best answer to each sample of a batch behind its prompts.
///
/// # Errors
/// Prompts for another number of samples or of another width; those of [`generate`].
pub fn answer(
    model: &dyn MultimodalModel,
    batch: &[&Sample],
    prompts: &PromptBatch,
    config: &GenerationConfig,
) -> Result<Vec<Hypothesis>> {
    check(batch, prompts)?;
    let mut answers: Vec<Option<Hypothesis>> = vec![None; batch.len()];
    for PromptGroup { samples, prompts } in prompts.groups() {
        let group: Vec<&Sample> = samples.iter().map(|&i| batch[i]).collect();
        let mut input = model.input(&group)?;
        if let Some(prompt) = tensor(&prompts, model.device())? {
            input = input.with_prompt(&prompt)?;
        }
        let hypotheses = generate(model.language(), &input, config, None)?;
        for (i, hypotheses) in samples.into_iter().zip(hypotheses) {
            answers[i] = hypotheses.into_iter().next();
        }
    }
    let missing = || ModelError::input("answer", "a sample without hypothesis");
    answers.into_iter().collect::<Option<_>>().ok_or_else(missing)
}

fn check(batch: &[&Sample], prompts: &PromptBatch) -> Result<()> {
    let (n, size) = (prompts.lengths.len(), prompts.lengths.iter().sum::<usize>() * prompts.dim);
    if n == batch.len() && size == prompts.values.len() {
        return Ok(());
    }
    let what = format!(
        "prompts of {size} elements for {n} samples; there are {} elements and {} samples",
        prompts.values.len(),
        batch.len()
    );
    Err(ModelError::input("prompts", what))
}

/// Prompts of one length as `(batch, tokens, d)`; none if they have no tokens.
fn tensor(prompts: &PromptBatch, device: &Device) -> Result<Option<Tensor>> {
    match prompts.uniform_length() {
        None | Some(0) => Ok(None),
        Some(n) => {
            let shape = (prompts.lengths.len(), n, prompts.dim);
            Ok(Some(Tensor::from_slice(&prompts.values, shape, device)?))
        }
    }
}

/// The loss of samples that all have `n_tokens` prompt tokens.
fn loss_gradient(
    model: &(dyn MultimodalModel + '_),
    batch: &[&Sample],
    prompts: &PromptBatch,
    n_tokens: usize,
) -> Result<LossGradient> {
    let input = model.input(batch)?;
    if n_tokens == 0 {
        let loss = f64::from(loss_of(model, batch, &input)?.to_scalar::<f32>()?);
        return Ok(LossGradient { loss, gradient: Vec::new() });
    }
    let prompt = Var::from_slice(&prompts.values, (batch.len(), n_tokens, prompts.dim), model.device())?;
    let loss = loss_of(model, batch, &input.with_prompt(&prompt)?)?;
    let gradient = fwd_ops::backward(&loss, &[("prompt", &prompt)])?;
    Ok(LossGradient {
        loss: f64::from(loss.to_scalar::<f32>()?),
        gradient: gradient[0].flatten_all()?.to_vec1()?,
    })
}
