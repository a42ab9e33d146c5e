//! Decoding PNG, JPEG and WebP to 8-bit RGB, with bounds on what a file may ask for.
//!
//! As Pillow's `convert("RGB")` for 8-bit files: grey is repeated, alpha is dropped (or blended where [`Alpha`] says so), the
//! orientation tag is not applied. Deeper files are rounded to 8 bits, where Pillow cuts off.

use crate::error::{DataError, Result};
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use std::fs;
use std::io::Cursor;
use std::path::Path;

/// An 8-bit RGB image, rows from the top, three bytes a pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

/// The largest image that is decoded: a small file may unfold to gigabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// The longest side that an image may have, in pixels.
    pub max_side: u32,
    /// The most pixels that an image may have, width times height.
    pub max_pixels: u64,
    /// The most bytes that a decoder may allocate.
    pub max_bytes: u64,
}

impl Default for ImageLimits {
    /// Sides up to 16384 pixels, 64 megapixels, 512 MiB.
    fn default() -> Self {
        Self { max_side: 1 << 14, max_pixels: 1 << 26, max_bytes: 512 << 20 }
    }
}

/// What becomes of transparency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Alpha {
    /// The colours stay as they are stored and alpha is dropped, as Pillow's `convert("RGB")` does; invisible pixels may show.
    #[default]
    Drop,
    /// The colours are blended over a background of this colour (red, green, blue).
    Over([u8; 3]),
}

impl RgbImage {
    /// Makes an image of `height · width · 3` bytes: rows from the top, three bytes a pixel.
    ///
    /// # Errors
    /// [`DataError::Image`] for another number of bytes.
    pub fn new(width: usize, height: usize, data: Vec<u8>) -> Result<Self> {
        if width.checked_mul(height).and_then(|n| n.checked_mul(3)) == Some(data.len()) {
            return Ok(Self { width, height, data });
        }
        let what = format!("{} bytes are no RGB image of {width}x{height}", data.len());
        Err(DataError::Image { origin: "RgbImage::new".into(), what })
    }

    /// An image whose number of bytes is right by construction.
    pub(crate) fn of(width: usize, height: usize, data: Vec<u8>) -> Self {
        Self { width, height, data }
    }

    /// An image of black pixels.
    pub(crate) fn black(width: usize, height: usize) -> Self {
        Self::of(width, height, vec![0; width * height * 3])
    }

    /// The number of pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The number of rows of pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The pixels, `height · width · 3` bytes, rows from the top.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Reads and decodes a file; its content decides the format, not its name.
    ///
    /// # Errors
    /// [`DataError::Io`] or [`DataError::Image`], naming the file.
    pub fn open(path: &Path, limits: ImageLimits) -> Result<Self> {
        let bytes = fs::read(path).map_err(|source| DataError::Io { path: path.into(), source })?;
        Self::decode(&bytes, &path.display().to_string(), limits)
    }

    /// Decodes an encoded image without its alpha; `origin` names it in errors.
    ///
    /// # Errors
    /// [`DataError::Image`] for a damaged, truncated or too large image, or an unknown format.
    pub fn decode(bytes: &[u8], origin: &str, limits: ImageLimits) -> Result<Self> {
        Self::decode_with(bytes, origin, limits, Alpha::Drop)
    }

    /// Decodes an encoded image; `origin` names it in errors. Sizes are checked before any pixel is decoded.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_with(bytes: &[u8], origin: &str, limits: ImageLimits, alpha: Alpha) -> Result<Self> {
        let fail = |what: String| DataError::Image { origin: origin.into(), what };
        let mut reader =
            ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| fail(e.to_string()))?;
        let Some(format) = reader.format() else {
            return Err(fail("neither PNG, JPEG nor WebP".into()));
        };
        if is_truncated(format, bytes) {
            return Err(fail(format!("the {format:?} file is truncated")));
        }
        // The sides are checked below, where the message can name them.
        let mut bounds = Limits::no_limits();
        bounds.max_alloc = Some(limits.max_bytes);
        reader.limits(bounds.clone());
        let broken = |e: image::ImageError| fail(format!("cannot be decoded as {format:?}: {e}"));
        let mut decoder = reader.into_decoder().map_err(broken)?;
        let (width, height) = decoder.dimensions();
        let n_pixels = u64::from(width) * u64::from(height);
        if width.max(height) > limits.max_side || n_pixels > limits.max_pixels {
            return Err(fail(format!(
                "the image has {width}x{height} pixels, more than the allowed {} a side or {} in all: scale it down",
                limits.max_side, limits.max_pixels
            )));
        }
        let n_bytes = decoder.total_bytes();
        if bounds.reserve(n_bytes).is_err() {
            return Err(fail(format!(
                "the {width}x{height} pixels take {n_bytes} bytes, more than the allowed {}: scale it down",
                limits.max_bytes
            )));
        }
        decoder.set_limits(bounds).map_err(broken)?;
        let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
        let data = match (image, alpha) {
            (image, Alpha::Over(background)) if image.color().has_alpha() => blended(image, background),
            (DynamicImage::ImageRgb8(rgb), _) => rgb.into_raw(),
            (other, _) => other.to_rgb8().into_raw(),
        };
        Ok(Self { width: width as usize, height: height as usize, data })
    }
}

/// `α·colour + (1 − α)·background`, rounded.
fn blended(image: DynamicImage, background: [u8; 3]) -> Vec<u8> {
    let rgba = image.into_rgba8().into_raw();
    let over = |&[red, green, blue, alpha]: &[u8; 4]| -> [u8; 3] {
        let colours = [red, green, blue];
        let alpha = u32::from(alpha);
        std::array::from_fn(|c| {
            let sum = u32::from(colours[c]) * alpha + u32::from(background[c]) * (255 - alpha);
            ((sum + 127) / 255) as u8
        })
    };
    rgba.as_chunks::<4>().0.iter().flat_map(over).collect()
}

/// Decoders fill up a JPEG that ends early with grey; the end marker behind its first scan tells.
fn is_truncated(format: image::ImageFormat, bytes: &[u8]) -> bool {
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    if format != image::ImageFormat::Jpeg {
        return false;
    }
    let scan = first_scan(bytes).unwrap_or(bytes.len());
    !bytes[scan..].windows(2).any(|pair| pair == END_OF_IMAGE)
}

/// Where the first scan of a JPEG starts: behind the segments, one of which may hold a whole thumbnail of its own.
fn first_scan(bytes: &[u8]) -> Option<usize> {
    const START_OF_SCAN: u8 = 0xda;
    let mut at = 2;
    loop {
        let [marker, kind, high, low] = *bytes.get(at..at + 4)? else { return None };
        if marker != 0xff {
            return None;
        }
        if kind == 0xff {
            at += 1; // Fill byte.
        } else if kind == START_OF_SCAN {
            return Some(at);
        } else {
            at += 2 + usize::from(u16::from_be_bytes([high, low]));
        }
    }
}
