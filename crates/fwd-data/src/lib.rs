//! Images and texts as BLIP-2 and InstructBLIP read them, equal to Hugging Face's processors: Pillow's bicubic resize to
//! the bit, CLIP normalisation, `tokenizer.json` files, the pixel values of EfficientNet-Lite; [`mod@bench`], the format of the
//! embedded benchmark; and [`mod@task`], the formats in which others keep theirs.

#![forbid(unsafe_code)]

pub mod bench;
mod error;
mod image_file;
mod leaks;
mod loose;
mod processor;
mod resize;
mod skip;
pub mod task;
mod text;

pub use error::{DataError, PathFault, Result};
pub use image_file::{Alpha, ImageLimits, RgbImage};
pub use processor::{ImageProcessor, Processor};
pub use resize::resize_bicubic;
pub use text::{TextTokenizer, TokenBatch};
