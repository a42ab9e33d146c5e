//! Scoring behind a beginning that was read before.

use super::{CausalLm, Placed, columns_before};
use crate::error::{ModelError, Result};
use crate::language::input::{Assembled, LanguageInput, PaddingSide};
use crate::language::model::Scored;
use crate::language::prefix::Prefix;
use crate::tap::Tap;
use candle_core::{DType, Device, Tensor};
use fwd_ops::{AttentionBias, KvCache, cross_entropy, embedding};
use std::sync::Arc;

impl CausalLm {
    /// The keys and values of one input.
    pub(super) fn prefix(&self, input: &LanguageInput) -> Result<Prefix> {
        if input.batch() != 1 {
            return Err(ModelError::input("prefix", format!("{} inputs instead of one", input.batch())));
        }
        let read = input.packed(PaddingSide::Left)?;
        let n_tokens = read.embeds.dim(1)?;
        let (mut x, placed) = self.place(&read.embeds, &read.positions()?, &mut Tap::none())?;
        let bias = AttentionBias::none().causal();
        let mut layers = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let mut cache = KvCache::with_capacity(n_tokens);
            x = match &placed {
                Placed::Added => layer.attention.step(&x, &mut cache, &bias)?,
                Placed::Rotary(rotary) => layer.attention.step_rotary(&x, &mut cache, &bias, rotary)?,
            };
            x = layer.feed_forward.forward(&x)?;
            layers.push(cache.tokens()?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?);
        }
        Ok(Prefix::new(layers, n_tokens, self.id))
    }

    /// The loss of labels behind prefixes and an ending of `(batch, tokens, d_model)`, of which all tokens are real.
    pub(super) fn run_behind(
        &self,
        prefixes: &[Arc<Prefix>],
        ending: &Tensor,
        labels: &Tensor,
    ) -> Result<Scored> {
        let (batch, n_ending, _) = ending.dims3()?;
        if prefixes.len() != batch || n_ending == 0 || prefixes.iter().any(|prefix| prefix.model() != self.id)
        {
            let what = format!("{} prefixes of this model for endings {:?}", prefixes.len(), ending.shape());
            return Err(ModelError::input("score behind a prefix", what));
        }
        let (answer, is_label) = self.answer(labels, batch, ending.dtype())?;
        let n_before = prefixes.iter().map(|prefix| prefix.n_tokens()).max().unwrap_or(0);
        // Shorter beginnings have padding in front.
        let is_real = prefixes.iter().flat_map(|prefix| {
            (0..n_before).map(move |i| f32::from(u8::from(i + prefix.n_tokens() >= n_before)))
        });
        let is_real = Tensor::from_vec(is_real.collect::<Vec<f32>>(), (batch, n_before), &self.device)?;
        let ones = Tensor::ones((batch, n_ending), DType::F32, &self.device)?;
        let whole = Assembled {
            embeds: Tensor::cat(&[ending, &answer], 1)?,
            mask: Tensor::cat(&[&is_real, &ones, &is_label], 1)?,
        };
        let n_new = whole.embeds.dim(1)?;
        let positions = whole.positions()?.narrow(1, n_before, n_new)?.contiguous()?;
        let (mut x, placed) = self.place(&whole.embeds, &positions, &mut Tap::none())?;
        let bias = AttentionBias::none().with_padding_mask(&whole.mask)?.causal().to_dtype(x.dtype())?;
        let rotary = match &placed {
            Placed::Added => None,
            Placed::Rotary(rotary) => Some(rotary),
        };
        for (i, layer) in self.layers.iter().enumerate() {
            let before = self.keys_values(prefixes, i, n_before)?.to_dtype(x.dtype())?;
            x = layer.attention.forward_behind(&x, &before, &bias, rotary)?;
            x = layer.feed_forward.forward(&x)?;
        }
        let columns = columns_before(labels, n_ending, n_new)?;
        let logits = self.logits(&embedding(&x.flatten(0, 1)?, &columns)?, &mut Tap::none())?;
        let loss = cross_entropy(&logits, labels)?;
        Ok(Scored { logits, loss })
    }

    /// Those of a layer, `(batch, n_before, 2·n_kv_heads·d_head)`, zeros where there is padding.
    fn keys_values(&self, prefixes: &[Arc<Prefix>], layer: usize, n_before: usize) -> Result<Tensor> {
        let width = 2 * self.layers[layer].attention.weights().kv_width();
        let mut values = Vec::with_capacity(prefixes.len() * n_before * width);
        for prefix in prefixes {
            let rows = &prefix.layers()[layer];
            let n_values = values.len() + n_before * width - rows.len();
            values.resize(n_values, 0f32);
            values.extend_from_slice(rows);
        }
        Ok(Tensor::from_vec(values, (prefixes.len(), n_before, width), &Device::Cpu)?
            .to_device(&self.device)?)
    }
}
