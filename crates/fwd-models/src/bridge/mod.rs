//! The way from a vision tower to a language model: the Q-Former, whose learned queries gather what matters of an image, and
//! the linear map of its output into the space of the language model's embeddings; or LLaVA's map of two layers, which takes every
//! token of the tower there.

mod projection;
mod projector;
mod qformer;

pub(crate) use projection::Projection;
pub(crate) use projector::Projector;
pub use qformer::{QFormer, QFormerText};
