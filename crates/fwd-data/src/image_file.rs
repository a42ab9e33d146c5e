//! Decoding PNG, JPEG and WebP to 8-bit RGB, with bounds on what a file may ask for.
//!
//! As Pillow's `convert("RGB")` for 8-bit files: grey is repeated, alpha is dropped (not blended), the orientation tag is not
//! applied. Deeper files are rounded to 8 bits, where Pillow cuts off.

use crate::error::{DataError, Result};
use image::{DynamicImage, ImageReader, Limits};
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
    /// Takes `height · width · 3` bytes.
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

    /// A result whose size is right by construction.
    pub(crate) fn of(width: usize, height: usize, data: Vec<u8>) -> Self {
        Self { width, height, data }
    }

    /// All zeros.
    pub(crate) fn black(width: usize, height: usize) -> Self {
        Self::of(width, height, vec![0; width * height * 3])
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// `height · width · 3` bytes.
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
