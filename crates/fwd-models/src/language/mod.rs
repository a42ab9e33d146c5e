//! Language models that run from input embeddings: the interface, their input, T5, LLaMA and OPT.
//!
//! An encoder-decoder reads the whole input and writes into a sequence of its own; a decoder-only model goes on writing where
//! the input ends. [`LanguageModel`] hides the difference: [`LanguageModel::score`] is the loss of an answer, and
//! [`LanguageModel::start`] reads an input and gives the first logits. [`LanguageInput`] is what they read: segments, of which
//! each model makes the tensor it needs.

mod decoder;
mod input;
mod load;
mod model;
mod prefix;
pub mod relative;
mod t5;

pub use decoder::CausalLm;
pub use input::{Assembled, LanguageInput, PaddingSide, Segment, SegmentKind};
pub(crate) use load::{embedding_names, redundant};
pub use load::{language_model, load_language_model};
pub use model::{Decoding, LanguageModel, Scored};
pub(crate) use prefix::MOST_OF_BATCH;
pub use prefix::{KeptPrefix, Prefix};
pub use t5::{Encoded, T5};
