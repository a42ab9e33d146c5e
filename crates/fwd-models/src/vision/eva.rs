//! The EVA-style vision transformer of BLIP-2 and InstructBLIP (Fang et al. 2022; packed qkv, erf GELU).
//!
//! One position embedding covers the class token and the patches, and the final layer norm applies to all tokens, all of which the
//! Q-Former attends to.

use super::vit::{VisionTransformer, attention, patch_map};
use crate::config::{VisionConfig, activation};
use crate::error::Result;
use crate::weights::Scope;
use fwd_ops::{FeedForwardSublayer, FeedForwardWeights, Norm};

pub(super) fn tower(
    config: &VisionConfig,
    n_layers: usize,
    mut weights: Scope<'_>,
) -> Result<VisionTransformer> {
    let (d, eps) = (config.hidden_size, config.layer_norm_eps);
    let n_tokens = (config.image_size / config.patch_size).pow(2) + 1;
    let act = activation("vision_config", &config.hidden_act)?;
    let mut embeddings = weights.at("embeddings");
    let patch = patch_map(&mut embeddings, "patch_embedding", config, true)?;
    let class_token = embeddings.get("class_embedding", &[1, 1, d])?;
    let positions = embeddings.get("position_embedding", &[1, n_tokens, d])?;
    let mut layers = Vec::new();
    for i in 0..n_layers {
        let mut layer = weights.at(&format!("encoder.layers.{i}"));
        let pre = layer.layer_norm("layer_norm1", d, eps)?;
        let projection = layer.linear("self_attn.qkv", 3 * d, d, config.qkv_bias)?;
        let output = layer.linear("self_attn.projection", d, d, true)?;
        let feed_forward = FeedForwardSublayer::new(FeedForwardWeights {
            pre: layer.layer_norm("layer_norm2", d, eps)?,
            input: layer.linear("mlp.fc1", config.intermediate_size, d, true)?,
            activation: act,
            gated: false,
            output: layer.linear("mlp.fc2", d, config.intermediate_size, true)?,
            post: Norm::identity(),
        })?;
        layers.push((attention(config, pre, projection, output)?, feed_forward));
    }
    Ok(VisionTransformer {
        patch,
        class_token,
        positions,
        pre_norm: Norm::identity(),
        layers,
        final_norm: weights.layer_norm("post_layernorm", d, eps)?,
        image_size: config.image_size,
        patch_size: config.patch_size,
        reads_any_size: false,
        class_is_read: true,
    })
}
