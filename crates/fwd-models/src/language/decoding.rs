//! Sequences that a decoder-only model is writing: one key-value cache for each layer, which a token is added to at a step.

use super::decoder::{CausalLm, Placed};
use super::input::Assembled;
use super::model::{Decoding, LanguageModel};
use crate::error::{ModelError, Result};
use crate::tap::Tap;
use candle_core::{DType, Device, Tensor};
use fwd_ops::{AttentionBias, KvCache, in_pool};

/// Room in the caches for tokens beside those of the input; they grow beyond it if they must.
const NEW_TOKENS: usize = 64;

/// What a [`CausalLm`] has read and written.
pub(super) struct Written<'a> {
    model: &'a CausalLm,
    caches: Vec<KvCache>,
    /// `(rows, tokens so far)`.
    mask: Tensor,
    /// The position of each row's next token.
    next: Vec<i64>,
}

impl<'a> Written<'a> {
    /// Reads a packed input; also gives the logits of the first new token.
    pub(super) fn start(model: &'a CausalLm, read: &Assembled) -> Result<(Self, Tensor)> {
        let n_real = read.mask.sum(1)?.to_vec1::<f32>()?;
        let room = read.mask.dim(1)? + NEW_TOKENS;
        let caches = model.layers.iter().map(|_| KvCache::with_capacity(room)).collect();
        let next = n_real.into_iter().map(|n| n as i64).collect();
        let mut written = Self { model, caches, mask: read.mask.clone(), next };
        let logits = in_pool(|| written.read(&read.embeds, &read.positions()?))?;
        Ok((written, logits))
    }

    /// Logits behind the last of these tokens, which the mask knows already.
    fn read(&mut self, embeds: &Tensor, positions: &Tensor) -> Result<Tensor> {
        let (mut x, placed) = self.model.place(embeds, positions, &mut Tap::none())?;
        let bias = AttentionBias::none().with_padding_mask(&self.mask)?.causal();
        for (layer, cache) in self.model.layers.iter().zip(&mut self.caches) {
            x = match &placed {
                Placed::Added => layer.attention.step(&x, cache, &bias)?,
                Placed::Rotary(rotary) => layer.attention.step_rotary(&x, cache, &bias, rotary)?,
            };
            x = layer.feed_forward.forward(&x)?;
        }
        let last = x.narrow(1, x.dim(1)? - 1, 1)?.squeeze(1)?.contiguous()?;
        self.model.logits(&last, &mut Tap::none())
    }
}

impl Decoding for Written<'_> {
    fn step(&mut self, ids: &[u32]) -> Result<Tensor> {
        let rows = self.next.len();
        if ids.len() != rows {
            return Err(ModelError::input("step", format!("{} ids for {rows} sequences", ids.len())));
        }
        let words = self.model.embed(&Tensor::from_slice(ids, (rows, 1), &Device::Cpu)?)?;
        let positions = Tensor::from_slice(&self.next, (rows, 1), &Device::Cpu)?;
        let ones = Tensor::ones((rows, 1), DType::F32, self.mask.device())?;
        self.mask = Tensor::cat(&[&self.mask, &ones], 1)?;
        self.next.iter_mut().for_each(|next| *next += 1);
        self.read(&words, &positions)
    }

    fn reorder(&mut self, rows: &[u32]) -> Result<()> {
        let next = rows.iter().map(|&row| self.next.get(row as usize).copied()).collect::<Option<Vec<_>>>();
        let Some(next) = next else {
            let what = format!("there are {} sequences, rows {rows:?} are asked for", self.next.len());
            return Err(ModelError::input("reorder", what));
        };
        let index = Tensor::from_slice(rows, rows.len(), self.mask.device())?;
        self.caches.iter_mut().try_for_each(|cache| cache.select(&index))?;
        self.mask = self.mask.index_select(&index, 0)?;
        self.next = next;
        Ok(())
    }

    fn repeat(&mut self, n: usize) -> Result<()> {
        let rows: Vec<u32> =
            (0..self.next.len() as u32).flat_map(|row| std::iter::repeat_n(row, n)).collect();
        self.reorder(&rows)
    }
}
