//! The recipe of a pre-training: sizes of the model, data, optimiser. A TOML file, unknown keys are errors.

use crate::files::read_to_string;
use anyhow::{Context, Result, ensure};
use fwd_ops::Compute;
use fwd_prompt::linalg::AdamW;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// Everything that decides what a pre-training computes, beside the data and the vision network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The seed of every random stream.
    pub seed: u64,
    /// Optimiser steps over which the learning rate falls.
    pub steps: usize,
    /// Training ends after so many of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_after: Option<usize>,
    /// From this step on, the learning rate falls in a straight line, to its final share at the last step that is taken. So a long
    /// training can be brought to an early end, and still be repeated: nothing before this step depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_from: Option<usize>,
    /// How many samples a step sees.
    pub batch_size: usize,
    /// How trained matrices are written to `trained.safetensors`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stored: StoredAs,
    /// How frozen products are computed. Trained weights and all else are computed in f32.
    #[serde(default, skip_serializing_if = "is_default")]
    pub compute: Compute,
    /// Against learning the pictures by heart.
    pub augmentation: Augmentation,
    /// Practice in being told by prompts what to do.
    pub prompting: Prompting,
    /// A penalty on queries that say the same.
    pub diversity: Diversity,
    /// A text piece is a token of its own from so many occurrences on; rarer words are spelt. Of a model with a vocabulary of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_word_count: Option<usize>,
    /// How often each task is drawn, relative to the others.
    pub weights: BTreeMap<String, f64>,
    /// Steps from which on some tasks have other weights or records, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<Phase>,
    /// AdamW and its learning rate.
    pub optimiser: Optimiser,
    /// Sizes of a model that is trained from the beginning, over EfficientNet-Lite0. Without them the model directory has a configuration
    /// and frozen parts already, and what these lack is trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Sizes>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The type of the trained matrices in a file; while they are trained they are in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredAs {
    /// [`Trainable::to_bf16_checkpoint`](fwd_models::Trainable::to_bf16_checkpoint).
    #[default]
    Bf16,
    /// [`Trainable::to_int8_checkpoint`](fwd_models::Trainable::to_int8_checkpoint).
    Int8,
}

/// What is different from a step on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// The first step of the phase.
    pub from: usize,
    /// Weights that are not those before it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, f64>,
    /// Of these tasks only records with one of these words in their instruction are drawn; until the next phase.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub only: BTreeMap<String, Vec<String>>,
    /// The share of batches with prompts from here on, in the place of that of [`Prompting`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompting_share: Option<f64>,
    /// The weight of the penalty on queries that say the same from here on, in the place of that of [`Diversity`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diversity_weight: Option<f64>,
}

/// Pictures are shown in several views: as they are, and scaled, shifted and mirrored at random.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// Views of each picture, the picture itself among them.
    pub views: u32,
    /// Tasks whose pictures have another number of views.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub views_of: BTreeMap<String, u32>,
    /// Tasks whose pictures are not mirrored.
    pub upright: Vec<String>,
}

/// Some batches have a trained prompt of their task in front of every sample, and the instruction that it makes superfluous is
/// mostly replaced by random words. So the language model learns that vectors can tell it what to do, and Q-Former and language
/// model to bear instructions they do not know. The prompts are thrown away in the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompting {
    /// Vectors of a prompt; 0 for no prompts.
    pub tokens: usize,
    /// The share of batches with prompts.
    pub share: f64,
    /// The share of the instructions in them that are replaced.
    pub replaced: f64,
    /// Tasks whose prompt says it all, so that the instruction can be replaced.
    pub tasks: Vec<String>,
}

/// `weight·(max(0, share − s) + max(0, rank − r))`, s being the share of the visual tokens' variance that lies between the queries
/// of a sample, r their participation ratio as a share of the width. If `is_logarithmic`, the second hinge is `max(0, ln(rank/r))`: its
/// gradient does not vanish where tokens have collapsed into few directions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diversity {
    /// What the penalty is multiplied by; 0 for no penalty.
    pub weight: f64,
    /// The share of the variance below which queries are driven apart, from 0 to 1.
    pub share: f64,
    /// The share of the width below which tokens are spread, from 0 to 1.
    pub rank: f64,
    /// Whether the hinge is on the logarithm of the participation ratio.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_logarithmic: bool,
}

