//! The frozen model as runs use it: loaded with its processor, as the continual algorithm sees it, and with what it computes of each
//! sample kept on disk.

mod backbone;
mod counting;
mod features;

pub use backbone::{Answer, Backbone};
pub(crate) use backbone::{Reader, hex, instructions};
pub use counting::{CountTokens, ModelTokenizers};
pub use features::FeatureStore;
/// What the frozen model has computed of one image and instruction, before any prompt is involved.
pub use fwd_models::Sample;

/// The frozen model, of whatever kind: vision tower, bridge and language model.
pub type Model = dyn fwd_models::MultimodalModel;
