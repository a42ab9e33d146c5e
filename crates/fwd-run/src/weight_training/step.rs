//! Steps of the optimiser over weights of a model.

use super::batch::{Batch, PROMPTS};
use crate::memory;
use crate::model::{Backbone, Model};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use fwd_continual::{Section, SectionError};
use fwd_models::{
    Checkpoint, FrozenFeatures, Gradient, StepConfig, StepReport, Tracked, Trainable, WeightDtype, Weights,
};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// The mean loss over the samples of some batches, plus what `extra` adds to a batch's, and its gradient.
///
/// The batches are worked on side by side: two halves keep two cores busier than one batch does, whose small operations do not
/// divide. The result does not depend on the number of threads.
///
/// # Errors
/// Those of the model; a parameter without a gradient.
pub(crate) fn gradient(
    base: &Model,
    trainable: &Trainable,
    batches: &[Batch],
    extra: impl Fn(&FrozenFeatures, &Tensor) -> Result<Tensor> + Sync,
) -> Result<Gradient> {
    let mut tracked = trainable.tracked(base.device())?;
    let model = base.with_parameters(&mut tracked)?;
    let prompts = match trainable.get(PROMPTS) {
        Some((shape, _)) => Some(tracked.get(PROMPTS, shape)?),
        None => None,
    };
    let n = batches.iter().map(Batch::len).sum::<Result<usize>>()?;
    let of_batch = |batch: &Batch| {
        let (features, scored) = batch.score(&*model, prompts.as_ref())?;
        let loss = (extra(&features, &scored.loss)? * (batch.len()? as f64 / n as f64))?;
        gradient_of(&tracked, &loss, prompts.as_ref())
    };
    let gradients = batches.par_iter().map(of_batch).collect::<Result<Vec<_>>>()?;
    gradients.into_iter().reduce(|sum, more| sum.plus(&more)).context("no batch")
}

/// One step of the trained parameters down a [`gradient`].
///
/// # Errors
/// As [`gradient`].
pub(crate) fn step(
    base: &Model,
    trainable: &mut Trainable,
    batches: &[Batch],
    config: &StepConfig,
    extra: impl Fn(&FrozenFeatures, &Tensor) -> Result<Tensor> + Sync,
) -> Result<StepReport> {
    let gradient = gradient(base, trainable, batches, extra)?;
    Ok(trainable.step(gradient, config)?)
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

/// Weights of a model as parameters to train, in f32 whatever type the frozen model has: those whose names begin with one of `parts`, or
/// without `parts` all but the vision tower's. Others are not even read.
///
/// # Errors
/// An unreadable checkpoint; weights that need more than the `available` bytes of memory to be trained.
pub(crate) fn weights_of(
    backbone: &Backbone,
    parts: Option<&[&str]>,
    available: Option<u64>,
) -> Result<Trainable> {
    let mut checkpoint = Checkpoint::open(&backbone.dir, WeightDtype::F32, &Device::Cpu)?;
    let begins = |name: &str, prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let vision = backbone.model.vision_parameters();
    let is_trained = |name: &str| match parts {
        Some(parts) => begins(name, parts),
        None => !begins(name, vision),
    };
    let (mut n_parameters, mut excess) = (0, None);
    let mut source = |name: &str, shape: &[usize]| {
        n_parameters += shape.iter().product::<usize>();
        if excess.is_none() {
            excess = memory::check_training(n_parameters, available).err();
        }
        if parts.is_some() && !checkpoint.has(name) {
            let what = format!(
                "the checkpoint has no `{name}`; save the model anew with `save_pretrained` of transformers"
            );
            return Err(fwd_models::ModelError::input("trained parameters", what));
        }
        match excess {
            None => Ok(checkpoint.get(name, shape)?.flatten_all()?.to_vec1()?),
            // Recording stops at the error; what it says is replaced below.
            Some(_) => {
                Err(fwd_models::ModelError::input("trained parameters", "they do not fit into memory"))
            }
        }
    };
    let recorded = Trainable::record(&mut source, &Device::Cpu, |weights| {
        backbone.model.with_parameters(&mut Only { weights, is_kept: &is_trained }).map(drop)
    });
    match excess {
        Some(excess) => Err(excess),
        None => Ok(recorded?),
    }
}

/// A source that has only some of another's parameters.
struct Only<'a> {
    weights: &'a mut dyn Weights,
    is_kept: &'a dyn Fn(&str) -> bool,
}

impl Weights for Only<'_> {
    fn get(&mut self, name: &str, shape: &[usize]) -> fwd_models::Result<Tensor> {
        self.weights.get(name, shape)
    }

    fn has(&self, name: &str) -> bool {
        (self.is_kept)(name) && self.weights.has(name)
    }
}

/// Writes parameters and moments into a section of a saved state.
pub(crate) fn save_weights(trainable: &Trainable, section: &mut Section) {
    let mut n_steps = BTreeMap::new();
    for name in trainable.names() {
        let (Some((shape, values)), Some((first, second, n))) =
            (trainable.get(name), trainable.moments(name))
        else {
            continue;
        };
        section.put_f32(name, shape, values);
        section.put_f32(&format!("{name}#first"), shape, first);
        section.put_f32(&format!("{name}#second"), shape, second);
        n_steps.insert(name, n);
    }
    section.set_info(&n_steps);
}

/// Takes back what [`save_weights`] wrote, into parameters of the same names and shapes.
///
/// # Errors
/// A parameter that is missing or of another shape.
pub(crate) fn load_weights(trainable: &mut Trainable, section: &Section) -> Result<(), SectionError> {
    let n_steps: BTreeMap<String, u32> = section.info()?;
    let names: Vec<String> = trainable.names().map(String::from).collect();
    let misfit = |e: fwd_models::ModelError| SectionError(e.to_string());
    for name in names {
        let shape = trainable.get(&name).map(|(shape, _)| shape.to_vec()).unwrap_or_default();
        let n = n_steps.get(&name).ok_or_else(|| SectionError(format!("parameter {name} is missing")))?;
        trainable.insert(&name, &shape, section.f32(&name, &shape)?).map_err(misfit)?;
        let [first, second] = ["first", "second"].map(|part| section.f32(&format!("{name}#{part}"), &shape));
        trainable.set_moments(&name, first?, second?, *n).map_err(misfit)?;
    }
    Ok(())
}
