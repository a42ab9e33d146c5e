//! `config.json` or `text_config` of an OPT (Zhang et al. 2022).

use super::field::{LAYERS, LENGTH, WIDTH, activation, at_most, divides, not_zero};
use super::t5::OneOrMany;
use serde::Deserialize;

/// An OPT: pre-norm layers with biases, learned positions, and the embedding table as the head.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct OptConfig {
    /// Rows of the embedding table, and of the head.
    pub vocab_size: usize,
    /// Width of an embedding and of every layer.
    pub hidden_size: usize,
    /// Width of an embedding before it is projected; another width than `hidden_size` (OPT-350m) is refused.
    pub word_embed_proj_dim: Option<usize>,
    /// Width of the hidden layer of a feed-forward sublayer.
    pub ffn_dim: usize,
    /// Blocks of attention and feed-forward.
    pub num_hidden_layers: usize,
    /// Heads of every attention; they share `hidden_size` evenly.
    pub num_attention_heads: usize,
    /// Learned positions, and so the longest sequence.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward layers by its Hugging Face name.
    pub activation_function: String,
    /// Whether norms stand in front of the sublayers; the other way round (OPT-350m) is refused.
    pub do_layer_norm_before: bool,
    /// Whether there is no norm behind the last layer.
    #[serde(rename = "_remove_final_layer_norm")]
    pub remove_final_layer_norm: bool,
    /// Whether the linear maps have biases.
    pub enable_bias: bool,
    /// Whether the norms have weights; norms without are refused.
    pub layer_norm_elementwise_affine: bool,
    /// Whether the head is the embedding table. What the checkpoint holds does not matter.
    pub tie_word_embeddings: bool,
    /// A sequence ends with this token, or with any of these; 2 if absent.
    pub eos_token_id: Option<OneOrMany>,
    /// The token that fills up shorter sequences; 1 if absent.
    pub pad_token_id: Option<i64>,
    /// The token that begins a sequence; 2 if absent.
    pub bos_token_id: Option<u32>,
}

impl Default for OptConfig {
    /// The sizes of the class in transformers, which are those of OPT-125m.
    fn default() -> Self {
        Self {
            vocab_size: 50272,
            hidden_size: 768,
            word_embed_proj_dim: None,
            ffn_dim: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 2048,
            activation_function: "relu".into(),
            do_layer_norm_before: true,
            remove_final_layer_norm: false,
            enable_bias: true,
            layer_norm_elementwise_affine: true,
            tie_word_embeddings: true,
            eos_token_id: None,
            pad_token_id: None,
            bos_token_id: None,
        }
    }
}

impl OptConfig {
    /// ε under the root of every layer norm, which is in no file.
    pub const NORM_EPSILON: f64 = 1e-5;

    /// What makes the model impossible, if anything.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        not_zero(&[
            ("hidden_size", self.hidden_size),
            ("ffn_dim", self.ffn_dim),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        at_most(&[
            ("num_hidden_layers", self.num_hidden_layers, LAYERS),
            ("num_attention_heads", self.num_attention_heads, LENGTH),
            ("hidden_size", self.hidden_size, WIDTH),
            ("ffn_dim", self.ffn_dim, WIDTH),
            ("vocab_size", self.vocab_size, WIDTH),
            ("max_position_embeddings", self.max_position_embeddings, WIDTH),
        ])?;
        divides("OPT", self.hidden_size, self.num_attention_heads)?;
        if !self.do_layer_norm_before {
            let what = "do_layer_norm_before: false (OPT-350m) is not supported; the other sizes of OPT are";
            return Err(what.into());
        }
        if let Some(width) = self.word_embed_proj_dim.filter(|&width| width != self.hidden_size) {
            return Err(format!(
                "word_embed_proj_dim {width} beside hidden_size {} (OPT-350m) is not supported; the other sizes of OPT are",
                self.hidden_size
            ));
        }
        if !self.layer_norm_elementwise_affine {
            return Err("layer_norm_elementwise_affine: false is not supported".into());
        }
        activation("OPT", &self.activation_function).map(drop).map_err(|e| e.to_string())
    }
}
