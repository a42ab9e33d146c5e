#![doc = include_str!("../README.md")]
#![deny(unsafe_code)] // `forbid` but for the mapping of a file.

mod mapped;
mod temporary;

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, IntoInnerError, Read, Write};
use std::path::Path;

pub use mapped::Mapped;
pub use temporary::{TemporaryFolder, is_temporary, sweep, temporary, temporary_folder};

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
    File::open(dir)?.sync_all()?;
    Ok(())
}

/// Opens an ordinary file for reading.
///
/// A folder, a pipe or a device is refused before it is opened: a pipe would wait for its writer, and a device may never end.
///
/// # Errors
/// The system's error, without the path; [`ErrorKind::InvalidInput`] for what is no ordinary file.
pub fn open(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        let what = "this is no ordinary file but a folder, a pipe or a device";
        return Err(io::Error::new(ErrorKind::InvalidInput, what));
    }
    File::open(path)
}

/// The content of an ordinary file of at most `max_bytes` bytes, which is asked for its length before it is read.
///
/// # Errors
/// As [`open`]; [`ErrorKind::InvalidData`] with both figures for a larger file, and [`ErrorKind::OutOfMemory`] for one that does not fit.
///
/// # Examples
/// ```
/// # let folder = std::env::temp_dir().join("fwd-files-read");
/// let path = folder.join("config.json");
/// fwd_files::write_atomically(&path, b"{}")?;
/// assert_eq!(fwd_files::read(&path, 2)?, b"{}");
/// assert!(fwd_files::read(&path, 1).is_err());
/// # std::fs::remove_dir_all(folder)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let n_bytes = file.metadata()?.len();
    let too_large = |n_bytes: u64| {
        let what = format!("the file has {n_bytes} bytes, more than the {max_bytes} that are read");
        io::Error::new(ErrorKind::InvalidData, what)
    };
    if n_bytes > max_bytes {
        return Err(too_large(n_bytes));
    }
    // The file may grow while it is read, and those below /proc say that they have no bytes.
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(n_bytes as usize)?;
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}

/// As [`read`], for a file of text.
///
/// # Errors
/// As [`read`]; [`ErrorKind::InvalidData`] with the place of the first byte that is no UTF-8.
pub fn read_to_string(path: &Path, max_bytes: u64) -> io::Result<String> {
    String::from_utf8(read(path, max_bytes)?).map_err(|error| {
        let what = format!("byte {} is no UTF-8", error.utf8_error().valid_up_to());
        io::Error::new(ErrorKind::InvalidData, what)
    })
}

/// So many bytes of the beginning of a file are enough for [`foreign`].
pub const HEAD: u64 = 512;

/// What a file is that often lies where another was meant to be, by its first bytes: a Git LFS pointer, a web page, an archive. None
/// if it may well be what was meant.
///
/// # Examples
/// ```
/// let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146";
/// assert!(fwd_files::foreign(pointer).unwrap().contains("Git LFS pointer"));
/// assert!(fwd_files::foreign(b" <!DOCTYPE html><html>").unwrap().contains("web page"));
/// assert_eq!(fwd_files::foreign(b"{\"model_type\": \"t5\"}"), None);
/// ```
pub fn foreign(head: &[u8]) -> Option<&'static str> {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let begins =
        |with: &str| text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()));
    if begins("version https://git-lfs") {
        return Some(
            "a Git LFS pointer and not the file itself; fetch it with `git lfs pull` or download it again",
        );
    }
    if ["<!doctype", "<html", "<head", "<?xml"].iter().any(|with| begins(with)) {
        return Some(
            "a web page and not the file itself; use the link for downloads (`resolve`, not `blob`)",
        );
    }
    if ["Entry not found", "Invalid username or password", "Access to model", "Repository not found"]
        .iter()
        .any(|with| begins(with))
    {
        return Some(
            "the refusal of a server and not the file itself; download it again, logged in if need be",
        );
    }
    if head.starts_with(b"PK\x03\x04") {
        return Some("a zip archive (as PyTorch's own files are) and not what its name says");
    }
    head.starts_with(b"GGUF").then_some("a GGUF file and not what its name says")
}
