//! Images below a root folder.
//!
//! A path in a task's file is not trusted: it may neither be absolute nor go up nor follow a symbolic link out of the root.

use crate::error::{DataError, PathFault, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

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
            Err(error) if error.kind() == ErrorKind::InvalidFilename => {
                return Err(fail(PathFault::NameTooLong));
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(fail(PathFault::Denied)),
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
