//! What the vision transformers have in common: EVA, CLIP and DINOv2 (Dosovitskiy et al. 2021; pre-norm).
//!
//! ```text
//! x = [class ; W·patch₁ + b ; W·patch₂ + b ; …] + positions        the class token first
//! x = pre_norm(x)                                                  CLIP alone
//! x = x + attention(norm(x));  x = x + mlp(norm(x))                in every layer
//! y = final_norm(x)                                                EVA and DINOv2
//! ```
//!
//! [`super::eva`], [`super::clip`] and [`super::dinov2`] say under which names the parameters lie.

use super::positions::interpolated_positions;
use crate::config::VisionConfig;
use crate::error::{ModelError, Result};
use crate::tap::Tap;
use crate::weights::Scope;
use candle_core::Tensor;
use fwd_ops::{AttentionBias, AttentionSublayer, AttentionWeights, FeedForwardSublayer, Linear, Norm};

/// A frozen vision transformer.
#[derive(Debug, Clone)]
pub struct VisionTransformer {
    /// The patch convolution as a linear map of flattened patches `(3·patch·patch)`.
    pub(super) patch: Linear,
    /// `(1, 1, d)`.
    pub(super) class_token: Tensor,
    /// `(1, 1 + n², d)` with `n = image_size / patch_size`.
    pub(super) positions: Tensor,
    pub(super) pre_norm: Norm,
    pub(super) layers: Vec<(AttentionSublayer, FeedForwardSublayer)>,
    pub(super) final_norm: Norm,
    pub(super) image_size: usize,
    pub(super) patch_size: usize,
    /// Whether images of other sizes are read too, with interpolated positions.
    pub(super) reads_any_size: bool,
    /// Whether the class token is one of the tokens that a bridge reads.
    pub(super) class_is_read: bool,
}

impl VisionTransformer {
    /// Features of every token, the class token first.
    ///
    /// # Shapes
    /// `pixels (batch, 3, image_size, image_size)`, normalised f32 -> `(batch, 1 + n_patches, d)`. DINOv2 reads images of any height
    /// and width, of which `height / patch_size` times `width / patch_size` patches are taken.
    ///
    /// # Errors
    /// [`ModelError::Input`] for another image size.
    pub fn forward(&self, pixels: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        self.forward_at(&[self.layers.len()], pixels, tap)
    }

    /// As [`Self::forward`], of the tokens after so many layers, for several such numbers: each state goes through the final norm, and their channels
    /// stand one behind the other, `(batch, 1 + n_patches, d·n)` for `n` numbers in order.
    pub(super) fn forward_at(&self, read: &[usize], pixels: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        let (patches, grid) = self.patches(&pixels.to_device(self.class_token.device())?)?;
        let (batch, _, _) = patches.dims3()?;
        let embedded = self.patch.forward(&patches)?;
        tap.see("vision.patch_embeddings", &embedded);
        let side = self.image_size / self.patch_size;
        let positions = if grid == (side, side) {
            self.positions.clone()
        } else {
            interpolated_positions(&self.positions, side, grid)?
        };
        tap.see("vision.position_embeddings", &positions);
        let d = self.patch.n_out();
        let class = self.class_token.broadcast_as((batch, 1, d))?;
        let mut x = Tensor::cat(&[&class, &embedded], 1)?.broadcast_add(&positions)?;
        tap.see("vision.embeddings", &x);
        x = self.pre_norm.forward(&x)?;
        tap.see("vision.pre_layernorm", &x);
        let bias = AttentionBias::none();
        let mut states = Vec::new();
        if read.contains(&0) {
            states.push(self.final_norm.forward(&x)?);
        }
        for (i, (attention, feed_forward)) in self.layers.iter().enumerate() {
            x = attention.forward(&x, &bias)?;
            tap.see_layer("vision.attention", i, &x);
            x = feed_forward.forward(&x)?;
            tap.see_layer("vision.layer", i, &x);
            if read.contains(&(i + 1)) {
                states.push(self.final_norm.forward(&x)?);
            }
        }
        let last = Tensor::cat(&states, 2)?;
        tap.see("vision.last_hidden_state", &last);
        Ok(last)
    }

    /// `(batch, n_patches, 3·patch·patch)` with the number of rows and columns of patches: a convolution whose stride is its size
    /// is a product with flattened patches.
    fn patches(&self, pixels: &Tensor) -> Result<(Tensor, (usize, usize))> {
        let (size, patch) = (self.image_size, self.patch_size);
        let &[batch, 3, height, width] = pixels.dims() else {
            let what = format!("pixels must be (batch, 3, {size}, {size}), got {:?}", pixels.shape());
            return Err(ModelError::input("vision tower", what));
        };
        if !self.reads_any_size && (height != size || width != size) {
            let what = format!("the images are {height}x{width}, the model was trained on {size}x{size}");
            return Err(ModelError::input("vision tower", what));
        }
        let (n_rows, n_columns) = (height / patch, width / patch);
        if n_rows == 0 || n_columns == 0 {
            let what = format!("the images are {height}x{width}, smaller than a patch of {patch}x{patch}");
            return Err(ModelError::input("vision tower", what));
        }
        let patches = pixels
            .narrow(2, 0, n_rows * patch)?
            .narrow(3, 0, n_columns * patch)?
            .reshape((batch, 3, n_rows, patch, n_columns, patch))?
            .permute((0, 2, 4, 1, 3, 5))?
            .reshape((batch, n_rows * n_columns, 3 * patch * patch))?;
        Ok((patches, (n_rows, n_columns)))
    }
}

/// The patch convolution `{name}.weight (d, 3, patch, patch)` as a linear map of flattened patches.
pub(super) fn patch_map(
    weights: &mut Scope<'_>,
    name: &str,
    config: &VisionConfig,
    bias: bool,
) -> Result<Linear> {
    let (d, patch) = (config.hidden_size, config.patch_size);
    let kernel = weights.get(&format!("{name}.weight"), &[d, 3, patch, patch])?;
    let bias = if bias { Some(weights.get(&format!("{name}.bias"), &[d])?) } else { None };
    weights.map(kernel.reshape((d, 3 * patch * patch))?, bias)
}

/// The attention of a layer, `x + output(attention(projection(pre(x))))`; the projection is packed, `[q ; k ; v]`.
pub(super) fn attention(
    config: &VisionConfig,
    pre: Norm,
    projection: Linear,
    output: Linear,
) -> Result<AttentionSublayer> {
    let n_heads = config.num_attention_heads;
    let scale = ((config.hidden_size / n_heads) as f64).powf(-0.5);
    Ok(AttentionSublayer::new(AttentionWeights {
        pre,
        projection,
        output,
        post: Norm::identity(),
        n_heads,
        n_kv_heads: n_heads,
        scale,
    })?)
}
