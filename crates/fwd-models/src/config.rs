//! `config.json` and `generation_config.json` of BLIP-2 and InstructBLIP as transformers 4.x and 5.x write them.
//!
//! Fields that a file leaves out take the defaults of the Hugging Face classes.

use crate::error::{ModelError, Result};
use fwd_ops::Activation;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::path::Path;

/// Which of the two models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ModelKind {
    /// BLIP-2: the Q-Former sees the image only (Li et al. 2023).
    #[serde(rename = "blip-2")]
    Blip2,
    /// InstructBLIP: the Q-Former reads the instruction too (Dai et al. 2023).
    #[serde(rename = "instructblip")]
    InstructBlip,
}

/// The configuration of a whole model.
#[derive(Debug, Clone, Deserialize)]
pub struct ModelConfig {
    /// BLIP-2 or InstructBLIP.
    #[serde(rename = "model_type")]
    pub kind: ModelKind,
    /// Whether an RMS norm follows the projection to the language model, so that visual tokens are as long as those of text
    /// (the embedded model; not the published ones).
    #[serde(default)]
    pub projection_norm: bool,
    /// Number of learned queries, the visual tokens of an image.
    #[serde(default = "default_num_query_tokens")]
    pub num_query_tokens: usize,
    /// The id that stands for a visual token in `input_ids`; older checkpoints have none.
    #[serde(default)]
    pub image_token_index: Option<i64>,
    /// The vision tower.
    #[serde(rename = "vision_config", default)]
    pub vision: VisionConfig,
    /// The Q-Former.
    #[serde(rename = "qformer_config", default)]
    pub qformer: QFormerConfig,
    /// The language model.
    #[serde(rename = "text_config")]
    pub text: T5Config,
}

fn default_num_query_tokens() -> usize {
    32
}

/// The vision tower: the EVA-style transformer, or EfficientNet-Lite0 (`model_type` `efficientnet_lite0`, of which width, image
/// size and epsilon alone matter).
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct VisionConfig {
    /// Which tower.
    pub model_type: String,
    /// Width of the tokens that the Q-Former attends to.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Side of the square input image in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Activation of the feed-forward layers.
    pub hidden_act: String,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// Whether the packed projection has a bias.
    pub qkv_bias: bool,
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            model_type: "instructblip_vision_model".into(),
            hidden_size: 1408,
            intermediate_size: 6144,
            num_hidden_layers: 39,
            num_attention_heads: 16,
            image_size: 224,
            patch_size: 14,
            hidden_act: "gelu".into(),
            layer_norm_eps: 1e-6,
            qkv_bias: true,
        }
    }
}

/// The Q-Former, a BERT with cross-attention from learned queries to image features.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct QFormerConfig {
    /// Width.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Cross-attention stands in every layer whose index this divides.
    pub cross_attention_frequency: usize,
    /// Vocabulary of the instruction (InstructBLIP).
    pub vocab_size: usize,
    /// Longest instruction in tokens (InstructBLIP).
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward layers.
    pub hidden_act: String,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
}

impl Default for QFormerConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            cross_attention_frequency: 2,
            vocab_size: 30522,
            max_position_embeddings: 512,
            hidden_act: "gelu".into(),
            layer_norm_eps: 1e-12,
        }
    }
}

/// The T5 language model.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct T5Config {
    /// `t5`; anything else is refused.
    pub model_type: String,
    /// Vocabulary size.
    pub vocab_size: usize,
    /// Width.
    pub d_model: usize,
    /// Width of one attention head; `n_heads·d_kv` need not be `d_model`.
    pub d_kv: usize,
    /// Width of the feed-forward layers.
    pub d_ff: usize,
    /// Encoder layers.
    pub num_layers: usize,
    /// Decoder layers; as many as the encoder if absent.
    pub num_decoder_layers: Option<usize>,
    /// Number of attention heads.
    pub num_heads: usize,
    /// Buckets of the relative positions.
    pub relative_attention_num_buckets: usize,
    /// Distance from which on all positions share a bucket.
    pub relative_attention_max_distance: usize,
    /// Epsilon of the RMS norms.
    pub layer_norm_epsilon: f64,
    /// `relu`, `gated-gelu` …; `dense_act_fn` wins where it is given.
    pub feed_forward_proj: String,
    /// The activation itself.
    pub dense_act_fn: Option<String>,
    /// transformers 5: whether decoder outputs are scaled by `d_model^-0.5` before the head.
    pub scale_decoder_outputs: Option<bool>,
    /// transformers 4: the same, under the name of weight tying.
    pub tie_word_embeddings: Option<bool>,
    /// First decoder input.
    pub decoder_start_token_id: Option<u32>,
    /// End of sequence.
    pub eos_token_id: Option<OneOrMany>,
    /// Padding.
    pub pad_token_id: Option<u32>,
    /// The token that stands for an empty instruction.
    pub bos_token_id: Option<u32>,
}

