//! `qformer_config`: the Q-Former.

use super::field::{LAYERS, WIDTH, activation, at_most, divides, epsilon, not_zero};
use serde::Deserialize;

/// The Q-Former, a BERT with cross-attention from learned queries to image features.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct QFormerConfig {
    /// Width of a query and of every layer.
    pub hidden_size: usize,
    /// Width of the hidden layer of a feed-forward sublayer.
    pub intermediate_size: usize,
    /// Blocks of attention, cross-attention (in some of them) and feed-forward.
    pub num_hidden_layers: usize,
    /// Heads of every attention; they share `hidden_size` evenly.
    pub num_attention_heads: usize,
    /// Cross-attention stands in every layer whose index this divides.
    pub cross_attention_frequency: usize,
    /// Vocabulary of the instruction (InstructBLIP).
    pub vocab_size: usize,
    /// Longest instruction in tokens (InstructBLIP).
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward layers by its Hugging Face name (`gelu`, `gelu_new`, `relu` …).
    pub hidden_act: String,
    /// ε under the root of every layer norm.
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

impl QFormerConfig {
    /// What makes the Q-Former impossible, if anything.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        not_zero(&[
            ("qformer_config.hidden_size", self.hidden_size),
            ("qformer_config.num_attention_heads", self.num_attention_heads),
            ("qformer_config.cross_attention_frequency", self.cross_attention_frequency),
        ])?;
        at_most(&[
            ("qformer_config.num_hidden_layers", self.num_hidden_layers, LAYERS),
            ("qformer_config.max_position_embeddings", self.max_position_embeddings, WIDTH),
            ("qformer_config.hidden_size", self.hidden_size, WIDTH),
            ("qformer_config.intermediate_size", self.intermediate_size, WIDTH),
            ("qformer_config.vocab_size", self.vocab_size, WIDTH),
        ])?;
        epsilon("qformer_config.layer_norm_eps", self.layer_norm_eps)?;
        activation("qformer_config", &self.hidden_act).map_err(|e| e.to_string())?;
        divides("qformer_config", self.hidden_size, self.num_attention_heads)
    }
}
