//! Images that are in no pack: files, and encoded images that were read out of other files.

use crate::error::{DataError, Result};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The longest image file that is read.
const MAX_FILE: u64 = 256 << 20;

/// Images by key that are in no pack.
#[derive(Debug, Default)]
pub(crate) struct LooseImages {
    images: BTreeMap<String, Loose>,
    /// Bytes that came out of other files.
    spool: Option<Mutex<File>>,
}

#[derive(Debug)]
struct Loose {
    place: Place,
    kept: OnceLock<Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Spool { at: u64, n_bytes: u64 },
}

impl LooseImages {
    /// Adds an image file.
    ///
    /// # Errors
    /// [`DataError::Image`] if another image has the key.
    pub(crate) fn insert_file(&mut self, key: &str, path: PathBuf) -> Result<()> {
        let place = Place::File(path);
        match self.images.get(key) {
            Some(other) if other.place != place => {
                Err(DataError::Image { origin: key.into(), what: "two images have this key".into() })
            }
            Some(_) => Ok(()),
            None => {
                self.images.insert(key.into(), Loose { place, kept: OnceLock::new() });
                Ok(())
            }
        }
    }

    /// Adds an encoded image, kept in a temporary file.
    ///
    /// # Errors
    /// [`DataError::Io`] if it cannot be written.
    pub(crate) fn insert_bytes(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
        let io = |source| DataError::Io { path: std::env::temp_dir(), source };
        let spool = match self.spool.take() {
            Some(spool) => spool,
            None => Mutex::new(tempfile::tempfile().map_err(io)?),
        };
        let spool = self.spool.insert(spool);
        let file = spool.get_mut().unwrap_or_else(PoisonError::into_inner);
        let at = file.seek(SeekFrom::End(0)).map_err(io)?;
        file.write_all(bytes).map_err(io)?;
        let place = Place::Spool { at, n_bytes: bytes.len() as u64 };
        self.images.insert(key.into(), Loose { place, kept: OnceLock::new() });
        Ok(())
    }

    /// The keys, ascending.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.images.keys().map(String::as_str)
    }

    /// Whether there is an image of this key.
    pub(crate) fn contains(&self, key: &str) -> bool {
        self.images.contains_key(key)
    }

    /// Takes an image out.
    pub(crate) fn remove(&mut self, key: &str) {
        self.images.remove(key);
    }

    /// The length of an encoded image in bytes.
    pub(crate) fn len_of(&self, key: &str) -> Result<u64> {
        match &self.get(key)?.place {
            Place::Spool { n_bytes, .. } => Ok(*n_bytes),
            Place::File(path) => match fs::metadata(path) {
                Ok(metadata) => Ok(metadata.len()),
                Err(source) => Err(DataError::Io { path: path.clone(), source }),
            },
        }
    }

    /// The encoded image.
    ///
    /// # Errors
    /// [`DataError::UnknownImage`], [`DataError::Io`], [`DataError::Image`] for a file that is too large.
    pub(crate) fn read(&self, key: &str) -> Result<Vec<u8>> {
        match &self.get(key)?.place {
            Place::File(path) => read_file(path),
            Place::Spool { at, n_bytes } => {
                let io = |source| DataError::Io { path: std::env::temp_dir(), source };
                let spool = self.spool.as_ref().ok_or_else(|| io(ErrorKind::NotFound.into()))?;
                let mut file = spool.lock().unwrap_or_else(PoisonError::into_inner);
                read_range(&mut file, *at, *n_bytes).map_err(io)
            }
        }
    }

    /// The encoded image, kept in memory from then on.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn kept(&self, key: &str) -> Result<&[u8]> {
        let image = self.get(key)?;
        if let Some(bytes) = image.kept.get() {
            return Ok(bytes);
        }
        let bytes = self.read(key)?;
        Ok(image.kept.get_or_init(|| bytes))
    }

    fn get(&self, key: &str) -> Result<&Loose> {
        self.images.get(key).ok_or_else(|| DataError::UnknownImage { key: key.into() })
    }
}

/// An image file as it is.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let io = |source| DataError::Io { path: path.into(), source };
    let n_bytes = fs::metadata(path).map_err(io)?.len();
    if n_bytes > MAX_FILE {
        let what = format!("the file has {n_bytes} bytes, more than the allowed {MAX_FILE}");
        return Err(DataError::Image { origin: path.display().to_string(), what });
    }
    fs::read(path).map_err(io)
}

fn read_range(file: &mut File, at: u64, n_bytes: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = vec![0; n_bytes as usize];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
