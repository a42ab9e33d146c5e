#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, BufWriter, IntoInnerError, Write};
use std::path::Path;
use tempfile::NamedTempFile;

/// How the names of temporary files begin.
const PREFIX: &str = ".tmp";

/// Creates a temporary file in a folder that exists; dropping it deletes the file.
///
/// On Unix it has the permissions of an ordinary file, `0o666` without the bits of the umask. (The default of `tempfile`, `0o600`,
/// would hide a renamed file from every other user.) Its name begins with `.tmp`.
///
/// # Errors
/// The system's error if the file cannot be created.
pub fn temporary(dir: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.prefix(PREFIX).tempfile_in(dir)
}

/// Whether a file of this name was made by [`temporary`]: its name begins with `.tmp`.
///
/// # Examples
/// ```
/// assert!(fwd_files::is_temporary(".tmpA1b2C3"));
/// assert!(!fwd_files::is_temporary("metrics.tmp"));
/// ```
pub fn is_temporary(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Replaces the content of a file by `bytes`, or creates it, and creates missing folders on the way.
///
/// # Errors
/// The system's error, without the path; an older file is still whole then.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomically_with(path, |file| file.write_all(bytes))
}

/// Replaces the content of a file by what `fill` writes, or creates it, and creates missing folders on the way.
///
/// The order is: temporary file in the same folder, buffered writing, `fsync`, rename, and on Unix `fsync` of the folder.
///
/// # Errors
/// The error of `fill` or the system's error, without the path. An older file is still whole then, unless only the `fsync` of the
/// folder has failed: the new file is in its place then, but a power cut may bring back the older one.
pub fn write_atomically_with(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let mut file = BufWriter::new(temporary(dir)?);
    fill(&mut file)?;
    let file = file.into_inner().map_err(IntoInnerError::into_error)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    #[cfg(unix)]
    fs::File::open(dir)?.sync_all()?;
    Ok(())
}
