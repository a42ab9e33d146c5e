//! `text_config`: a T5 v1.1 or FlanT5.

use super::field::{LAYERS, LENGTH, WIDTH, activation, at_most, epsilon, not_zero};
use crate::error::Result;
use fwd_ops::Activation;
use serde::Deserialize;

/// A T5 v1.1 or FlanT5, encoder and decoder.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct T5Config {
    /// `t5`; anything else is refused.
    pub model_type: String,
    /// Rows of the embedding table, and of the head.
    pub vocab_size: usize,
    /// Width of an embedding and of every layer.
    pub d_model: usize,
    /// Width of one attention head; `n_heads·d_kv` need not be `d_model`.
    pub d_kv: usize,
    /// Width of the hidden layer of a feed-forward sublayer.
    pub d_ff: usize,
    /// Blocks of the encoder.
    pub num_layers: usize,
    /// Blocks of the decoder; as many as the encoder has if absent.
    pub num_decoder_layers: Option<usize>,
    /// Heads of every attention, each of width `d_kv`.
    pub num_heads: usize,
    /// Buckets of the relative positions.
    pub relative_attention_num_buckets: usize,
    /// Distance from which on all positions share a bucket.
    pub relative_attention_max_distance: usize,
    /// ε under the root of every RMS norm.
    pub layer_norm_epsilon: f64,
    /// `relu`, `gated-gelu` …; `dense_act_fn` wins where it is given.
    pub feed_forward_proj: String,
    /// The activation without the gate, by its Hugging Face name.
    pub dense_act_fn: Option<String>,
    /// transformers 5: whether decoder outputs are scaled by `d_model^-0.5` before the head.
    pub scale_decoder_outputs: Option<bool>,
    /// transformers 4: the same, under the name of weight tying.
    pub tie_word_embeddings: Option<bool>,
    /// The token that the decoder starts from; 0 if absent.
    pub decoder_start_token_id: Option<u32>,
    /// A sequence ends with this token, or with any of these; 1 if absent.
    pub eos_token_id: Option<OneOrMany>,
    /// The token that fills up shorter sequences; 0 if absent.
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
    /// Blocks of the decoder, which the file may leave out.
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
    /// [`ModelError::Config`](crate::ModelError::Config) for an activation that is not known.
    pub fn activation(&self) -> Result<Activation> {
        let name = match (&self.dense_act_fn, self.feed_forward_proj.as_str()) {
            (Some(name), _) => name.as_str(),
            (None, "gated-gelu") => "gelu_new",
            (None, proj) => proj.strip_prefix("gated-").unwrap_or(proj),
        };
        activation("text_config", name)
    }

    /// What makes the model impossible, if anything.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        if self.model_type != "t5" {
            return Err(format!(
                "the language model is `{}`, only `t5` (FlanT5) is supported",
                self.model_type
            ));
        }
        not_zero(&[
            ("text_config.d_model", self.d_model),
            ("text_config.d_kv", self.d_kv),
            ("text_config.d_ff", self.d_ff),
            ("text_config.num_heads", self.num_heads),
            ("text_config.num_layers", self.num_layers),
            ("text_config.num_decoder_layers", self.n_decoder_layers()),
            ("text_config.vocab_size", self.vocab_size),
        ])?;
        at_most(&[
            ("text_config.num_layers", self.num_layers, LAYERS),
            ("text_config.num_decoder_layers", self.n_decoder_layers(), LAYERS),
            ("text_config.num_heads", self.num_heads, LENGTH),
            ("text_config.d_kv", self.d_kv, LENGTH),
            ("text_config.relative_attention_num_buckets", self.relative_attention_num_buckets, LENGTH),
            ("text_config.d_model", self.d_model, WIDTH),
            ("text_config.d_ff", self.d_ff, WIDTH),
            ("text_config.vocab_size", self.vocab_size, WIDTH),
        ])?;
        epsilon("text_config.layer_norm_epsilon", self.layer_norm_epsilon)?;
        self.activation().map_err(|e| e.to_string())?;
        let (buckets, distance) = (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        if buckets < 4 || distance <= buckets / 2 {
            return Err(format!("text_config: {buckets} position buckets cannot reach distance {distance}"));
        }
        Ok(())
    }
}

/// One id or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// `"eos_token_id": 1`.
    One(u32),
    /// `"eos_token_id": [1, 2]`.
    Many(Vec<u32>),
}

#[cfg(test)]
mod tests {
    use super::T5Config;
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
        assert!(text(r#"{"feed_forward_proj": "gated-mish"}"#).activation().is_err());
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
}
