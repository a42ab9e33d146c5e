//! JPEG as Pillow reads it, by the same library: libjpeg-turbo with its accurate integer transform and fancy upsampling.
//!
//! The library reports an error by unwinding through its C code; [`decode`] catches that, and nothing else calls the library.
//! Damage inside of a scan is no error to it, nor to Pillow: what is lost is grey until the next restart marker. A file is
//! truncated if the library asks for a byte behind its end.

use super::limits::ImageLimits;
use super::stored::{Pixels, Stored, turn};
use crate::fence;
use mozjpeg::{ColorSpace, Decompress, Marker};
use std::cell::Cell;
use std::io::{self, BufRead, Read};

/// The most scans that an image may have: each costs as much time as the first one. Encoders write 10 to 20.
const MAX_SCANS: usize = 500;

/// Decodes an image, or says what is wrong with it.
pub(super) fn decode(bytes: &[u8], limits: ImageLimits) -> Result<Stored, String> {
    const START_OF_SCAN: [u8; 2] = [0xff, 0xda];
    let n_scans = bytes.windows(2).filter(|pair| *pair == START_OF_SCAN).count();
    if n_scans > MAX_SCANS {
        return Err(format!("the image has {n_scans} scans, more than the allowed {MAX_SCANS}"));
    }
    let ran_out = Cell::new(false);
    let source = Source { rest: bytes, ran_out: &ran_out };
    let decoded = fence::caught(|| decode_from(source, limits));
    if ran_out.get() {
        return Err("the JPEG file is truncated".into());
    }
    decoded.unwrap_or_else(|what| {
        let what = what.strip_prefix("libjpeg fatal error: ").unwrap_or(&what);
        Err(format!("cannot be decoded as JPEG: {what}"))
    })
}

fn decode_from(source: Source<'_>, limits: ImageLimits) -> Result<Stored, String> {
    let broken = |error: io::Error| format!("cannot be decoded as JPEG: {error}");
    let decoder = Decompress::with_markers(&[Marker::APP(1)]).from_reader(source).map_err(broken)?;
    let (width, height) = decoder.size();
    let is_cmyk = matches!(decoder.color_space(), ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK);
    let n_bytes = width as u64 * height as u64 * if is_cmyk { 4 } else { 3 };
    limits.check(width as u32, height as u32, n_bytes)?;
    let segment = |prefix: &[u8]| {
        let mut segments = decoder.markers().filter_map(|marker| marker.data.strip_prefix(prefix));
        segments.next().map(<[u8]>::to_vec)
    };
    let turn = turn(segment(b"Exif\0\0").as_deref(), segment(b"http://ns.adobe.com/xap/1.0/\0").as_deref());
    let pixels = if is_cmyk {
        let mut lines = decoder.to_colorspace(ColorSpace::JCS_CMYK).map_err(broken)?;
        let pixels: Vec<[u8; 4]> = lines.read_scanlines().map_err(broken)?;
        pixels.iter().flat_map(cmyk_to_rgb).collect()
    } else {
        let mut lines = decoder.rgb().map_err(broken)?;
        lines.read_scanlines::<u8>().map_err(broken)?
    };
    Ok(Stored { width, height, pixels: Pixels::Rgb(pixels), turn })
}

/// Inks are stored inverted, as Adobe does and as Pillow takes for granted.
fn cmyk_to_rgb(&[cyan, magenta, yellow, black]: &[u8; 4]) -> [u8; 3] {
    let black = u32::from(black);
    [cyan, magenta, yellow].map(|ink| {
        // Divides by 255 and rounds.
        let product = (255 - u32::from(ink)) * black + 128;
        (black - (((product >> 8) + product) >> 8)) as u8
    })
}

/// Bytes in memory. Left to itself the library would put an end marker behind them; here their end is an error.
struct Source<'a> {
    rest: &'a [u8],
    ran_out: &'a Cell<bool>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest.is_empty() {
            self.ran_out.set(true);
            return Err(io::Error::other("the file ends"));
        }
        Ok(self.rest)
    }

    fn consume(&mut self, n: usize) {
        self.rest = &self.rest[n.min(self.rest.len())..];
    }
}
