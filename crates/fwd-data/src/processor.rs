//! The processor files of a Hugging Face directory: `preprocessor_config.json` (or the `image_processor` part of
//! `processor_config.json`), `tokenizer.json`, and for InstructBLIP `qformer_tokenizer/tokenizer.json`.

mod config;

use crate::error::Result;
use crate::image_file::{Alpha, ImageLimits, Orientation, RgbImage};
use crate::resize::resize_part;
use crate::text::TextTokenizer;
pub use config::Resize;
use config::{CLIP_MEAN, CLIP_STD, Steps};
use std::path::Path;

/// Decodes, resizes, crops, rescales and normalises images, as `BlipImageProcessor`, `CLIPImageProcessor` and DINOv2's `BitImageProcessor`
/// do with Pillow.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    /// What is done first. Of a larger result the centre of `height × width` is kept; a smaller one gets a black border.
    pub resize: Resize,
    /// The number of rows of the result, in pixels.
    pub height: usize,
    /// The number of columns of the result, in pixels.
    pub width: usize,
    /// The factor that the bytes are multiplied by first, usually `1/255`.
    pub rescale: f64,
    /// What is subtracted from each channel (red, green, blue) after rescaling.
    pub mean: [f32; 3],
    /// What each channel is divided by in the end.
    pub std: [f32; 3],
    /// What becomes of transparency.
    pub alpha: Alpha,
}

impl ImageProcessor {
    /// CLIP's normalisation at `size × size`.
    pub fn clip(size: usize) -> Self {
        let (rescale, alpha) = (1.0 / 255.0, Alpha::Drop);
        let resize = Resize::Sides { height: size, width: size };
        Self { resize, height: size, width: size, rescale, mean: CLIP_MEAN, std: CLIP_STD, alpha }
    }

    /// EfficientNet-Lite's normalisation at `size × size`: `(byte − 127) / 128`, transparency over white.
    pub fn efficientnet_lite(size: usize) -> Self {
        let alpha = Alpha::Over([255; 3]);
        let resize = Resize::Sides { height: size, width: size };
        Self { resize, height: size, width: size, rescale: 1.0, mean: [127.0; 3], std: [128.0; 3], alpha }
    }

    /// Reads `preprocessor_config.json`, or where a directory has none the `image_processor` part of
    /// `processor_config.json`.
    ///
    /// What becomes of transparency is asked in this order:
    /// 1. Our own key `background` (red, green, blue) in the processor's file blends it over that colour.
    /// 2. `transformers_version` in the processor's file, or else in `config.json`, decides: from 5.23 on the processor blends over
    ///    white, older ones drop alpha.
    /// 3. Without either, alpha is dropped.
    ///
    /// # Errors
    /// [`DataError::Io`](crate::DataError::Io) or [`DataError::Config`](crate::DataError::Config) naming the file and the key: a processor of another class than BLIP's,
    /// CLIP's and DINOv2's, a resampling other than bicubic, a shortest edge without a crop, no resize, or another step that is not known here.
    pub fn open(dir: &Path) -> Result<Self> {
        let Steps { resize, height, width, rescale, mean, std, alpha } = config::read(dir)?;
        Ok(Self { resize, height, width, rescale, mean, std, alpha })
    }

    /// Pixel values of an encoded image in a format of [`RgbImage`]; `origin` names it in errors.
    ///
    /// # Shapes
    /// -> `(3, height, width)`, row-major, f32.
    ///
    /// # Errors
    /// As [`RgbImage::decode`].
    ///
    /// # Examples
    /// ```
    /// # let png = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/images/logo_rgba_120.png"));
    /// use fwd_data::{ImageLimits, ImageProcessor, Orientation};
    /// let processor = ImageProcessor::efficientnet_lite(128);
    /// let pixels = processor.process_bytes(png, "logo.png", ImageLimits::default(), Orientation::Stored)?;
    /// assert_eq!((pixels.len(), pixels[0]), (3 * 128 * 128, 1.0)); // The transparent corner is white.
    /// # Ok::<(), fwd_data::DataError>(())
    /// ```
    pub fn process_bytes(
        &self,
        bytes: &[u8],
        origin: &str,
        limits: ImageLimits,
        orientation: Orientation,
    ) -> Result<Vec<f32>> {
        Ok(self.process(&RgbImage::decode_with(bytes, origin, limits, self.alpha, orientation)?))
    }

    /// Pixel values of an image.
    ///
    /// # Shapes
    /// -> `(3, height, width)`, row-major, f32.
    pub fn process(&self, image: &RgbImage) -> Vec<f32> {
        let resized = self.resized(image);
        // A byte has 256 values: the arithmetic of transformers, once for each.
        let tables: [[f32; 256]; 3] = std::array::from_fn(|channel| {
            std::array::from_fn(|byte| {
                let rescaled = (byte as f64 * self.rescale) as f32;
                (rescaled - self.mean[channel]) / self.std[channel]
            })
        });
        let mut out = Vec::with_capacity(resized.data().len());
        for (channel, table) in tables.iter().enumerate() {
            out.extend(
                resized.data().as_chunks::<3>().0.iter().map(|pixel| table[usize::from(pixel[channel])]),
            );
        }
        out
    }

    /// The image resized, and its centre: row `i` of the result is row `i + ⌊(h − height) / 2⌋` of an image of `h` rows, or black.
    fn resized(&self, image: &RgbImage) -> RgbImage {
        let (width, height) = self.resize.sides_of(image.width(), image.height());
        let kept = |n: usize, wanted: usize| {
            let start = n.saturating_sub(wanted) / 2;
            start..(start + wanted).min(n)
        };
        let (columns, rows) = (kept(width, self.width), kept(height, self.height));
        let part = resize_part(image, (width, height), columns, rows);
        if (part.width(), part.height()) == (self.width, self.height) {
            return part;
        }
        let (left, top) =
            ((self.width - part.width()).div_ceil(2), (self.height - part.height()).div_ceil(2));
        let mut data = vec![0; self.width * self.height * 3];
        for (i, row) in part.data().chunks_exact(part.width().max(1) * 3).enumerate() {
            let start = ((top + i) * self.width + left) * 3;
            data[start..start + row.len()].copy_from_slice(row);
        }
        RgbImage::of(self.width, self.height, data)
    }
}

/// Everything that turns an image and an instruction into a model's input.
#[derive(Debug, Clone)]
pub struct Processor {
    /// What turns the image into pixel values.
    pub image: ImageProcessor,
    /// The tokenizer of the language model.
    pub text: TextTokenizer,
    /// The tokenizer of the Q-Former, which only InstructBLIP has.
    pub qformer: Option<TextTokenizer>,
}

impl Processor {
    /// Reads the processor files of a Hugging Face directory.
    ///
    /// # Errors
    /// An error naming the file that is missing or damaged; the Q-Former's tokenizer may be absent.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::with_image(ImageProcessor::open(dir)?, dir)
    }

    /// As [`Self::open`], of a model that reads no images: these are made a single pixel, whatever the directory says.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn without_images(dir: &Path) -> Result<Self> {
        Self::with_image(ImageProcessor::clip(1), dir)
    }

    fn with_image(image: ImageProcessor, dir: &Path) -> Result<Self> {
        let qformer = dir.join("qformer_tokenizer/tokenizer.json");
        Ok(Self {
            image,
            text: TextTokenizer::open(&dir.join("tokenizer.json"))?,
            qformer: if qformer.exists() { Some(TextTokenizer::open(&qformer)?) } else { None },
        })
    }
}