impl Default for T5Config {
    fn default() -> Self {
        Self {
            model_type: "t5".into(),
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_decoder_layers: None,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: "relu".into(),
            dense_act_fn: None,
            scale_decoder_outputs: None,
            tie_word_embeddings: None,
            decoder_start_token_id: None,
            eos_token_id: None,
            pad_token_id: None,
            bos_token_id: None,
        }
    }
}

impl T5Config {
    /// Number of decoder layers.
    pub fn n_decoder_layers(&self) -> usize {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    /// Whether the feed-forward layers have a gate.
    pub fn is_gated(&self) -> bool {
        self.feed_forward_proj.starts_with("gated-")
    }

    /// Whether the decoder output is scaled by `d_model^-0.5` before the head. transformers 5 writes it as
    /// `scale_decoder_outputs` and `tie_word_embeddings: true` whatever the weights are; before, the latter meant both.
    pub fn scales_decoder_output(&self) -> bool {
        self.scale_decoder_outputs.unwrap_or(self.tie_word_embeddings.unwrap_or(true))
    }

    /// Whether the head cannot be the embedding: transformers 4 says so. transformers 5 always claims that they are tied, and
    /// the checkpoint decides.
    pub(crate) fn has_own_head(&self) -> bool {
        self.scale_decoder_outputs.is_none() && self.tie_word_embeddings == Some(false)
    }

    /// The activation of the feed-forward layers: `gated-gelu` alone means the tanh form, a `dense_act_fn` beside it wins
    /// (the published BLIP-2 and InstructBLIP checkpoints say `gelu`, the erf form).
    ///
    /// # Errors
    /// [`ModelError::Config`] for an activation that is not known.
    pub fn activation(&self) -> Result<Activation> {
        let name = match (&self.dense_act_fn, self.feed_forward_proj.as_str()) {
            (Some(name), _) => name.as_str(),
            (None, "gated-gelu") => "gelu_new",
            (None, proj) => proj.strip_prefix("gated-").unwrap_or(proj),
        };
        activation("text_config", name)
    }
}

pub(crate) fn activation(origin: &str, name: &str) -> Result<Activation> {
    Activation::from_hf_name(name).ok_or_else(|| ModelError::Config {
        origin: origin.into(),
        what: format!("activation `{name}` is not known; gelu, gelu_new, gelu_pytorch_tanh and relu are"),
    })
}

impl ModelConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Json`] with line and column, or [`ModelError::Config`] for a model that this crate
    /// cannot build.
    pub fn read(path: &Path) -> Result<Self> {
        let config: Self = read_json(path)?;
        config.check().map_err(|what| ModelError::Config { origin: path.display().to_string(), what })?;
        Ok(config)
    }

    /// What makes the configuration impossible, if anything.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        let (v, q, t) = (&self.vision, &self.qformer, &self.text);
        if t.model_type != "t5" {
            return Err(format!("the language model is `{}`, only `t5` (FlanT5) is supported", t.model_type));
        }
        let positive = [
            ("num_query_tokens", self.num_query_tokens),
            ("vision_config.patch_size", v.patch_size),
            ("vision_config.hidden_size", v.hidden_size),
            ("vision_config.num_attention_heads", v.num_attention_heads),
            ("qformer_config.hidden_size", q.hidden_size),
            ("qformer_config.num_attention_heads", q.num_attention_heads),
            ("qformer_config.cross_attention_frequency", q.cross_attention_frequency),
            ("text_config.d_model", t.d_model),
            ("text_config.d_kv", t.d_kv),
            ("text_config.d_ff", t.d_ff),
            ("text_config.num_heads", t.num_heads),
            ("text_config.num_layers", t.num_layers),
            ("text_config.num_decoder_layers", t.n_decoder_layers()),
            ("text_config.vocab_size", t.vocab_size),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{name} must not be 0"));
        }
        self.check_bounds()?;
        if v.image_size < v.patch_size {
            return Err(format!("image_size {} is smaller than patch_size {}", v.image_size, v.patch_size));
        }
        for (name, width, heads) in [
            ("vision_config", v.hidden_size, v.num_attention_heads),
            ("qformer_config", q.hidden_size, q.num_attention_heads),
        ] {
            if width % heads != 0 {
                return Err(format!("{name}: hidden_size {width} is not a multiple of {heads} heads"));
            }
        }
        let (buckets, distance) = (t.relative_attention_num_buckets, t.relative_attention_max_distance);
        if buckets < 4 || distance <= buckets / 2 {
            return Err(format!("text_config: {buckets} position buckets cannot reach distance {distance}"));
        }
        Ok(())
    }

    /// Sizes far above any real model are refused before they overflow or exhaust the memory.
    fn check_bounds(&self) -> std::result::Result<(), String> {
        let (v, q, t) = (&self.vision, &self.qformer, &self.text);
        const LAYERS: usize = 1 << 10;
        const LENGTH: usize = 1 << 14;
        const WIDTH: usize = 1 << 24;
        let bounded = [
            ("vision_config.num_hidden_layers", v.num_hidden_layers, LAYERS),
            ("qformer_config.num_hidden_layers", q.num_hidden_layers, LAYERS),
            ("text_config.num_layers", t.num_layers, LAYERS),
            ("text_config.num_decoder_layers", t.n_decoder_layers(), LAYERS),
            ("vision_config.image_size", v.image_size, LENGTH),
            ("num_query_tokens", self.num_query_tokens, LENGTH),
            ("text_config.num_heads", t.num_heads, LENGTH),
            ("text_config.d_kv", t.d_kv, LENGTH),
            ("text_config.relative_attention_num_buckets", t.relative_attention_num_buckets, LENGTH),
            ("qformer_config.max_position_embeddings", q.max_position_embeddings, WIDTH),
            ("vision_config.hidden_size", v.hidden_size, WIDTH),
            ("vision_config.intermediate_size", v.intermediate_size, WIDTH),
            ("qformer_config.hidden_size", q.hidden_size, WIDTH),
            ("qformer_config.intermediate_size", q.intermediate_size, WIDTH),
            ("qformer_config.vocab_size", q.vocab_size, WIDTH),
            ("text_config.d_model", t.d_model, WIDTH),
            ("text_config.d_ff", t.d_ff, WIDTH),
            ("text_config.vocab_size", t.vocab_size, WIDTH),
        ];
        if let Some((name, value, most)) = bounded.iter().find(|(_, value, most)| value > most) {
            return Err(format!("{name} {value} is absurd, at most {most} is supported"));
        }
        let eps = [v.layer_norm_eps, q.layer_norm_eps, t.layer_norm_epsilon];
        if eps.iter().any(|e| !(0.0..1.0).contains(e)) {
            return Err(format!("layer norm epsilons {eps:?} must lie in 0..1"));
        }
        let activations = [
            activation("vision_config", &v.hidden_act),
            activation("qformer_config", &q.hidden_act),
            t.activation(),
        ];
        activations.into_iter().try_for_each(|act| act.map(drop).map_err(|e| e.to_string()))
    }
}

/// The special tokens of generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialTokens {
    /// First decoder input.
    pub decoder_start: u32,
    /// A sequence ends with any of these.
    pub eos: Vec<u32>,
    /// Fills up shorter sequences.
    pub pad: u32,
    /// Stands for an empty instruction.
    pub bos: u32,
}

/// One id or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// A single id.
    One(u32),
    /// Several ids.
    Many(Vec<u32>),
}

#[derive(Deserialize, Default)]
struct RawGeneration {
    decoder_start_token_id: Option<u32>,
    eos_token_id: Option<OneOrMany>,
    pad_token_id: Option<u32>,
    bos_token_id: Option<u32>,
}

impl SpecialTokens {
    /// From `generation_config.json` if the file exists, else from the text configuration, else T5's own.
    ///
    /// # Errors
    /// [`ModelError::Io`] or [`ModelError::Json`] if the file exists and cannot be read.
    pub fn read(path: &Path, text: &T5Config) -> Result<Self> {
        let raw: RawGeneration = if path.exists() { read_json(path)? } else { RawGeneration::default() };
        let tokens = Self::from_parts(raw, text);
        tokens
            .check(text.vocab_size)
            .map_err(|what| ModelError::Config { origin: path.display().to_string(), what })?;
        Ok(tokens)
    }

    /// From the text configuration alone, T5's own ids where it has none.
    pub fn of(text: &T5Config) -> Self {
        Self::from_parts(RawGeneration::default(), text)
    }

    fn from_parts(raw: RawGeneration, text: &T5Config) -> Self {
        let mut eos = match raw.eos_token_id.or_else(|| text.eos_token_id.clone()) {
            Some(OneOrMany::One(id)) => vec![id],
            Some(OneOrMany::Many(ids)) => ids,
            None => vec![1],
        };
        eos.sort_unstable();
        eos.dedup();
        Self {
            decoder_start: raw.decoder_start_token_id.or(text.decoder_start_token_id).unwrap_or(0),
            eos,
            pad: raw.pad_token_id.or(text.pad_token_id).unwrap_or(0),
            // transformers takes this one from the text configuration.
            bos: text.bos_token_id.or(raw.bos_token_id).unwrap_or(1),
        }
    }

    /// What makes the ids unusable with a vocabulary, if anything.
    pub(crate) fn check(&self, vocab_size: usize) -> std::result::Result<(), String> {
        let named = [
            ("decoder_start_token_id", self.decoder_start),
            ("pad_token_id", self.pad),
            ("bos_token_id", self.bos),
        ];
        let mut all = named.into_iter().chain(self.eos.iter().map(|&id| ("eos_token_id", id)));
        match all.find(|&(_, id)| id as usize >= vocab_size) {
            Some((name, id)) => Err(format!("{name} {id} is outside the vocabulary of {vocab_size}")),
            None => Ok(()),
        }
    }
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(|source| ModelError::Io { path: path.into(), source })?;
    serde_json::from_slice(&text).map_err(|source| ModelError::Json { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::{ModelConfig, ModelKind, OneOrMany, SpecialTokens, T5Config};
    use fwd_ops::Activation;

    fn text(json: &str) -> T5Config {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_activation_of_published_checkpoints_is_the_erf_form() {
        let published = text(r#"{"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"}"#);
        assert_eq!((published.activation().unwrap(), published.is_gated()), (Activation::GeluErf, true));
        assert_eq!(
            text(r#"{"feed_forward_proj": "gated-gelu"}"#).activation().unwrap(),
            Activation::GeluTanh
        );
        assert_eq!(text("{}").activation().unwrap(), Activation::Relu);
        assert!(text(r#"{"feed_forward_proj": "gated-silu"}"#).activation().is_err());
    }

    #[test]
    fn both_generations_say_whether_the_decoder_output_is_scaled() {
        assert!(text("{}").scales_decoder_output());
        assert!(!text(r#"{"tie_word_embeddings": false}"#).scales_decoder_output());
        assert!(
            !text(r#"{"tie_word_embeddings": true, "scale_decoder_outputs": false}"#).scales_decoder_output()
        );
        assert!(
            text(r#"{"tie_word_embeddings": false, "scale_decoder_outputs": true}"#).scales_decoder_output()
        );
    }

    #[test]
    fn a_published_config_takes_the_defaults_of_the_classes() {
        let config: ModelConfig = serde_json::from_str(
            r#"{"model_type": "instructblip", "num_query_tokens": 32, "image_token_index": null,
                "vision_config": {"model_type": "instructblip_vision_model", "dropout": 0.0},
                "qformer_config": {"model_type": "instructblip_qformer", "vocab_size": 30523},
                "text_config": {"model_type": "t5", "d_model": 2048, "num_layers": 24, "num_decoder_layers": null}}"#,
        )
        .unwrap();
        assert_eq!(config.check(), Ok(()));
        assert_eq!(config.kind, ModelKind::InstructBlip);
        let (v, q) = (&config.vision, &config.qformer);
        assert_eq!(
            (v.hidden_size, v.num_hidden_layers, v.num_attention_heads, v.layer_norm_eps),
            (1408, 39, 16, 1e-6)
        );
        assert_eq!(
            (q.hidden_size, q.num_hidden_layers, q.vocab_size, q.layer_norm_eps),
            (768, 12, 30523, 1e-12)
        );
        assert_eq!((config.text.n_decoder_layers(), config.image_token_index), (24, None));
    }

    #[test]
    fn special_tokens_are_checked_against_the_vocabulary() {
        let mut config = text(r#"{"eos_token_id": [1, 2, 1], "vocab_size": 10}"#);
        assert_eq!(SpecialTokens::of(&config).eos, [1, 2]);
        assert!(SpecialTokens::of(&config).check(10).is_ok());
        config.eos_token_id = Some(OneOrMany::One(10));
        let error = SpecialTokens::of(&config).check(10).unwrap_err();
        assert_eq!(error, "eos_token_id 10 is outside the vocabulary of 10");
    }
}
