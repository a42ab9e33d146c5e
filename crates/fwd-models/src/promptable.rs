//! BLIP-2 and InstructBLIP as [`FrozenModel`]s: samples after the frozen pass, one by one, and the loss behind their prompts.

use crate::blip::{Blip, FrozenFeatures};
use crate::error::{ModelError, Result};
use crate::t5::LanguageInput;
use crate::tap::Tap;
use candle_core::{DType, Device, Tensor, Var};
use fwd_ops::IGNORE_INDEX;
use fwd_prompt::{Dims, Embeddings, FrozenModel, LossGradient, PromptBatch, Queries};

/// What the frozen part computed for one sample, and its target, in host memory and without padding.
#[derive(Debug, Clone, PartialEq)]
pub struct BlipSample {
    /// `(n_queries, d_model)` row-major: the image as the language model sees it.
    pub visual_tokens: Vec<f32>,
    /// `(n_text, d_model)` row-major: the instruction's embeddings.
    pub text_embeds: Vec<f32>,
    /// `(d_vision)`: the pooled output of the vision tower.
    pub image_query: Vec<f32>,
    /// `(d_model)`: mean of the instruction's embeddings.
    pub text_query: Vec<f32>,
    /// The answer's tokens, end of sequence included.
    pub labels: Vec<i64>,
}

impl FrozenFeatures {
    /// Takes a batch apart.
    ///
    /// # Shapes
    /// `labels (batch, tokens)`, −100 where there is none.
    ///
    /// # Errors
    /// [`ModelError::Input`] if the batch sizes differ.
    pub fn samples(&self, labels: &Tensor) -> Result<Vec<BlipSample>> {
        let (batch, d) = (self.visual_tokens.dim(0)?, self.visual_tokens.dim(2)?);
        if labels.dims().first() != Some(&batch) {
            return Err(ModelError::input(
                "samples",
                format!("{batch} samples, labels {:?}", labels.shape()),
            ));
        }
        let flat = |tensor: Tensor| -> Result<Vec<f32>> {
            Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
        };
        (0..batch)
            .map(|i| {
                let mask: Vec<f32> = flat(self.text_mask.get(i)?)?;
                let text = flat(self.text_embeds.get(i)?)?;
                let kept = text.chunks_exact(d).zip(&mask).filter(|(_, mask)| **mask != 0.0);
                let labels: Vec<i64> = labels.get(i)?.to_dtype(DType::I64)?.to_vec1()?;
                Ok(BlipSample {
                    visual_tokens: flat(self.visual_tokens.get(i)?)?,
                    text_embeds: kept.flat_map(|(row, _)| row).copied().collect(),
                    image_query: flat(self.image_query.get(i)?)?,
                    text_query: flat(self.text_query.get(i)?)?,
                    labels: labels.into_iter().filter(|&id| id != IGNORE_INDEX).collect(),
                })
            })
            .collect()
    }
}

impl Blip {
    /// The input of the language model for some samples, without prompts: `[visual tokens ; instruction ; padding]`.
    ///
    /// # Errors
    /// [`ModelError::Input`] if a sample does not have the model's width.
    pub fn language_input(&self, batch: &[&BlipSample], device: &Device) -> Result<LanguageInput> {
        let d = self.language().d_model();
        let size = |sample: &BlipSample| sample.visual_tokens.len() + sample.text_embeds.len();
        if let Some(i) = batch.iter().position(|s| s.visual_tokens.len() % d + s.text_embeds.len() % d != 0) {
            return Err(ModelError::input("language_input", format!("sample {i} does not have rows of {d}")));
        }
        let width = batch.iter().map(|s| size(s)).max().unwrap_or(0) / d;
        let (mut embeds, mut mask) = (Vec::with_capacity(batch.len() * width * d), Vec::new());
        for (i, sample) in batch.iter().enumerate() {
            embeds.extend_from_slice(&sample.visual_tokens);
            embeds.extend_from_slice(&sample.text_embeds);
            embeds.resize((i + 1) * width * d, 0.0);
            mask.resize(i * width + size(sample) / d, 1f32);
            mask.resize((i + 1) * width, 0.0);
        }
        Ok(LanguageInput {
            embeds: Tensor::from_vec(embeds, (batch.len(), width, d), device)?,
            mask: Tensor::from_vec(mask, (batch.len(), width), device)?,
        })
    }
}

/// Rows of token ids as one tensor, `(rows, longest)`, i64.
///
/// # Errors
/// An error of candle.
pub fn padded(rows: &[&[i64]], padding: i64, device: &Device) -> Result<Tensor> {
    let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let fill = |row: &&[i64]| {
        let rest = std::iter::repeat_n(padding, width - row.len());
        row.iter().copied().chain(rest).collect::<Vec<_>>()
    };
    let ids: Vec<i64> = rows.iter().flat_map(fill).collect();
    Ok(Tensor::from_vec(ids, (rows.len(), width), device)?)
}

impl FrozenModel for Blip {
    type Features = BlipSample;
    type Error = ModelError;

    fn dims(&self) -> Dims {
        let model = self.language().d_model();
        Dims { model, image_query: self.config().vision.query_width(), text_query: model }
    }

    fn embeddings(&self, sample: &BlipSample) -> Result<Embeddings> {
        Ok(Embeddings { image: sample.visual_tokens.clone(), text: sample.text_embeds.clone() })
    }

    fn queries(&self, sample: &BlipSample) -> Result<Queries> {
        Ok(Queries { image: sample.image_query.clone(), text: sample.text_query.clone() })
    }

    fn loss_gradient(&self, batch: &[&BlipSample], prompts: &PromptBatch) -> Result<LossGradient> {
        let device = self.language().device();
        let shape = (prompts.batch, prompts.n_tokens, prompts.dim);
        let prompt = Var::from_slice(&prompts.values, shape, device)?;
        let input = self.language_input(batch, device)?.with_prompt(&prompt)?;
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
