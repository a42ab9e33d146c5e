//! The frozen model as runs use it: loaded with its processor, as the continual algorithm sees it, and with what it computes of each
//! sample kept on disk.

mod backbone;
mod features;
mod reader;
mod shown_prompt;
mod tokenizers;

pub use backbone::{Answer, Backbone, ModelOptions};
pub(crate) use backbone::{Behind, hex, library_beside};
pub use features::FeatureStore;
/// What the frozen model has computed of one image and instruction, before any prompt is involved.
pub use fwd_models::Sample;
pub use reader::{Reader, Template};
pub(crate) use reader::{TextFormat, end_of_answer};
pub use shown_prompt::{PromptPart, ShownPrompt};
pub use tokenizers::ModelTokenizers;
pub(crate) use tokenizers::processor_of;

/// The frozen model, of whatever kind: vision tower, bridge and language model.
pub type Model = dyn fwd_models::MultimodalModel;
