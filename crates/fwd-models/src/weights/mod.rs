//! Where a model's parameters come from: a Hugging Face directory of safetensors files, or any other [`Weights`].
//!
//! Of a file, the header is read first. A tensor is read when it is asked for, piece by piece, so that no file is ever in memory as
//! a whole. A file that becomes shorter meanwhile is an error that names the tensor.

mod checkpoint;
mod directory;
mod file;
mod scope;
mod source;

pub use checkpoint::{Checkpoint, Redundant};
pub use file::WeightFile;
pub(crate) use scope::Scope;
pub use source::{WeightDtype, Weights};
