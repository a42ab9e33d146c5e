//! Images of all formats, those that are not read included: they must be refused.

use crate::reader::{Reader, Seed};
use anyhow::Result;
use fwd_data::{ImageLimits, RgbImage};
use std::fs;
use std::path::Path;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The pictures of `seeds/images`.
pub(crate) fn images(_: &Path) -> Result<Reader> {
    let mut seeds = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/images"))? {
        let entry = entry?;
        seeds.push(Seed::new(entry.file_name().to_string_lossy(), fs::read(entry.path())?));
    }
    seeds.sort_by(|a, b| a.name.cmp(&b.name));
    let reader = Reader::new(seeds, |input| {
        let image = RgbImage::decode(&input.bytes, &input.file, ImageLimits::default())?;
        assert_eq!(image.data().len(), 3 * image.width() * image.height());
        Ok(())
    });
    Ok(reader.repaired_by(|bytes| repair(bytes)))
}

/// The checksums of PNG's chunks, as far as the lengths of the chunks lead.
fn repair(bytes: &mut [u8]) {
    let mut at = PNG.len();
    while bytes.starts_with(PNG)
        && let Some(length) = bytes.get(at..).and_then(|rest| rest.first_chunk())
    {
        let end = at + 8 + u32::from_be_bytes(*length) as usize;
        let Some(chunk) = bytes.get(at + 4..end) else { return };
        let crc = crc32fast::hash(chunk).to_be_bytes();
        let Some(place) = bytes.get_mut(end..end + 4) else { return };
        place.copy_from_slice(&crc);
        at = end + 4;
    }
}
