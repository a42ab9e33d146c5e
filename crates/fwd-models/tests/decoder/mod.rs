//! A decoder-only language model with random weights, from outside of the crate: a transformer of pre-norm blocks with learned
//! positions and a head of its own. It packs its input to the left, so that every row ends in a real token, behind which the answer
//! begins.

#![allow(dead_code)] // Not every test uses all of it.

use candle_core::{DType, Device, Tensor};
use fwd_models::{
    Assembled, Decoding, LanguageInput, LanguageModel, PaddingSide, Result, Scored, SpecialTokens, Tap,
};
use fwd_ops::{
    Activation, AttentionBias, AttentionSublayer, AttentionWeights, FeedForwardSublayer, FeedForwardWeights,
    IGNORE_INDEX, KvCache, Linear, Norm, cross_entropy, embedding,
};

const N_HEADS: usize = 2;
pub(crate) const LONGEST: usize = 64;

/// A small language model with random weights.
#[derive(Debug)]
pub(crate) struct Decoder {
    words: Tensor,
    positions: Tensor,
    blocks: Vec<(AttentionSublayer, FeedForwardSublayer)>,
    norm: Norm,
    pub(crate) head: Linear,
}

/// Numbers in −1..1 that depend on the seed alone (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn values(&mut self, n: usize, scale: f32) -> Vec<f32> {
        let mut next = || {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            scale * (((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
        };
        (0..n).map(|_| next()).collect()
    }

    pub(crate) fn tensor(&mut self, shape: &[usize], scale: f32) -> Tensor {
        Tensor::from_vec(self.values(shape.iter().product(), scale), shape, &Device::Cpu).unwrap()
    }

    fn linear(&mut self, n_out: usize, n_in: usize) -> Linear {
        let scale = 2.0 * (n_in as f32).powf(-0.5);
        Linear::new(self.tensor(&[n_out, n_in], scale), Some(self.tensor(&[n_out], 0.3))).unwrap()
    }

    fn norm(&mut self, d: usize) -> Norm {
        let weight = (self.tensor(&[d], 0.3) + 1.0).unwrap();
        Norm::layer(weight, self.tensor(&[d], 0.1), 1e-5).unwrap()
    }
}

impl Decoder {
    pub(crate) fn new(vocab: usize, d: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let block = |random: &mut Random| {
            let attention = AttentionSublayer::new(AttentionWeights {
                pre: random.norm(d),
                projection: random.linear(3 * d, d),
                output: random.linear(d, d),
                post: Norm::identity(),
                n_heads: N_HEADS,
                n_kv_heads: N_HEADS,
                scale: ((d / N_HEADS) as f64).powf(-0.5),
            });
            let feed_forward = FeedForwardSublayer::new(FeedForwardWeights {
                pre: random.norm(d),
                input: random.linear(2 * d, d),
                activation: Activation::GeluTanh,
                gated: false,
                output: random.linear(d, 2 * d),
                post: Norm::identity(),
            });
            (attention.unwrap(), feed_forward.unwrap())
        };
        Self {
            words: random.tensor(&[vocab, d], 1.0),
            positions: random.tensor(&[LONGEST, d], 0.7),
            blocks: (0..2).map(|_| block(&mut random)).collect(),
            norm: random.norm(d),
            head: random.linear(vocab, d),
        }
    }

    /// The states behind every token of a sequence, all at once.
    pub(crate) fn states(&self, read: &Assembled) -> Result<Tensor> {
        let dtype = read.embeds.dtype();
        let mut x = (&read.embeds + embedding(&self.positions, &read.positions()?)?.to_dtype(dtype)?)?;
        let bias = AttentionBias::none().with_padding_mask(&read.mask)?.causal().to_dtype(dtype)?;
        for (attention, feed_forward) in &self.blocks {
            x = feed_forward.forward(&attention.forward(&x, &bias)?)?;
        }
        Ok(self.norm.forward(&x)?)
    }
}

impl LanguageModel for Decoder {
    fn d_model(&self) -> usize {
        self.head.n_in()
    }

    fn vocab_size(&self) -> usize {
        self.head.n_out()
    }

    fn device(&self) -> &Device {
        self.words.device()
    }

    fn is_encoder_decoder(&self) -> bool {
        false
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(embedding(&self.words, ids)?)
    }

    /// `[padding ; input ; labels]`: the state in front of a label says what it is.
    fn score(&self, input: &LanguageInput, labels: &Tensor, tap: &mut Tap<'_>) -> Result<Scored> {
        let read = input.packed(PaddingSide::Left)?;
        let (n_input, n_labels) = (read.embeds.dim(1)?, labels.dim(1)?);
        let is_label = labels.ne(IGNORE_INDEX)?;
        let ids = is_label.where_cond(labels, &labels.zeros_like()?)?;
        let answer = self.embed(&ids)?.to_dtype(read.embeds.dtype())?;
        let whole = Assembled {
            embeds: Tensor::cat(&[&read.embeds, &answer], 1)?,
            mask: Tensor::cat(&[&read.mask, &is_label.to_dtype(DType::F32)?], 1)?,
        };
        let states = self.states(&whole)?;
        tap.see("decoder.last_hidden_state", &states);
        let logits = self.head.forward(&states.narrow(1, n_input - 1, n_labels)?.contiguous()?)?;
        let loss = cross_entropy(&logits, labels)?;
        Ok(Scored { logits, loss })
    }

    fn start<'a>(
        &'a self,
        input: &LanguageInput,
        _: &SpecialTokens,
        max_new_tokens: usize,
    ) -> Result<(Box<dyn Decoding + 'a>, Tensor)> {
        let read = input.packed(PaddingSide::Left)?;
        let next = read.mask.sum(1)?.to_vec1::<f32>()?.into_iter().map(|n| n as u32).collect();
        let room = read.mask.dim(1)? + max_new_tokens;
        let caches = self.blocks.iter().map(|_| KvCache::with_capacity(room)).collect();
        let over = vec![false; input.batch()];
        let mut decoding = Box::new(Written { model: self, caches, mask: read.mask.clone(), next, over });
        let positions = embedding(&self.positions, &read.positions()?)?;
        let logits = decoding.read(&(read.embeds + positions)?)?;
        Ok((decoding, logits))
    }
}

