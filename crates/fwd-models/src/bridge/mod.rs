//! The way from a vision tower to a language model: the Q-Former, whose learned queries gather what matters of an image, and
//! the linear map of its output into the space of the language model's embeddings.

mod projection;
mod qformer;

pub(crate) use projection::Projection;
pub use qformer::{QFormer, QFormerText};
