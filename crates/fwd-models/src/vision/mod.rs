//! The vision towers a model can have: the vision transformer of EVA, CLIP or DINOv2, or EfficientNet-Lite0 with a neck.
//!
//! What a tower computes of an image falls into two steps. [`VisionTower::features`] runs the frozen network: its result
//! depends on the pixels alone and can be kept. [`VisionTower::tokens`] makes of it what the bridge reads: nothing is left to do for
//! EVA and DINOv2; CLIP's class token is left out, which stays among the features because it is the image query of a prompt pool;
//! the neck of EfficientNet-Lite0 is a linear map with positions and a layer norm,
//!
//! ```text
//! token[i] = layer_norm(W·[last[i] ; the 2×2 block of mid over cell i] + b + position[i])        i: the cells of the last map
//! ```

mod clip;
mod dinov2;
mod eva;
mod family;
mod lite0;
mod positions;
mod vit;

pub use lite0::{EfficientNetLite0, Lite0Features};
pub use vit::VisionTransformer;

use crate::config::{VisionConfig, VisionKind};
use crate::error::{ModelError, Result};
use crate::tap::Tap;
use crate::weights::Scope;
use candle_core::Tensor;
use fwd_ops::{Linear, Norm};

const LAST_CHANNELS: usize = EfficientNetLite0::LAST_CHANNELS;
const MID_CHANNELS: usize = EfficientNetLite0::MID_CHANNELS;

/// A vision tower with its way from features to image tokens.
#[derive(Debug, Clone)]
pub enum VisionTower {
    /// The transformer of BLIP-2 and InstructBLIP (EVA), of LLaVA (CLIP), or DINOv2.
    Transformer(VisionTransformer),
    /// EfficientNet-Lite0 and the neck that was trained with the Q-Former.
    Lite0(EfficientNetLite0, Neck),
}

/// Channels of a cell: the last map, and four cells of the middle one.
pub const CELL_CHANNELS: usize = LAST_CHANNELS + 4 * MID_CHANNELS;

/// The cells of a side of the last map of EfficientNet-Lite0 lie so many pixels apart.
const LITE0_STRIDE: usize = 32;

/// The map from the features of EfficientNet-Lite0 to image tokens.
#[derive(Debug, Clone)]
pub struct Neck {
    map: Linear,
    /// `(n_cells, d)`.
    positions: Tensor,
    norm: Norm,
}

impl Neck {
    pub(crate) fn new(config: &VisionConfig, mut weights: Scope<'_>) -> Result<Self> {
        let d = config.hidden_size;
        Ok(Self {
            map: weights.linear("map", d, CELL_CHANNELS, true)?,
            positions: weights.get("positions", &[config.n_lite0_cells(), d])?,
            norm: weights.layer_norm("layernorm", d, config.layer_norm_eps)?,
        })
    }

    fn forward(&self, features: &Tensor) -> Result<Tensor> {
        Ok(self.norm.forward(&self.map.forward(features)?.broadcast_add(&self.positions)?)?)
    }
}

impl VisionConfig {
    /// Whether the tower is EfficientNet-Lite0 and not the transformer.
    pub fn is_lite0(&self) -> bool {
        self.kind() == Some(VisionKind::Lite0)
    }

    /// Cells of the last map of EfficientNet-Lite0.
    pub(crate) fn n_lite0_cells(&self) -> usize {
        self.image_size.div_ceil(LITE0_STRIDE).pow(2)
    }

    /// Width of the pooled output of the tower, the image query of a prompt pool.
    pub fn query_width(&self) -> usize {
        if self.is_lite0() { LAST_CHANNELS } else { self.hidden_size }
    }
}

impl VisionTower {
    pub(crate) fn new(config: &VisionConfig, mut root: Scope<'_>) -> Result<Self> {
        if !config.is_lite0() {
            let (n_layers, weights) = (config.num_hidden_layers, root.at("vision_model"));
            return Ok(Self::Transformer(VisionTransformer::up_to(config, n_layers, weights)?));
        }
        // The published names of this network have no prefix.
        let network = EfficientNetLite0::new(root.same())?;
        Ok(Self::Lite0(network, Neck::new(config, root.at("vision_model.neck"))?))
    }

    /// What the frozen network computes of images.
    ///
    /// # Shapes
    /// `pixels (batch, 3, image_size, image_size)` on any device -> `(batch, 1 + n_patches, d)` for a transformer,
    /// `(batch, n_cells, CELL_CHANNELS)` for EfficientNet-Lite0, on the device of the parameters.
    ///
    /// # Errors
    /// [`ModelError::Input`] for another image size.
    pub fn features(&self, pixels: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        match self {
            Self::Transformer(tower) => tower.forward(pixels, tap),
            Self::Lite0(network, neck) => {
                let maps = network.forward(pixels)?;
                let (batch, cells, _) = maps.last.dims3()?;
                if cells != neck.positions.dim(0)? {
                    let what = format!("{:?}: {cells} cells, the neck was trained on others", pixels.shape());
                    return Err(ModelError::input("vision tower", what));
                }
                let side = cells.isqrt();
                let blocks = maps.mid.reshape((batch, side, 2, side, 2 * MID_CHANNELS))?;
                let blocks = blocks.permute((0, 1, 3, 2, 4))?.reshape((batch, cells, 4 * MID_CHANNELS))?;
                Ok(Tensor::cat(&[&maps.last, &blocks], 2)?.to_device(neck.positions.device())?)
            }
        }
    }

    /// The tokens that the bridge reads, `(batch, n_tokens, hidden_size)`.
    ///
    /// # Errors
    /// Features of another width.
    pub fn tokens(&self, features: &Tensor) -> Result<Tensor> {
        match self {
            Self::Transformer(tower) if tower.class_is_read => Ok(features.clone()),
            Self::Transformer(_) => {
                Ok(features.narrow(1, 1, features.dim(1)?.saturating_sub(1))?.contiguous()?)
            }
            Self::Lite0(_, neck) => neck.forward(features),
        }
    }

    /// The image query of a prompt pool: the class token of a transformer, or the mean of the last map; `(batch, query_width)`. CLIP's
    /// class token is that of the layer that the bridge reads.
    ///
    /// # Errors
    /// An error of candle.
    pub fn query(&self, features: &Tensor) -> Result<Tensor> {
        match self {
            Self::Transformer(_) => Ok(features.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?),
            Self::Lite0(..) => Ok(features.narrow(2, 0, LAST_CHANNELS)?.mean(1)?),
        }
    }
}
