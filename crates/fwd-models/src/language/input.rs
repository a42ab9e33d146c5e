//! The input of a language model: embeddings in segments, and the two ways to make one tensor of them.
//!
//! A batch holds samples of different lengths, so each segment is padded, and a mask says which of its tokens are real. Put side by
//! side, segments leave padding *inside* a row wherever a sample's segment is shorter than the longest:
//!
//! ```text
//! concatenated     P P I I a b c      P P I I d · ·     Prompt, Image, Text, the text last
//! concatenated     a b c P P I I      d · · P P I I     the text first: padding inside
//! packed (left)    a b c P P I I      · · d P P I I
//! packed (right)   a b c P P I I      d P P I I · ·
//! ```
//!
//! [`LanguageInput::concatenated`] is what transformers does with BLIP-2 and InstructBLIP, whose text is last. T5 reads that: its
//! positions are distances, and no token needs to move. [`LanguageInput::packed`] moves the real tokens of a row together. A
//! decoder-only model needs it: its positions count real tokens, the answer must follow the last of them in every row of the
//! batch, and its key-value cache grows at one end.

use crate::error::{ModelError, Result};
use candle_core::{DType, Device, Tensor};

/// What the tokens of a segment are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// Soft prompts: learned vectors that are no token's embedding.
    Prompt,
    /// Visual tokens: an image as the bridge maps it to the language model.
    Image,
    /// Words: rows of the language model's embedding table.
    Text,
}

/// Which end of a row padding goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PaddingSide {
    /// In front: all rows end in a real token, as generation of a decoder-only model needs it.
    Left,
    /// Behind: all rows begin with a real token.
    Right,
}

/// Tokens of one kind that follow each other, for every sample of a batch.
///
/// In front of other segments, padding is best put on the left of the first segment: the real tokens then keep their distances, and a
/// model with relative positions does not notice it.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Whether the tokens are prompts, visual or words; a model may treat them differently.
    pub kind: SegmentKind,
    /// `(batch, n, d)` in f32 (f64 where a gradient is checked).
    pub embeds: Tensor,
    /// `(batch, n)` in f32, 1 for a token and 0 for padding.
    pub mask: Tensor,
}

impl Segment {
    /// A segment with padding.
    ///
    /// # Shapes
    /// `embeds (batch, n, d)`, `mask (batch, n)` of any type on any device, not 0 for a token.
    ///
    /// # Errors
    /// [`ModelError::Input`] if the shapes do not fit.
    pub fn new(kind: SegmentKind, embeds: Tensor, mask: &Tensor) -> Result<Self> {
        let (batch, n, _) = embeds.dims3()?;
        if mask.dims() != [batch, n] {
            let what = format!("embeddings {:?}, mask {:?}", embeds.shape(), mask.shape());
            return Err(ModelError::input("segment", what));
        }
        let mask = mask.to_dtype(DType::F32)?.to_device(embeds.device())?;
        Ok(Self { kind, embeds, mask })
    }

    /// A segment without padding.
    ///
    /// # Shapes
    /// `embeds (batch, n, d)`.
    ///
    /// # Errors
    /// An error of candle if the rank is another.
    pub fn full(kind: SegmentKind, embeds: Tensor) -> Result<Self> {
        let (batch, n, _) = embeds.dims3()?;
        let mask = Tensor::ones((batch, n), DType::F32, embeds.device())?;
        Ok(Self { kind, embeds, mask })
    }
}

impl Segment {
    /// The mean of the real tokens of each sample, `(batch, d)`; zeros for one without any.
    ///
    /// # Errors
    /// An error of candle.
    pub fn mean(&self) -> Result<Tensor> {
        let count = self.mask.sum_keepdim(1)?.maximum(1f32)?;
        let sum = self.embeds.broadcast_mul(&self.mask.unsqueeze(2)?)?.sum(1)?;
        Ok(sum.broadcast_div(&count)?)
    }
}

