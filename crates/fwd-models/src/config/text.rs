//! The configuration of a language model: `text_config` of a multimodal model, or the `config.json` of a language model alone.

use super::field::{not_quantised, read_json, token_ids};
use super::llama::LlamaConfig;
use super::opt::OptConfig;
use super::t5::{OneOrMany, T5Config};
use crate::error::{ModelError, Result};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::path::Path;

/// What the language model is, and how large.
#[derive(Debug, Clone)]
pub enum TextConfig {
    /// `t5`: T5 v1.1 or FlanT5.
    T5(T5Config),
    /// `llama`: LLaMA, Vicuna, TinyLlama, SmolLM2.
    Llama(LlamaConfig),
    /// `opt`: OPT.
    Opt(OptConfig),
}

/// As `text_config` of BLIP-2 and InstructBLIP, whose language model is an OPT where `model_type` is absent.
impl<'de> Deserialize<'de> for TextConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::parse(Value::deserialize(deserializer)?, "opt").map_err(D::Error::custom)
    }
}

impl TextConfig {
    /// The configuration that a JSON object describes; `model_type` says what it is, or where that is absent `default_type`, as the
    /// class of the multimodal model in transformers has it.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn parse(value: Value, default_type: &str) -> std::result::Result<Self, String> {
        let kind = match &value["model_type"] {
            Value::Null => default_type.to_owned(),
            Value::String(kind) => kind.clone(),
            other => return Err(format!("model_type of the language model is {other:.40}, not a name")),
        };
        let fail = |e: serde_json::Error| format!("{kind}: {e}");
        match kind.as_str() {
            "t5" => serde_json::from_value(value).map(Self::T5).map_err(fail),
            "llama" => serde_json::from_value(value).map(Self::Llama).map_err(fail),
            "opt" => serde_json::from_value(value).map(Self::Opt).map_err(fail),
            _ => Err(format!(
                "the language model is `{}`, which is not supported; `t5`, `llama` and `opt` are",
                kind.chars().take(60).collect::<String>().escape_debug()
            )),
        }
    }

    /// Reads the `config.json` of a language model alone, and checks that it can be built.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Json`], or [`ModelError::Config`] for a model that this crate cannot build.
    pub fn read(path: &Path) -> Result<Self> {
        let fail = |what| ModelError::Config { origin: path.display().to_string(), what };
        let value: Value = read_json(path)?;
        if value["model_type"].is_null() {
            return Err(fail("model_type is missing; `t5`, `llama` and `opt` are known".into()));
        }
        token_ids(&value, "").map_err(fail)?;
        not_quantised(&value).map_err(fail)?;
        let config = Self::parse(value, "").map_err(fail)?;
        config.check().map_err(fail)?;
        Ok(config)
    }

    /// The name of the architecture, as `model_type` has it.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::T5(_) => "t5",
            Self::Llama(_) => "llama",
            Self::Opt(_) => "opt",
        }
    }

    /// Width of an embedding.
    pub fn d_model(&self) -> usize {
        match self {
            Self::T5(c) => c.d_model,
            Self::Llama(c) => c.hidden_size,
            Self::Opt(c) => c.hidden_size,
        }
    }

    /// Rows of the embedding table.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::T5(c) => c.vocab_size,
            Self::Llama(c) => c.vocab_size,
            Self::Opt(c) => c.vocab_size,
        }
    }

    /// Layers that a token passes: for an encoder-decoder those of both.
    pub fn n_layers(&self) -> usize {
        match self {
            Self::T5(c) => c.num_layers + c.n_decoder_layers(),
            Self::Llama(c) => c.num_hidden_layers,
            Self::Opt(c) => c.num_hidden_layers,
        }
    }

    /// ε under the root of the norms.
    pub fn norm_epsilon(&self) -> f64 {
        match self {
            Self::T5(c) => c.layer_norm_epsilon,
            Self::Llama(c) => c.rms_norm_eps,
            Self::Opt(_) => OptConfig::NORM_EPSILON,
        }
    }

    /// The most tokens that an input and its answer may have together; none for T5, whose positions are distances.
    pub fn max_tokens(&self) -> Option<usize> {
        match self {
            Self::T5(_) => None,
            Self::Llama(c) => Some(c.max_tokens()),
            Self::Opt(c) => Some(c.max_position_embeddings),
        }
    }

    /// The special tokens that the configuration names or that its class has by default: start of the decoder, ends, padding (which may
    /// be −1) and beginning.
    pub(super) fn token_ids(&self) -> (u32, OneOrMany, i64, Option<u32>) {
        let one = |id: u32| OneOrMany::One(id);
        match self {
            Self::T5(c) => (
                c.decoder_start_token_id.unwrap_or(0),
                c.eos_token_id.clone().unwrap_or(one(1)),
                i64::from(c.pad_token_id.unwrap_or(0)),
                c.bos_token_id,
            ),
            Self::Llama(c) => {
                let bos = c.bos_token_id.unwrap_or(1);
                (bos, c.eos_token_id.clone().unwrap_or(one(2)), c.pad_token_id.unwrap_or(0), Some(bos))
            }
            Self::Opt(c) => {
                let bos = c.bos_token_id.unwrap_or(2);
                (bos, c.eos_token_id.clone().unwrap_or(one(2)), c.pad_token_id.unwrap_or(1), Some(bos))
            }
        }
    }

    /// What makes the model impossible, if anything.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        match self {
            Self::T5(c) => c.check(),
            Self::Llama(c) => c.check().map_err(|what| format!("LLaMA: {what}")),
            Self::Opt(c) => c.check().map_err(|what| format!("OPT: {what}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TextConfig;
    use serde_json::{Value, json};

    fn of(value: Value) -> TextConfig {
        TextConfig::parse(value, "opt").unwrap()
    }

    fn refused(value: Value) -> String {
        TextConfig::parse(value, "opt").and_then(|c| c.check()).unwrap_err()
    }

    #[test]
    fn absent_fields_take_the_defaults_of_the_classes() {
        let TextConfig::Llama(llama) = of(json!({"model_type": "llama"})) else { panic!("not a LLaMA") };
        assert_eq!((llama.hidden_size, llama.n_kv_heads(), llama.d_head()), (4096, 32, 128));
        assert_eq!(llama.inv_freq().unwrap()[1], 10_000f64.powf(-1.0 / 64.0));
        assert!(!llama.tie_word_embeddings);
        let opt = of(json!({"hidden_size": 2560, "num_attention_heads": 32}));
        assert_eq!((opt.model_type(), opt.d_model(), opt.max_tokens()), ("opt", 2560, Some(2048)));
        assert_eq!(opt.check(), Ok(()));
    }

    #[test]
    fn both_generations_say_how_positions_turn() {
        let theta = |value: Value| {
            let TextConfig::Llama(llama) = of(value) else { panic!("not a LLaMA") };
            llama.inv_freq().unwrap()[1].powf(-64.0)
        };
        let old = theta(json!({"model_type": "llama", "rope_theta": 500_000.0, "rope_scaling": null}));
        let new = theta(
            json!({"model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}}),
        );
        assert!((old / 500_000.0 - 1.0).abs() < 1e-9 && old == new);
        let scaled =
            of(json!({"model_type": "llama", "max_position_embeddings": 4096, "rope_theta": 10000.0,
            "rope_scaling": {"type": "linear", "factor": 4.0}}));
        assert_eq!(scaled.max_tokens(), Some(16384));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let names = |value: Value, expected: &str| {
            let error = refused(value);
            assert!(error.contains(expected), "`{expected}` is missing in: {error}");
        };
        names(json!({"do_layer_norm_before": false}), "do_layer_norm_before: false (OPT-350m)");
        names(
            json!({"word_embed_proj_dim": 512, "hidden_size": 1024, "num_attention_heads": 16}),
            "word_embed_proj_dim 512",
        );
        names(
            json!({"model_type": "mistral"}),
            "`mistral`, which is not supported; `t5`, `llama` and `opt` are",
        );
        names(json!({"model_type": "llama", "attention_bias": true}), "attention_bias: true");
        names(
            json!({"model_type": "llama", "num_key_value_heads": 5}),
            "not a multiple of num_key_value_heads 5",
        );
        names(
            json!({"model_type": "llama", "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
            "rope type `yarn`",
        );
        names(json!({"model_type": "llama", "hidden_act": "swoosh"}), "swoosh");
        names(json!({"model_type": "llama", "num_attention_heads": 0}), "num_attention_heads must not be 0");
        names(json!({"model_type": "llama", "hidden_size": "wide"}), "llama: invalid type");
        names(
            json!({"model_type": "opt", "num_hidden_layers": 100_000}),
            "num_hidden_layers 100000 is absurd",
        );
    }
}
