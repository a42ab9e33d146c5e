//! `vision_config`: the vision tower.

use super::field::{LAYERS, LENGTH, WIDTH, activation, at_most, divides, epsilon, not_zero};
use serde::Deserialize;

/// The vision tower: the EVA-style transformer, or EfficientNet-Lite0 (`model_type` `efficientnet_lite0`, of which width, image
/// size and epsilon alone matter).
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct VisionConfig {
    /// `efficientnet_lite0` is EfficientNet-Lite0; everything else is the transformer.
    pub model_type: String,
    /// Width of the tokens that the Q-Former attends to.
    pub hidden_size: usize,
    /// Width of the hidden layer of a feed-forward sublayer.
    pub intermediate_size: usize,
    /// Blocks of attention and feed-forward.
    pub num_hidden_layers: usize,
    /// Heads of every attention; they share `hidden_size` evenly.
    pub num_attention_heads: usize,
    /// Side of the square input image in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Activation of the feed-forward layers by its Hugging Face name (`gelu`, `gelu_new`, `relu` …).
    pub hidden_act: String,
    /// ε under the root of every layer norm.
    pub layer_norm_eps: f64,
    /// Whether the packed projection has a bias.
    pub qkv_bias: bool,
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            model_type: "instructblip_vision_model".into(),
            hidden_size: 1408,
            intermediate_size: 6144,
            num_hidden_layers: 39,
            num_attention_heads: 16,
            image_size: 224,
            patch_size: 14,
            hidden_act: "gelu".into(),
            layer_norm_eps: 1e-6,
            qkv_bias: true,
        }
    }
}

impl VisionConfig {
    /// What makes the tower impossible, if anything.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        not_zero(&[
            ("vision_config.patch_size", self.patch_size),
            ("vision_config.hidden_size", self.hidden_size),
            ("vision_config.num_attention_heads", self.num_attention_heads),
        ])?;
        at_most(&[
            ("vision_config.num_hidden_layers", self.num_hidden_layers, LAYERS),
            ("vision_config.image_size", self.image_size, LENGTH),
            ("vision_config.hidden_size", self.hidden_size, WIDTH),
            ("vision_config.intermediate_size", self.intermediate_size, WIDTH),
        ])?;
        epsilon("vision_config.layer_norm_eps", self.layer_norm_eps)?;
        activation("vision_config", &self.hidden_act).map_err(|e| e.to_string())?;
        if self.image_size < self.patch_size {
            let what = (self.image_size, self.patch_size);
            return Err(format!("image_size {} is smaller than patch_size {}", what.0, what.1));
        }
        divides("vision_config", self.hidden_size, self.num_attention_heads)
    }
}