/// The input of a language model for a batch: segments in their order. Cloning it copies no values.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// use fwd_models::{LanguageInput, PaddingSide, Segment, SegmentKind};
///
/// // Two samples, d = 1. The text of the second has one token, and an image follows.
/// let text = Tensor::new(&[[[1f32], [2.0]], [[3.0], [0.0]]], &Device::Cpu)?;
/// let image = Tensor::new(&[[[7f32]], [[8.0]]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1f32, 1.0], [1.0, 0.0]], &Device::Cpu)?;
/// let input = LanguageInput::new(vec![
///     Segment::new(SegmentKind::Text, text, &mask)?,
///     Segment::full(SegmentKind::Image, image)?,
/// ])?;
///
/// let plain = input.concatenated()?;
/// assert_eq!(plain.mask.to_vec2::<f32>()?, [[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]]);
/// let packed = input.packed(PaddingSide::Left)?;
/// assert_eq!(packed.mask.to_vec2::<f32>()?, [[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]);
/// assert_eq!(packed.embeds.squeeze(2)?.get(1)?.to_vec1::<f32>()?[1..], [3.0, 8.0]);
/// assert_eq!(packed.positions()?.to_vec2::<i64>()?, [[0, 1, 2], [1, 0, 1]]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct LanguageInput {
    /// At least one; all of one batch size and one width.
    segments: Vec<Segment>,
    /// Prompts go in front of this segment, or behind all of them.
    prompt_at: usize,
}

/// A [`LanguageInput`] as one tensor.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// `(batch, tokens, d)`, in the dtype of the segments.
    pub embeds: Tensor,
    /// `(batch, tokens)` in f32, 1 for a token and 0 for padding.
    pub mask: Tensor,
}

impl LanguageInput {
    /// The input that consists of these segments, in this order. Prompts will go in front of all of them, unless
    /// [`Self::with_prompt_at`] says where.
    ///
    /// # Errors
    /// [`ModelError::Input`] without a segment, and if batch size or width differ between segments, or a mask does not fit its
    /// embeddings.
    pub fn new(segments: Vec<Segment>) -> Result<Self> {
        let Some(first) = segments.first() else {
            return Err(ModelError::input("language input", "there is no segment"));
        };
        let (batch, _, d) = first.embeds.dims3()?;
        for Segment { embeds, mask, kind } in &segments {
            let fits =
                matches!(embeds.dims(), &[b, n, width] if (b, width) == (batch, d) && mask.dims() == [b, n]);
            if !fits {
                let what = format!(
                    "a {kind:?} segment with embeddings {:?} and mask {:?} beside embeddings {:?}",
                    embeds.shape(),
                    mask.shape(),
                    first.embeds.shape()
                );
                return Err(ModelError::input("language input", what));
            }
        }
        Ok(Self { segments, prompt_at: 0 })
    }

    /// The same input with another place for prompts: [`Self::with_prompt`] puts them in front of segment `at`, or behind all.
    ///
    /// # Errors
    /// [`ModelError::Input`] if there is no such place.
    pub fn with_prompt_at(self, at: usize) -> Result<Self> {
        self.check_place(at)?;
        Ok(Self { prompt_at: at, ..self })
    }

    /// The index of the segment in front of which [`Self::with_prompt`] puts prompts, or the number of segments.
    pub fn prompt_at(&self) -> usize {
        self.prompt_at
    }

    fn check_place(&self, at: usize) -> Result<()> {
        if at <= self.segments.len() {
            return Ok(());
        }
        let what = format!("no place {at} among {} segments", self.segments.len());
        Err(ModelError::input("language input", what))
    }

    /// The segments in their order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The number of samples, which all segments share.
    pub fn batch(&self) -> usize {
        self.segments[0].embeds.dims()[0]
    }

    /// The width of an embedding, which all segments share.
    pub fn d_model(&self) -> usize {
        self.segments[0].embeds.dims()[2]
    }

