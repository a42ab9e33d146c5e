//! Pictures of a benchmark inside the page: scaled down and written as data URIs (RFC 2397), so that the page needs no other file.

use anyhow::{Context, Result, ensure};
use fwd_data::{ImageLimits, RgbImage};
use image::imageops::{FilterType, resize};
use image::{ImageFormat, RgbImage as Pixels};
use std::io::Cursor;

/// The longest side of a picture in pixels; a smaller one stays as it is.
const MOST: u32 = 160;

/// A picture for the page.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Picture {
    /// The encoded picture with its type.
    pub(super) uri: String,
    /// Width in pixels.
    pub(super) width: u32,
    /// Height in pixels.
    pub(super) height: u32,
}

impl Picture {
    /// That of an encoded image, scaled down; `origin` names it in errors.
    ///
    /// # Errors
    /// An image that cannot be decoded.
    pub(super) fn new(bytes: &[u8], origin: &str) -> Result<Self> {
        let decoded = RgbImage::decode(bytes, origin, ImageLimits::default())?;
        let (width, height) = (decoded.width() as u32, decoded.height() as u32);
        ensure!(width > 0 && height > 0, "{origin} has no pixels");
        let pixels = Pixels::from_raw(width, height, decoded.data().to_vec())
            .with_context(|| format!("{origin} has too few pixels"))?;
        let scale = (f64::from(MOST) / f64::from(width.max(height))).min(1.0);
        let side = |n: u32| ((f64::from(n) * scale).round() as u32).max(1);
        let (width, height) = (side(width), side(height));
        let small = if scale < 1.0 { resize(&pixels, width, height, FilterType::Triangle) } else { pixels };
        let mut png = Cursor::new(Vec::new());
        small.write_to(&mut png, ImageFormat::Png)?;
        Ok(Self { uri: format!("data:image/png;base64,{}", base64(&png.into_inner())), width, height })
    }
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ] {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn large_pictures_are_scaled_down_and_small_ones_kept() {
        let encoded = |width, height| {
            let mut file = Cursor::new(Vec::new());
            Pixels::new(width, height).write_to(&mut file, ImageFormat::Png).unwrap();
            Picture::new(&file.into_inner(), "x").unwrap()
        };
        let large = encoded(640, 321);
        assert_eq!((large.width, large.height), (160, 80));
        assert!(large.uri.starts_with("data:image/png;") && large.uri.len() < 8000);
        let small = encoded(20, 10);
        assert_eq!((small.width, small.height), (20, 10));
        assert_eq!(encoded(16_000, 3).height, 1);
        assert!(Picture::new(b"no image", "x").is_err());
    }
}
