//! Where a model's parameters come from: a Hugging Face directory of safetensors files, a GGUF file, or any other [`Weights`].
//!
//! Of a file, the header is read first. What a model keeps as it is stored is mapped into memory, and read when it is first used. All else is
//! read when it is asked for, piece by piece, so that no file is ever in memory as a whole. A file that becomes shorter while it is read is
//! an error that names the tensor; one that becomes shorter while it is mapped ends the process (see [`fwd_files::Mapped`]).

mod checkpoint;
mod directory;
mod dtype;
mod entry;
mod file;
mod gguf;
mod precision;
mod safetensors;
pub(crate) mod scaled;
mod scope;
mod source;
mod spelling;

pub use checkpoint::{Checkpoint, Redundant};
pub use directory::gguf_file;
pub use dtype::WeightDtype;
pub use file::WeightFile;
pub use precision::Precision;
pub(crate) use scope::Scope;
pub use source::Weights;
