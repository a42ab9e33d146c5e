//! The vision towers a model can have: the vision transformer of EVA, CLIP or DINOv2, or EfficientNet-Lite0 with a neck.
//!
//! What a tower computes of an image falls into two steps. [`VisionTower::features`] runs the frozen network: its result
//! depends on the pixels alone and can be kept. [`VisionTower::tokens`] makes of it what the bridge reads: nothing is left to do for
//! EVA and DINOv2; CLIP's class token is left out, which stays among the features because it is the image query of a prompt pool.
//! EfficientNet-Lite0 has a [`Neck`], and a DINOv2 may have one: a linear map with positions and a layer norm,
//!
//! ```text
//! token[i] = layer_norm(W·feature[i] + b + position[i])
//! feature[i] = [last[i] ; the 2×2 block of mid over cell i]                        EfficientNet-Lite0, i: the cells of the last map
//! ```

mod clip;
mod dinov2;
mod eva;
mod family;
mod lite0;
mod positions;
mod vit;

pub use lite0::{EfficientNetLite0, Lite0Features};
pub use positions::interpolated_positions;
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
pub struct VisionTower {
    network: Network,
    /// What is trained with the bridge, if anything is.
    neck: Option<Neck>,
}

#[derive(Debug, Clone)]
enum Network {
    /// The transformer of BLIP-2 and InstructBLIP (EVA), of LLaVA (CLIP), or DINOv2; and the layers after which its tokens are read.
    Transformer(VisionTransformer, Vec<usize>),
    Lite0(EfficientNetLite0),
}

/// Channels of a cell: the last map, and four cells of the middle one.
pub const CELL_CHANNELS: usize = LAST_CHANNELS + 4 * MID_CHANNELS;

/// Where the parameters of a neck lie.
const NECK: &str = "vision_model.neck";

/// The cells of a side of the last map of EfficientNet-Lite0 lie so many pixels apart.
const LITE0_STRIDE: usize = 32;

/// A trained map from the features of a frozen network to image tokens.
#[derive(Debug, Clone)]
pub struct Neck {
    map: Linear,
    /// `(n_tokens, d)`.
    positions: Tensor,
    norm: Norm,
}

impl Neck {
    pub(crate) fn new(config: &VisionConfig, mut weights: Scope<'_>) -> Result<Self> {
        let (d, (n_tokens, n_channels)) = (config.token_width(), config.feature_shape());
        Ok(Self {
            map: weights.linear("map", d, n_channels, true)?,
            positions: weights.get("positions", &[n_tokens, d])?,
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

    /// Tokens and channels of what the network computes of an image of its own size.
    pub fn feature_shape(&self) -> (usize, usize) {
        if self.is_lite0() {
            return (self.image_size.div_ceil(LITE0_STRIDE).pow(2), CELL_CHANNELS);
        }
        let n_tokens = 1 + (self.image_size / self.patch_size).pow(2);
        (n_tokens, self.hidden_size * self.out_indices.len())
    }

    /// Width of the tokens that the bridge reads.
    pub fn token_width(&self) -> usize {
        match self.neck_width {
            Some(width) => width,
            None if self.is_lite0() => self.hidden_size,
            None => self.feature_shape().1,
        }
    }

    /// Width of the pooled output of the tower, the image query of a prompt pool.
    pub fn query_width(&self) -> usize {
        if self.is_lite0() { LAST_CHANNELS } else { self.hidden_size }
    }
}

impl VisionTower {
    pub(crate) fn new(config: &VisionConfig, mut root: Scope<'_>) -> Result<Self> {
        let network = if config.is_lite0() {
            // The published names of this network have no prefix.
            Network::Lite0(EfficientNetLite0::new(root.same())?)
        } else {
            let (n_layers, weights) = (config.num_hidden_layers, root.at("vision_model"));
            let tower = VisionTransformer::up_to(config, n_layers, weights)?;
            Network::Transformer(tower, config.out_indices.clone())
        };
        let has_neck = config.is_lite0() || config.neck_width.is_some();
        let neck = if has_neck { Some(Neck::new(config, root.at(NECK))?) } else { None };
        Ok(Self { network, neck })
    }

    /// A transformer whose bridge reads the tokens after its last layer.
    pub(crate) fn of(tower: VisionTransformer) -> Self {
        let last = tower.layers.len();
        Self { network: Network::Transformer(tower, vec![last]), neck: None }
    }

    /// The same with a neck made anew, if there is one and `root` has its parameters.
    pub(crate) fn with_parameters(&self, config: &VisionConfig, mut root: Scope<'_>) -> Result<Self> {
        let mut tower = self.clone();
        if tower.neck.is_some() && root.has(&format!("{NECK}.map.weight")) {
            tower.neck = Some(Neck::new(config, root.at(NECK))?);
        }
        Ok(tower)
    }

    /// What the frozen network computes of images.
    ///
    /// # Shapes
    /// `pixels (batch, 3, image_size, image_size)` on any device -> `(batch, 1 + n_patches, d·n)` for a transformer that is read after `n`
    /// layers,
    /// `(batch, n_cells, CELL_CHANNELS)` for EfficientNet-Lite0, on the device of the parameters.
    ///
    /// # Errors
    /// [`ModelError::Input`] for another image size.
    pub fn features(&self, pixels: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        let features = match &self.network {
            Network::Transformer(tower, read) => tower.forward_at(read, pixels, tap)?,
            Network::Lite0(network) => {
                let maps = network.forward(pixels)?;
                let (batch, cells, _) = maps.last.dims3()?;
                let side = cells.isqrt();
                let blocks = maps.mid.reshape((batch, side, 2, side, 2 * MID_CHANNELS))?;
                let blocks = blocks.permute((0, 1, 3, 2, 4))?.reshape((batch, cells, 4 * MID_CHANNELS))?;
                Tensor::cat(&[&maps.last, &blocks], 2)?
            }
        };
        let Some(neck) = &self.neck else { return Ok(features) };
        let n_tokens = features.dim(1)?;
        if n_tokens != neck.positions.dim(0)? {
            let what = format!("{:?}: {n_tokens} tokens, the neck was trained on others", pixels.shape());
            return Err(ModelError::input("vision tower", what));
        }
        Ok(features.to_device(neck.positions.device())?)
    }

    /// The tokens that the bridge reads, `(batch, n_tokens, token_width)`.
    ///
    /// # Errors
    /// Features of another width.
    pub fn tokens(&self, features: &Tensor) -> Result<Tensor> {
        match (&self.neck, &self.network) {
            (Some(neck), _) => neck.forward(features),
            (None, Network::Transformer(tower, _)) if !tower.class_is_read => {
                Ok(features.narrow(1, 1, features.dim(1)?.saturating_sub(1))?.contiguous()?)
            }
            (None, _) => Ok(features.clone()),
        }
    }

    /// The image query of a prompt pool: the class token of a transformer after the last layer that the bridge reads, or the mean of the
    /// last map; `(batch, query_width)`.
    ///
    /// # Errors
    /// An error of candle.
    pub fn query(&self, features: &Tensor) -> Result<Tensor> {
        match &self.network {
            Network::Transformer(_, read) => {
                let width = features.dim(2)? / read.len();
                let class = features.narrow(1, 0, 1)?.narrow(2, (read.len() - 1) * width, width)?;
                Ok(class.squeeze(1)?.contiguous()?)
            }
            Network::Lite0(_) => Ok(features.narrow(2, 0, LAST_CHANNELS)?.mean(1)?),
        }
    }
}
