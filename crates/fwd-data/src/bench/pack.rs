//! `images.pack`: many small encoded images in one file.
//!
//! The eight bytes `FWDPACK1`, then for each image `u16` length of the key, `u32` length of the bytes (little endian), the key in
//! UTF-8 and the bytes. The keys ascend, so that a pack of the same images is the same file and no key occurs twice. A pack is
//! read from end to end once, for its hash and the places of its images; images are read when they are needed.

use super::hash::announce;
use crate::error::{DataError, Result};
use crate::image_file::ImageLimits;
use crate::loose::{Place, Shared, copy};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

/// How the names of image files end.
const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "gif", "bmp"];

/// How a pack begins.
pub(crate) const MAGIC: &[u8; 8] = b"FWDPACK1";
/// The fixed part of what stands before an image: the lengths of its key and of its bytes.
const LENGTHS: u64 = 6;

/// Images by key.
pub(super) type Places = BTreeMap<String, Place>;

/// The images of a pack; `hasher` gets the folder's name and the whole file, unless it is empty.
///
/// # Errors
/// [`DataError::Io`] or [`DataError::Pack`]: another format, a truncated record, a key that is not UTF-8, keys that do not
/// ascend.
pub(super) fn read_pack(path: &Path, folder: &str, hasher: &mut Sha256) -> Result<Places> {
    let io = |source| DataError::Io { path: path.into(), source };
    let fail = |what: String| DataError::Pack { path: path.into(), what };
    let file = fwd_files::open(path).map_err(io)?;
    let n_bytes = file.metadata().map_err(io)?.len();
    let mut reader = BufReader::new(file.try_clone().map_err(io)?);
    let shared = Arc::new(Shared::new(path.into(), file));
    let mut magic = Vec::new();
    reader.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(io)?;
    if magic != MAGIC {
        return Err(fail("this is no image pack: it does not begin with FWDPACK1".into()));
    }
    if n_bytes > MAGIC.len() as u64 {
        announce(hasher, folder, n_bytes);
        hasher.update(MAGIC);
    }
    let longest = ImageLimits::default().max_file;
    let mut images = Places::new();
    let mut at = MAGIC.len() as u64;
    while at < n_bytes {
        let last = images.last_key_value().map(|(key, _)| key.as_str());
        let after = last.map_or_else(String::new, |key| format!(", after the image `{key}`"));
        let truncated =
            |part: &str| fail(format!("the file ends inside {part} at byte {at}{after}; it is truncated"));
        if n_bytes - at < LENGTHS {
            return Err(truncated("the head of a record"));
        }
        let head = next(&mut reader, LENGTHS, hasher).map_err(io)?;
        let [k0, k1, n0, n1, n2, n3] = head[..] else { return Err(truncated("the head of a record")) };
        let key_start = at + LENGTHS;
        let start = key_start + u64::from(u16::from_le_bytes([k0, k1]));
        if start > n_bytes {
            return Err(truncated("a key"));
        }
        let key = String::from_utf8(next(&mut reader, start - key_start, hasher).map_err(io)?);
        let key = key.map_err(|_| fail(format!("the key at byte {key_start}{after} is not UTF-8")))?;
        let length = u64::from(u32::from_le_bytes([n0, n1, n2, n3]));
        if start + length > n_bytes {
            return Err(truncated(&format!("the image `{key}`")));
        }
        if length > longest {
            return Err(fail(format!(
                "the image `{key}` has {length} bytes, more than the {longest} that are read"
            )));
        }
        match last {
            Some(last) if last == key => return Err(fail(format!("the image `{key}` is there twice"))),
            Some(last) if last > key.as_str() => {
                return Err(fail(format!("the image `{key}` comes after `{last}`; the keys must ascend")));
            }
            _ => {}
        }
        copy(&mut reader, length, &mut |chunk| hasher.update(chunk)).map_err(io)?;
        images.insert(key, Place::Part { file: Arc::clone(&shared), at: start, n_bytes: length });
        at = start + length;
    }
    Ok(images)
}

/// The image files of a folder, as the endings of their names say: PNG, JPEG, WebP, GIF and BMP. The key of a file is `FOLDER/FILE`, or
/// `FOLDER/…/FILE` in a sub-folder. Symbolic links and hidden files and folders are passed over. `hasher` gets the folder's name and the bytes of the pack that these images would
/// make, unless there are none.
///
/// # Errors
/// [`DataError::Io`], or [`DataError::Pack`] for a name that is not UTF-8 or too long and a file that is too large.
pub(super) fn read_folder(folder: &Path, hasher: &mut Sha256) -> Result<Places> {
    let fail = |what: &str| DataError::Pack { path: folder.into(), what: what.into() };
    let name = folder.file_name().and_then(OsStr::to_str).ok_or_else(|| fail("its name is not UTF-8"))?;
    let mut images = Places::new();
    find_pictures(folder, name, &mut images)?;
    if images.is_empty() {
        return Ok(images);
    }
    let mut heads = Vec::with_capacity(images.len());
    let mut n_bytes = MAGIC.len() as u64;
    for (key, place) in &images {
        let length = place.n_bytes()?;
        let head = record_head(key, length as usize).map_err(|what| fail(&what))?;
        n_bytes += head.len() as u64 + length;
        heads.push((head, length));
    }
    announce(hasher, name, n_bytes);
    hasher.update(MAGIC);
    for ((key, place), (head, length)) in images.iter().zip(heads) {
        hasher.update(head);
        let mut n_read = 0;
        place.stream(|chunk| {
            n_read += chunk.len() as u64;
            hasher.update(chunk);
        })?;
        if n_read != length {
            return Err(fail(&format!("`{key}` has changed while it was read")));
        }
    }
    Ok(images)
}

/// The next bytes, which the hash sees too.
fn next(reader: &mut impl Read, n_bytes: u64, hasher: &mut Sha256) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(n_bytes as usize);
    copy(reader, n_bytes, &mut |chunk| bytes.extend(chunk))?;
    hasher.update(&bytes);
    Ok(bytes)
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

/// The image files of a folder and of the folders in it, by `NAME/…/FILE`.
fn find_pictures(folder: &Path, name: &str, images: &mut Places) -> Result<()> {
    let io = |path: &Path, source| DataError::Io { path: path.into(), source };
    for entry in fs::read_dir(folder).map_err(|e| io(folder, e))? {
        let entry = entry.map_err(|e| io(folder, e))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|e| io(&path, e))?;
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
        let is_picture = kind.is_file() && EXTENSIONS.contains(&extension.as_str());
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if is_hidden || !is_picture && !kind.is_dir() {
            continue;
        }
        let file = entry.file_name().into_string().map_err(|_| {
            let what = "the name of a file in it is not UTF-8".into();
            DataError::Pack { path: folder.into(), what }
        })?;
        let key = format!("{name}/{file}");
        if kind.is_dir() {
            find_pictures(&path, &key, images)?;
        } else {
            images.insert(key, Place::File(path));
        }
    }
    Ok(())
}
