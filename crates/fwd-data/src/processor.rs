//! The processor files of a Hugging Face directory: `preprocessor_config.json` (or the `image_processor` part of
//! `processor_config.json`), `tokenizer.json`, and for InstructBLIP `qformer_tokenizer/tokenizer.json`.

use crate::error::{DataError, Result};
use crate::image_file::{Alpha, ImageLimits, RgbImage};
use crate::resize::resize_bicubic;
use crate::text::TextTokenizer;
use serde::Deserialize;
use std::fs;
use std::path::Path;

/// Decodes, resizes, rescales and normalises images, as `BlipImageProcessor` does with Pillow.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
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

const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

#[derive(Deserialize)]
struct RawProcessor {
    #[serde(default = "yes")]
    do_resize: bool,
    #[serde(default = "yes")]
    do_rescale: bool,
    #[serde(default = "yes")]
    do_normalize: bool,
    size: RawSize,
    resample: Option<u32>,
    rescale_factor: Option<f64>,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
    /// Not a key of Hugging Face's: the colour behind transparent pixels.
    background: Option<[u8; 3]>,
}

#[derive(Deserialize)]
struct RawCombined {
    image_processor: RawProcessor,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawSize {
    Sides { height: usize, width: usize },
    Side(usize),
}

fn yes() -> bool {
    true
}

impl ImageProcessor {
    /// CLIP's normalisation at `size × size`.
    pub fn clip(size: usize) -> Self {
        let (rescale, alpha) = (1.0 / 255.0, Alpha::Drop);
        Self { height: size, width: size, rescale, mean: CLIP_MEAN, std: CLIP_STD, alpha }
    }

    /// EfficientNet-Lite's normalisation at `size × size`: `(byte − 127) / 128`, transparency over white.
    pub fn efficientnet_lite(size: usize) -> Self {
        let alpha = Alpha::Over([255; 3]);
        Self { height: size, width: size, rescale: 1.0, mean: [127.0; 3], std: [128.0; 3], alpha }
    }

    /// Reads `preprocessor_config.json`, or where a directory has none the `image_processor` part of
    /// `processor_config.json`. Our own key `background` (red, green, blue) asks for transparency to be blended over it.
    ///
    /// # Errors
    /// [`DataError::Io`] or [`DataError::Config`] naming the file; a resampling other than bicubic is refused.
    pub fn open(dir: &Path) -> Result<Self> {
        let (own, combined) = (dir.join("preprocessor_config.json"), dir.join("processor_config.json"));
        let is_combined = !own.exists() && combined.exists();
        let path = if is_combined { combined } else { own };
        let text = fs::read(&path).map_err(|source| DataError::Io { path: path.clone(), source })?;
        let raw = if is_combined {
            serde_json::from_slice(&text).map(|c: RawCombined| c.image_processor)
        } else {
            serde_json::from_slice(&text)
        };
        let fail = |what: String| DataError::Config { path: path.clone(), what };
        let raw: RawProcessor = raw.map_err(|e| fail(e.to_string()))?;
        const BICUBIC: u32 = 3;
        if !raw.do_resize || raw.resample.is_some_and(|r| r != BICUBIC) {
            return Err(fail("only a bicubic resize (resample 3) is supported".into()));
        }
        let (height, width) = match raw.size {
            RawSize::Sides { height, width } => (height, width),
            RawSize::Side(side) => (side, side),
        };
        const LARGEST: usize = 1 << 14;
        if !(1..=LARGEST).contains(&height) || !(1..=LARGEST).contains(&width) {
            return Err(fail(format!("size {height}x{width} must lie in 1..={LARGEST}")));
        }
        let rescale = if raw.do_rescale { raw.rescale_factor.unwrap_or(1.0 / 255.0) } else { 1.0 };
        let (mean, std) = if raw.do_normalize {
            (raw.image_mean.unwrap_or(CLIP_MEAN), raw.image_std.unwrap_or(CLIP_STD))
        } else {
            ([0.0; 3], [1.0; 3])
        };
        let sane = |s: f32| s > 0.0 && s.is_finite();
        if !std.iter().all(|&s| sane(s)) || !mean.iter().all(|m| m.is_finite()) || !rescale.is_finite() {
            return Err(fail(format!(
                "image_std {std:?} must be positive, image_mean and rescale_factor finite"
            )));
        }
        let alpha = raw.background.map_or(Alpha::Drop, Alpha::Over);
        Ok(Self { height, width, rescale, mean, std, alpha })
    }

    /// Pixel values of an encoded image (PNG, JPEG, WebP); `origin` names it in errors.
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
    /// use fwd_data::{ImageLimits, ImageProcessor};
    /// let processor = ImageProcessor::efficientnet_lite(128);
    /// let pixels = processor.process_bytes(png, "logo.png", ImageLimits::default())?;
    /// assert_eq!((pixels.len(), pixels[0]), (3 * 128 * 128, 1.0)); // The transparent corner is white.
    /// # Ok::<(), fwd_data::DataError>(())
    /// ```
    pub fn process_bytes(&self, bytes: &[u8], origin: &str, limits: ImageLimits) -> Result<Vec<f32>> {
        Ok(self.process(&RgbImage::decode_with(bytes, origin, limits, self.alpha)?))
    }

    /// Pixel values of an image.
    ///
    /// # Shapes
    /// -> `(3, height, width)`, row-major, f32.
    pub fn process(&self, image: &RgbImage) -> Vec<f32> {
        let resized = resize_bicubic(image, self.width, self.height);
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
        let qformer = dir.join("qformer_tokenizer/tokenizer.json");
        Ok(Self {
            image: ImageProcessor::open(dir)?,
            text: TextTokenizer::open(&dir.join("tokenizer.json"))?,
            qformer: if qformer.exists() { Some(TextTokenizer::open(&qformer)?) } else { None },
        })
    }
}
