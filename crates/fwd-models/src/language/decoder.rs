//! Decoder-only language models, LLaMA and OPT, running from input embeddings (Touvron et al. 2023; Zhang et al. 2022).
//!
//! ```text
//!              norms            positions                      feed-forward                head
//! LLaMA        RMS              rotary, on queries and keys     W_down(act(W_gate·x) ∘ W_up·x)   own or the embedding table
//! OPT          layer, biases    learned, added to the input     W_2·relu(W_1·x)                 the embedding table
//! ```
//!
//! All norms stand in front of their sublayers, and one behind the last. An input is packed to the left, so that every row ends in a
//! real token, behind which the answer begins. Positions count real tokens alone: padding has none, wherever it lies.

mod behind;

use super::input::{Assembled, LanguageInput, PaddingSide};
use super::model::{Decoding, LanguageModel, Scored};
use super::prefix::Prefix;
use crate::config::{LlamaConfig, OptConfig, SpecialTokens, TextConfig, activation};
use crate::error::{ModelError, Result};
use crate::tap::Tap;
use crate::weights::{Scope, Weights};
use candle_core::{DType, Device, Tensor};
use fwd_ops::{
    AttentionBias, AttentionSublayer, AttentionWeights, Compute, Embedding, FeedForwardSublayer,
    FeedForwardWeights, Format, IGNORE_INDEX, KvCache, Linear, MapChange, Matrix, Norm, Rotary, Weight,
    cross_entropy, embedding, in_pool,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// OPT's table of positions has this many rows in front that no token uses.
const OPT_OFFSET: i64 = 2;

fn new_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A LLaMA or an OPT. Cloning it copies no parameters.
#[derive(Debug, Clone)]
pub struct CausalLm {
    /// A number that no other model of the process has; copies share it, as they share the parameters.
    id: u64,
    config: TextConfig,
    /// `(vocab, d_model)`.
    words: Embedding,
    device: Device,
    positions: Positions,
    layers: Vec<Layer>,
    norm: Norm,
    head: Linear,
    max_tokens: usize,
}

#[derive(Debug, Clone)]
struct Layer {
    attention: AttentionSublayer,
    feed_forward: FeedForwardSublayer,
}

/// How a token's position gets into the model.
#[derive(Debug, Clone)]
enum Positions {
    /// The angle that each pair of a head turns by a position.
    Rotary(Arc<[f64]>),
    /// `(2 + max_tokens, d_model)`, added to the embeddings.
    Learned(Tensor),
}

/// The positions of the tokens of one forward pass: a bias for the embeddings is added already, turns are yet to be made.
enum Placed {
    Added,
    Rotary(Rotary),
}

impl CausalLm {
    /// Builds the model from parameters named `prefix.model.layers.0…` (LLaMA) or `prefix.model.decoder.layers.0…` (OPT) as in Hugging
    /// Face checkpoints; without a prefix for a language model alone.
    ///
    /// # Errors
    /// [`ModelError::Config`] for an impossible configuration or a T5, or an error of the source.
    pub fn new(config: &TextConfig, weights: &mut dyn Weights, prefix: &str) -> Result<Self> {
        let fail = |what: String| ModelError::Config { origin: "language model configuration".into(), what };
        config.check().map_err(fail)?;
        let mut weights = Scope::new(weights, prefix);
        match config {
            TextConfig::T5(_) => Err(fail("a T5 is no decoder-only model".into())),
            TextConfig::Llama(llama) => Self::llama(config, llama, &mut weights),
            TextConfig::Opt(opt) => Self::opt(config, opt, &mut weights),
        }
    }

    fn llama(config: &TextConfig, llama: &LlamaConfig, weights: &mut Scope<'_>) -> Result<Self> {
        let (vocab, d) = (llama.vocab_size, llama.hidden_size);
        let fail = |what: String| ModelError::Config { origin: "LLaMA configuration".into(), what };
        let words = embedding_table(weights, "model.embed_tokens", [vocab, d], llama.tie_word_embeddings)?;
        let layers = (0..llama.num_hidden_layers)
            .map(|i| llama_layer(llama, weights.at(&format!("model.layers.{i}"))))
            .collect::<Result<Vec<_>>>()?;
        let norm = weights.get("model.norm.weight", &[d])?;
        let device = norm.device().clone();
        let norm = Norm::rms(norm, llama.rms_norm_eps)?;
        let head = head(llama.tie_word_embeddings, &words, weights, [vocab, d])?;
        let positions = Positions::Rotary(llama.inv_freq().map_err(fail)?.into());
        Ok(Self {
            id: new_id(),
            config: config.clone(),
            words,
            device,
            positions,
            layers,
            norm,
            head,
            max_tokens: llama.max_tokens(),
        })
    }

    fn opt(config: &TextConfig, opt: &OptConfig, weights: &mut Scope<'_>) -> Result<Self> {
        let (vocab, d, max_tokens) = (opt.vocab_size, opt.hidden_size, opt.max_position_embeddings);
        let mut decoder = weights.at("model.decoder");
        let words = embedding_table(&mut decoder, "embed_tokens", [vocab, d], opt.tie_word_embeddings)?;
        let table = decoder.get("embed_positions.weight", &[max_tokens + OPT_OFFSET as usize, d])?;
        let layers = (0..opt.num_hidden_layers)
            .map(|i| opt_layer(opt, decoder.at(&format!("layers.{i}"))))
            .collect::<Result<Vec<_>>>()?;
        let norm = if opt.remove_final_layer_norm {
            Norm::identity()
        } else {
            decoder.layer_norm("final_layer_norm", d, OptConfig::NORM_EPSILON)?
        };
        let head = head(opt.tie_word_embeddings, &words, weights, [vocab, d])?;
        let device = table.device().clone();
        let positions = Positions::Learned(table);
        let (id, config) = (new_id(), config.clone());
        Ok(Self { id, config, words, device, positions, layers, norm, head, max_tokens })
    }

    /// The full names under which a checkpoint may keep copies of the embedding table, the table itself first.
    pub(crate) fn embedding_names(config: &TextConfig, prefix: &str) -> Vec<String> {
        let is_tied = match config {
            TextConfig::T5(_) => false,
            TextConfig::Llama(c) => c.tie_word_embeddings,
            TextConfig::Opt(c) => c.tie_word_embeddings,
        };
        let mut names = vec![embedding_name(config)];
        names.extend(is_tied.then_some("lm_head.weight"));
        names
            .into_iter()
            .map(|name| if prefix.is_empty() { name.into() } else { format!("{prefix}.{name}") })
            .collect()
    }

    /// What the layers make of an input, before the norm behind the last of them.
    ///
    /// The tap sees `decoder.inputs_embeds`, `decoder.position_embeds` (OPT), of each layer `decoder.attention.N` (the sum of its input
    /// and its attention) and `decoder.layer.N`.
    ///
    /// # Shapes
    /// `positions (batch, tokens)`, i64, on the CPU: [`Assembled::positions`] -> `(batch, tokens, d_model)`.
    ///
    /// # Errors
    /// [`ModelError::Input`] for a position that the model does not have; shapes that do not fit.
    pub fn states(&self, read: &Assembled, positions: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        let (mut x, placed) = self.place(&read.embeds, positions, tap)?;
        let bias = AttentionBias::none().with_padding_mask(&read.mask)?.causal().to_dtype(x.dtype())?;
        for (i, layer) in self.layers.iter().enumerate() {
            x = match &placed {
                Placed::Added => layer.attention.forward(&x, &bias)?,
                Placed::Rotary(rotary) => layer.attention.forward_rotary(&x, &bias, rotary)?,
            };
            tap.see_layer("decoder.attention", i, &x);
            x = layer.feed_forward.forward(&x)?;
            tap.see_layer("decoder.layer", i, &x);
        }
        Ok(x)
    }

    /// Logits of [`Self::states`]: norm and head. The tap sees `decoder.norm`.
    ///
    /// # Shapes
    /// `states (…, d_model)` -> `(…, vocab)`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn logits(&self, states: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        let states = self.norm.forward(states)?;
        tap.see("decoder.norm", &states);
        Ok(self.head.forward(&states)?)
    }

    /// Puts tokens to their positions `(batch, tokens)`.
    fn place(&self, embeds: &Tensor, positions: &Tensor, tap: &mut Tap<'_>) -> Result<(Tensor, Placed)> {
        tap.see("decoder.inputs_embeds", embeds);
        let last = positions.flatten_all()?.to_vec1::<i64>()?.into_iter().max().unwrap_or(0);
        self.check_length(usize::try_from(last).unwrap_or(0) + 1)?;
        match &self.positions {
            Positions::Rotary(inv_freq) => {
                let rotary = Rotary::new(inv_freq, positions, embeds.dtype(), self.device())?;
                Ok((embeds.clone(), Placed::Rotary(rotary)))
            }
            Positions::Learned(table) => {
                let added = embedding(table, &(positions + OPT_OFFSET as f64)?)?.to_dtype(embeds.dtype())?;
                tap.see("decoder.position_embeds", &added);
                Ok(((embeds + added)?, Placed::Added))
            }
        }
    }

    fn check_length(&self, n_tokens: usize) -> Result<()> {
        if n_tokens <= self.max_tokens {
            return Ok(());
        }
        let what = format!(
            "{n_tokens} tokens (prompt, image, text and answer together) are more than the {} that this {} has positions for; \
             shorten the text or the answer, or use fewer prompt tokens",
            self.max_tokens,
            self.config.model_type()
        );
        Err(ModelError::input("language model", what))
    }

    fn run(&self, input: &LanguageInput, labels: &Tensor, tap: &mut Tap<'_>) -> Result<Scored> {
        let read = input.packed(PaddingSide::Left)?;
        let n_input = read.embeds.dim(1)?;
        let (answer, is_label) = self.answer(labels, input.batch(), read.embeds.dtype())?;
        let whole = Assembled {
            embeds: Tensor::cat(&[&read.embeds, &answer], 1)?,
            mask: Tensor::cat(&[&read.mask, &is_label], 1)?,
        };
        let states = self.states(&whole, &whole.positions()?, tap)?;
        let before = columns_before(labels, n_input, states.dim(1)?)?;
        let logits = self.logits(&embedding(&states.flatten(0, 1)?, &before)?, tap)?;
        let loss = cross_entropy(&logits, labels)?;
        Ok(Scored { logits, loss })
    }
}

