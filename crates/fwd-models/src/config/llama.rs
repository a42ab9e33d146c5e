//! `config.json` or `text_config` of a LLaMA: LLaMA-1 to 3, Vicuna, TinyLlama, SmolLM2 (Touvron et al. 2023).

use super::field::{LAYERS, LENGTH, WIDTH, activation, at_most, epsilon, not_zero};
use super::rope::RopeConfig;
use super::t5::OneOrMany;
use serde::Deserialize;

/// A LLaMA: pre-norm layers of attention with rotary positions, of whose query heads several may share one of keys and values, and a
/// gated feed-forward map.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct LlamaConfig {
    /// Rows of the embedding table, and of the head.
    pub vocab_size: usize,
    /// Width of an embedding and of every layer.
    pub hidden_size: usize,
    /// Width of the hidden layer of a feed-forward sublayer.
    pub intermediate_size: usize,
    /// Blocks of attention and feed-forward.
    pub num_hidden_layers: usize,
    /// Heads of queries.
    pub num_attention_heads: usize,
    /// Heads of keys and values, each of which serves the same number of query heads; as many as those if absent.
    pub num_key_value_heads: Option<usize>,
    /// Width of a head, which need not be `hidden_size / num_attention_heads`; that is it if absent.
    pub head_dim: Option<usize>,
    /// Activation of the gate by its Hugging Face name.
    pub hidden_act: String,
    /// Longest sequence that the model was trained for.
    pub max_position_embeddings: usize,
    /// ε under the root of every RMS norm.
    pub rms_norm_eps: f64,
    /// Whether the head is the embedding table. What the checkpoint holds does not matter.
    pub tie_word_embeddings: bool,
    /// Whether the maps of the attention have biases, which is refused.
    pub attention_bias: bool,
    /// Whether the maps of the feed-forward sublayers have biases, which is refused.
    pub mlp_bias: bool,
    /// transformers 5: the rotary positions.
    pub rope_parameters: Option<RopeConfig>,
    /// transformers 4: the base of the rotary frequencies.
    pub rope_theta: Option<f64>,
    /// transformers 4: how the rotary frequencies are scaled; not at all if absent.
    pub rope_scaling: Option<RopeConfig>,
    /// A sequence ends with this token, or with any of these; 2 if absent.
    pub eos_token_id: Option<OneOrMany>,
    /// The token that fills up shorter sequences; −1 in configurations of LLaMA-1, whose ids are not those of its tokenizer.
    pub pad_token_id: Option<i64>,
    /// The token that begins a sequence; 1 if absent.
    pub bos_token_id: Option<u32>,
}

impl Default for LlamaConfig {
    /// The sizes of the class in transformers, which are those of LLaMA-7B.
    fn default() -> Self {
        Self {
            vocab_size: 32000,
            hidden_size: 4096,
            intermediate_size: 11008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: None,
            hidden_act: "silu".into(),
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: false,
            attention_bias: false,
            mlp_bias: false,
            rope_parameters: None,
            rope_theta: None,
            rope_scaling: None,
            eos_token_id: None,
            pad_token_id: None,
            bos_token_id: None,
        }
    }
}

impl LlamaConfig {
    /// Heads of keys and values.
    pub fn n_kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of a head.
    pub fn d_head(&self) -> usize {
        self.head_dim.unwrap_or_else(|| self.hidden_size / self.num_attention_heads.max(1))
    }

    /// The angle by which one position turns each of the `d_head / 2` pairs, in radians.
    ///
    /// # Errors
    /// One line that names the field, for a type of scaling that is not supported or a value that is impossible.
    pub fn inv_freq(&self) -> std::result::Result<Vec<f64>, String> {
        self.rope().inv_freq(self.d_head(), self.max_position_embeddings)
    }

    /// The rotary positions, as either generation of transformers writes them.
    fn rope(&self) -> RopeConfig {
        let rope = self.rope_parameters.clone().or_else(|| self.rope_scaling.clone()).unwrap_or_default();
        RopeConfig { rope_theta: rope.rope_theta.or(self.rope_theta), ..rope }
    }

    /// The longest sequence: what the model was trained for, and as much longer as its positions are stretched linearly.
    pub fn max_tokens(&self) -> usize {
        (self.max_position_embeddings as f64 * self.rope().stretch()) as usize
    }

    /// What makes the model impossible, if anything.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        not_zero(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.n_kv_heads()),
            ("head_dim", self.d_head()),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        at_most(&[
            ("num_hidden_layers", self.num_hidden_layers, LAYERS),
            ("num_attention_heads", self.num_attention_heads, LENGTH),
            ("head_dim", self.d_head(), LENGTH),
            ("hidden_size", self.hidden_size, WIDTH),
            ("intermediate_size", self.intermediate_size, WIDTH),
            ("vocab_size", self.vocab_size, WIDTH),
            ("max_position_embeddings", self.max_position_embeddings, WIDTH),
        ])?;
        if !self.num_attention_heads.is_multiple_of(self.n_kv_heads()) {
            let (heads, kv) = (self.num_attention_heads, self.n_kv_heads());
            return Err(format!("num_attention_heads {heads} is not a multiple of num_key_value_heads {kv}"));
        }
        if self.head_dim.is_none() {
            super::field::divides("LLaMA", self.hidden_size, self.num_attention_heads)?;
        }
        if let Some((name, _)) =
            [("attention_bias", self.attention_bias), ("mlp_bias", self.mlp_bias)].iter().find(|(_, is)| *is)
        {
            return Err(format!("{name}: true is not supported; the LLaMA models that are have no biases"));
        }
        epsilon("rms_norm_eps", self.rms_norm_eps)?;
        activation("LLaMA", &self.hidden_act).map_err(|e| e.to_string())?;
        self.inv_freq().map(drop)
    }
}
