//! Where encoded images lie. None is kept in memory: each is read when it is needed.

use crate::error::{DataError, Result};
use crate::image_file::ImageLimits;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How many bytes of a file are looked at together.
const CHUNK: u64 = 1 << 16;

/// Where an encoded image lies.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A file of its own.
    File(PathBuf),
    /// Part of a file that holds many.
    Part { file: Arc<Shared>, at: u64, n_bytes: u64 },
}

/// A file that holds many images. It stays open, so that another file of its name does not take its place.
#[derive(Debug)]
pub(crate) struct Shared {
    path: PathBuf,
    file: Mutex<File>,
}

impl Shared {
    pub(crate) fn new(path: PathBuf, file: File) -> Self {
        Self { path, file: Mutex::new(file) }
    }
}

impl Place {
    /// The length of the encoded image in bytes.
    ///
    /// # Errors
    /// [`DataError::Io`] if there is no such file.
    pub(crate) fn n_bytes(&self) -> Result<u64> {
        match self {
            Self::Part { n_bytes, .. } => Ok(*n_bytes),
            Self::File(path) => {
                let metadata = fs::metadata(path);
                Ok(metadata.map_err(|source| DataError::Io { path: path.clone(), source })?.len())
            }
        }
    }

    /// The encoded image.
    ///
    /// # Errors
    /// [`DataError::Io`] naming the file: it cannot be read, is too large, or has become shorter.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::File(path) => read_file(path),
            Self::Part { n_bytes, .. } => {
                let mut bytes = Vec::with_capacity(*n_bytes as usize);
                self.stream(|chunk| bytes.extend(chunk))?;
                Ok(bytes)
            }
        }
    }

    /// Gives the encoded image to `take` in pieces.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn stream(&self, mut take: impl FnMut(&[u8])) -> Result<()> {
        let (path, streamed) = match self {
            Self::File(path) => {
                let limit = ImageLimits::default().max_file;
                (
                    path,
                    fwd_files::open(path).and_then(|mut file| {
                        let n_bytes = file.metadata()?.len();
                        if n_bytes > limit {
                            let what =
                                format!("the file has {n_bytes} bytes, more than the {limit} that are read");
                            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                        }
                        copy(&mut file, n_bytes, &mut take)
                    }),
                )
            }
            Self::Part { file, at, n_bytes } => {
                let mut open = file.file.lock().unwrap_or_else(PoisonError::into_inner);
                let sought = open.seek(SeekFrom::Start(*at));
                (&file.path, sought.and_then(|_| copy(&mut *open, *n_bytes, &mut take)))
            }
        };
        streamed.map_err(|source| DataError::Io { path: path.clone(), source })
    }
}

/// Gives the next `n_bytes` bytes to `take` in pieces; fewer are an error.
pub(crate) fn copy(from: &mut impl Read, n_bytes: u64, take: &mut impl FnMut(&[u8])) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK.min(n_bytes) as usize];
    let mut left = n_bytes;
    while left > 0 {
        let part = &mut chunk[..CHUNK.min(left) as usize];
        from.read_exact(part).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(
                error.kind(),
                format!("the file ends {left} bytes too early: it has been cut short"),
            ),
            _ => error,
        })?;
        take(part);
        left -= part.len() as u64;
    }
    Ok(())
}

/// Images by key that are in no pack.
#[derive(Debug, Default)]
pub(crate) struct LooseImages {
    images: BTreeMap<String, Place>,
    /// Bytes that came out of other files, and how many they are.
    spool: Option<(Arc<Shared>, u64)>,
}

impl LooseImages {
    /// Adds an image file.
    ///
    /// # Errors
    /// [`DataError::Image`] if another image has the key.
    pub(crate) fn insert_file(&mut self, key: &str, path: PathBuf) -> Result<()> {
        match self.images.get(key) {
            Some(Place::File(other)) if *other == path => Ok(()),
            Some(_) => Err(DataError::Image { origin: key.into(), what: "two images have this key".into() }),
            None => {
                self.images.insert(key.into(), Place::File(path));
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
        let (file, at) = match self.spool.take() {
            Some(spool) => spool,
            None => (Arc::new(Shared::new(std::env::temp_dir(), tempfile::tempfile().map_err(io)?)), 0),
        };
        {
            let mut open = file.file.lock().unwrap_or_else(PoisonError::into_inner);
            open.seek(SeekFrom::Start(at)).map_err(io)?;
            open.write_all(bytes).map_err(io)?;
        }
        let n_bytes = bytes.len() as u64;
        self.spool = Some((Arc::clone(&file), at + n_bytes));
        self.images.insert(key.into(), Place::Part { file, at, n_bytes });
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

    /// The encoded image.
    ///
    /// # Errors
    /// [`DataError::UnknownImage`], or as [`Place::read`].
    pub(crate) fn read(&self, key: &str) -> Result<Vec<u8>> {
        self.images.get(key).ok_or_else(|| DataError::UnknownImage { key: key.into() })?.read()
    }

    /// The places of all images, by key.
    pub(crate) fn into_places(self) -> BTreeMap<String, Place> {
        self.images
    }
}

/// An image file as it is.
///
/// # Errors
/// [`DataError::Io`] naming the file, also for one that is too large, a pipe or a device.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let read = fwd_files::read(path, ImageLimits::default().max_file);
    read.map_err(|source| DataError::Io { path: path.into(), source })
}
