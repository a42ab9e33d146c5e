//! The Q-Former: a post-norm BERT in which learned queries attend to image features (Li et al. 2023), and in InstructBLIP
//! to the instruction as well (Dai et al. 2023).
//!
//! Self-attention runs over `[queries ; instruction]`; cross-attention to the image is for the queries only, in every
//! `cross_attention_frequency`-th layer; queries and instruction have feed-forward layers of their own.

use crate::config::{ModelConfig, ModelKind, QFormerConfig, activation};
use crate::error::{ModelError, Result};
use crate::tap::Tap;
use crate::weights::Scope;
use candle_core::{DType, Tensor};
use fwd_ops::{
    AttentionBias, AttentionSublayer, AttentionWeights, FeedForwardSublayer, FeedForwardWeights, Linear,
    MapChange, Norm, embedding,
};

/// A frozen Q-Former with its learned queries.
#[derive(Debug, Clone)]
pub struct QFormer {
    /// `(1, n_queries, d)`.
    queries: Tensor,
    embedding_norm: Norm,
    text: Option<TextEmbeddings>,
    layers: Vec<Layer>,
}

#[derive(Debug, Clone)]
struct TextEmbeddings {
    words: Tensor,
    positions: Tensor,
}

#[derive(Debug, Clone)]
struct Layer {
    attention: AttentionSublayer,
    /// The cross-attention with its map from image features to keys and values.
    cross: Option<(AttentionSublayer, Linear)>,
    feed_forward_query: FeedForwardSublayer,
    feed_forward_text: Option<FeedForwardSublayer>,
}

/// An instruction as the Q-Former reads it.
#[derive(Debug, Clone)]
pub struct QFormerText {
    /// `(batch, tokens)`, i64.
    pub ids: Tensor,
    /// `(batch, tokens)`, 1 for a token and 0 for padding.
    pub mask: Tensor,
}

impl QFormer {
    /// The Q-Former of a model: `num_query_tokens` learned queries, and a cross-attention to image tokens of the tower's width.
    pub(crate) fn new(config: &ModelConfig, mut root: Scope<'_>) -> Result<Self> {
        let ModelConfig { kind, qformer: sizes, num_query_tokens, .. } = config;
        let (d, eps) = (sizes.hidden_size, sizes.layer_norm_eps);
        let queries = root.get("query_tokens", &[1, *num_query_tokens, d])?;
        let mut weights = scope(*kind, &mut root);
        let (embedding_norm, text) = match kind {
            ModelKind::Blip2 => (weights.layer_norm("layernorm", d, eps)?, None),
            ModelKind::InstructBlip => {
                let (norm, text) = text_embeddings(sizes, weights.at("embeddings"))?;
                (norm, Some(text))
            }
        };
        let layers = (0..sizes.num_hidden_layers)
            .map(|i| Layer::new(config, i, weights.at(&layer_name(i))))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { queries, embedding_norm, text, layers })
    }

    /// The same with the parts made anew that `root` has parameters of: queries, embeddings, and every sublayer by itself.
    pub(crate) fn with_parameters(&self, config: &ModelConfig, mut root: Scope<'_>) -> Result<Self> {
        let mut qformer = self.clone();
        if root.has("query_tokens") {
            qformer.queries = root.get("query_tokens", self.queries.dims())?;
        }
        let mut weights = scope(config.kind, &mut root);
        if qformer.text.is_some() && weights.has("embeddings.word_embeddings.weight") {
            let (norm, text) = text_embeddings(&config.qformer, weights.at("embeddings"))?;
            (qformer.embedding_norm, qformer.text) = (norm, Some(text));
        }
        if qformer.text.is_none() && weights.has("layernorm.weight") {
            let QFormerConfig { hidden_size, layer_norm_eps, .. } = config.qformer;
            qformer.embedding_norm = weights.layer_norm("layernorm", hidden_size, layer_norm_eps)?;
        }
        for (i, layer) in qformer.layers.iter_mut().enumerate() {
            layer.take(config, weights.at(&layer_name(i)))?;
        }
        Ok(qformer)
    }

    /// The same with what `change` makes of its linear maps.
    pub(crate) fn with_maps(&self, change: &mut MapChange<'_>) -> Result<Self> {
        let mut qformer = self.clone();
        for layer in &mut qformer.layers {
            layer.attention = layer.attention.with_maps(change)?;
            if let Some((cross, key_value)) = &mut layer.cross {
                *cross = cross.with_maps(change)?;
                *key_value = change(key_value)?;
            }
            layer.feed_forward_query = layer.feed_forward_query.with_maps(change)?;
            if let Some(feed_forward) = &mut layer.feed_forward_text {
                *feed_forward = feed_forward.with_maps(change)?;
            }
        }
        Ok(qformer)
    }

    /// The queries after all layers, each of which has gathered what it asks the image for.
    ///
    /// # Shapes
    /// `image_features (batch, n_image_tokens, image_width)`, `text` for InstructBLIP -> `(batch, n_queries, d)`.
    ///
    /// # Errors
    /// [`ModelError::Input`] if an instruction is missing, superfluous or too long.
    pub fn forward(
        &self,
        image_features: &Tensor,
        text: Option<&QFormerText>,
        tap: &mut Tap<'_>,
    ) -> Result<Tensor> {
        let (batch, n_queries, d) = (image_features.dim(0)?, self.queries.dim(1)?, self.queries.dim(2)?);
        let queries = self.queries.broadcast_as((batch, n_queries, d))?;
        let (mut x, bias) = match (&self.text, text) {
            (None, None) => (queries.contiguous()?, AttentionBias::none()),
            (Some(embeddings), Some(text)) => {
                if text.ids.dims().first() != Some(&batch) {
                    let what = format!("{batch} images, instructions of shape {:?}", text.ids.shape());
                    return Err(ModelError::input("q-former", what));
                }
                let words = embeddings.forward(text)?;
                let text_mask = text.mask.to_dtype(DType::F32)?.to_device(words.device())?;
                let ones = Tensor::ones((batch, n_queries), DType::F32, words.device())?;
                let mask = Tensor::cat(&[&ones, &text_mask], 1)?;
                (Tensor::cat(&[&queries, &words], 1)?, AttentionBias::none().with_padding_mask(&mask)?)
            }
            (Some(_), None) => {
                return Err(ModelError::input("q-former", "InstructBLIP needs the instruction's tokens"));
            }
            (None, Some(_)) => {
                return Err(ModelError::input("q-former", "the Q-Former of BLIP-2 reads no instruction"));
            }
        };
        x = self.embedding_norm.forward(&x)?;
        tap.see("qformer.embeddings", &x);
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, n_queries, image_features, &bias)?;
            tap.see_layer("qformer.layer", i, &x);
        }
        tap.see("qformer.last_hidden_state_full", &x);
        let queries = x.narrow(1, 0, n_queries)?.contiguous()?;
        tap.see("qformer.last_hidden_state", &queries);
        Ok(queries)
    }
}

