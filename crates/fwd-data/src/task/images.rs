//! Images below a root folder, and images that are in no pack: files, bytes out of parquet, and the blank image of a question
//! without one.
//!
//! A path in a task's file is not trusted: it may neither be absolute nor go up nor follow a symbolic link out of the root.

use crate::error::{DataError, PathFault, Result};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The longest image file that is read.
const MAX_FILE: u64 = 256 << 20;

/// A folder that images are looked for in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRoot {
    root: PathBuf,
}

impl ImageRoot {
    /// The root `dir`; it may be a symbolic link itself.
    ///
    /// # Errors
    /// [`DataError::Io`] if there is no such folder.
    pub fn open(dir: &Path) -> Result<Self> {
        let root = dir.canonicalize().map_err(|source| DataError::Io { path: dir.into(), source })?;
        Ok(Self { root })
    }

    /// The folder, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The file of an image; `origin` names the record in errors.
    ///
    /// # Errors
    /// [`DataError::ImagePath`] for a path that leads out of the root or to no file, [`DataError::Io`] if that cannot be found out.
    pub fn resolve(&self, image: &str, origin: &str) -> Result<PathBuf> {
        let fail = |fault| {
            let (origin, image) = (origin.into(), image.into());
            DataError::ImagePath { origin, image, root: self.root.clone(), fault }
        };
        let path = self.root.join(relative(image).map_err(fail)?);
        let real = match path.canonicalize() {
            Ok(real) => real,
            // A name that the system cannot have is that of no file.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                return Err(fail(PathFault::Missing));
            }
            Err(error) if error.kind() == ErrorKind::NotADirectory => return Err(fail(PathFault::Missing)),
            Err(source) => return Err(DataError::Io { path, source }),
        };
        if !real.starts_with(&self.root) {
            return Err(fail(PathFault::LinkOut));
        }
        if real.is_file() { Ok(real) } else { Err(fail(PathFault::NoFile)) }
    }
}

/// The path without `.` and empty parts. Back slashes and drives count on every system, as a file made on one is read on another.
pub(super) fn relative(image: &str) -> std::result::Result<String, PathFault> {
    let has_drive = image.as_bytes().get(1) == Some(&b':');
    if image.starts_with(['/', '\\']) || has_drive {
        return Err(PathFault::Absolute);
    }
    if image.split(['/', '\\']).any(|part| part == "..") {
        return Err(PathFault::Upwards);
    }
    let parts: Vec<&str> = image.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Ok(parts.join("/"))
}

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
    pub(super) fn insert_file(&mut self, key: &str, path: PathBuf) -> Result<()> {
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
    pub(super) fn insert_bytes(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
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
    pub(super) fn contains(&self, key: &str) -> bool {
        self.images.contains_key(key)
    }

    /// Takes an image out.
    pub(super) fn remove(&mut self, key: &str) {
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
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>> {
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

/// A grey PNG, which stands for the image of a question that has none. LLaVA gives such a question the mean colour too.
pub(super) fn blank() -> Result<Vec<u8>> {
    let mut bytes = io::Cursor::new(Vec::new());
    let grey = image::GrayImage::from_pixel(32, 32, image::Luma([127]));
    grey.write_to(&mut bytes, image::ImageFormat::Png)
        .map_err(|error| DataError::Image { origin: "the blank image".into(), what: error.to_string() })?;
    Ok(bytes.into_inner())
}
