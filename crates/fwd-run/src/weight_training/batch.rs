//! Batches of images, instructions and answers, from what the frozen vision network computed.

use super::image_features::{ImageFeatures, Statistics};
use crate::model::{Model, Reader};
use anyhow::Result;
use candle_core::{Device, Tensor};
use fwd_data::Processor;
use fwd_data::bench::Record;
use fwd_models::{FrozenFeatures, GenerationConfig, Hypothesis, Instructions, Scored, Tap, generate};
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

/// An image, an instruction and the answer that is to be learnt.
#[derive(Debug, Clone)]
pub(crate) struct Example<'a> {
    /// The image and which view of it.
    pub(crate) image: (&'a str, u32),
    /// The text that the model is given.
    pub(crate) instruction: Cow<'a, str>,
    /// The text that it shall answer.
    pub(crate) answer: &'a str,
}

impl<'a> From<&'a Record> for Example<'a> {
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
        reader: Reader<'_>,
        images: &ImageFeatures,
        statistics: Option<&Statistics>,
        records: &[&Record],
    ) -> Result<Self> {
        let samples: Vec<Example<'_>> = records.iter().map(|record| Example::from(*record)).collect();
        Self::of(reader, images, statistics, &samples)
    }

    /// As [`Self::new`], of any samples.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn of(
        reader: Reader<'_>,
        images: &ImageFeatures,
        statistics: Option<&Statistics>,
        samples: &[Example<'_>],
    ) -> Result<Self> {
        let keys: Vec<(&str, u32)> = samples.iter().map(|s| s.image).collect();
        let questions: Vec<&str> = samples.iter().map(|s| &*s.instruction).collect();
        let answers = samples.iter().map(|s| reader.answer_ids(&s.instruction, s.answer));
        let answers = reader.processor.text.batch(&answers.collect::<Result<Vec<_>>>()?);
        let labels = answers.labels(fwd_ops::IGNORE_INDEX);
        Ok(Self {
            image: images.batch(&keys, statistics)?,
            instructions: reader.instructions(&questions)?,
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
    pub(crate) fn features(&self, model: &Model) -> Result<FrozenFeatures> {
        Ok(model.features_of(&self.image, &self.instructions, &mut Tap::none())?)
    }

    /// Visual tokens and loss.
    ///
    /// # Errors
    /// Those of the model.
    pub(crate) fn score(&self, model: &Model, prompts: Option<&Tensor>) -> Result<(FrozenFeatures, Scored)> {
        let features = self.features(model)?;
        let mut input = features.input.clone();
        if let (Some(all), Some(chosen)) = (prompts, &self.prompts) {
            input = input.with_prompt(&all.index_select(&chosen.to_device(all.device())?, 0)?)?;
        }
        let scored = model.language().score(&input, &self.labels, &mut Tap::none())?;
        Ok((features, scored))
    }

    /// Samples of the batch.
    pub(super) fn len(&self) -> Result<usize> {
        Ok(self.labels.dim(0)?)
    }

    /// Answers by greedy search.
    ///
    /// # Errors
    /// Those of the model and the tokenizer.
    pub(crate) fn answers(
        &self,
        model: &Model,
        processor: &Processor,
        max_new_tokens: usize,
    ) -> Result<Vec<String>> {
        let features = self.features(model)?;
        let config = GenerationConfig::greedy(max_new_tokens, model.special_tokens().clone());
        let rows = generate(model.language(), &features.input, &config, None)?;
        let text = |row: &Vec<Hypothesis>| -> Result<String> {
            let ids = row.first().map_or(&[][..], |best| &best.ids);
            Ok(processor.text.decode(ids)?.trim().to_owned())
        };
        rows.iter().map(text).collect()
    }
}

/// Records in two halves, for [`step`](super::step).
///
/// # Errors
/// As [`Batch::new`].
pub(crate) fn halves(reader: Reader<'_>, images: &ImageFeatures, records: &[&Record]) -> Result<Vec<Batch>> {
    let half = records.len().div_ceil(2).max(1);
    records.chunks(half).map(|half| Batch::new(reader, images, None, half)).collect()
}