/// AdamW with a linear warm-up and a cosine decay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimiser {
    /// Highest learning rate.
    pub lr: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decay of the matrices.
    pub weight_decay: f64,
    /// Steps until the learning rate is at its highest.
    pub warm_up: usize,
    /// What is left of the learning rate in the end, as a share.
    pub final_share: f64,
    /// Largest norm of the gradient.
    pub max_norm: f64,
    /// Shares of the learning rate for parameters whose names contain a text: those that begin with pre-trained values need smaller steps.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lr_share_of: BTreeMap<String, f64>,
}

/// Sizes of the trained parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Side of the images in pixels.
    pub image_size: usize,
    /// Width of image tokens and Q-Former.
    pub qformer_width: usize,
    /// Width of the Q-Former's feed-forward layers.
    pub qformer_hidden: usize,
    /// Layers of the Q-Former.
    pub qformer_layers: usize,
    /// Heads of the Q-Former.
    pub qformer_heads: usize,
    /// Learned queries, a square number.
    pub queries: usize,
    /// Width of the language model.
    pub d_model: usize,
    /// Width of its feed-forward layers.
    pub d_ff: usize,
    /// Width of a head.
    pub d_kv: usize,
    /// Attention heads of the language model.
    pub heads: usize,
    /// Layers of the language model's encoder.
    pub encoder_layers: usize,
    /// Layers of the language model's decoder.
    pub decoder_layers: usize,
}

/// Longest instruction that the Q-Former reads.
const MAX_INSTRUCTION: usize = 48;

impl Recipe {
    /// Views of each picture of a task.
    pub(super) fn views_of(&self, task: &str) -> u32 {
        self.augmentation.views_of.get(task).copied().unwrap_or(self.augmentation.views)
    }

    /// Reads a recipe and checks its values.
    ///
    /// # Errors
    /// An unreadable file, an unknown or missing key, a value that cannot be.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_to_string(path)?;
        let recipe: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        ensure!(
            recipe.steps > 0 && recipe.batch_size > 0,
            "{}: steps and batch_size must not be 0",
            path.display()
        );
        if let Some(Sizes { queries, .. }) = recipe.model {
            let is_grid = queries > 0 && queries.isqrt().pow(2) == queries;
            ensure!(
                is_grid,
                "{}: model.queries is {queries}, must be a square: they begin as the cells of a grid",
                path.display()
            );
        }
        ensure!(
            recipe.model.is_some() == recipe.min_word_count.is_some(),
            "{}: min_word_count goes with the section [model]",
            path.display()
        );
        ensure!(
            recipe.optimiser.lr_share_of.values().all(|share| (0.0..=1.0).contains(share)),
            "{}: optimiser.lr_share_of must be from 0 to 1",
            path.display()
        );
        ensure!(
            recipe.decay_from.is_none_or(|from| from < recipe.n_steps()),
            "{}: decay_from must be below the number of steps",
            path.display()
        );
        let Augmentation { views, views_of, .. } = &recipe.augmentation;
        ensure!(
            views_of.values().chain([views]).all(|views| *views > 0),
            "{}: augmentation.views and views_of must not be 0",
            path.display()
        );
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        ensure!(
            is_share(recipe.prompting.share)
                && recipe.diversity.weight >= 0.0
                && recipe.diversity.weight.is_finite(),
            "{}: prompting.share must be from 0 to 1, diversity.weight a number that is not negative",
            path.display()
        );
        ensure!(
            recipe.phases.iter().all(|phase| {
                phase.prompting_share.is_none_or(is_share) && phase.diversity_weight.is_none_or(|w| w >= 0.0)
            }),
            "{}: a phase's prompting_share must be from 0 to 1, its diversity_weight not negative",
            path.display()
        );
        let in_order = recipe.phases.windows(2).all(|pair| pair[0].from < pair[1].from);
        ensure!(in_order, "{}: the phases must begin one after another", path.display());
        for step in std::iter::once(0).chain(recipe.phases.iter().map(|phase| phase.from)) {
            let weights = recipe.weights_at(step);
            let weights = weights.values();
            ensure!(
                weights.clone().all(|w| w.is_finite() && *w >= 0.0) && weights.sum::<f64>() > 0.0,
                "{}: weights must not be negative, and not all 0",
                path.display()
            );
        }
        Ok(recipe)
    }

    /// Steps that are taken.
    pub fn n_steps(&self) -> usize {
        self.stop_after.map_or(self.steps, |n| n.min(self.steps))
    }

    /// The weight of each task at a step.
    pub(super) fn weights_at(&self, step: usize) -> BTreeMap<&str, f64> {
        let phases = self.phases.iter().filter(|phase| phase.from <= step);
        let all = std::iter::once(&self.weights).chain(phases.map(|phase| &phase.weights));
        all.flatten().map(|(name, weight)| (name.as_str(), *weight)).collect()
    }

    /// The share of batches with prompts at a step.
    pub(super) fn prompting_share_at(&self, step: usize) -> f64 {
        self.last_at(step, |phase| phase.prompting_share).unwrap_or(self.prompting.share)
    }

    /// The weight of the penalty on queries that say the same, at a step.
    pub(super) fn diversity_weight_at(&self, step: usize) -> f64 {
        self.last_at(step, |phase| phase.diversity_weight).unwrap_or(self.diversity.weight)
    }

    /// What the last phase that says it has said by a step.
    fn last_at(&self, step: usize, of: impl Fn(&Phase) -> Option<f64>) -> Option<f64> {
        self.phases.iter().rev().filter(|phase| phase.from <= step).find_map(of)
    }

    /// The words of which one must be in the instruction of a task's record at a step; none if any record will do.
    pub(super) fn words_at(&self, step: usize, task: &str) -> Option<&[String]> {
        let phase = self.phases.iter().rev().find(|phase| phase.from <= step)?;
        phase.only.get(task).map(Vec::as_slice)
    }

    /// Learning rate and the rest of the optimiser at a step, from 0.
    pub(super) fn optimiser_at(&self, step: usize) -> AdamW {
        let o = &self.optimiser;
        let warm = ((step + 1) as f64 / o.warm_up.max(1) as f64).min(1.0);
        let on_cosine = |step: usize| {
            let cosine = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / self.steps as f64).cos());
            o.final_share + (1.0 - o.final_share) * cosine
        };
        let share = match self.decay_from.filter(|from| step > *from) {
            Some(from) => {
                let left = (self.n_steps() - step) as f64 / (self.n_steps() - from) as f64;
                o.final_share + (on_cosine(from) - o.final_share) * left
            }
            None => on_cosine(step),
        };
        let lr = o.lr * warm * share;
        AdamW { lr, beta1: 0.9, beta2: o.beta2, eps: o.eps, weight_decay: o.weight_decay }
    }

    /// The share of the learning rate that a parameter has.
    pub(super) fn lr_share(&self, name: &str) -> f64 {
        let shares = self.optimiser.lr_share_of.iter().filter(|(part, _)| name.contains(part.as_str()));
        shares.map(|(_, share)| *share).product()
    }
}