impl CausalLm {
    /// The embeddings of labels that are read before the last one, and the mask of those that there are.
    fn answer(&self, labels: &Tensor, batch: usize, dtype: DType) -> Result<(Tensor, Tensor)> {
        let n_labels = labels.dim(1)?;
        if labels.dim(0)? != batch || n_labels == 0 {
            let what = format!("labels {:?} for {batch} samples", labels.shape());
            return Err(ModelError::input("score", what));
        }
        // Nothing follows the last label, so it need not be read.
        let before = labels.narrow(1, 0, n_labels - 1)?;
        let is_label = before.ne(IGNORE_INDEX)?;
        let ids = is_label.where_cond(&before, &before.zeros_like()?)?;
        let answer = self.embed(&ids)?.to_dtype(dtype)?;
        Ok((answer, is_label.to_dtype(DType::F32)?.to_device(self.device())?))
    }

    /// [`LanguageModel::with_maps`], which for this type need not be boxed.
    ///
    /// # Errors
    /// Those of `change`; a map of other widths.
    pub fn with_maps(&self, change: &mut MapChange<'_>) -> Result<Self> {
        let mut model = self.clone();
        // What it makes of a prefix is not what this model makes of it.
        model.id = new_id();
        for Layer { attention, feed_forward } in &mut model.layers {
            *attention = attention.with_maps(change)?;
            *feed_forward = feed_forward.with_maps(change)?;
        }
        model.head = change(&model.head)?;
        Ok(model)
    }
}

