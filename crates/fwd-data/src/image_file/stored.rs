//! An image as its file stores it: neither turned upright nor rid of its transparency.

use image::metadata::Orientation;

/// A decoded image.
pub(super) struct Stored {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) pixels: Pixels,
    /// How the image must be turned to stand upright.
    pub(super) turn: Orientation,
}

/// Rows from the top, 8 bits a channel.
pub(super) enum Pixels {
    /// Three bytes a pixel.
    Rgb(Vec<u8>),
    /// Four bytes a pixel, the colours not multiplied by alpha.
    Rgba(Vec<u8>),
}

/// How an image must be turned, by its EXIF data, or where they do not say so by its XMP packet.
pub(super) fn turn(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    const PREFIX: &[u8] = b"Exif\0\0";
    let tag = exif.and_then(|exif| Orientation::from_exif_chunk(exif.strip_prefix(PREFIX).unwrap_or(exif)));
    tag.or_else(|| xmp_orientation(xmp?)).unwrap_or(Orientation::NoTransforms)
}

/// `tiff:Orientation` as an attribute or as an element.
fn xmp_orientation(xmp: &[u8]) -> Option<Orientation> {
    const KEY: &[u8] = b"tiff:Orientation";
    let places = xmp.windows(KEY.len()).enumerate().filter(|(_, part)| *part == KEY);
    let digit = places.filter_map(|(at, _)| match &xmp[at + KEY.len()..] {
        [b'=', b'"', digit, ..] | [b'>', digit, ..] => Some(digit.checked_sub(b'0')?),
        _ => None,
    });
    digit.take(1).find_map(Orientation::from_exif)
}
