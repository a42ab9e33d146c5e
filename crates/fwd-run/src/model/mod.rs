//! The frozen model as runs use it: loaded with its processor, as the continual algorithm sees it, and with what it computes of each
//! sample kept on disk.

mod backbone;
mod features;
mod frozen;

pub use backbone::{Answer, Backbone};
pub(crate) use backbone::{hex, instructions};
pub use features::FeatureStore;
pub use frozen::Frozen;
/// The frozen model: vision tower, bridge and language model.
pub use fwd_models::Blip as Model;
/// What the frozen model has computed of one image and instruction, before any prompt is involved.
pub use fwd_models::BlipSample as Sample;
