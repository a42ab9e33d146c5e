//! PNG, WebP and BMP, with 16 bits a channel reduced as Pillow does.
//!
//! Colours of 16 bits lose their lower byte. Grey of 16 bits without an alpha channel is cut off at 255 instead: what Pillow's
//! `convert("RGB")` makes of its mode `I;16`.

use super::limits::ImageLimits;
use super::stored::{Pixels, Stored, turn};
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::io::Cursor;

/// Decodes an image, or says what is wrong with it. Its size is checked before any pixel is decoded.
pub(super) fn decode(format: ImageFormat, bytes: &[u8], limits: ImageLimits) -> Result<Stored, String> {
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
    let original = decoder.original_color_type();
    // An orientation that cannot be read is none.
    let exif = decoder.exif_metadata().ok().flatten();
    let xmp = decoder.xmp_metadata().ok().flatten();
    let turn = turn(exif.as_deref(), xmp.as_deref());
    let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    Ok(Stored { width: width as usize, height: height as usize, pixels: reduced(image, original)?, turn })
}

fn reduced(image: DynamicImage, original: ExtendedColorType) -> Result<Pixels, String> {
    use DynamicImage as Image;
    use ExtendedColorType as Type;
    let high = |value: u16| (value >> 8) as u8;
    let cut_off = |value: u16| [value.min(255) as u8; 3];
    Ok(match (image, original) {
        (Image::ImageRgb8(image), _) => Pixels::Rgb(image.into_raw()),
        (image @ Image::ImageLuma8(_), _) => Pixels::Rgb(image.into_rgb8().into_raw()),
        // A transparent grey of 2 or 4 bits: Pillow compares it unscaled with scaled pixels, so that it fits black alone.
        (Image::ImageLumaA8(image), Type::L2 | Type::L4) => {
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
        (Image::ImageLumaA16(image), Type::L16) => {
            let greys = image.into_raw().into_iter().step_by(2);
            Pixels::Rgb(greys.flat_map(cut_off).collect())
        }
        (Image::ImageRgba16(image), Type::Rgb16) => {
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
