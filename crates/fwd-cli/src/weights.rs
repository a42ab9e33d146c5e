//! Training of weights, as opposed to prompts: what pre-training, full fine-tuning and the method `finetune` share.

use crate::backbone::{Backbone, instructions};
use crate::images::{Images, Statistics};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use fwd_data::Processor;
use fwd_data::bench::Record;
use fwd_models::{
    Blip, Checkpoint, FrozenFeatures, GenerationConfig, Gradient, Hypothesis, Instructions, ModelKind,
    Scored, StepConfig, StepReport, Tap, Tracked, Trainable, WeightDtype, Weights,
};
use rayon::prelude::*;
use std::borrow::Cow;

/// A batch as the model reads it, from what the frozen vision network computed.
pub(crate) struct Batch {
    image: Tensor,
    instructions: Instructions,
    /// `(batch, tokens)`, −100 where there is none.
    pub(crate) labels: Tensor,
    /// Which of the prompts each sample has in front, if any are.
    prompts: Option<Tensor>,
}

/// One sample of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Sample<'a> {
    /// The image and which view of it.
    pub(crate) image: (&'a str, u32),
    pub(crate) instruction: Cow<'a, str>,
    pub(crate) answer: &'a str,
}

impl<'a> From<&'a Record> for Sample<'a> {
    /// The image as it is, the instruction, the first answer.
    fn from(record: &'a Record) -> Self {
        Self {
            image: (&record.image, 0),
            instruction: Cow::Borrowed(&record.instruction),
            answer: record.answers.first().map_or("", String::as_str),
        }
    }
}

/// The parameter that holds prompts of a pre-training, `(prompts, tokens, d_model)`; no model has it.
pub(crate) const PROMPTS: &str = "pre-training.prompts";

impl Batch {
    /// The records with their first answers as targets.
    ///
    /// # Errors
    /// An image without features, an error of the tokenizers.
    pub(crate) fn new(
        model: (&Processor, ModelKind),
        images: &Images,
        statistics: Option<&Statistics>,
        records: &[&Record],
    ) -> Result<Self> {
        let samples: Vec<Sample<'_>> = records.iter().map(|record| Sample::from(*record)).collect();
        Self::of(model, images, statistics, &samples)
    }

    /// As [`Self::new`], of any samples.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn of(
        (processor, kind): (&Processor, ModelKind),
        images: &Images,
        statistics: Option<&Statistics>,
        samples: &[Sample<'_>],
    ) -> Result<Self> {
        let keys: Vec<(&str, u32)> = samples.iter().map(|s| s.image).collect();
        let questions: Vec<&str> = samples.iter().map(|s| &*s.instruction).collect();
        let answers: Vec<&str> = samples.iter().map(|s| s.answer).collect();
        let answers = processor.text.encode_batch(&answers)?;
        let labels = answers.labels(fwd_ops::IGNORE_INDEX);
        Ok(Self {
            image: images.batch(&keys, statistics)?,
            instructions: instructions(processor, kind, &questions)?,
            labels: Tensor::from_vec(labels, (answers.rows, answers.width), &Device::Cpu)?,
            prompts: None,
        })
    }

    /// The same with a prompt in front of every sample, one of those that the parameter [`PROMPTS`] holds.
    ///
    /// # Errors
    /// An error of candle.
    pub(crate) fn with_prompts(self, prompts: Vec<u32>) -> Result<Self> {
        let n = prompts.len();
        Ok(Self { prompts: Some(Tensor::from_vec(prompts, n, &Device::Cpu)?), ..self })
    }

    /// What the model computes of images and instructions.
    ///
    /// # Errors
    /// Those of the model.
    pub(crate) fn features(&self, model: &Blip) -> Result<FrozenFeatures> {
        Ok(model.features_of(&self.image, &self.instructions, &mut Tap::none())?)
    }

    /// Visual tokens and loss.
    ///
    /// # Errors
    /// Those of the model.
    pub(crate) fn score(&self, model: &Blip, prompts: Option<&Tensor>) -> Result<(FrozenFeatures, Scored)> {
        let features = self.features(model)?;
        let mut input = features.input()?;
        if let (Some(all), Some(chosen)) = (prompts, &self.prompts) {
            input = input.with_prompt(&all.index_select(&chosen.to_device(all.device())?, 0)?)?;
        }
        let scored = model.language().score(&input, &self.labels, &mut Tap::none())?;
        Ok((features, scored))
    }

    fn len(&self) -> Result<usize> {
        Ok(self.labels.dim(0)?)
    }

    /// Answers by greedy search.
    ///
    /// # Errors
    /// Those of the model and the tokenizer.
    pub(crate) fn answers(
        &self,
        model: &Blip,
        processor: &Processor,
        max_new_tokens: usize,
    ) -> Result<Vec<String>> {
        let features = self.features(model)?;
        let encoded = model.language().encode(&features.input()?, &mut Tap::none())?;
        let config = GenerationConfig::greedy(max_new_tokens, model.special_tokens().clone());
        let rows = model.language().generate(&encoded, &config, None)?;
        let text = |row: &Vec<Hypothesis>| -> Result<String> {
            let ids = row.first().map_or(&[][..], |best| &best.ids);
            Ok(processor.text.decode(ids)?.trim().to_owned())
        };
        rows.iter().map(text).collect()
    }
}

/// One step of the trained parameters down the mean loss over the samples of some batches, plus what `extra` adds to a batch's.
///
/// The batches are worked on side by side: two halves keep two cores busier than one batch does, whose small operations do not
/// divide. The result does not depend on the number of threads.
///
/// # Errors
/// Those of the model; a parameter without a gradient.
pub(crate) fn step(
    base: &Blip,
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

/// Records in two halves, for [`step`].
///
/// # Errors
/// As [`Batch::new`].
pub(crate) fn halves(
    model: (&Processor, ModelKind),
    images: &Images,
    records: &[&Record],
) -> Result<Vec<Batch>> {
    let half = records.len().div_ceil(2).max(1);
    records.chunks(half).map(|half| Batch::new(model, images, None, half)).collect()
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
