//! T5 v1.1 / FlanT5, encoder and decoder, running from input embeddings (Raffel et al. 2020; Chung et al. 2022).
//!
//! Scores are not scaled; a relative-position bias, one table per stack, is added in every self-attention; norms are RMS
//! norms; no linear map has a bias; the head is not tied to the embedding in FlanT5.

use super::input::{Assembled, LanguageInput, PaddingSide, SegmentKind};
use super::model::{Decoding, LanguageModel, Scored};
use super::relative::{Direction, buckets};
use crate::config::{SpecialTokens, T5Config};
use crate::error::{ModelError, Result};
use crate::tap::Tap;
use crate::weights::{Scope, Weights};
use candle_core::{DType, Device, Tensor};
use fwd_ops::{
    AttentionBias, AttentionSublayer, AttentionWeights, Embedding, FeedForwardSublayer, FeedForwardWeights,
    IGNORE_INDEX, KvCache, Linear, MapChange, Norm, cross_entropy, in_pool, position_bias,
};
use std::sync::Arc;

/// Tokens for which a decoder's cache has room from the start; it grows beyond them.
const ROOM: usize = 128;

/// The names of the table of embeddings, which encoder and decoder share.
const EMBEDDINGS: [&str; 3] = ["shared", "encoder.embed_tokens", "decoder.embed_tokens"];

/// A T5: an encoder that reads a [`LanguageInput`] as it is concatenated, and a decoder that writes.
#[derive(Debug, Clone)]
pub struct T5 {
    config: T5Config,
    /// `(vocab, d_model)`.
    shared: Embedding,
    encoder: Stack,
    decoder: Stack,
    head: Linear,
    /// `d_model^-0.5` where the configuration asks for it, else 1.
    head_scale: f64,
    decoder_start: u32,
}

#[derive(Debug, Clone)]
struct Stack {
    direction: Direction,
    /// `(n_buckets, n_heads)`.
    position_table: Tensor,
    max_distance: usize,
    blocks: Vec<Block>,
    final_norm: Norm,
}

#[derive(Debug, Clone)]
struct Block {
    attention: AttentionSublayer,
    /// Decoder only: the cross-attention and its map from encoder states to keys and values.
    cross: Option<(AttentionSublayer, Linear)>,
    feed_forward: FeedForwardSublayer,
}

/// Encoder states with the mask that goes with them.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// `(batch, tokens, d_model)`.
    pub states: Tensor,
    /// `(batch, tokens)` in f32.
    pub mask: Tensor,
}

/// Sequences that a T5 is writing: what the decoder has seen, and the encoder's keys and values.
struct T5Decoding<'a> {
    model: &'a T5,
    n_seen: usize,
    /// For each block its own keys and values, and those of the encoder `(rows, input tokens, 2·n_heads·d_kv)`.
    blocks: Vec<(KvCache, Tensor)>,
    /// `(n_heads, 1, room)`: what a query at the last of `room` positions adds to the scores of the keys up to it. A query in front of it
    /// adds the end of that, as only distances count.
    positions: Tensor,
    /// Of the encoder, `(rows, input tokens)`.
    mask: Tensor,
    bias: AttentionBias,
}

impl T5 {
    /// Builds the model from parameters named `prefix.encoder.block.0…` as in Hugging Face checkpoints.
    ///
    /// # Errors
    /// [`ModelError::Config`] for an impossible configuration, or an error of the source.
    pub fn new(config: &T5Config, weights: &mut dyn Weights, prefix: &str) -> Result<Self> {
        config.check().map_err(|what| ModelError::Config { origin: "T5 configuration".into(), what })?;
        let mut weights = Scope::new(weights, prefix);
        let (vocab, d) = (config.vocab_size, config.d_model);
        // Whoever drops tied copies may keep any of the three.
        let is_there = |name: &&str| weights.has(&format!("{name}.weight"));
        let shared_name = EMBEDDINGS.into_iter().find(is_there).unwrap_or(EMBEDDINGS[0]);
        let shared = weights.embedding(shared_name, vocab, d)?;
        let head = if config.has_own_head() || weights.has("lm_head.weight") {
            weights.linear("lm_head", vocab, d, false)?
        } else {
            weights.map(shared.weight().clone(), None)?
        };
        Ok(Self {
            shared,
            encoder: Stack::new(config, config.num_layers, Direction::Both, weights.at("encoder"))?,
            decoder: Stack::new(config, config.n_decoder_layers(), Direction::Back, weights.at("decoder"))?,
            head,
            head_scale: if config.scales_decoder_output() { (d as f64).powf(-0.5) } else { 1.0 },
            decoder_start: config.decoder_start_token_id.unwrap_or(0),
            config: config.clone(),
        })
    }

