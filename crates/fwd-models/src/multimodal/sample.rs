//! Samples after the frozen pass, one by one in host memory, and the batches that are made of them.

use crate::error::{ModelError, Result};
use crate::language::{LanguageInput, Segment, SegmentKind};
use candle_core::{Device, Tensor};
use std::borrow::Cow;

/// What the frozen part computed for one sample, and its target, in host memory and without padding.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The language model's input without prompts, in the order in which it reads it.
    pub segments: Vec<SampleSegment>,
    /// `(d_v)`: the pooled output of the vision tower; empty without an image.
    pub image_query: Vec<f32>,
    /// `(d_t)`: the mean of the instruction's embeddings.
    pub text_query: Vec<f32>,
    /// The answer's tokens, end of sequence included.
    pub labels: Vec<i64>,
}

/// Tokens of one kind that follow each other in a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleSegment {
    /// Whether the tokens are visual or words (or prompts, which a sample has none of by itself).
    pub kind: SegmentKind,
    /// `(n, d_model)` row-major.
    pub embeds: Vec<f32>,
}

impl Sample {
    /// The rows of all images, `(n_image, d_model)` row-major; borrowed if they lie together.
    pub fn image_rows(&self) -> Cow<'_, [f32]> {
        self.rows(SegmentKind::Image)
    }

    /// The rows of all words, `(n_text, d_model)` row-major; borrowed if they lie together.
    pub fn text_rows(&self) -> Cow<'_, [f32]> {
        self.rows(SegmentKind::Text)
    }

    fn rows(&self, kind: SegmentKind) -> Cow<'_, [f32]> {
        let mut rows = Cow::Borrowed(&[][..]);
        for segment in self.segments.iter().filter(|s| s.kind == kind && !s.embeds.is_empty()) {
            if rows.is_empty() {
                rows = Cow::Borrowed(&segment.embeds);
            } else {
                rows.to_mut().extend_from_slice(&segment.embeds);
            }
        }
        rows
    }
}

/// The input of a language model of width `d` for some samples.
///
/// Segment `i` of the batch has the tokens of each sample's next segment of that kind; a sample that has none there has only
/// padding in it. Padding goes behind the tokens, except in the first of several segments: there it goes in front, where it
/// lies between no real tokens.
pub(crate) fn batched(batch: &[&Sample], d: usize, device: &Device) -> Result<LanguageInput> {
    let is_misshapen = |s: &&Sample| s.segments.iter().any(|part| !part.embeds.len().is_multiple_of(d));
    if let Some(i) = batch.iter().position(is_misshapen) {
        return Err(ModelError::input("language input", format!("sample {i} does not have rows of {d}")));
    }
    let columns = aligned(batch);
    let n_columns = columns.len();
    let segment = |(c, (kind, rows)): (usize, (SegmentKind, Vec<&[f32]>))| -> Result<Segment> {
        let width = rows.iter().map(|row| row.len() / d).max().unwrap_or(0);
        let is_left = c == 0 && n_columns > 1;
        let (mut embeds, mut mask) = (Vec::with_capacity(rows.len() * width * d), Vec::new());
        for row in rows {
            let (n_real, n_padding) = (row.len() / d, width - row.len() / d);
            let before = if is_left { n_padding } else { 0 };
            embeds.resize(embeds.len() + before * d, 0f32);
            embeds.extend_from_slice(row);
            embeds.resize(embeds.len() + (n_padding - before) * d, 0f32);
            mask.resize(mask.len() + before, 0f32);
            mask.resize(mask.len() + n_real, 1f32);
            mask.resize(mask.len() + n_padding - before, 0f32);
        }
        let embeds = Tensor::from_vec(embeds, (batch.len(), width, d), device)?;
        Segment::new(kind, embeds, &Tensor::from_vec(mask, (batch.len(), width), device)?)
    };
    LanguageInput::new(columns.into_iter().enumerate().map(segment).collect::<Result<_>>()?)
}

