//! Decodes every file of the given folders and prints name, size, and SHA-256 of the RGB pixels: alpha dropped, blended over white,
//! and alpha dropped and upright. `crates/fwd-models/tests/fixtures/scripts/decode_pillow.py` prints the same lines by Pillow.
//!
//! ```text
//! cargo run -p fwd-data --example decode -- FOLDER… > ours
//! python crates/fwd-models/tests/fixtures/scripts/decode_pillow.py FOLDER… > pillow
//! diff ours pillow
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

use fwd_data::bench::ContentHash;
use fwd_data::{Alpha, ImageLimits, Orientation, RgbImage};
use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Size and hashes of an image, separated by tabs.
fn line(path: &Path) -> fwd_data::Result<String> {
    let name = path.display().to_string();
    let bytes =
        std::fs::read(path).map_err(|source| fwd_data::DataError::Io { path: path.into(), source })?;
    let decode =
        |alpha, orientation| RgbImage::decode_with(&bytes, &name, ImageLimits::default(), alpha, orientation);
    let dropped = decode(Alpha::Drop, Orientation::Stored)?;
    let white = decode(Alpha::Over([255; 3]), Orientation::Stored)?;
    let upright = decode(Alpha::Drop, Orientation::Upright)?;
    let hashes = [&dropped, &white, &upright].map(|image| ContentHash::of(image.data()).to_string());
    Ok(format!("{}x{}\t{}", dropped.width(), dropped.height(), hashes.join("\t")))
}

fn main() -> Result<(), Box<dyn Error>> {
    for folder in std::env::args_os().skip(1) {
        let entries = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path()));
        let mut paths: Vec<PathBuf> = entries.collect::<std::io::Result<_>>()?;
        paths.retain(|path| path.is_file() && path.extension().is_none_or(|extension| extension != "tsv"));
        paths.sort();
        for path in paths {
            let name = path.file_name().map_or(OsString::new(), OsString::from);
            let line = line(&path).unwrap_or_else(|error| {
                eprintln!("{}", error.with_cause());
                "refused".into()
            });
            println!("{}\t{line}", name.to_string_lossy());
        }
    }
    Ok(())
}
