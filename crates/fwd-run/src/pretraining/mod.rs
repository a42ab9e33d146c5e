//! Training of a backbone on the pre-training tasks of a benchmark: of the embedded one neck, Q-Former, projection and language model, over a
//! frozen EfficientNet-Lite0; of one that is put together of pre-trained parts ([`assemble`]) what lies between them. [`gates`] measures whether the result is fit to be built on.
//!
//! The output folder is a model directory from the first checkpoint on. Beside the model it holds the recipe, the loss curve and,
//! until training is finished, the state to go on from.

mod curve;
pub mod gates;
mod initial;
mod library;
mod parts;
mod paths;
mod recipe;
mod sampler;
mod training;
mod vision;
mod vocabulary;

pub use library::{INSTRUCTION, LibraryOptions, library};
pub use parts::{Parts, assemble, assemble_language};
pub use paths::ModelPaths;
pub use recipe::{Augmentation, Diversity, Optimiser, Phase, Prompting, Recipe, Sizes, StoredAs};
pub use training::{PretrainingOptions, pretrain};
