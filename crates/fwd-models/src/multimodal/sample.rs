//! Samples after the frozen pass, one by one in host memory, and the batches that are made of them.

use crate::error::{ModelError, Result};
use crate::language::{KeptPrefix, LanguageInput, Segment, SegmentKind};
use candle_core::{Device, Tensor};
use std::borrow::Cow;

/// What the frozen part computed for one sample, and its target, in host memory and without padding.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The language model's input without prompts, in the order in which it reads it.
    pub segments: Vec<SampleSegment>,
    /// `(d_v)`: the pooled output of the vision tower, of several images their mean; zeros without an image, whose cosine with every key
    /// is 0.
    pub image_query: Vec<f32>,
    /// `(d_t)`: the mean of the instruction's embeddings.
    pub text_query: Vec<f32>,
    /// The answer's tokens, end of sequence included.
    pub labels: Vec<i64>,
    /// What the language model has computed of the segments, once it was asked to keep that; no part of the sample's value. Whoever changes
    /// the segments puts a new one here.
    pub prefix: KeptPrefix,
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

    /// The same sample with other rows in the place of its own, in their order; queries and target stay.
    ///
    /// # Errors
    /// [`ModelError::Input`] for other numbers of elements than [`Self::image_rows`] and [`Self::text_rows`] have.
    pub fn with_rows(&self, image: &[f32], text: &[f32]) -> Result<Self> {
        let sizes = [self.image_rows().len(), self.text_rows().len()];
        if sizes != [image.len(), text.len()] {
            let what = format!(
                "embeddings of {:?} elements (image, text) in the place of {sizes:?}",
                [image.len(), text.len()]
            );
            return Err(ModelError::input("embeddings", what));
        }
        let (mut image, mut text) = (image, text);
        let segment = |segment: &SampleSegment| {
            let rows = match segment.kind {
                SegmentKind::Image => &mut image,
                SegmentKind::Text => &mut text,
                SegmentKind::Prompt => return segment.clone(),
            };
            let (own, rest) = rows.split_at(segment.embeds.len());
            *rows = rest;
            SampleSegment { kind: segment.kind, embeds: own.to_vec() }
        };
        let segments = self.segments.iter().map(segment).collect();
        let Self { image_query, text_query, labels, .. } = self;
        Ok(Self {
            segments,
            image_query: image_query.clone(),
            text_query: text_query.clone(),
            labels: labels.clone(),
            prefix: KeptPrefix::default(),
        })
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

/// The input of a language model of width `d` for some samples, in the layout of [`columns`].
pub(crate) fn batched(batch: &[&Sample], d: usize, device: &Device) -> Result<LanguageInput> {
    let is_misshapen = |s: &&Sample| s.segments.iter().any(|part| !part.embeds.len().is_multiple_of(d));
    if let Some(i) = batch.iter().position(is_misshapen) {
        return Err(ModelError::input("language input", format!("sample {i} does not have rows of {d}")));
    }
    let lengths = |s: &&Sample| s.segments.iter().map(|part| (part.kind, part.embeds.len() / d)).collect();
    let segment = |column: &Column| -> Result<Segment> {
        let mut embeds = Vec::with_capacity(batch.len() * column.width * d);
        for (sample, cell) in batch.iter().zip(&column.cells) {
            let row = cell.segment.map_or(&[][..], |i| &sample.segments[i].embeds);
            let (before, after) = column.padding(cell);
            embeds.resize(embeds.len() + before * d, 0f32);
            embeds.extend_from_slice(row);
            embeds.resize(embeds.len() + after * d, 0f32);
        }
        let embeds = Tensor::from_vec(embeds, (batch.len(), column.width, d), device)?;
        Segment::new(column.kind, embeds, &column.mask(device)?)
    };
    let columns = columns(&batch.iter().map(lengths).collect::<Vec<_>>());
    LanguageInput::new(columns.iter().map(segment).collect::<Result<_>>()?)
}

/// The input of a language model whose tokens are rows of a table, in the layout of [`columns`]. Gradients go through to the table.
///
/// # Shapes
/// `table (n, d)`; of each sample the segments in their order, each with the rows of its tokens.
pub(crate) fn gathered(table: &Tensor, batch: &[Vec<(SegmentKind, Vec<u32>)>]) -> Result<LanguageInput> {
    let (n, d) = table.dims2()?;
    // Padding is the row of zeros behind the others.
    let padding = u32::try_from(n).map_err(|_| ModelError::input("language input", "too many tokens"))?;
    let table = Tensor::cat(&[table, &Tensor::zeros((1, d), table.dtype(), table.device())?], 0)?;
    let lengths =
        |sample: &Vec<(SegmentKind, Vec<u32>)>| sample.iter().map(|(k, rows)| (*k, rows.len())).collect();
    let segment = |column: &Column| -> Result<Segment> {
        let mut rows = Vec::with_capacity(batch.len() * column.width);
        for (sample, cell) in batch.iter().zip(&column.cells) {
            let (before, after) = column.padding(cell);
            rows.extend(std::iter::repeat_n(padding, before));
            rows.extend(cell.segment.map_or(&[][..], |i| &sample[i].1));
            rows.extend(std::iter::repeat_n(padding, after));
        }
        let rows = Tensor::new(rows, table.device())?;
        let embeds = table.index_select(&rows, 0)?.reshape((batch.len(), column.width, d))?;
        Segment::new(column.kind, embeds, &column.mask(table.device())?)
    };
    let columns = columns(&batch.iter().map(lengths).collect::<Vec<_>>());
    LanguageInput::new(columns.iter().map(segment).collect::<Result<_>>()?)
}

/// One segment of a batch.
struct Column {
    kind: SegmentKind,
    /// Tokens of the longest sample.
    width: usize,
    /// Whether padding goes in front of the tokens.
    is_left: bool,
    /// One for each sample.
    cells: Vec<Cell>,
}

/// What a sample has at one segment of a batch.
struct Cell {
    /// Which of its own segments; none if it has only padding here.
    segment: Option<usize>,
    n_tokens: usize,
}

impl Column {
    /// Tokens of padding in front of and behind those of a sample.
    fn padding(&self, cell: &Cell) -> (usize, usize) {
        let n = self.width - cell.n_tokens;
        if self.is_left { (n, 0) } else { (0, n) }
    }

    /// `(batch, width)`, 1 for a token and 0 for padding.
    fn mask(&self, device: &Device) -> Result<Tensor> {
        let mut mask = Vec::with_capacity(self.cells.len() * self.width);
        for cell in &self.cells {
            let (before, after) = self.padding(cell);
            mask.extend(std::iter::repeat_n(0f32, before));
            mask.extend(std::iter::repeat_n(1f32, cell.n_tokens));
            mask.extend(std::iter::repeat_n(0f32, after));
        }
        Ok(Tensor::from_vec(mask, (self.cells.len(), self.width), device)?)
    }
}

/// How samples share the segments of a batch; of each sample, kind and number of tokens of its segments.
///
/// Segment `i` of the batch has the tokens of each sample's next segment of that kind; a sample that has none there has only
/// padding in it, and every sample's segments stay in order. Padding goes behind the tokens, except in the first of several segments:
/// there it goes in front, where it lies between no real tokens.
fn columns(samples: &[Vec<(SegmentKind, usize)>]) -> Vec<Column> {
    let real = |sample: &Vec<(SegmentKind, usize)>| (0..sample.len()).filter(|&i| sample[i].1 > 0).collect();
    let segments: Vec<Vec<usize>> = samples.iter().map(real).collect();
    let mut next = vec![0; samples.len()];
    let mut columns = Vec::new();
    // The sample with the most segments left says what comes next.
    while let Some((_, kind)) = (0..samples.len())
        .filter_map(|s| Some((segments[s].len() - next[s], samples[s][*segments[s].get(next[s])?].0)))
        .max_by_key(|(n_left, _)| *n_left)
    {
        let cells = (0..samples.len()).map(|s| match segments[s].get(next[s]) {
            Some(&i) if samples[s][i].0 == kind => {
                next[s] += 1;
                Cell { segment: Some(i), n_tokens: samples[s][i].1 }
            }
            _ => Cell { segment: None, n_tokens: 0 },
        });
        let cells: Vec<Cell> = cells.collect();
        let width = cells.iter().map(|cell| cell.n_tokens).max().unwrap_or(0);
        columns.push(Column { kind, width, is_left: false, cells });
    }
    if let [first, _, ..] = &mut columns[..] {
        first.is_left = true;
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
        Sample {
            segments: segments.collect(),
            image_query: vec![],
            text_query: vec![],
            labels: vec![],
            prefix: KeptPrefix::default(),
        }
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

    /// The same tokens as rows of a table and as samples make the same input.
    #[test]
    fn tokens_of_a_table_are_laid_out_as_those_of_samples() {
        let samples = [
            sample(&[(Text, &[1.0]), (Image, &[2.0, 3.0]), (Text, &[4.0])]),
            sample(&[(Text, &[5.0]), (Text, &[6.0, 7.0])]),
        ];
        let table = Tensor::new(&[[1f32], [2.0], [3.0], [4.0], [5.0], [6.0], [7.0]], &Device::Cpu).unwrap();
        let rows: [Vec<(SegmentKind, Vec<u32>)>; 2] = [
            vec![(Text, vec![0]), (Image, vec![1, 2]), (Text, vec![3])],
            vec![(Text, vec![4]), (Text, vec![5, 6])],
        ];
        let values = |input: &LanguageInput| -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
            let read = input.concatenated().unwrap();
            (read.embeds.squeeze(2).unwrap().to_vec2().unwrap(), read.mask.to_vec2().unwrap())
        };
        let of_table = gathered(&table, &rows).unwrap();
        let of_samples = batched(&[&samples[0], &samples[1]], 1, &Device::Cpu).unwrap();
        assert_eq!(values(&of_table), values(&of_samples));
        assert_eq!(values(&of_table).0[0].iter().sum::<f32>(), 10.0);
        assert!(gathered(&table, &[]).is_err());
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
