//! Features of images through the vision network of a model that is trained.

use crate::device::DeviceKind;
use crate::files::read;
use crate::model::{Model, hex};
use crate::observer::Observer;
use crate::weight_training::{ImageFeatures, Network, View};
use anyhow::Result;
use fwd_data::ImageProcessor;
use fwd_data::bench::Benchmark;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Features of views of images through the vision network of a model, whose weights are in the file `vision`.
///
/// # Errors
/// As [`ImageFeatures::compute`].
pub(super) fn features(
    (model, vision): (&Model, &Path),
    processor: &ImageProcessor,
    bench: &Benchmark,
    views: &[View<'_>],
    cache: &Path,
    observer: &dyn Observer,
) -> Result<ImageFeatures> {
    let bytes = read(vision)?;
    let hash = hex(&Sha256::digest(&bytes)) + DeviceKind::tag(model.device());
    let network = Network { model, hash: &hash, processor };
    ImageFeatures::compute(&network, bench, views, cache, observer)
}