    /// The full names under which checkpoints keep the one table of embeddings; the first that is there counts.
    pub(crate) fn embedding_names(prefix: &str) -> [String; 3] {
        let dot = if prefix.is_empty() { "" } else { "." };
        EMBEDDINGS.map(|name| format!("{prefix}{dot}{name}.weight"))
    }

    /// What the encoder makes of an input.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn encode(&self, input: &LanguageInput, tap: &mut Tap<'_>) -> Result<Encoded> {
        in_pool(|| self.run_encoder(input, tap))
    }

    fn run_encoder(&self, input: &LanguageInput, tap: &mut Tap<'_>) -> Result<Encoded> {
        // Behind a text prompts would stand behind its padding too, which counts as distance.
        let ends_in_prompt =
            input.segments().last().is_some_and(|segment| segment.kind == SegmentKind::Prompt);
        let read = if ends_in_prompt { input.packed(PaddingSide::Right) } else { input.concatenated() };
        let Assembled { embeds, mask } = read?;
        let (_, n, _) = embeds.dims3()?;
        let bias = self.encoder.position_bias(n, n)?.with_padding_mask(&mask)?;
        tap.see("t5.inputs_embeds", &embeds);
        let mut x = embeds;
        for (i, block) in self.encoder.blocks.iter().enumerate() {
            x = block.feed_forward.forward(&block.attention.forward(&x, &bias)?)?;
            tap.see_layer("t5.encoder.block", i, &x);
        }
        let states = self.encoder.final_norm.forward(&x)?;
        tap.see("t5.encoder.last_hidden_state", &states);
        Ok(Encoded { states, mask })
    }

    /// Logits of every position of `decoder_ids (batch, tokens)`.
    ///
    /// # Errors
    /// Shapes that do not fit, ids outside the vocabulary.
    pub fn decode(&self, encoded: &Encoded, decoder_ids: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        in_pool(|| self.run_decoder(encoded, decoder_ids, tap))
    }

    fn run_decoder(&self, encoded: &Encoded, decoder_ids: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        let (_, n) = decoder_ids.dims2()?;
        let self_bias = self.decoder.position_bias(n, n)?.causal();
        let cross_bias = AttentionBias::none().with_padding_mask(&encoded.mask)?;
        tap.see("t5.decoder_input_ids", decoder_ids);
        let mut x = self.embed(decoder_ids)?;
        for (i, block) in self.decoder.blocks.iter().enumerate() {
            x = block.attention.forward(&x, &self_bias)?;
            if let Some((cross, key_value)) = &block.cross {
                x = cross.forward_cross(&x, &key_value.forward(&encoded.states)?, &cross_bias)?;
            }
            x = block.feed_forward.forward(&x)?;
            tap.see_layer("t5.decoder.block", i, &x);
        }
        let states = self.decoder.final_norm.forward(&x)?;
        tap.see("t5.decoder.last_hidden_state", &states);
        self.logits(&states)
    }

    /// Decoder inputs of labels: the start token in front, the last label dropped, −100 replaced by the padding id 0.
    ///
    /// # Shapes
    /// `labels (batch, tokens)`, an integer type -> `(batch, tokens)`, i64, on the device of the labels.
    ///
    /// # Errors
    /// Labels that are not of rank 2.
    pub fn shift_right(&self, labels: &Tensor) -> Result<Tensor> {
        let rows: Vec<Vec<i64>> = labels.to_dtype(DType::I64)?.to_vec2()?;
        let shifted: Vec<Vec<i64>> = rows
            .iter()
            .map(|row| {
                let kept = row.iter().take(row.len().saturating_sub(1));
                let kept = kept.map(|&id| if id == IGNORE_INDEX { 0 } else { id });
                std::iter::once(i64::from(self.decoder_start)).chain(kept).take(row.len()).collect()
            })
            .collect();
        Ok(Tensor::new(shifted, labels.device())?)
    }

    fn logits(&self, states: &Tensor) -> Result<Tensor> {
        if self.head_scale == 1.0 {
            return Ok(self.head.forward(states)?);
        }
        Ok(self.head.forward(&(states * self.head_scale)?)?)
    }

    /// [`LanguageModel::with_maps`], which for this type need not be boxed.
    ///
    /// # Errors
    /// Those of `change`; a map of other widths.
    pub fn with_maps(&self, change: &mut MapChange<'_>) -> Result<Self> {
        let mut model = self.clone();
        for block in model.encoder.blocks.iter_mut().chain(&mut model.decoder.blocks) {
            block.attention = block.attention.with_maps(change)?;
            if let Some((cross, key_value)) = &mut block.cross {
                *cross = cross.with_maps(change)?;
                *key_value = change(key_value)?;
            }
            block.feed_forward = block.feed_forward.with_maps(change)?;
        }
        model.head = change(&model.head)?;
        Ok(model)
    }
}

