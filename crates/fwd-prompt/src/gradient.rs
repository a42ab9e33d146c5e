//! What the model says of a batch, checked, and what of it belongs to which parameter.

use crate::error::PromptError;
use crate::map::unsupported;
use crate::model::{FrozenModel, InputGradient, LossGradient, PromptBatch, Queries};
use crate::pool::Selection;
use fwd_continual::{Failure, NotFinite, Place};
use fwd_linalg::LinalgError;
use std::ops::Range;

/// The loss of a batch, and its gradients with respect to what is trained.
pub(crate) struct BatchGradient {
    pub(crate) loss: f64,
    /// In the shape of the prompt tokens.
    pub(crate) prompts: Vec<f32>,
    /// That of the map, if there is one.
    pub(crate) map: Option<Vec<f32>>,
}

/// What failed with a sample of an older task.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Rehearsed {
    pub(crate) what: String,
    pub(crate) source: Box<dyn std::error::Error + Send + Sync>,
}

/// The queries of a sample, which must be finite: they become keys, and choose prompts.
pub(crate) fn queries_of<'s, M: FrozenModel>(
    model: &'s M,
    features: &'s M::Features,
    sample: usize,
) -> Result<Queries<'s>, Failure> {
    let place = Place::Sample(sample);
    let queries = model.queries(features).map_err(|e| Failure::at(place, e))?;
    match queries.image.iter().chain(&*queries.text).position(|x| !x.is_finite()) {
        Some(column) => {
            let error = LinalgError::NotFinite { op: "queries, image then text", row: 0, column };
            Err(Failure::at(place, error))
        }
        None => Ok(queries),
    }
}

/// The loss of a batch, which must be finite, and its gradient, which must have the size of the prompts.
pub(crate) fn loss_gradient<M: FrozenModel>(
    model: &M,
    samples: &[&M::Features],
    prompts: &PromptBatch,
) -> Result<LossGradient, Failure> {
    let result = model.loss_gradient(samples, prompts)?;
    check(&result, prompts)?;
    Ok(result)
}

/// The same with the gradient of the samples' embeddings.
pub(crate) fn input_gradient<M: FrozenModel>(
    model: &M,
    samples: &[&M::Features],
    prompts: &PromptBatch,
) -> Result<InputGradient, Failure> {
    let result = model.input_gradient(samples, prompts)?.ok_or_else(unsupported)?;
    check(&result.prompts, prompts)?;
    Ok(result)
}

fn check(result: &LossGradient, prompts: &PromptBatch) -> Result<(), Failure> {
    if !result.loss.is_finite() {
        return Err(NotFinite("the loss").into());
    }
    let (actual, expected) = (result.gradient.len(), prompts.values.len());
    if actual != expected {
        let what = format!("a gradient of {actual} elements for prompts of {expected}");
        return Err(PromptError::Shape { op: "loss_gradient", what }.into());
    }
    Ok(())
}

/// The gradient of each trained prompt: the sum over the samples that selected it.
pub(crate) fn scatter(
    gradient: &[f32],
    selections: &[Selection],
    trained: &Range<usize>,
    size: usize,
) -> Vec<f32> {
    let mut out = vec![0.0; trained.len() * size];
    let chosen = selections.iter().flat_map(|s| &s.prompts);
    for (&j, gradient) in chosen.zip(gradient.chunks_exact(size)) {
        if !trained.contains(&j) {
            continue;
        }
        let at = (j - trained.start) * size;
        out[at..at + size].iter_mut().zip(gradient).for_each(|(out, g)| *out += g);
    }
    out
}
