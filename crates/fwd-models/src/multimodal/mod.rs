//! Multimodal models: the interface that a program uses, samples, and BLIP-2 with InstructBLIP behind it.
//!
//! A model runs in three steps, each of which is kept apart because its result can be kept:
//!
//! ```text
//! pixels ── image_features ──> image features      the frozen vision network alone; depends on nothing else
//!        ── features_of ─────> FrozenFeatures       segments of the language model's input, and the queries of a prompt pool
//!        ── language() ──────> loss, answer         behind soft prompts
//! ```
//!
//! [`Sample`] is one sample after the second step, in host memory; [`MultimodalModel::input`] makes a batch of samples again.

mod blip;
mod features;
mod llava;
mod load;
mod model;
mod sample;
mod text_only;

pub use blip::Blip;
pub use features::FrozenFeatures;
pub use llava::Llava;
pub use load::{load, reading};
pub use model::{Instructions, MultimodalModel, PromptPlace, Reading};
pub use sample::{Sample, SampleSegment, padded};
pub use text_only::TextOnly;
