//! The vision transformer that a configuration names.

use super::vit::VisionTransformer;
use super::{clip, dinov2, eva};
use crate::config::{VisionConfig, VisionKind};
use crate::error::{ModelError, Result};
use crate::weights::{Scope, Weights};

impl VisionTransformer {
    /// The transformer that a configuration names, with the parameters that lie under `prefix` (`vision_model`; nothing for a file
    /// that holds the tower alone).
    ///
    /// # Errors
    /// [`ModelError::Config`] for an impossible configuration and for EfficientNet-Lite0, or an error of the source.
    pub fn new(config: &VisionConfig, weights: &mut dyn Weights, prefix: &str) -> Result<Self> {
        Self::up_to(config, config.num_hidden_layers, Scope::new(weights, prefix))
    }

    /// The same with its first `n_layers` layers.
    pub(crate) fn up_to(config: &VisionConfig, n_layers: usize, weights: Scope<'_>) -> Result<Self> {
        let fail = |what| ModelError::Config { origin: "vision_config".into(), what };
        config.check().map_err(fail)?;
        match config.kind() {
            Some(VisionKind::Eva) => eva::tower(config, n_layers, weights),
            Some(VisionKind::Clip) => clip::tower(config, n_layers, weights),
            Some(VisionKind::DinoV2) => dinov2::tower(config, n_layers, weights),
            Some(VisionKind::Lite0) | None => {
                Err(fail(format!("model_type `{:.60}` is no transformer", config.model_type)))
            }
        }
    }
}
