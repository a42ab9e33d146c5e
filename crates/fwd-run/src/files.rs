//! Files that are written whole or not at all, with errors that name them.

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;
use std::path::Path;

/// Writes a temporary file beside `path`, flushes it to the disk, renames it, and flushes the folder. What processes that were
/// killed while they wrote have left in the folder is deleted.
///
/// # Errors
/// An error of the system, naming the file; an older file is still whole then.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically_with(path, |file| file.write_all(bytes))
}

/// [`write_atomically`] of what `fill` writes, which need never be in memory as a whole.
///
/// # Errors
/// As [`write_atomically`], and those of `fill`.
pub fn write_atomically_with(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    path.parent().into_iter().for_each(fwd_files::sweep);
    fwd_files::write_atomically_with(path, fill).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a value as JSON, with a line end.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    write_atomically(path, &bytes)
}

/// The largest file that is read into memory at once, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// The content of an ordinary file of at most 1 GiB.
///
/// # Errors
/// The system's error, naming the file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fwd_files::read(path, MAX_BYTES).with_context(|| format!("cannot read {}", path.display()))
}

/// The content of an ordinary file of text of at most 1 GiB.
///
/// # Errors
/// As [`read`], or where it is no UTF-8.
pub fn read_to_string(path: &Path) -> Result<String> {
    fwd_files::read_to_string(path, MAX_BYTES).with_context(|| format!("cannot read {}", path.display()))
}

/// Reads a JSON file.
///
/// # Errors
/// That it is missing, or where it is damaged.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&read(path)?).with_context(|| format!("{} is damaged", path.display()))
}
