//! Decoding PNG, JPEG, WebP, GIF and BMP to 8-bit RGB, with bounds on what a file may ask for.
//!
//! As Pillow's `Image.open(file).convert("RGB")`: grey is repeated, 16 bits a channel lose their lower byte (grey of 16 bits is cut off
//! at 255), inks become colours, and of several frames the first one is read. [`Alpha`] and [`Orientation`] say what becomes of
//! transparency and of the orientation tag.

mod bitmap;
mod format;
mod gif;
mod jpeg;
mod limits;
mod stored;

use crate::error::{DataError, Result};
use format::Format;
use image::{DynamicImage, ImageFormat};
pub use limits::ImageLimits;
use std::path::Path;
use stored::{Pixels, Stored};

/// An 8-bit RGB image, rows from the top, three bytes a pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    width: usize,
    height: usize,
    data: Vec<u8>,
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

/// What becomes of the orientation tag, which cameras write into EXIF or XMP data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Orientation {
    /// The tag is ignored, as Pillow's `Image.open` does; a photograph may lie on its side. So data sets are read.
    #[default]
    Stored,
    /// The image is turned as the tag says, as Pillow's `ImageOps.exif_transpose` does.
    Upright,
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

    /// Reads and decodes a file as [`Self::decode`] does; its content decides the format, not its name.
    ///
    /// # Errors
    /// [`DataError::Io`] or [`DataError::Image`], naming the file.
    pub fn open(path: &Path, limits: ImageLimits) -> Result<Self> {
        let io = |source| DataError::Io { path: path.into(), source };
        let bytes = fwd_files::read(path, limits.max_file).map_err(io)?;
        Self::decode(&bytes, &path.display().to_string(), limits)
    }

    /// Decodes an encoded image without its alpha and as it is stored; `origin` names it in errors.
    ///
    /// # Errors
    /// [`DataError::Image`] for a damaged, truncated or too large image, or an unknown format.
    pub fn decode(bytes: &[u8], origin: &str, limits: ImageLimits) -> Result<Self> {
        Self::decode_with(bytes, origin, limits, Alpha::default(), Orientation::default())
    }

    /// Decodes an encoded image; `origin` names it in errors. Sizes are checked before any pixel is decoded.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_with(
        bytes: &[u8],
        origin: &str,
        limits: ImageLimits,
        alpha: Alpha,
        orientation: Orientation,
    ) -> Result<Self> {
        let decoded = Format::of(bytes).and_then(|format| match format {
            Format::Jpeg => jpeg::decode(bytes, limits),
            Format::Gif => gif::decode(bytes, limits),
            Format::Png => bitmap::decode(ImageFormat::Png, bytes, limits),
            Format::WebP => bitmap::decode(ImageFormat::WebP, bytes, limits),
            Format::Bmp => bitmap::decode(ImageFormat::Bmp, bytes, limits),
        });
        let Stored { width, height, pixels, turn } =
            decoded.map_err(|what| DataError::Image { origin: origin.into(), what })?;
        let data = match (pixels, alpha) {
            (Pixels::Rgb(data), _) => data,
            (Pixels::Rgba(data), Alpha::Drop) => {
                data.as_chunks::<4>().0.iter().flat_map(|&[red, green, blue, _]| [red, green, blue]).collect()
            }
            (Pixels::Rgba(data), Alpha::Over(background)) => blended(&data, background),
        };
        let image = Self { width, height, data };
        Ok(match orientation {
            Orientation::Stored => image,
            Orientation::Upright => image.turned(turn),
        })
    }

    fn turned(self, turn: image::metadata::Orientation) -> Self {
        let Self { width, height, data } = self;
        let buffer = image::RgbImage::from_raw(width as u32, height as u32, data).unwrap_or_default();
        let mut image = DynamicImage::ImageRgb8(buffer);
        image.apply_orientation(turn);
        let (width, height) = (image.width() as usize, image.height() as usize);
        Self { width, height, data: image.into_rgb8().into_raw() }
    }
}

/// `α·colour + (1 − α)·background`, rounded: Pillow's `alpha_composite` over an opaque background, to the bit.
fn blended(rgba: &[u8], background: [u8; 3]) -> Vec<u8> {
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
