//! DINOv2 (Oquab et al. 2023): a vision transformer with layer scale that reads images of any size.
//!
//! ```text
//! x = x + λ₁∘attention(norm(x));  x = x + λ₂∘mlp(norm(x))
//! ```
//!
//! λ is folded into the map before it, `λ∘(W·h + b) = (λ∘W)·h + λ∘b`, in f32 when the parameters are loaded. The final norm applies to
//! all tokens; the class token is the pooled output.

use super::vit::{VisionTransformer, attention, patch_map};
use crate::config::{VisionConfig, activation};
use crate::error::Result;
use crate::weights::Scope;
use fwd_ops::{Activation, FeedForwardSublayer, FeedForwardWeights, Linear, Norm};

pub(super) fn tower(
    config: &VisionConfig,
    n_layers: usize,
    mut weights: Scope<'_>,
) -> Result<VisionTransformer> {
    let (d, eps) = (config.hidden_size, config.layer_norm_eps);
    let n_tokens = (config.image_size / config.patch_size).pow(2) + 1;
    let mut embeddings = weights.at("embeddings");
    let patch = patch_map(&mut embeddings, "patch_embeddings.projection", config, true)?;
    let class_token = embeddings.get("cls_token", &[1, 1, d])?;
    let positions = embeddings.get("position_embeddings", &[1, n_tokens, d])?;
    let mut layers = Vec::new();
    for i in 0..n_layers {
        let mut layer = weights.at(&format!("encoder.layer.{i}"));
        let pre = layer.layer_norm("norm1", d, eps)?;
        let mut map =
            |name: &str| layer.linear(&format!("attention.attention.{name}"), d, d, config.qkv_bias);
        let projection = Linear::stacked(&[&map("query")?, &map("key")?, &map("value")?])?;
        let output = scaled(&mut layer, "attention.output.dense", "layer_scale1", d, d)?;
        let attention = attention(config, pre, projection, output)?;
        layers.push((attention, feed_forward(config, &mut layer)?));
    }
    Ok(VisionTransformer {
        patch,
        class_token,
        positions,
        pre_norm: Norm::identity(),
        layers,
        final_norm: weights.layer_norm("layernorm", d, eps)?,
        image_size: config.image_size,
        patch_size: config.patch_size,
        reads_any_size: true,
        class_is_read: true,
    })
}

fn feed_forward(config: &VisionConfig, layer: &mut Scope<'_>) -> Result<FeedForwardSublayer> {
    let (d, hidden) = (config.hidden_size, config.intermediate_size);
    let pre = layer.layer_norm("norm2", d, config.layer_norm_eps)?;
    let gated = config.use_swiglu_ffn;
    let (activation, input, output) = if gated {
        (Activation::Silu, layer.linear("mlp.weights_in", 2 * hidden, d, true)?, "mlp.weights_out")
    } else {
        let activation = activation("vision_config", &config.hidden_act)?;
        (activation, layer.linear("mlp.fc1", hidden, d, true)?, "mlp.fc2")
    };
    let output = scaled(layer, output, "layer_scale2", d, hidden)?;
    let post = Norm::identity();
    Ok(FeedForwardSublayer::new(FeedForwardWeights { pre, input, activation, gated, output, post })?)
}

/// The map `name` with the layer scale behind it folded in. Its weight is in f32, whatever type the others are kept in.
fn scaled(layer: &mut Scope<'_>, name: &str, scale: &str, n_out: usize, n_in: usize) -> Result<Linear> {
    let lambda = layer.get(&format!("{scale}.lambda1"), &[n_out])?;
    let weight = layer.get(&format!("{name}.weight"), &[n_out, n_in])?;
    let bias = layer.get(&format!("{name}.bias"), &[n_out])?;
    layer.map(weight.broadcast_mul(&lambda.unsqueeze(1)?)?, Some((bias * lambda)?))
}
