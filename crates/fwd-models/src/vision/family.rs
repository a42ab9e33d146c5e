//! The vision transformer that a configuration names.

use super::vit::VisionTransformer;
use super::{clip, dinov2, eva};
use crate::config::{VisionConfig, VisionKind, read_json};
use crate::error::{ModelError, Result};
use crate::weights::{Checkpoint, Precision, Redundant, Scope, WeightDtype, Weights};
use candle_core::Device;
use serde_json::Value;
use std::path::Path;

/// What the names of a tower begin with in repositories of a tower alone, of a whole CLIP, and of a DINOv2 with a classifier.
const PREFIXES: [&str; 3] = ["", "vision_model.", "dinov2."];

impl VisionTransformer {
    /// Loads a tower alone: a directory with weights and the `config.json` of a CLIP (`clip_vision_model`, or `clip` with its text tower,
    /// which is left out), of a DINOv2 (`dinov2`) or of the EVA of a BLIP-2.
    ///
    /// What the tower does not compute is left out too: CLIP's norm of the pooled class token, a classifier, and the token that DINOv2
    /// has in the place of patches in pre-training. Matrices are not kept in 4 bits, as in the models that have such a tower.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Json`] or [`ModelError::Config`] for the configuration; [`ModelError::Tensors`] with all tensors
    /// that are missing, unexpected, misshapen or not finite.
    pub fn load(dir: &Path, precision: impl Into<Precision>, device: &Device) -> Result<Self> {
        let path = dir.join("config.json");
        let mut value: Value = read_json(&path)?;
        let is_whole_clip = value["model_type"] == "clip";
        if is_whole_clip {
            value = value["vision_config"].take();
            if let Value::Object(fields) = &mut value {
                fields.insert("model_type".into(), "clip_vision_model".into());
            }
        }
        let config: VisionConfig = serde_json::from_value(value)
            .map_err(|e| ModelError::Config { origin: path.display().to_string(), what: e.to_string() })?;
        let Precision { dtype, compute } = precision.into();
        let dtype = if dtype == WeightDtype::Q4 { WeightDtype::Q8 } else { dtype };
        let mut checkpoint = Checkpoint::open(dir, Precision { dtype, compute }, device)?;
        let has_class = |prefix: &&str| {
            ["class_embedding", "cls_token"]
                .iter()
                .any(|class| checkpoint.has(&format!("{prefix}embeddings.{class}")))
        };
        let prefix = PREFIXES.into_iter().find(has_class).unwrap_or_default();
        let tower = Self::new(&config, &mut checkpoint, prefix.trim_end_matches('.'))?;
        checkpoint.finish(|name| {
            let is_unused = match name.strip_prefix(prefix) {
                Some(part) => part == "embeddings.mask_token" || part.starts_with("post_layernorm."),
                None => is_whole_clip || name.starts_with("classifier."),
            };
            is_unused.then_some(Redundant::Unused)
        })?;
        Ok(tower)
    }

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
