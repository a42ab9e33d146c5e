//! Training of weights, as opposed to prompts: what pre-training, full fine-tuning and the method `finetune` share.

use crate::backbone::{Backbone, instructions};
use crate::images::{Images, Statistics};
use anyhow::Result;
use candle_core::{Device, Tensor};
use fwd_data::Processor;
use fwd_data::bench::Record;
use fwd_models::{
    Blip, Checkpoint, FrozenFeatures, GenerationConfig, Hypothesis, Instructions, ModelKind, Scored,
    StepConfig, StepReport, Tap, Trainable, WeightDtype, Weights,
};

/// A batch as the model reads it, from what the frozen vision network computed.
pub(crate) struct Batch {
    image: Tensor,
    instructions: Instructions,
    /// `(batch, tokens)`, −100 where there is none.
    pub(crate) labels: Tensor,
}

impl Batch {
    /// The records with their first answers as targets.
    ///
    /// # Errors
    /// An image without features, an error of the tokenizers.
    pub(crate) fn new(
        (processor, kind): (&Processor, ModelKind),
        images: &Images,
        statistics: Option<&Statistics>,
        records: &[&Record],
    ) -> Result<Self> {
        let keys: Vec<&str> = records.iter().map(|r| r.image.as_str()).collect();
        let questions: Vec<&str> = records.iter().map(|r| r.instruction.as_str()).collect();
        let answers: Vec<&str> =
            records.iter().map(|r| r.answers.first().map_or("", String::as_str)).collect();
        let answers = processor.text.encode_batch(&answers)?;
        let labels = answers.labels(fwd_ops::IGNORE_INDEX);
        Ok(Self {
            image: images.batch(&keys, statistics)?,
            instructions: instructions(processor, kind, &questions)?,
            labels: Tensor::from_vec(labels, (answers.rows, answers.width), &Device::Cpu)?,
        })
    }

    /// Visual tokens and loss.
    ///
    /// # Errors
    /// Those of the model.
    pub(crate) fn score(&self, model: &Blip) -> Result<(FrozenFeatures, Scored)> {
        let features = model.features_of(&self.image, &self.instructions, &mut Tap::none())?;
        let scored = model.language().score(&features.input()?, &self.labels, &mut Tap::none())?;
        Ok((features, scored))
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
        let features = model.features_of(&self.image, &self.instructions, &mut Tap::none())?;
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

/// One step of the trained parameters down the loss of a batch, plus what `extra` adds to it.
///
/// # Errors
/// Those of the model; a parameter without a gradient.
pub(crate) fn step(
    base: &Blip,
    trainable: &mut Trainable,
    batch: &Batch,
    config: &StepConfig,
    extra: impl FnOnce(&FrozenFeatures, &Tensor) -> Result<Tensor>,
) -> Result<StepReport> {
    let mut tracked = trainable.tracked(&Device::Cpu)?;
    let model = base.with_parameters(&mut tracked)?;
    let (features, scored) = batch.score(&model)?;
    let loss = extra(&features, &scored.loss)?;
    Ok(trainable.step(&tracked, &loss, config)?)
}

/// The weights of a model but for its vision tower, as parameters to train.
///
/// # Errors
/// An unreadable checkpoint.
pub(crate) fn weights_of(backbone: &Backbone) -> Result<Trainable> {
    let mut checkpoint = Checkpoint::open(&backbone.dir, WeightDtype::F32, &Device::Cpu)?;
    let mut source =
        |name: &str, shape: &[usize]| Ok(checkpoint.get_f32(name, shape)?.flatten_all()?.to_vec1()?);
    let mut trainable =
        Trainable::record(&mut source, |weights| backbone.model.with_parameters(weights).map(drop))?;
    let neck: Vec<String> =
        trainable.names().filter(|n| n.starts_with("vision_model.")).map(String::from).collect();
    neck.iter().for_each(|name| trainable.remove(name));
    Ok(trainable)
}