impl LanguageModel for T5 {
    fn d_model(&self) -> usize {
        self.head.n_in()
    }

    fn vocab_size(&self) -> usize {
        self.head.n_out()
    }

    fn device(&self) -> &Device {
        self.encoder.position_table.device()
    }

    fn is_encoder_decoder(&self) -> bool {
        true
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(self.shared.forward(ids)?.to_device(self.device())?)
    }

    fn score(&self, input: &LanguageInput, labels: &Tensor, tap: &mut Tap<'_>) -> Result<Scored> {
        let encoded = self.encode(input, tap)?;
        let logits = self.decode(&encoded, &self.shift_right(labels)?, tap)?;
        let loss = cross_entropy(&logits, labels)?;
        Ok(Scored { logits, loss })
    }

    fn start<'a>(
        &'a self,
        input: &LanguageInput,
        tokens: &SpecialTokens,
        max_new_tokens: usize,
    ) -> Result<(Box<dyn Decoding + 'a>, Tensor)> {
        let encoded = self.encode(input, &mut Tap::none())?;
        let mut decoding = Box::new(T5Decoding::new(self, &encoded, max_new_tokens)?);
        let logits = decoding.step(&vec![tokens.decoder_start; encoded.states.dim(0)?])?;
        Ok((decoding, logits))
    }

    fn with_parameters(
        &self,
        weights: &mut dyn Weights,
        prefix: &str,
    ) -> Result<Option<Arc<dyn LanguageModel>>> {
        if !Scope::new(weights, prefix).has("shared.weight") {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self::new(&self.config, weights, prefix)?)))
    }

    fn with_maps(&self, change: &mut MapChange<'_>) -> Result<Option<Arc<dyn LanguageModel>>> {
        Ok(Some(Arc::new(Self::with_maps(self, change)?)))
    }
}

impl<'a> T5Decoding<'a> {
    /// Before the start token.
    fn new(model: &'a T5, encoded: &Encoded, max_new_tokens: usize) -> Result<Self> {
        let bias = AttentionBias::none().with_padding_mask(&encoded.mask)?;
        let states = encoded.states.detach();
        let room = max_new_tokens.clamp(1, ROOM);
        let mut blocks = Vec::with_capacity(model.decoder.blocks.len());
        for block in &model.decoder.blocks {
            let Some((_, key_value)) = &block.cross else { continue };
            let key_value = key_value.forward(&states)?.detach();
            blocks.push((KvCache::with_capacity(room), key_value));
        }
        let positions = model.decoder.positions_before(room)?;
        Ok(Self { model, n_seen: 0, blocks, positions, mask: encoded.mask.clone(), bias })
    }

    /// The bias of the next token over itself and those before it.
    fn next_bias(&mut self) -> Result<AttentionBias> {
        let n = self.n_seen + 1;
        if n > self.positions.dim(2)? {
            self.positions = self.model.decoder.positions_before(2 * n)?;
        }
        let position = self.positions.narrow(2, self.positions.dim(2)? - n, n)?;
        Ok(AttentionBias::none().with_position(&position)?)
    }
}

impl Decoding for T5Decoding<'_> {
    fn step(&mut self, ids: &[u32]) -> Result<Tensor> {
        let decoder = &self.model.decoder;
        let mut x = self.model.embed(&Tensor::from_slice(ids, (ids.len(), 1), &Device::Cpu)?)?;
        let self_bias = self.next_bias()?;
        for (block, (cache, key_value)) in decoder.blocks.iter().zip(&mut self.blocks) {
            x = block.attention.step(&x, cache, &self_bias)?;
            if let Some((cross, _)) = &block.cross {
                x = cross.forward_cross(&x, key_value, &self.bias)?;
            }
            x = block.feed_forward.forward(&x)?;
        }
        self.n_seen += 1;
        self.model.logits(&decoder.final_norm.forward(&x)?.squeeze(1)?)
    }

    fn reorder(&mut self, rows: &[u32]) -> Result<()> {
        let rows = Tensor::from_slice(rows, rows.len(), &Device::Cpu)?;
        // The encoder's side is the same for all sequences of a sample.
        for (cache, _) in &mut self.blocks {
            cache.select(&rows)?;
        }
        Ok(())
    }

    fn repeat(&mut self, n: usize) -> Result<()> {
        let rows: Vec<u32> =
            (0..self.mask.dim(0)? as u32).flat_map(|row| std::iter::repeat_n(row, n)).collect();
        let rows = Tensor::from_slice(&rows, rows.len(), &Device::Cpu)?;
        self.blocks.iter_mut().try_for_each(|(cache, _)| cache.select(&rows))?;
        let rows = rows.to_device(self.mask.device())?;
        for (_, key_value) in &mut self.blocks {
            *key_value = key_value.index_select(&rows, 0)?;
        }
        self.mask = self.mask.index_select(&rows, 0)?;
        self.bias = AttentionBias::none().with_padding_mask(&self.mask)?;
        Ok(())
    }
}