/// What a [`Decoder`] has read and written.
struct Written<'a> {
    model: &'a Decoder,
    caches: Vec<KvCache>,
    /// `(rows, tokens so far)`.
    mask: Tensor,
    /// The position of each row's next token.
    next: Vec<u32>,
    /// The rows that are over, whose positions no longer count.
    over: Vec<bool>,
}

impl Written<'_> {
    /// Logits behind the last of these tokens, which the mask knows already.
    fn read(&mut self, x: &Tensor) -> Result<Tensor> {
        let bias = AttentionBias::none().with_padding_mask(&self.mask)?.causal();
        let mut x = x.clone();
        for ((attention, feed_forward), cache) in self.model.blocks.iter().zip(&mut self.caches) {
            x = feed_forward.forward(&attention.step(&x, cache, &bias)?)?;
        }
        let last = x.narrow(1, x.dim(1)? - 1, 1)?.squeeze(1)?;
        Ok(self.model.head.forward(&self.model.norm.forward(&last)?)?)
    }
}

impl Decoding for Written<'_> {
    fn step(&mut self, ids: &[u32]) -> Result<Tensor> {
        let column = |ids: &[u32]| Tensor::from_slice(ids, (ids.len(), 1), &Device::Cpu);
        let words = self.model.embed(&column(ids)?)?;
        let positions = embedding(&self.model.positions, &column(&self.next)?)?;
        let ones = Tensor::ones((ids.len(), 1), DType::F32, &Device::Cpu)?;
        self.mask = Tensor::cat(&[&self.mask, &ones], 1)?;
        let last = LONGEST as u32 - 1;
        for (next, is_over) in self.next.iter_mut().zip(&self.over) {
            *next = if *is_over { (*next + 1).min(last) } else { *next + 1 };
        }
        self.read(&(words + positions)?)
    }

    fn end(&mut self, rows: &[bool]) -> Result<()> {
        let last = LONGEST as u32 - 1;
        self.over = rows.to_vec();
        for (next, _) in self.next.iter_mut().zip(rows).filter(|(_, is_over)| **is_over) {
            *next = (*next).min(last);
        }
        Ok(())
    }

    fn reorder(&mut self, rows: &[u32]) -> Result<()> {
        let index = Tensor::from_slice(rows, rows.len(), &Device::Cpu)?;
        self.caches.iter_mut().try_for_each(|cache| cache.select(&index))?;
        self.mask = self.mask.index_select(&index, 0)?;
        self.next = rows.iter().map(|&row| self.next[row as usize]).collect();
        self.over = rows.iter().map(|&row| self.over[row as usize]).collect();
        Ok(())
    }

    fn repeat(&mut self, n: usize) -> Result<()> {
        let rows: Vec<u32> =
            (0..self.next.len() as u32).flat_map(|row| std::iter::repeat_n(row, n)).collect();
        self.reorder(&rows)
    }
}

pub(crate) fn tokens() -> SpecialTokens {
    SpecialTokens { decoder_start: 0, eos: vec![1], pad: 0, bos: 1 }
}
