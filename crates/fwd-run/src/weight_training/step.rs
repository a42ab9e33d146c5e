//! Steps of the optimiser over weights of a model.

use super::batch::{Batch, PROMPTS};
use crate::model::{Backbone, Model};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use fwd_models::{
    Checkpoint, FrozenFeatures, Gradient, StepConfig, StepReport, Tracked, Trainable, WeightDtype, Weights,
};
use rayon::prelude::*;

/// One step of the trained parameters down the mean loss over the samples of some batches, plus what `extra` adds to a batch's.
///
/// The batches are worked on side by side: two halves keep two cores busier than one batch does, whose small operations do not
/// divide. The result does not depend on the number of threads.
///
/// # Errors
/// Those of the model; a parameter without a gradient.
pub(crate) fn step(
    base: &Model,
    trainable: &mut Trainable,
    batches: &[Batch],
    config: &StepConfig,
    extra: impl Fn(&FrozenFeatures, &Tensor) -> Result<Tensor> + Sync,
) -> Result<StepReport> {
    let mut tracked = trainable.tracked(base.device())?;
    let model = base.with_parameters(&mut tracked)?;
    let prompts = match trainable.get(PROMPTS) {
        Some((shape, _)) => Some(tracked.get(PROMPTS, shape)?),
        None => None,
    };
    let n = batches.iter().map(Batch::len).sum::<Result<usize>>()?;
    let gradient = |batch: &Batch| {
        let (features, scored) = batch.score(&model, prompts.as_ref())?;
        let loss = (extra(&features, &scored.loss)? * (batch.len()? as f64 / n as f64))?;
        gradient_of(&tracked, &loss, prompts.as_ref())
    };
    let gradients = batches.par_iter().map(gradient).collect::<Result<Vec<_>>>()?;
    let sum = gradients.into_iter().reduce(|sum, more| sum.plus(&more)).context("no batch")?;
    Ok(trainable.step(sum, config)?)
}

/// Prompts that no sample has in front get the gradient 0, which is no mistake here.
fn gradient_of(tracked: &Tracked, loss: &Tensor, prompts: Option<&Tensor>) -> Result<Gradient> {
    let loss = match prompts {
        Some(all) => {
            let sum = all.sum_all()?;
            (loss + sum.mul(&sum.zeros_like()?)?)? // Not `* 0.0`, of which candle records no gradient.
        }
        None => loss.clone(),
    };
    Ok(tracked.gradient(&loss)?)
}

/// The weights of a model but for its vision tower, as parameters to train.
///
/// # Errors
/// An unreadable checkpoint.
pub(crate) fn weights_of(backbone: &Backbone) -> Result<Trainable> {
    let mut checkpoint = Checkpoint::open(&backbone.dir, WeightDtype::F32, &Device::Cpu)?;
    let mut source =
        |name: &str, shape: &[usize]| Ok(checkpoint.get_f32(name, shape)?.flatten_all()?.to_vec1()?);
    let mut trainable = Trainable::record(&mut source, &Device::Cpu, |weights| {
        backbone.model.with_parameters(weights).map(drop)
    })?;
    let neck: Vec<String> =
        trainable.names().filter(|n| n.starts_with("vision_model.")).map(String::from).collect();
    neck.iter().for_each(|name| trainable.remove(name));
    Ok(trainable)
}