impl TextEmbeddings {
    /// Words plus positions; positions start at 0 for the first word, queries have none.
    fn forward(&self, text: &QFormerText) -> Result<Tensor> {
        let (_, n) = text.ids.dims2()?;
        let longest = self.positions.dim(0)?;
        if n > longest {
            let what = format!("the instruction has {n} tokens, the Q-Former reads at most {longest}");
            return Err(ModelError::input("q-former", what));
        }
        if text.mask.dims() != text.ids.dims() {
            return Err(ModelError::input("q-former", "ids and mask must have one shape"));
        }
        let words = embedding(&self.words, &text.ids)?;
        let positions = self.positions.narrow(0, 0, n)?.to_dtype(words.dtype())?;
        Ok(words.broadcast_add(&positions)?)
    }
}

/// Where the Q-Former's own parameters lie.
fn scope<'a>(kind: ModelKind, root: &'a mut Scope<'_>) -> Scope<'a> {
    match kind {
        // As transformers keeps it when the rest is loaded in half precision.
        ModelKind::Blip2 => root.at("qformer").in_full_precision(),
        ModelKind::InstructBlip => root.at("qformer"),
    }
}

fn layer_name(i: usize) -> String {
    format!("encoder.layer.{i}")
}

fn text_embeddings(config: &QFormerConfig, mut weights: Scope<'_>) -> Result<(Norm, TextEmbeddings)> {
    let (d, n_positions) = (config.hidden_size, config.max_position_embeddings);
    let words = weights.get("word_embeddings.weight", &[config.vocab_size, d])?;
    let positions = weights.get("position_embeddings.weight", &[n_positions, d])?;
    Ok((weights.layer_norm("layernorm", d, config.layer_norm_eps)?, TextEmbeddings { words, positions }))
}

impl Layer {
    fn new(config: &ModelConfig, i: usize, mut weights: Scope<'_>) -> Result<Self> {
        let sizes = &config.qformer;
        let attention = bert_self_attention(weights.at("attention"), sizes)?;
        let has_cross = i.is_multiple_of(sizes.cross_attention_frequency);
        let cross =
            has_cross.then(|| bert_cross_attention(weights.at("crossattention"), config)).transpose()?;
        let reads_text = config.kind == ModelKind::InstructBlip;
        let feed_forward_text = reads_text.then(|| bert_feed_forward(&mut weights, sizes, "")).transpose()?;
        let feed_forward_query = bert_feed_forward(&mut weights, sizes, "_query")?;
        Ok(Self { attention, cross, feed_forward_query, feed_forward_text })
    }