/// The segments of a batch: a kind, and every sample's rows, empty where it has no segment of the kind at this place.
/// Every sample's segments stay in order.
fn aligned<'s>(batch: &[&'s Sample]) -> Vec<(SegmentKind, Vec<&'s [f32]>)> {
    let of_sample =
        |sample: &&'s Sample| sample.segments.iter().filter(|s| !s.embeds.is_empty()).collect::<Vec<_>>();
    let segments: Vec<Vec<&'s SampleSegment>> = batch.iter().map(of_sample).collect();
    let mut next = vec![0; batch.len()];
    let mut columns = Vec::new();
    // The sample with the most segments left says what comes next.
    while let Some((_, kind)) = segments
        .iter()
        .zip(&next)
        .filter_map(|(of_sample, &at)| Some((of_sample.len() - at, of_sample.get(at)?.kind)))
        .max_by_key(|(n_left, _)| *n_left)
    {
        let rows = segments.iter().zip(&mut next).map(|(of_sample, at)| match of_sample.get(*at) {
            Some(segment) if segment.kind == kind => {
                *at += 1;
                &segment.embeds[..]
            }
            _ => &[],
        });
        columns.push((kind, rows.collect()));
    }
    columns
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::PaddingSide;
    use SegmentKind::{Image, Text};

    /// A sample of width 1 whose tokens are the given numbers.
    fn sample(segments: &[(SegmentKind, &[f32])]) -> Sample {
        let segments = segments.iter().map(|&(kind, rows)| SampleSegment { kind, embeds: rows.to_vec() });
        Sample { segments: segments.collect(), image_query: vec![], text_query: vec![], labels: vec![] }
    }

    fn concatenated(batch: &[&Sample]) -> (Vec<Vec<f32>>, Vec<SegmentKind>) {
        let input = batched(batch, 1, &Device::Cpu).unwrap();
        let kinds = input.segments().iter().map(|s| s.kind).collect();
        (input.concatenated().unwrap().embeds.squeeze(2).unwrap().to_vec2().unwrap(), kinds)
    }

    #[test]
    fn images_of_one_size_leave_padding_at_the_end_alone() {
        let a = sample(&[(Image, &[1.0, 2.0]), (Text, &[3.0])]);
        let b = sample(&[(Image, &[4.0, 5.0]), (Text, &[6.0, 7.0])]);
        assert_eq!(
            concatenated(&[&a, &b]),
            (vec![vec![1., 2., 3., 0.], vec![4., 5., 6., 7.]], vec![Image, Text])
        );
    }

    #[test]
    fn a_shorter_first_segment_is_padded_in_front() {
        let a = sample(&[(Image, &[1.0]), (Text, &[3.0, 8.0])]);
        let b = sample(&[(Image, &[4.0, 5.0]), (Text, &[6.0])]);
        assert_eq!(concatenated(&[&a, &b]).0, [[0., 1., 3., 8.], [4., 5., 6., 0.]]);
        // One segment alone has nothing behind it.
        let (a, b) = (sample(&[(Text, &[1.0])]), sample(&[(Text, &[2.0, 3.0])]));
        assert_eq!(concatenated(&[&a, &b]).0, [[1., 0.], [2., 3.]]);
    }

    #[test]
    fn samples_of_another_structure_fit_into_one_batch_in_their_order() {
        let plain = sample(&[(Text, &[1.0, 2.0])]);
        let inside = sample(&[(Text, &[3.0]), (Image, &[4.0, 5.0]), (Text, &[6.0])]);
        let first = sample(&[(Image, &[7.0]), (Text, &[8.0])]);
        let input = batched(&[&plain, &inside, &first], 1, &Device::Cpu).unwrap();
        let packed = input.packed(PaddingSide::Left).unwrap();
        let rows: Vec<Vec<f32>> = packed.embeds.squeeze(2).unwrap().to_vec2().unwrap();
        let mask: Vec<Vec<f32>> = packed.mask.to_vec2().unwrap();
        let real = |i: usize| rows[i].iter().zip(&mask[i]).filter(|(_, m)| **m != 0.0).map(|(v, _)| *v);
        assert_eq!(real(0).collect::<Vec<_>>(), [1., 2.]);
        assert_eq!(real(1).collect::<Vec<_>>(), [3., 4., 5., 6.]);
        assert_eq!(real(2).collect::<Vec<_>>(), [7., 8.]);
    }

    #[test]
    fn rows_of_a_kind_are_borrowed_where_they_lie_together() {
        let sample = sample(&[(Text, &[1.0]), (Image, &[2.0, 3.0]), (Text, &[4.0]), (Text, &[])]);
        assert!(matches!(sample.image_rows(), Cow::Borrowed([2.0, 3.0])));
        assert_eq!(*sample.text_rows(), [1.0, 4.0]);
        let error = batched(&[&sample], 2, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("sample 0 does not have rows of 2"), "{error}");
        assert!(batched(&[], 2, &Device::Cpu).is_err());
    }
}
