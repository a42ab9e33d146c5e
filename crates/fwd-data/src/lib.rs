//! Images and texts as BLIP-2, InstructBLIP and LLaVA read them, and the files that tasks are kept in.
//!
#![doc = include_str!("../README.md")]
//!
//! # Where to begin
//!
//! - [`mod@task`] reads the formats in which others keep their tasks, checks them and converts them.
//! - [`mod@bench`] is the format of the embedded benchmark.
//! - [`Processor`] opens the processor files of a Hugging Face directory; [`ImageProcessor`] and [`TextTokenizer`] are its parts,
//!   and [`ChatTemplate`] writes the prompt.
//! - [`resize_bicubic`] is Pillow's resize to the bit, and [`RgbImage`] decodes within the bounds of [`ImageLimits`].

#![forbid(unsafe_code)]

pub mod bench;
mod blank;
mod chat_template;
mod error;
mod excerpt;
mod fence;
mod image_file;
mod leaks;
mod loose;
mod processor;
mod resize;
mod shown;
mod skip;
mod special_tokens;
pub mod task;
mod text;
mod tokenizer_file;

pub use blank::blank_image;
pub use chat_template::{ChatTemplate, TODAY};
pub use error::{DataError, PathFault, Result};
pub use excerpt::excerpt;
pub use fence::is_fenced;
pub use image_file::{Alpha, ImageLimits, Orientation, RgbImage};
pub use processor::{ImageProcessor, Processor, Resize};
pub use resize::resize_bicubic;
pub use special_tokens::SpecialNames;
pub use text::{TextTokenizer, TokenBatch};
