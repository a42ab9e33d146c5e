//! What a model computes of a batch before any prompt is involved.

use super::sample::{Sample, SampleSegment};
use crate::error::{ModelError, Result};
use crate::language::{KeptPrefix, LanguageInput, Segment, SegmentKind};
use candle_core::{DType, Tensor};
use fwd_ops::IGNORE_INDEX;

/// What the frozen part computes for a batch; none of it depends on a prompt.
#[derive(Debug, Clone)]
pub struct FrozenFeatures {
    /// The language model's input without prompts, visual tokens and instruction in the order in which it reads them.
    pub input: LanguageInput,
    /// `(batch, d_v)`: the pooled output of the vision tower, the image query of a prompt pool; the mean of several images, and zeros for
    /// a sample without one.
    pub image_query: Tensor,
    /// `(batch, d_t)`: the masked mean of the instruction's embeddings, the text query of a prompt pool.
    pub text_query: Tensor,
}

impl FrozenFeatures {
    /// The images as the language model sees them, `(batch, n, d_model)`: all segments of images side by side. Gradients go through.
    ///
    /// # Errors
    /// [`ModelError::Input`] if there is no image.
    pub fn visual_tokens(&self) -> Result<Tensor> {
        let of_images = |s: &&Segment| s.kind == SegmentKind::Image;
        let images: Vec<&Tensor> =
            self.input.segments().iter().filter(of_images).map(|s| &s.embeds).collect();
        if images.is_empty() {
            return Err(ModelError::input("visual tokens", "the input has no image"));
        }
        Ok(Tensor::cat(&images, 1)?)
    }

    /// Takes a batch apart: each sample with its target, in host memory and without padding.
    ///
    /// # Shapes
    /// `labels (batch, tokens)`, −100 where there is none.
    ///
    /// # Errors
    /// [`ModelError::Input`] if the batch sizes differ.
    pub fn samples(&self, labels: &Tensor) -> Result<Vec<Sample>> {
        let (batch, d) = (self.input.batch(), self.input.d_model());
        if labels.dims().first() != Some(&batch) {
            let what = format!("{batch} samples, labels {:?}", labels.shape());
            return Err(ModelError::input("samples", what));
        }
        let flat = |tensor: Tensor| -> Result<Vec<f32>> {
            Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
        };
        let segment = |i: usize, of_batch: &Segment| -> Result<SampleSegment> {
            let (mask, rows) = (flat(of_batch.mask.get(i)?)?, flat(of_batch.embeds.get(i)?)?);
            let real = rows.chunks_exact(d).zip(&mask).filter(|(_, mask)| **mask != 0.0);
            let embeds = real.flat_map(|(row, _)| row).copied().collect();
            Ok(SampleSegment { kind: of_batch.kind, embeds })
        };
        let sample = |i: usize| -> Result<Sample> {
            let labels: Vec<i64> = labels.get(i)?.to_dtype(DType::I64)?.to_vec1()?;
            Ok(Sample {
                segments: self.input.segments().iter().map(|s| segment(i, s)).collect::<Result<_>>()?,
                image_query: flat(self.image_query.get(i)?)?,
                text_query: flat(self.text_query.get(i)?)?,
                labels: labels.into_iter().filter(|&id| id != IGNORE_INDEX).collect(),
                prefix: KeptPrefix::default(),
            })
        };
        (0..batch).map(sample).collect()
    }
}