impl LanguageModel for CausalLm {
    fn d_model(&self) -> usize {
        self.head.n_in()
    }

    fn vocab_size(&self) -> usize {
        self.head.n_out()
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn is_encoder_decoder(&self) -> bool {
        false
    }

    fn max_tokens(&self) -> Option<usize> {
        Some(self.max_tokens)
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        // The rows of a matrix, which is on the CPU, go where the other parameters are.
        Ok(self.words.forward(ids)?.to_device(&self.device)?)
    }

    fn score(&self, input: &LanguageInput, labels: &Tensor, tap: &mut Tap<'_>) -> Result<Scored> {
        in_pool(|| self.run(input, labels, tap))
    }

    fn prefix_bytes(&self, n_tokens: usize) -> Option<usize> {
        let width: usize = self.layers.iter().map(|layer| 2 * layer.attention.weights().kv_width()).sum();
        n_tokens.checked_mul(width)?.checked_mul(size_of::<f32>())
    }

    fn read_prefix(&self, input: &LanguageInput) -> Result<Prefix> {
        in_pool(|| self.prefix(input))
    }

    fn owns(&self, prefix: &Prefix) -> bool {
        prefix.model() == self.id
    }

    fn score_behind(&self, prefixes: &[Arc<Prefix>], ending: &Tensor, labels: &Tensor) -> Result<Scored> {
        in_pool(|| self.run_behind(prefixes, ending, labels))
    }

    fn start<'a>(
        &'a self,
        input: &LanguageInput,
        _: &SpecialTokens,
        max_new_tokens: usize,
    ) -> Result<(Box<dyn Decoding + 'a>, Tensor)> {
        let (decoding, logits) = Written::start(self, &input.packed(PaddingSide::Left)?, max_new_tokens)?;
        Ok((Box::new(decoding), logits))
    }

