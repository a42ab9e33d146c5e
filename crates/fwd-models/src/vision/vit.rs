//! The EVA-style vision transformer of BLIP-2 and InstructBLIP (Fang et al. 2022; pre-norm, packed qkv, erf GELU).
//!
//! The class token comes first, one position embedding covers it and the patches, and the final layer norm applies to all
//! tokens, all of which the Q-Former attends to.

use crate::config::{VisionConfig, activation};
use crate::error::{ModelError, Result};
use crate::tap::Tap;
use crate::weights::Scope;
use candle_core::Tensor;
use fwd_ops::{
    AttentionBias, AttentionSublayer, AttentionWeights, FeedForwardSublayer, FeedForwardWeights, Linear, Norm,
};

/// The vision tower of the published checkpoints.
#[derive(Debug, Clone)]
pub struct VisionTransformer {
    /// The patch convolution as a linear map of flattened patches `(3·patch·patch)`.
    patch: Linear,
    /// `(1, 1, d)`.
    class_token: Tensor,
    /// `(1, 1 + n_patches, d)`.
    positions: Tensor,
    layers: Vec<(AttentionSublayer, FeedForwardSublayer)>,
    final_norm: Norm,
    image_size: usize,
    patch_size: usize,
}

impl VisionTransformer {
    pub(crate) fn new(config: &VisionConfig, mut weights: Scope<'_>) -> Result<Self> {
        let (d, patch) = (config.hidden_size, config.patch_size);
        let n_tokens = (config.image_size / patch).pow(2) + 1;
        let act = activation("vision_config", &config.hidden_act)?;
        let mut embeddings = weights.at("embeddings");
        let kernel = embeddings
            .get("patch_embedding.weight", &[d, 3, patch, patch])?
            .reshape((d, 3 * patch * patch))?;
        let patch_map = Linear::new(kernel, Some(embeddings.get("patch_embedding.bias", &[d])?))?;
        let class_token = embeddings.get_f32("class_embedding", &[1, 1, d])?;
        let positions = embeddings.get_f32("position_embedding", &[1, n_tokens, d])?;
        let mut layers = Vec::new();
        for i in 0..config.num_hidden_layers {
            let mut layer = weights.at(&format!("encoder.layers.{i}"));
            let attention = AttentionSublayer::new(AttentionWeights {
                pre: layer.layer_norm("layer_norm1", d, config.layer_norm_eps)?,
                projection: layer.linear("self_attn.qkv", 3 * d, d, config.qkv_bias)?,
                output: layer.linear("self_attn.projection", d, d, true)?,
                post: Norm::identity(),
                n_heads: config.num_attention_heads,
                n_kv_heads: config.num_attention_heads,
                scale: ((d / config.num_attention_heads) as f64).powf(-0.5),
            })?;
            let feed_forward = FeedForwardSublayer::new(FeedForwardWeights {
                pre: layer.layer_norm("layer_norm2", d, config.layer_norm_eps)?,
                input: layer.linear("mlp.fc1", config.intermediate_size, d, true)?,
                activation: act,
                gated: false,
                output: layer.linear("mlp.fc2", d, config.intermediate_size, true)?,
                post: Norm::identity(),
            })?;
            layers.push((attention, feed_forward));
        }
        let final_norm = weights.layer_norm("post_layernorm", d, config.layer_norm_eps)?;
        let (image_size, patch_size) = (config.image_size, patch);
        Ok(Self { patch: patch_map, class_token, positions, layers, final_norm, image_size, patch_size })
    }

    /// Features of every token, the class token first.
    ///
    /// # Shapes
    /// `pixels (batch, 3, image_size, image_size)`, normalised f32 -> `(batch, 1 + n_patches, d)`.
    ///
    /// # Errors
    /// [`ModelError::Input`] for another image size.
    pub fn forward(&self, pixels: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        let patches = self.patches(&pixels.to_device(self.class_token.device())?)?;
        let (batch, _, _) = patches.dims3()?;
        let embedded = self.patch.forward(&patches)?;
        let d = self.patch.n_out();
        let class = self.class_token.broadcast_as((batch, 1, d))?;
        let mut x = Tensor::cat(&[&class, &embedded], 1)?.broadcast_add(&self.positions)?;
        tap.see("vision.embeddings", &x);
        let bias = AttentionBias::none();
        for (i, (attention, feed_forward)) in self.layers.iter().enumerate() {
            x = feed_forward.forward(&attention.forward(&x, &bias)?)?;
            tap.see_layer("vision.layer", i, &x);
        }
        x = self.final_norm.forward(&x)?;
        tap.see("vision.last_hidden_state", &x);
        Ok(x)
    }

    /// `(batch, n_patches, 3·patch·patch)`: a convolution whose stride is its size is a product with flattened patches.
    fn patches(&self, pixels: &Tensor) -> Result<Tensor> {
        let (size, patch) = (self.image_size, self.patch_size);
        let &[batch, 3, height, width] = pixels.dims() else {
            let what = format!("pixels must be (batch, 3, {size}, {size}), got {:?}", pixels.shape());
            return Err(ModelError::input("vision tower", what));
        };
        if height != size || width != size {
            let what = format!("the images are {height}x{width}, the model was trained on {size}x{size}");
            return Err(ModelError::input("vision tower", what));
        }
        let n = size / patch;
        Ok(pixels
            .narrow(2, 0, n * patch)?
            .narrow(3, 0, n * patch)?
            .reshape((batch, 3, n, patch, n, patch))?
            .permute((0, 2, 4, 1, 3, 5))?
            .reshape((batch, n * n, 3 * patch * patch))?)
    }
}