    /// Makes the sublayers anew that `weights` has parameters of.
    fn take(&mut self, config: &ModelConfig, mut weights: Scope<'_>) -> Result<()> {
        let sizes = &config.qformer;
        if weights.has("attention.attention.query.weight") {
            self.attention = bert_self_attention(weights.at("attention"), sizes)?;
        }
        if self.cross.is_some() && weights.has("crossattention.attention.query.weight") {
            self.cross = Some(bert_cross_attention(weights.at("crossattention"), config)?);
        }
        if self.feed_forward_text.is_some() && weights.has("intermediate.dense.weight") {
            self.feed_forward_text = Some(bert_feed_forward(&mut weights, sizes, "")?);
        }
        if weights.has("intermediate_query.dense.weight") {
            self.feed_forward_query = bert_feed_forward(&mut weights, sizes, "_query")?;
        }
        Ok(())
    }

    fn forward(&self, x: &Tensor, n_queries: usize, image: &Tensor, bias: &AttentionBias) -> Result<Tensor> {
        let x = self.attention.forward(x, bias)?;
        let n_text = x.dim(1)? - n_queries;
        let mut queries = if n_text == 0 { x.clone() } else { x.narrow(1, 0, n_queries)?.contiguous()? };
        if let Some((cross, key_value)) = &self.cross {
            queries = cross.forward_cross(&queries, &key_value.forward(image)?, &AttentionBias::none())?;
        }
        queries = self.feed_forward_query.forward(&queries)?;
        match &self.feed_forward_text {
            Some(feed_forward) if n_text > 0 => {
                let text = feed_forward.forward(&x.narrow(1, n_queries, n_text)?.contiguous()?)?;
                Ok(Tensor::cat(&[&queries, &text], 1)?)
            }
            _ => Ok(queries),
        }
    }
}

/// The self-attention of BERT.
fn bert_self_attention(mut weights: Scope<'_>, config: &QFormerConfig) -> Result<AttentionSublayer> {
    let d = config.hidden_size;
    let [query, key, value] = bert_projections(&mut weights, d, d)?;
    bert_attention(weights, config, Linear::stacked(&[&query, &key, &value])?)
}

/// The cross-attention of BERT and the map from image features to its keys and values.
fn bert_cross_attention(mut weights: Scope<'_>, config: &ModelConfig) -> Result<(AttentionSublayer, Linear)> {
    let (sizes, image_width) = (&config.qformer, config.vision.token_width());
    let [query, key, value] = bert_projections(&mut weights, sizes.hidden_size, image_width)?;
    Ok((bert_attention(weights, sizes, query)?, Linear::stacked(&[&key, &value])?))
}

/// Query, key and value maps; keys and values read `key_width` channels.
fn bert_projections(weights: &mut Scope<'_>, d: usize, key_width: usize) -> Result<[Linear; 3]> {
    Ok([
        weights.linear("attention.query", d, d, true)?,
        weights.linear("attention.key", d, key_width, true)?,
        weights.linear("attention.value", d, key_width, true)?,
    ])
}

fn bert_attention(
    mut weights: Scope<'_>,
    config: &QFormerConfig,
    projection: Linear,
) -> Result<AttentionSublayer> {
    let d = config.hidden_size;
    Ok(AttentionSublayer::new(AttentionWeights {
        pre: Norm::identity(),
        projection,
        output: weights.linear("output.dense", d, d, true)?,
        post: weights.layer_norm("output.LayerNorm", d, config.layer_norm_eps)?,
        n_heads: config.num_attention_heads,
        n_kv_heads: config.num_attention_heads,
        scale: ((d / config.num_attention_heads) as f64).powf(-0.5),
    })?)
}

fn bert_feed_forward(
    layer: &mut Scope<'_>,
    config: &QFormerConfig,
    suffix: &str,
) -> Result<FeedForwardSublayer> {
    let (d, hidden) = (config.hidden_size, config.intermediate_size);
    let activation = activation("qformer_config", &config.hidden_act)?;
    Ok(FeedForwardSublayer::new(FeedForwardWeights {
        pre: Norm::identity(),
        input: layer.linear(&format!("intermediate{suffix}.dense"), hidden, d, true)?,
        activation,
        gated: false,
        output: layer.linear(&format!("output{suffix}.dense"), d, hidden, true)?,
        post: layer.layer_norm(&format!("output{suffix}.LayerNorm"), d, config.layer_norm_eps)?,
    })?)
}