impl Sizes {
    /// The `config.json` of the model, in Hugging Face's terms.
    pub(super) fn config_json(&self, vocab_size: usize) -> serde_json::Value {
        let m = self;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_early_end_changes_nothing_before_it() {
        let path = crate::assets::backbone().unwrap().join("recipe.toml");
        let recipe = Recipe::read(&path).unwrap();
        let optimiser = Optimiser { warm_up: 1, ..recipe.optimiser.clone() };
        let (phases, stop_after, decay_from) = (Vec::new(), None, None);
        let whole = Recipe { steps: 100, stop_after, decay_from, phases, optimiser, ..recipe };
        let early = Recipe { stop_after: Some(60), decay_from: Some(40), ..whole.clone() };
        let rate = |recipe: &Recipe, step| recipe.optimiser_at(step).lr;
        assert!((0..=40).all(|step| rate(&whole, step) == rate(&early, step)));
        assert!((41..60).all(|step| rate(&early, step) < rate(&early, step - 1)));
        let last = whole.optimiser.lr * whole.optimiser.final_share;
        assert!((rate(&early, 60) - last).abs() < 1e-12);
        let weights = |step| whole.weights_at(step);
        let later = Recipe {
            phases: vec![Phase {
                from: 5,
                weights: [("color".to_owned(), 7.0)].into(),
                only: BTreeMap::new(),
                prompting_share: Some(0.75),
                diversity_weight: None,
            }],
            ..whole.clone()
        };
        assert_eq!(later.weights_at(4), weights(4));
        assert_eq!(later.weights_at(5)["color"], 7.0);
        assert_eq!(later.weights_at(9)["words"], weights(9)["words"]);
        let share = whole.prompting.share;
        assert_eq!([4, 5].map(|step| later.prompting_share_at(step)), [share, 0.75]);
        assert_eq!(later.diversity_weight_at(9), whole.diversity.weight);
    }
}
