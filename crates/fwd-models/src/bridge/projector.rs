//! LLaVA's way from the vision tower to the language model, `W₂·act(W₁·x + b₁) + b₂` for every token of an image (Liu et al. 2024).

use crate::config::{LlavaConfig, activation};
use crate::error::Result;
use crate::tap::Tap;
use crate::weights::Scope;
use candle_core::Tensor;
use fwd_ops::{Activation, Linear, MapChange};

/// The map from image features to visual tokens.
#[derive(Debug, Clone)]
pub(crate) struct Projector {
    first: Linear,
    activation: Activation,
    second: Linear,
}

impl Projector {
    /// Reads `linear_1` and `linear_2`.
    pub(crate) fn new(config: &LlavaConfig, mut weights: Scope<'_>) -> Result<Self> {
        let (d_model, d_image) = (config.text.d_model(), config.vision.hidden_size);
        let bias = config.multimodal_projector_bias;
        Ok(Self {
            first: weights.linear("linear_1", d_model, d_image, bias)?,
            activation: activation("projector_hidden_act", &config.projector_hidden_act)?,
            second: weights.linear("linear_2", d_model, d_model, bias)?,
        })
    }

    /// The same with what `change` makes of its linear maps.
    pub(crate) fn with_maps(&self, change: &mut MapChange<'_>) -> Result<Self> {
        let (first, second) = (change(&self.first)?, change(&self.second)?);
        Ok(Self { first, second, activation: self.activation })
    }

    /// `(…, d_image)` -> `(…, d_model)`.
    pub(crate) fn forward(&self, image: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        let hidden = self.first.forward(image)?;
        tap.see("projector.linear_1", &hidden);
        Ok(self.second.forward(&self.activation.forward(&hidden)?)?)
    }
}
