//! `images.pack`: many small encoded images in one file.
//!
//! The eight bytes `FWDPACK1`, then for each image `u16` length of the key, `u32` length of the bytes (little endian), the key in
//! UTF-8 and the bytes. The keys ascend, so that a pack of the same images is the same file and no key occurs twice.

use crate::error::{DataError, Result};
use filebuffer::FileBuffer;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

/// How a pack begins.
pub(crate) const MAGIC: &[u8; 8] = b"FWDPACK1";

/// A pack, mapped into memory.
#[derive(Debug, Clone)]
pub struct Pack {
    file: Bytes,
    /// The place of each image in `file`, by its key.
    images: BTreeMap<String, Range<usize>>,
}

/// The bytes of a pack, wherever they are.
#[derive(Debug, Clone)]
enum Bytes {
    Mapped(Arc<FileBuffer>),
    Made(Arc<Vec<u8>>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(file) => file,
            Self::Made(bytes) => bytes,
        }
    }
}

impl Pack {
    /// Opens a pack by mapping it into memory; the file must not change while it is in use.
    ///
    /// # Errors
    /// [`DataError::Io`] or [`DataError::Pack`]: another format, a truncated record, a key that is not UTF-8, keys that do not
    /// ascend.
    pub fn open(path: &Path) -> Result<Self> {
        let file = FileBuffer::open(path).map_err(|source| DataError::Io { path: path.into(), source })?;
        let file = Bytes::Mapped(Arc::new(file));
        let images = index(&file).map_err(|what| DataError::Pack { path: path.into(), what })?;
        Ok(Self { file, images })
    }

    /// Makes a pack in memory of the image files of a folder: PNG, JPEG and WebP, as the endings of their names say. The key of a file
    /// is `FOLDER/FILE`. Sub-folders and symbolic links are passed over.
    ///
    /// # Errors
    /// [`DataError::Io`], or [`DataError::Pack`] for a name that is not UTF-8 or too long and a file that is too large.
    pub fn of_files(folder: &Path) -> Result<Self> {
        let io = |path: &Path, source| DataError::Io { path: path.into(), source };
        let fail = |what: &str| DataError::Pack { path: folder.into(), what: what.into() };
        let name = folder.file_name().and_then(OsStr::to_str).ok_or_else(|| fail("its name is not UTF-8"))?;
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(|e| io(folder, e))? {
            let entry = entry.map_err(|e| io(folder, e))?;
            let path = entry.path();
            let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
            let is_file = entry.file_type().map_err(|e| io(&path, e))?.is_file();
            if is_file && ["png", "jpg", "jpeg", "webp"].contains(&extension.as_str()) {
                let file = entry.file_name().into_string().map_err(|_| fail("a file's name is not UTF-8"))?;
                files.insert(format!("{name}/{file}"), fs::read(&path).map_err(|e| io(&path, e))?);
            }
        }
        let mut pack = MAGIC.to_vec();
        for (key, bytes) in files {
            pack.extend(record_head(&key, bytes.len()).map_err(|what| fail(&what))?);
            pack.extend(bytes);
        }
        let images = index(&pack).map_err(|what| fail(&what))?;
        Ok(Self { file: Bytes::Made(Arc::new(pack)), images })
    }

    /// The encoded image of a key; none if the pack does not hold it.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.images.get(key).map(|range| &self.file[range.clone()])
    }

    /// The keys, ascending.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.images.keys().map(String::as_str)
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// The whole file.
    pub(super) fn file(&self) -> &[u8] {
        &self.file
    }
}

/// What stands before the bytes of an image, or what is wrong with its name or length.
pub(crate) fn record_head(key: &str, n_bytes: usize) -> std::result::Result<Vec<u8>, String> {
    let key_len = u16::try_from(key.len()).map_err(|_| format!("the name `{key}` is too long"))?;
    let n_bytes = u32::try_from(n_bytes).map_err(|_| format!("`{key}` has 4 GiB or more"))?;
    let mut head = key_len.to_le_bytes().to_vec();
    head.extend(n_bytes.to_le_bytes());
    head.extend(key.as_bytes());
    Ok(head)
}

/// Where each image lies, or what is wrong.
fn index(file: &[u8]) -> std::result::Result<BTreeMap<String, Range<usize>>, String> {
    if !file.starts_with(MAGIC) {
        return Err("this is no image pack: it does not begin with FWDPACK1".into());
    }
    let mut images: BTreeMap<String, Range<usize>> = BTreeMap::new();
    let mut at = MAGIC.len();
    while at < file.len() {
        let after =
            images.last_key_value().map_or_else(String::new, |(key, _)| format!(", after the image `{key}`"));
        let truncated =
            |part: &str| format!("the file ends inside {part} at byte {at}{after}; it is truncated");
        let [k0, k1, n0, n1, n2, n3] = *file.get(at..at + 6).unwrap_or_default() else {
            return Err(truncated("the head of a record"));
        };
        let key_start = at + 6;
        let start = key_start + usize::from(u16::from_le_bytes([k0, k1]));
        let key = file.get(key_start..start).ok_or_else(|| truncated("a key"))?;
        let key = std::str::from_utf8(key)
            .map_err(|_| format!("the key at byte {key_start}{after} is not UTF-8"))?;
        let n_bytes = u32::from_le_bytes([n0, n1, n2, n3]) as usize;
        let end = start.checked_add(n_bytes).filter(|&end| end <= file.len());
        let end = end.ok_or_else(|| truncated(&format!("the image `{key}`")))?;
        match images.last_key_value() {
            Some((last, _)) if last == key => return Err(format!("the image `{key}` is there twice")),
            Some((last, _)) if last.as_str() > key => {
                return Err(format!("the image `{key}` comes after `{last}`; the keys must ascend"));
            }
            _ => images.insert(key.into(), start..end),
        };
        at = end;
    }
    Ok(images)
}
