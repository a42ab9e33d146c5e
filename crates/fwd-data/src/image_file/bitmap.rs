//! PNG, WebP and BMP, with 16 bits a channel reduced as Pillow does.
//!
//! Of BMP only what Pillow and this decoder agree on: no run lengths, and no pixels of 2 or 16 bits.
//!
//! Colours of 16 bits lose their lower byte. Grey of 16 bits without an alpha channel is cut off at 255 instead: what Pillow's
//! `convert("RGB")` makes of its mode `I;16`.

use super::limits::ImageLimits;
use super::stored::{Pixels, Stored, turn};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::io::Cursor;

/// Decodes an image, or says what is wrong with it. Its size is checked before any pixel is decoded.
pub(super) fn decode(format: ImageFormat, bytes: &[u8], limits: ImageLimits) -> Result<Stored, String> {
    if format == ImageFormat::Bmp {
        check_bmp(bytes)?;
    }
    let broken = |error: image::ImageError| format!("cannot be decoded as {format:?}: {error}");
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // The sides are checked below, where the message can name them.
    let mut bounds = Limits::no_limits();
    bounds.max_alloc = Some(limits.max_bytes);
    reader.limits(bounds.clone());
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    limits.check(width, height, decoder.total_bytes())?;
    decoder.set_limits(bounds).map_err(broken)?;
    let png = if format == ImageFormat::Png { png_colours(bytes) } else { None };
    // An orientation that cannot be read is none.
    let exif = decoder.exif_metadata().ok().flatten();
    let xmp = decoder.xmp_metadata().ok().flatten();
    let turn = turn(exif.as_deref(), xmp.as_deref());
    let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    Ok(Stored { width: width as usize, height: height as usize, pixels: reduced(image, png)?, turn })
}

/// How a PNG stores a pixel, where that says more than what the decoder makes of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PngColours {
    /// Grey of 2 or 4 bits.
    FewGreys,
    /// Grey of 16 bits without alpha.
    Grey16,
    /// Colours of 16 bits without alpha.
    Rgb16,
}

/// By the bit depth and the colour type in the header, which is the first chunk.
fn png_colours(bytes: &[u8]) -> Option<PngColours> {
    match bytes.get(24..26)? {
        [2 | 4, 0] => Some(PngColours::FewGreys),
        [16, 0] => Some(PngColours::Grey16),
        [16, 2] => Some(PngColours::Rgb16),
        _ => None,
    }
}

/// Refuses the kinds of BMP that no one agrees on. A header of 12 bytes has neither a compression nor a number of colours.
fn check_bmp(bytes: &[u8]) -> Result<(), String> {
    let number = |at: usize, n_bytes: usize| {
        let digits = bytes.get(at..at + n_bytes).ok_or("the BMP file is truncated")?;
        Ok::<_, String>(digits.iter().rev().fold(0u64, |number, &digit| (number << 8) | u64::from(digit)))
    };
    let (start, header) = (number(10, 4)?, number(14, 4)?);
    let is_core = header == 12;
    let bits = number(if is_core { 24 } else { 28 }, 2)?;
    let (compression, n_colours) = if is_core { (0, 0) } else { (number(30, 4)?, number(46, 4)?) };
    if !matches!((bits, compression), (1 | 4 | 8 | 24 | 32, 0) | (32, 3)) {
        return Err(format!(
            "a BMP file of {bits} bits a pixel and compression {compression} is not supported: save it as PNG"
        ));
    }
    if bits <= 8 && start < 14 + header + 4 * n_colours {
        return Err(format!("the pixels of the BMP file begin at byte {start}, inside of its palette"));
    }
    Ok(())
}

fn reduced(image: DynamicImage, png: Option<PngColours>) -> Result<Pixels, String> {
    use DynamicImage as Image;
    let high = |value: u16| (value >> 8) as u8;
    let cut_off = |value: u16| [value.min(255) as u8; 3];
    Ok(match (image, png) {
        (Image::ImageRgb8(image), _) => Pixels::Rgb(image.into_raw()),
        (image @ Image::ImageLuma8(_), _) => Pixels::Rgb(image.into_rgb8().into_raw()),
        // A transparent grey of 2 or 4 bits: Pillow compares it unscaled with scaled pixels, so that it fits black alone.
        (Image::ImageLumaA8(image), Some(PngColours::FewGreys)) => {
            let pixel = |&[grey, alpha]: &[u8; 2]| [grey, grey, grey, if grey == 0 { alpha } else { 255 }];
            Pixels::Rgba(image.into_raw().as_chunks::<2>().0.iter().flat_map(pixel).collect())
        }
        (image @ (Image::ImageLumaA8(_) | Image::ImageRgba8(_)), _) => {
            Pixels::Rgba(image.into_rgba8().into_raw())
        }
        (Image::ImageLuma16(image), _) => {
            Pixels::Rgb(image.into_raw().into_iter().flat_map(cut_off).collect())
        }
        // Pillow knows no transparent colour of 16 bits.
        (Image::ImageLumaA16(image), Some(PngColours::Grey16)) => {
            let greys = image.into_raw().into_iter().step_by(2);
            Pixels::Rgb(greys.flat_map(cut_off).collect())
        }
        (Image::ImageRgba16(image), Some(PngColours::Rgb16)) => {
            let colours = image.pixels().flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]);
            Pixels::Rgb(colours.map(high).collect())
        }
        (Image::ImageRgb16(image), _) => Pixels::Rgb(image.into_raw().into_iter().map(high).collect()),
        (Image::ImageLumaA16(image), _) => {
            let pixel = |&[grey, alpha]: &[u16; 2]| [grey, grey, grey, alpha].map(high);
            Pixels::Rgba(image.into_raw().as_chunks::<2>().0.iter().flat_map(pixel).collect())
        }
        (Image::ImageRgba16(image), _) => Pixels::Rgba(image.into_raw().into_iter().map(high).collect()),
        (other, _) => return Err(format!("pixels of the kind {:?} are not supported", other.color())),
    })
}
