//! Decoding PNG, JPEG and WebP to 8-bit RGB, with bounds on what a file may ask for.
//!
//! As Pillow's `convert("RGB")`: grey is repeated, alpha is dropped (not blended), the orientation tag is not applied.

use crate::error::{DataError, Result};
use image::{DynamicImage, ImageReader, Limits};
use std::fs;
use std::io::Cursor;
use std::path::Path;

/// An 8-bit RGB image, rows from the top, three bytes a pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels in a row.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// `height · width · 3` bytes.
    pub data: Vec<u8>,
}

/// The largest image that is decoded: a small file may unfold to gigabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// Longest side in pixels.
    pub max_side: u32,
    /// Most bytes a decoder may allocate.
    pub max_bytes: u64,
}

impl Default for ImageLimits {
    /// Sides up to 16384 pixels, 512 MiB.
    fn default() -> Self {
        Self { max_side: 1 << 14, max_bytes: 512 << 20 }
    }
}

impl RgbImage {
    /// Reads and decodes a file; its content decides the format, not its name.
    ///
    /// # Errors
    /// [`DataError::Io`] or [`DataError::Image`], naming the file.
    pub fn open(path: &Path, limits: ImageLimits) -> Result<Self> {
        let bytes = fs::read(path).map_err(|source| DataError::Io { path: path.into(), source })?;
        Self::decode(&bytes, &path.display().to_string(), limits)
    }

    /// Decodes an encoded image; `origin` names it in errors.
    ///
    /// # Errors
    /// [`DataError::Image`] for a damaged, truncated or too large image, or an unknown format.
    pub fn decode(bytes: &[u8], origin: &str, limits: ImageLimits) -> Result<Self> {
        let fail = |what: String| DataError::Image { origin: origin.into(), what };
        let mut reader =
            ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| fail(e.to_string()))?;
        let Some(format) = reader.format() else {
            return Err(fail("neither PNG, JPEG nor WebP".into()));
        };
        if is_truncated(format, bytes) {
            return Err(fail(format!("the {format:?} file is truncated")));
        }
        let mut bounds = Limits::default();
        bounds.max_image_width = Some(limits.max_side);
        bounds.max_image_height = Some(limits.max_side);
        bounds.max_alloc = Some(limits.max_bytes);
        reader.limits(bounds);
        let image = reader.decode().map_err(|e| fail(format!("cannot be decoded as {format:?}: {e}")))?;
        let rgb = match image {
            DynamicImage::ImageRgb8(rgb) => rgb,
            other => other.to_rgb8(),
        };
        Ok(Self { width: rgb.width() as usize, height: rgb.height() as usize, data: rgb.into_raw() })
    }
}

/// Decoders fill up a JPEG that ends early with grey; its end marker tells.
fn is_truncated(format: image::ImageFormat, bytes: &[u8]) -> bool {
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    // Some writers pad the file, so the marker may stand a little before its end.
    let tail = &bytes[bytes.len().saturating_sub(4096)..];
    format == image::ImageFormat::Jpeg && !tail.windows(2).any(|pair| pair == END_OF_IMAGE)
}