impl Stack {
    fn new(config: &T5Config, n_blocks: usize, direction: Direction, mut weights: Scope<'_>) -> Result<Self> {
        let table = "block.0.layer.0.SelfAttention.relative_attention_bias.weight";
        let position_table =
            weights.get(table, &[config.relative_attention_num_buckets, config.num_heads])?;
        let blocks = (0..n_blocks)
            .map(|i| {
                Block::new(config, direction == Direction::Back, weights.at(&format!("block.{i}.layer")))
            })
            .collect::<Result<Vec<_>>>()?;
        let final_norm = weights.rms_norm("final_layer_norm", config.d_model, config.layer_norm_epsilon)?;
        let max_distance = config.relative_attention_max_distance;
        Ok(Self { direction, position_table, max_distance, blocks, final_norm })
    }

    /// `(n_heads, n_query, n_key)`.
    fn positions(&self, first_query: usize, n_query: usize, n_key: usize) -> Result<Tensor> {
        let n_buckets = self.position_table.dim(0)?;
        let buckets = buckets(first_query, n_query, n_key, self.direction, n_buckets, self.max_distance);
        Ok(position_bias(&self.position_table, &buckets, n_query, n_key)?)
    }

    fn position_bias(&self, n_query: usize, n_key: usize) -> Result<AttentionBias> {
        Ok(AttentionBias::none().with_position(&self.positions(0, n_query, n_key)?)?)
    }

    /// Of the last of `n` tokens over all of them, without a gradient.
    fn positions_before(&self, n: usize) -> Result<Tensor> {
        Ok(self.positions(n - 1, 1, n)?.detach())
    }
}

impl Block {
    fn new(config: &T5Config, is_decoder: bool, mut weights: Scope<'_>) -> Result<Self> {
        let (d, width, eps) = (config.d_model, config.num_heads * config.d_kv, config.layer_norm_epsilon);
        let mut attention_at = |layer: usize, name: &str| -> Result<(AttentionSublayer, Linear)> {
            let mut weights = weights.at(&layer.to_string());
            let query = weights.linear(&format!("{name}.q"), width, d, false)?;
            let key = weights.linear(&format!("{name}.k"), width, d, false)?;
            let value = weights.linear(&format!("{name}.v"), width, d, false)?;
            let key_value = Linear::stacked(&[&key, &value])?;
            let is_cross = layer == 1;
            let sublayer = AttentionSublayer::new(AttentionWeights {
                pre: weights.rms_norm("layer_norm", d, eps)?,
                projection: if is_cross { query } else { Linear::stacked(&[&query, &key_value])? },
                output: weights.linear(&format!("{name}.o"), d, width, false)?,
                post: Norm::identity(),
                n_heads: config.num_heads,
                n_kv_heads: config.num_heads,
                scale: 1.0,
            })?;
            Ok((sublayer, key_value))
        };
        let attention = attention_at(0, "SelfAttention")?.0;
        let cross = if is_decoder { Some(attention_at(1, "EncDecAttention")?) } else { None };
        let mut weights = weights.at(if is_decoder { "2" } else { "1" });
        let gated = config.is_gated();
        let input = if gated {
            let gate = weights.linear("DenseReluDense.wi_0", config.d_ff, d, false)?;
            Linear::stacked(&[&gate, &weights.linear("DenseReluDense.wi_1", config.d_ff, d, false)?])?
        } else {
            weights.linear("DenseReluDense.wi", config.d_ff, d, false)?
        };
        let feed_forward = FeedForwardSublayer::new(FeedForwardWeights {
            pre: weights.rms_norm("layer_norm", d, eps)?,
            input,
            activation: config.activation()?,
            gated,
            output: weights.linear("DenseReluDense.wo", d, config.d_ff, false)?,
            post: Norm::identity(),
        })?;
        Ok(Self { attention, cross, feed_forward })
    }
}
