//! The vision transformer of CLIP (Radford et al. 2021): a layer norm before the first layer, quick GELU, patches without bias.
//!
//! LLaVA reads what a layer in the middle gives, without the class token and without the norm at the end, which is therefore not part
//! of this tower: Hugging Face too applies it to the pooled class token alone. The class token of that layer is kept as the image
//! query of a prompt pool.

use super::vit::{VisionTransformer, attention, patch_map};
use crate::config::{VisionConfig, activation};
use crate::error::Result;
use crate::weights::Scope;
use fwd_ops::{FeedForwardSublayer, FeedForwardWeights, Linear, Norm};

pub(super) fn tower(
    config: &VisionConfig,
    n_layers: usize,
    mut weights: Scope<'_>,
) -> Result<VisionTransformer> {
    let (d, eps) = (config.hidden_size, config.layer_norm_eps);
    let n_tokens = (config.image_size / config.patch_size).pow(2) + 1;
    let act = activation("vision_config", &config.hidden_act)?;
    let mut embeddings = weights.at("embeddings");
    let patch = patch_map(&mut embeddings, "patch_embedding", config, false)?;
    let class_token = embeddings.get("class_embedding", &[d])?.reshape((1, 1, d))?;
    let positions = embeddings.get("position_embedding.weight", &[n_tokens, d])?.unsqueeze(0)?;
    // The published names have this letter too many.
    let pre_norm = weights.layer_norm("pre_layrnorm", d, eps)?;
    let mut layers = Vec::new();
    for i in 0..n_layers {
        let mut layer = weights.at(&format!("encoder.layers.{i}"));
        let pre = layer.layer_norm("layer_norm1", d, eps)?;
        let mut map = |name: &str| layer.linear(&format!("self_attn.{name}"), d, d, true);
        let projection = Linear::stacked(&[&map("q_proj")?, &map("k_proj")?, &map("v_proj")?])?;
        let output = map("out_proj")?;
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
        pre_norm,
        layers,
        final_norm: Norm::identity(),
        image_size: config.image_size,
        patch_size: config.patch_size,
        reads_any_size: false,
        class_is_read: false,
    })
}
