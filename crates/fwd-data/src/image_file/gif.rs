//! The first frame of a GIF, as Pillow shows it.
//!
//! The canvas is the screen, widened where the frame goes beyond it, and filled with the transparent index, or with index 0.
//! A transparent pixel keeps the colour of its index.

use super::limits::ImageLimits;
use super::stored::{Pixels, Stored};
use ::gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};
use image::metadata::Orientation;
use std::num::NonZeroU64;

/// Decodes the first frame, or says what is wrong with it.
pub(super) fn decode(bytes: &[u8], limits: ImageLimits) -> Result<Stored, String> {
    let broken = |error: DecodingError| format!("cannot be decoded as GIF: {error}");
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options
        .set_memory_limit(MemoryLimit::Bytes(NonZeroU64::new(limits.max_bytes).unwrap_or(NonZeroU64::MIN)));
    let mut decoder = options.read_info(bytes).map_err(broken)?;
    let screen = [decoder.width(), decoder.height()].map(usize::from);
    let frame = decoder.next_frame_info().map_err(broken)?.ok_or("the GIF file has no picture")?;
    let [left, top, columns, rows] = [frame.left, frame.top, frame.width, frame.height].map(usize::from);
    let (transparent, local) = (frame.transparent, frame.palette.clone());
    let (width, height) = (screen[0].max(left + columns), screen[1].max(top + rows));
    let channels = if transparent.is_some() { 4 } else { 3 };
    limits.check(width as u32, height as u32, (width * height * channels) as u64)?;
    let mut indices = vec![0; columns * rows];
    decoder.read_into_buffer(&mut indices).map_err(broken)?;
    let palette = local.as_deref().or(decoder.global_palette()).unwrap_or_default();

    let mut canvas = vec![transparent.unwrap_or(0); width * height];
    let lines = canvas.chunks_exact_mut(width).skip(top);
    for (line, indices) in lines.zip(indices.chunks_exact(columns.max(1))) {
        line[left..left + columns].copy_from_slice(indices);
    }
    // Without a palette an index is a grey.
    let colour =
        |index: u8| palette.as_chunks::<3>().0.get(usize::from(index)).copied().unwrap_or([index; 3]);
    let pixels = match transparent {
        None => Pixels::Rgb(canvas.into_iter().flat_map(colour).collect()),
        Some(transparent) => {
            let pixel = |index: u8| {
                let [red, green, blue] = colour(index);
                [red, green, blue, if index == transparent { 0 } else { 255 }]
            };
            Pixels::Rgba(canvas.into_iter().flat_map(pixel).collect())
        }
    };
    Ok(Stored { width, height, pixels, turn: Orientation::NoTransforms })
}