    /// The same input with one more segment in front of segment `at`, or behind all of them. The place of prompts stays in front of
    /// the same segment, or of the new one if that stands there now.
    ///
    /// # Errors
    /// [`ModelError::Input`] if there is no such place, or batch size or width do not fit.
    pub fn insert(&self, at: usize, segment: Segment) -> Result<Self> {
        self.check_place(at)?;
        let mut segments = self.segments.clone();
        segments.insert(at, segment);
        Ok(Self { prompt_at: self.prompt_at + usize::from(at < self.prompt_at), ..Self::new(segments)? })
    }

    /// The same input with soft prompts in front of everything, or where [`Self::with_prompt_at`] has put their place.
    ///
    /// # Shapes
    /// `prompt (prompt_len, d_model)`, shared by the batch, or `(batch, prompt_len, d_model)`.
    ///
    /// # Errors
    /// [`ModelError::Input`] if the shapes do not fit.
    pub fn with_prompt(&self, prompt: &Tensor) -> Result<Self> {
        let (batch, d) = (self.batch(), self.d_model());
        let prompt = match prompt.dims() {
            &[len, width] if width == d => prompt.unsqueeze(0)?.broadcast_as((batch, len, d))?,
            &[b, _, width] if b == batch && width == d => prompt.clone(),
            dims => {
                let what = format!(
                    "a prompt of shape {dims:?} does not fit {batch} samples with embeddings of width {d}"
                );
                return Err(ModelError::input("with_prompt", what));
            }
        };
        self.insert(self.prompt_at, Segment::full(SegmentKind::Prompt, prompt)?)
    }

    /// The segments side by side; padding stays where it is, inside a row too. A model that has no absolute positions can read
    /// this: the mask hides padding, which still counts as distance where it lies between real tokens.
    ///
    /// # Errors
    /// An error of candle.
    pub fn concatenated(&self) -> Result<Assembled> {
        let embeds: Vec<&Tensor> = self.segments.iter().map(|s| &s.embeds).collect();
        let mask: Vec<&Tensor> = self.segments.iter().map(|s| &s.mask).collect();
        Ok(Assembled { embeds: Tensor::cat(&embeds, 1)?, mask: Tensor::cat(&mask, 1)? })
    }

    /// The real tokens of each row next to each other, in their order, all padding on one side, and no more of it than the
    /// longest row needs. Gradients go through. Reads the masks on the CPU, which waits for a GPU.
    ///
    /// # Errors
    /// [`ModelError::Input`] for a sample without any token.
    pub fn packed(&self, side: PaddingSide) -> Result<Assembled> {
        let Assembled { embeds, mask } = self.concatenated()?;
        let (batch, n, d) = embeds.dims3()?;
        let (device, rows) = (mask.device(), mask.to_vec2::<f32>()?);
        let n_real = |row: &Vec<f32>| row.iter().filter(|&&m| m != 0.0).count();
        let width = rows.iter().map(n_real).max().unwrap_or(0);
        let (mut from, mut packed) = (Vec::with_capacity(batch * width), Vec::with_capacity(batch * width));
        for (i, row) in rows.iter().enumerate() {
            let (real, padding): (Vec<usize>, Vec<usize>) = (0..n).partition(|&j| row[j] != 0.0);
            if real.is_empty() {
                return Err(ModelError::input("packed input", format!("sample {i} has no token")));
            }
            let n_padding = width - real.len();
            // A row has at least as much padding as it needs here: `width` is at most `n`.
            let padding = &padding[..n_padding];
            let (left, right) = match side {
                PaddingSide::Left => (padding, &[][..]),
                PaddingSide::Right => (&[][..], padding),
            };
            from.extend([left, &real, right].concat().into_iter().map(|j| (i * n + j) as u32));
            packed.extend(std::iter::repeat_n(0f32, left.len()));
            packed.extend(std::iter::repeat_n(1f32, real.len()));
            packed.extend(std::iter::repeat_n(0f32, right.len()));
        }
        let from = Tensor::from_vec(from, batch * width, device)?;
        let embeds = embeds.reshape((batch * n, d))?.index_select(&from, 0)?.reshape((batch, width, d))?;
        Ok(Assembled { embeds, mask: Tensor::from_vec(packed, (batch, width), device)? })
    }
}

