//! The recipe of a pre-training: sizes of the model, data, optimiser. A TOML file, unknown keys are errors.

use anyhow::{Context, Result, ensure};
use fwd_models::ModelConfig;
use fwd_prompt::linalg::AdamW;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Everything that decides what a pre-training computes, beside the data and the vision network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    /// The seed of every random stream.
    pub(crate) seed: u64,
    /// Optimiser steps over which the learning rate falls.
    pub(crate) steps: usize,
    /// Training ends after so many of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stop_after: Option<usize>,
    /// Samples of a step.
    pub(crate) batch_size: usize,
    /// A penalty on queries that say the same.
    pub(crate) diversity: Diversity,
    /// A text piece is a token of its own from so many occurrences on; rarer words are spelt.
    pub(crate) min_word_count: usize,
    /// How often each task is drawn, relative to the others.
    pub(crate) weights: BTreeMap<String, f64>,
    /// The optimiser.
    pub(crate) optimiser: Optimiser,
    /// Sizes.
    pub(crate) model: Sizes,
}

/// `weight·max(0, share − s)`, s being the share of the visual tokens' variance that lies between the queries of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Diversity {
    pub(crate) weight: f64,
    pub(crate) share: f64,
}

/// AdamW with a linear warm-up and a cosine decay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Optimiser {
    /// Highest learning rate.
    pub(crate) lr: f64,
    /// Decay of the second moment.
    pub(crate) beta2: f64,
    /// Added to the root of the second moment.
    pub(crate) eps: f64,
    /// Decay of the matrices.
    pub(crate) weight_decay: f64,
    /// Steps until the learning rate is at its highest.
    pub(crate) warm_up: usize,
    /// What is left of the learning rate in the end, as a share.
    pub(crate) final_share: f64,
    /// Largest norm of the gradient.
    pub(crate) max_norm: f64,
}

/// Sizes of the trained parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sizes {
    /// Side of the images in pixels.
    pub(crate) image_size: usize,
    /// Width of image tokens and Q-Former.
    pub(crate) qformer_width: usize,
    /// Width of the Q-Former's feed-forward layers.
    pub(crate) qformer_hidden: usize,
    /// Layers of the Q-Former.
    pub(crate) qformer_layers: usize,
    /// Heads of the Q-Former.
    pub(crate) qformer_heads: usize,
    /// Learned queries, a square number.
    pub(crate) queries: usize,
    /// Width of the language model.
    pub(crate) d_model: usize,
    /// Width of its feed-forward layers.
    pub(crate) d_ff: usize,
    /// Width of a head.
    pub(crate) d_kv: usize,
    /// Heads.
    pub(crate) heads: usize,
    /// Encoder layers.
    pub(crate) encoder_layers: usize,
    /// Decoder layers.
    pub(crate) decoder_layers: usize,
}

/// Longest instruction that the Q-Former reads.
pub(crate) const MAX_INSTRUCTION: usize = 48;

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// An unreadable file, an unknown or missing key, a value that cannot be.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let recipe: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        ensure!(
            recipe.steps > 0 && recipe.batch_size > 0,
            "{}: steps and batch_size must not be 0",
            path.display()
        );
        let queries = recipe.model.queries;
        let is_grid = queries > 0 && queries.isqrt().pow(2) == queries;
        ensure!(
            is_grid,
            "{}: model.queries is {queries}, must be a square: they begin as the cells of a grid",
            path.display()
        );
        let weights = recipe.weights.values();
        ensure!(
            weights.clone().all(|w| w.is_finite() && *w >= 0.0) && weights.sum::<f64>() > 0.0,
            "{}: weights must not be negative, and not all 0",
            path.display()
        );
        Ok(recipe)
    }

    /// Steps that are taken.
    pub(crate) fn n_steps(&self) -> usize {
        self.stop_after.map_or(self.steps, |n| n.min(self.steps))
    }

    /// Learning rate and the rest of the optimiser at a step, from 0.
    pub(crate) fn optimiser_at(&self, step: usize) -> AdamW {
        let o = &self.optimiser;
        let warm = ((step + 1) as f64 / o.warm_up.max(1) as f64).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / self.steps as f64).cos());
        let lr = o.lr * warm * (o.final_share + (1.0 - o.final_share) * cosine);
        AdamW { lr, beta1: 0.9, beta2: o.beta2, eps: o.eps, weight_decay: o.weight_decay }
    }

    /// The `config.json` of the model, in Hugging Face's terms.
    pub(crate) fn config_json(&self, vocab_size: usize) -> serde_json::Value {
        let m = &self.model;
        json!({
            "model_type": "instructblip",
            "num_query_tokens": m.queries,
            "projection_norm": true,
            "vision_config": {
                "model_type": "efficientnet_lite0",
                "hidden_size": m.qformer_width,
                "image_size": m.image_size,
                "layer_norm_eps": 1e-6,
            },
            "qformer_config": {
                "hidden_size": m.qformer_width,
                "intermediate_size": m.qformer_hidden,
                "num_hidden_layers": m.qformer_layers,
                "num_attention_heads": m.qformer_heads,
                "cross_attention_frequency": 1,
                "vocab_size": vocab_size,
                "max_position_embeddings": MAX_INSTRUCTION,
                "hidden_act": "gelu",
                "layer_norm_eps": 1e-12,
            },
            "text_config": {
                "model_type": "t5",
                "vocab_size": vocab_size,
                "d_model": m.d_model,
                "d_kv": m.d_kv,
                "d_ff": m.d_ff,
                "num_layers": m.encoder_layers,
                "num_decoder_layers": m.decoder_layers,
                "num_heads": m.heads,
                "feed_forward_proj": "gated-gelu",
                "tie_word_embeddings": false,
                "decoder_start_token_id": 0,
                "pad_token_id": 0,
                "eos_token_id": 1,
                "bos_token_id": 1,
            },
        })
    }

    /// The same, checked by the model's own reader.
    ///
    /// # Errors
    /// Sizes that make no model.
    pub(crate) fn model_config(&self, vocab_size: usize) -> Result<ModelConfig> {
        Ok(serde_json::from_value(self.config_json(vocab_size))?)
    }
}