    fn with_parameters(
        &self,
        weights: &mut dyn Weights,
        prefix: &str,
    ) -> Result<Option<Arc<dyn LanguageModel>>> {
        if !Scope::new(weights, prefix).has(embedding_name(&self.config)) {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self::new(&self.config, weights, prefix)?)))
    }

    fn with_maps(&self, change: &mut MapChange<'_>) -> Result<Option<Arc<dyn LanguageModel>>> {
        Ok(Some(Arc::new(Self::with_maps(self, change)?)))
    }
}

/// What a [`CausalLm`] has read and written.
struct Written<'a> {
    model: &'a CausalLm,
    caches: Vec<KvCache>,
    /// Tokens of each row so far, padding included.
    n_tokens: usize,
    /// `(rows, tokens of the input)`, if there is padding among them.
    mask: Option<Tensor>,
    /// Hides padding from `room` tokens, of which those to come are real.
    bias: AttentionBias,
    room: usize,
    /// The position of each row's next token.
    next: Vec<i64>,
    /// The rows that are over, whose tokens need no position of their own.
    over: Vec<bool>,
}

impl<'a> Written<'a> {
    /// Reads a packed input; also gives the logits of the first new token.
    fn start(model: &'a CausalLm, read: &Assembled, max_new_tokens: usize) -> Result<(Self, Tensor)> {
        let n_real = read.mask.sum(1)?.to_vec1::<f32>()?;
        let next: Vec<i64> = n_real.into_iter().map(|n| n as i64).collect();
        // The shortest row can go on for longest.
        let shortest = next.iter().copied().min().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let n_new = max_new_tokens.min(model.max_tokens.saturating_sub(shortest));
        let n_input = read.mask.dim(1)?;
        let room = n_input + n_new;
        let caches = model.layers.iter().map(|_| KvCache::with_capacity(room)).collect();
        let over = vec![false; next.len()];
        let mask = (shortest < n_input).then(|| read.mask.clone());
        let bias = hide_padding(mask.as_ref(), room)?;
        let mut written = Self { model, caches, n_tokens: 0, mask, bias, room, next, over };
        let logits = in_pool(|| written.read(&read.embeds, &read.positions()?))?;
        Ok((written, logits))
    }

