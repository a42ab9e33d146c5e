//! Features of images through the vision network of a model that is trained.

use crate::device::DeviceKind;
use crate::files::read;
use crate::model::{Model, hex};
use crate::observer::Observer;
use crate::weight_training::{ImageFeatures, Network, View};
use anyhow::Result;
use fwd_data::ImageProcessor;
use fwd_data::bench::Benchmark;
use fwd_ops::Compute;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Features of views of images through the vision network of a model, whose weights are in the file `vision`.
///
/// # Errors
/// As [`ImageFeatures::compute`].
pub(super) fn features(
    (model, vision): (&Model, &Path),
    compute: Compute,
    processor: &ImageProcessor,
    bench: &Benchmark,
    views: &[View<'_>],
    cache: &Path,
    observer: &dyn Observer,
) -> Result<ImageFeatures> {
    let mut hasher = Sha256::new();
    hasher.update(read(vision)?);
    // What of a transformer is read, and of which pixels, its weights do not say.
    let dir = vision.parent().unwrap_or(Path::new("."));
    let (config, processor_file) = (dir.join("config.json"), dir.join("preprocessor_config.json"));
    let config: serde_json::Value = serde_json::from_slice(&read(&config)?)?;
    if config["vision_config"]["model_type"] != "efficientnet_lite0" {
        hasher.update(serde_json::to_vec(&config["vision_config"])?);
        hasher.update(read(&processor_file)?);
        hasher.update(compute.to_string());
    }
    let hash = hex(&hasher.finalize()) + DeviceKind::tag(model.device());
    let network = Network { model, hash: &hash, processor };
    ImageFeatures::compute(&network, bench, views, cache, observer)
}