impl Assembled {
    /// The position of every token among the real ones of its row, as transformers computes it from a mask: the cumulative sum
    /// minus 1, and 1 for padding, which no token sees. Reads the mask on the CPU, which waits for a GPU.
    ///
    /// # Shapes
    /// `(batch, tokens)`, i64, on the CPU, where ids are checked.
    ///
    /// # Errors
    /// An error of candle.
    pub fn positions(&self) -> Result<Tensor> {
        let rows = self.mask.to_vec2::<f32>()?;
        let shape = self.mask.dims2()?;
        let mut positions = Vec::with_capacity(shape.0 * shape.1);
        for row in rows {
            let mut next = 0;
            for m in row {
                positions.push(if m == 0.0 { 1 } else { next });
                next += i64::from(m != 0.0);
            }
        }
        Ok(Tensor::from_vec(positions, shape, &Device::Cpu)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    /// Samples whose tokens are their numbers; 0 is padding.
    fn segment(kind: SegmentKind, rows: &[&[f32]]) -> Segment {
        let n = rows[0].len();
        let values: Vec<f32> = rows.concat();
        let embeds = Tensor::from_slice(&values, (rows.len(), n, 1), &Device::Cpu).unwrap();
        let mask: Vec<u8> = values.iter().map(|&v| u8::from(v != 0.0)).collect();
        let mask = Tensor::from_vec(mask, (rows.len(), n), &Device::Cpu).unwrap();
        Segment::new(kind, embeds, &mask).unwrap()
    }

    fn values(assembled: &Assembled) -> Vec<Vec<f32>> {
        assembled.embeds.squeeze(2).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn packing_closes_gaps_and_keeps_the_order() {
        let input = LanguageInput::new(vec![
            segment(SegmentKind::Text, &[&[1.0, 2.0, 3.0], &[4.0, 0.0, 0.0]]),
            segment(SegmentKind::Image, &[&[5.0, 0.0], &[6.0, 7.0]]),
        ])
        .unwrap();
        assert_eq!(values(&input.concatenated().unwrap()), [[1., 2., 3., 5., 0.], [4., 0., 0., 6., 7.]]);
        let left = input.packed(PaddingSide::Left).unwrap();
        assert_eq!(values(&left), [[1., 2., 3., 5.], [0., 4., 6., 7.]]);
        assert_eq!(left.positions().unwrap().to_vec2::<i64>().unwrap(), [[0, 1, 2, 3], [1, 0, 1, 2]]);
        let right = input.packed(PaddingSide::Right).unwrap();
        assert_eq!(values(&right), [[1., 2., 3., 5.], [4., 6., 7., 0.]]);
        assert_eq!(right.mask.to_vec2::<f32>().unwrap(), [[1., 1., 1., 1.], [1., 1., 1., 0.]]);
        assert_eq!(right.positions().unwrap().to_vec2::<i64>().unwrap(), [[0, 1, 2, 3], [0, 1, 2, 1]]);
    }

    #[test]
    fn without_padding_inside_right_packing_is_concatenation() {
        let input = LanguageInput::new(vec![
            segment(SegmentKind::Image, &[&[1.0, 2.0], &[3.0, 4.0]]),
            segment(SegmentKind::Text, &[&[5.0, 6.0], &[7.0, 0.0]]),
        ])
        .unwrap();
        let (plain, packed) = (input.concatenated().unwrap(), input.packed(PaddingSide::Right).unwrap());
        assert_eq!(values(&plain), values(&packed));
        assert_eq!(plain.mask.to_vec2::<f32>().unwrap(), packed.mask.to_vec2::<f32>().unwrap());
    }

    #[test]
    fn the_gradient_of_a_packed_input_comes_back_to_its_segment() {
        let text = segment(SegmentKind::Text, &[&[1.0, 2.0], &[3.0, 0.0]]);
        let input = LanguageInput::new(vec![text, segment(SegmentKind::Image, &[&[4.0], &[5.0]])]).unwrap();
        let prompt = Var::from_slice(&[8f32, 9.0], (2, 1), &Device::Cpu).unwrap();
        let packed = input.with_prompt(&prompt).unwrap().packed(PaddingSide::Left).unwrap();
        assert_eq!(values(&packed), [[8., 9., 1., 2., 4.], [0., 8., 9., 3., 5.]]);
        let weight = Tensor::new(
            &[[[1f32], [2.], [3.], [4.], [5.]], [[0.], [10.], [20.], [30.], [40.]]],
            &Device::Cpu,
        );
        let loss = (packed.embeds * weight.unwrap()).unwrap().sum_all().unwrap();
        let gradient = &fwd_ops::backward(&loss, &[("prompt", &prompt)]).unwrap()[0];
        assert_eq!(gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [11.0, 22.0]);
    }

    #[test]
    fn prompts_go_to_their_place_which_follows_its_segment() {
        let input = LanguageInput::new(vec![
            segment(SegmentKind::Text, &[&[1.0]]),
            segment(SegmentKind::Text, &[&[2.0, 3.0]]),
        ])
        .unwrap();
        let prompt = Tensor::new(&[[8f32], [9.0]], &Device::Cpu).unwrap();
        let read = |input: LanguageInput| values(&input.concatenated().unwrap());
        let after_first = input.clone().with_prompt_at(1).unwrap();
        assert_eq!(read(after_first.with_prompt(&prompt).unwrap()), [[1., 8., 9., 2., 3.]]);
        let in_front = after_first.insert(0, segment(SegmentKind::Image, &[&[7.0]])).unwrap();
        assert_eq!(in_front.prompt_at(), 2);
        assert_eq!(read(in_front.with_prompt(&prompt).unwrap()), [[7., 1., 8., 9., 2., 3.]]);
        let behind = after_first.insert(2, segment(SegmentKind::Image, &[&[7.0]])).unwrap();
        assert_eq!(read(behind.with_prompt(&prompt).unwrap()), [[1., 8., 9., 2., 3., 7.]]);
        let at_end = input.clone().with_prompt_at(2).unwrap();
        assert_eq!(read(at_end.with_prompt(&prompt).unwrap()), [[1., 2., 3., 8., 9.]]);
        assert!(input.with_prompt_at(3).unwrap_err().to_string().contains("no place 3 among 2 segments"));
    }

    #[test]
    fn segments_that_do_not_fit_are_named() {
        let input =
            LanguageInput::new(vec![segment(SegmentKind::Text, &[&[1.0, 2.0], &[3.0, 0.0]])]).unwrap();
        let other = segment(SegmentKind::Image, &[&[1.0]]);
        let error = input.insert(0, other.clone()).unwrap_err().to_string();
        assert!(error.contains("beside embeddings [1, 1, 1]"), "{error}");
        assert!(input.insert(2, other).unwrap_err().to_string().contains("no place 2 among 1 segments"));
        let wide = Tensor::zeros((3, 2), DType::F32, &Device::Cpu).unwrap();
        let error = input.with_prompt(&wide).unwrap_err().to_string();
        assert!(
            error.contains("a prompt of shape [3, 2] does not fit 2 samples with embeddings of width 1"),
            "{error}"
        );
        assert!(LanguageInput::new(Vec::new()).is_err());
        let empty = LanguageInput::new(vec![segment(SegmentKind::Text, &[&[1.0], &[0.0]])]).unwrap();
        assert!(empty.packed(PaddingSide::Left).unwrap_err().to_string().contains("sample 1 has no token"));
    }
}
