//! Images and texts as BLIP-2 and InstructBLIP read them, equal to Hugging Face's processors: Pillow's bicubic resize to
//! the bit, CLIP normalisation, `tokenizer.json` files, the pixel values of EfficientNet-Lite; and [`mod@bench`], the format of the
//! embedded benchmark.

#![forbid(unsafe_code)]

pub mod bench;
mod error;
mod image_file;
mod processor;
mod resize;
mod text;

pub use error::{DataError, Result};
pub use image_file::{Alpha, ImageLimits, RgbImage};
pub use processor::{ImageProcessor, Processor};
pub use resize::resize_bicubic;
pub use text::{TextTokenizer, TokenBatch};