    /// Logits behind the last of these tokens.
    fn read(&mut self, embeds: &Tensor, positions: &Tensor) -> Result<Tensor> {
        let (mut x, placed) = self.model.place(embeds, positions, &mut Tap::none())?;
        self.n_tokens += embeds.dim(1)?;
        if self.n_tokens > self.room {
            self.room = 2 * self.n_tokens;
            self.bias = hide_padding(self.mask.as_ref(), self.room)?;
        }
        let bias = self.bias.first_keys(self.n_tokens)?;
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

/// The bias of `room` tokens, of which the first are masked and those behind them real.
fn hide_padding(mask: Option<&Tensor>, room: usize) -> Result<AttentionBias> {
    let bias = AttentionBias::none().causal();
    let Some(mask) = mask else { return Ok(bias) };
    let (rows, n) = mask.dims2()?;
    let ones = Tensor::ones((rows, room - n), mask.dtype(), mask.device())?;
    Ok(bias.with_padding_mask(&Tensor::cat(&[mask, &ones], 1)?)?)
}

impl Decoding for Written<'_> {
    fn step(&mut self, ids: &[u32]) -> Result<Tensor> {
        let rows = self.next.len();
        if ids.len() != rows {
            return Err(ModelError::input("step", format!("{} ids for {rows} sequences", ids.len())));
        }
        let words = self.model.embed(&Tensor::from_slice(ids, (rows, 1), &Device::Cpu)?)?;
        let positions = Tensor::from_slice(&self.next, (rows, 1), &Device::Cpu)?;
        let last = self.model.max_tokens as i64 - 1;
        for (next, is_over) in self.next.iter_mut().zip(&self.over) {
            *next = if *is_over { (*next + 1).min(last) } else { *next + 1 };
        }
        self.read(&words, &positions)
    }

    /// What a row that is over still gets shares the last position where there is no further one.
    fn end(&mut self, rows: &[bool]) -> Result<()> {
        if rows.len() != self.next.len() {
            let what = format!("{} marks for {} sequences", rows.len(), self.next.len());
            return Err(ModelError::input("end", what));
        }
        let last = self.model.max_tokens as i64 - 1;
        for (next, _) in self.next.iter_mut().zip(rows).filter(|(_, is_over)| **is_over) {
            *next = (*next).min(last);
        }
        self.over = rows.to_vec();
        Ok(())
    }

    fn reorder(&mut self, rows: &[u32]) -> Result<()> {
        let next = rows.iter().map(|&row| self.next.get(row as usize).copied()).collect::<Option<Vec<_>>>();
        let Some(next) = next else {
            let what = format!("there are {} sequences, rows {rows:?} are asked for", self.next.len());
            return Err(ModelError::input("reorder", what));
        };
        let index = Tensor::from_slice(rows, rows.len(), &Device::Cpu)?;
        self.caches.iter_mut().try_for_each(|cache| cache.select(&index))?;
        if let Some(mask) = &self.mask {
            let mask = mask.index_select(&index.to_device(mask.device())?, 0)?;
            self.bias = hide_padding(Some(&mask), self.room)?;
            self.mask = Some(mask);
        }
        self.next = next;
        self.over = rows.iter().map(|&row| self.over[row as usize]).collect();
        Ok(())
    }

    fn repeat(&mut self, n: usize) -> Result<()> {
        let rows: Vec<u32> =
            (0..self.next.len() as u32).flat_map(|row| std::iter::repeat_n(row, n)).collect();
        self.reorder(&rows)
    }
}

/// For every label the last real token in front of it, whose state says what the label is: a row of `(batch·n_columns)` states, of which
/// each sample has `n_input` of its input and then those of its labels.
fn columns_before(labels: &Tensor, n_input: usize, n_columns: usize) -> Result<Tensor> {
    let rows: Vec<Vec<i64>> = labels.to_dtype(DType::I64)?.to_vec2()?;
    let mut columns = Vec::with_capacity(labels.elem_count());
    for (i, row) in rows.iter().enumerate() {
        let mut last = n_input - 1;
        for (j, &label) in row.iter().enumerate() {
            columns.push((i * n_columns + last) as i64);
            if label != IGNORE_INDEX {
                last = n_input + j;
            }
        }
    }
    Ok(Tensor::from_vec(columns, labels.dims(), &Device::Cpu)?)
}

/// The name of the embedding table without a prefix.
fn embedding_name(config: &TextConfig) -> &'static str {
    match config {
        TextConfig::Opt(_) => "model.decoder.embed_tokens.weight",
        _ => "model.embed_tokens.weight",
    }
}

/// The embedding table. One in f32 that is the head too becomes a matrix, which both share; as a tensor the head would have a transposed
/// copy of it. A trained table stays a tensor.
fn embedding_table(
    weights: &mut Scope<'_>,
    name: &str,
    [vocab, d]: [usize; 2],
    is_tied: bool,
) -> Result<Embedding> {
    let words = weights.embedding(name, vocab, d)?;
    match words.weight() {
        Weight::Dense(table)
            if is_tied && table.device().is_cpu() && table.dtype() == DType::F32 && !table.track_op() =>
        {
            let values: Vec<f32> = table.flatten_all()?.to_vec1()?;
            let name = weights.name(&format!("{name}.weight"));
            // Values that are not finite are told when the loading ends, with all else that is wrong.
            if values.iter().any(|value| !value.is_finite()) {
                return Ok(words);
            }
            let table = Matrix::quantised(&name, Format::F32, [vocab, d], &values)?;
            Ok(Embedding::new(table.packed(Compute::F32)?)?)
        }
        _ => Ok(words),
    }
}

fn head(is_tied: bool, words: &Embedding, weights: &mut Scope<'_>, [vocab, d]: [usize; 2]) -> Result<Linear> {
    if is_tied {
        weights.map(words.weight().clone(), None)
    } else {
        weights.linear("lm_head", vocab, d, false)
    }
}

fn llama_layer(config: &LlamaConfig, mut weights: Scope<'_>) -> Result<Layer> {
    let (d, d_head, eps) = (config.hidden_size, config.d_head(), config.rms_norm_eps);
    let (n_heads, n_kv_heads) = (config.num_attention_heads, config.n_kv_heads());
    let mut linear = |name: &str, n_out: usize, n_in: usize| weights.linear(name, n_out, n_in, false);
    let query = linear("self_attn.q_proj", n_heads * d_head, d)?;
    let key = linear("self_attn.k_proj", n_kv_heads * d_head, d)?;
    let value = linear("self_attn.v_proj", n_kv_heads * d_head, d)?;
    let output = linear("self_attn.o_proj", d, n_heads * d_head)?;
    let gate = linear("mlp.gate_proj", config.intermediate_size, d)?;
    let up = linear("mlp.up_proj", config.intermediate_size, d)?;
    let down = linear("mlp.down_proj", d, config.intermediate_size)?;
    let attention = AttentionSublayer::new(AttentionWeights {
        pre: weights.rms_norm("input_layernorm", d, eps)?,
        projection: Linear::stacked(&[&query, &key, &value])?,
        output,
        post: Norm::identity(),
        n_heads,
        n_kv_heads,
        scale: (d_head as f64).powf(-0.5),
    })?;
    let feed_forward = FeedForwardSublayer::new(FeedForwardWeights {
        pre: weights.rms_norm("post_attention_layernorm", d, eps)?,
        input: Linear::stacked(&[&gate, &up])?,
        activation: activation("LLaMA configuration", &config.hidden_act)?,
        gated: true,
        output: down,
        post: Norm::identity(),
    })?;
    Ok(Layer { attention, feed_forward })
}

fn opt_layer(config: &OptConfig, mut weights: Scope<'_>) -> Result<Layer> {
    let (d, n_heads, bias) = (config.hidden_size, config.num_attention_heads, config.enable_bias);
    let mut linear = |name: &str, n_out: usize, n_in: usize| weights.linear(name, n_out, n_in, bias);
    let query = linear("self_attn.q_proj", d, d)?;
    let key = linear("self_attn.k_proj", d, d)?;
    let value = linear("self_attn.v_proj", d, d)?;
    let output = linear("self_attn.out_proj", d, d)?;
    let (input, second) = (linear("fc1", config.ffn_dim, d)?, linear("fc2", d, config.ffn_dim)?);
    let attention = AttentionSublayer::new(AttentionWeights {
        pre: weights.layer_norm("self_attn_layer_norm", d, OptConfig::NORM_EPSILON)?,
        projection: Linear::stacked(&[&query, &key, &value])?,
        output,
        post: Norm::identity(),
        n_heads,
        n_kv_heads: n_heads,
        scale: ((d / n_heads) as f64).powf(-0.5),
    })?;
    let feed_forward = FeedForwardSublayer::new(FeedForwardWeights {
        // The norm in front of the feed-forward map has the name of the one behind all layers.
        pre: weights.layer_norm("final_layer_norm", d, OptConfig::NORM_EPSILON)?,
        input,
        activation: activation("OPT configuration", &config.activation_function)?,
        gated: false,
        output: second,
        post: Norm::identity(),
    })?;
    Ok(Layer { attention, feed_forward })
}
