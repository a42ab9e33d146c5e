//! Files that are mapped into memory and read page by page, when and as far as they are used.

#![allow(unsafe_code)] // One call, below; the rest of the crate has none.

use memmap2::Mmap;
use std::fs::File;
use std::io;

/// The content of a file as it lies on the disk, mapped read-only into memory.
///
/// Mapping reads nothing. A page is read when a byte of it is first used, and the system drops it again when memory is short.
///
/// **The file must not become shorter while it is mapped.** If another process cuts it off, the use of a page that is gone ends this
/// process with the signal SIGBUS; no error can be returned for it. If another process writes into the file, the bytes seen here may
/// change. Replacing the file by renaming another one over it does no harm: the mapping keeps the older one.
#[derive(Debug)]
pub struct Mapped(Mmap);

impl Mapped {
    /// Maps an open file.
    ///
    /// # Errors
    /// The system's error, without the path.
    ///
    /// # Examples
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("model.safetensors");
    /// fwd_files::write_atomically(&path, b"weights")?;
    /// let mapped = fwd_files::Mapped::new(&fwd_files::open(&path)?)?;
    /// assert_eq!(mapped.as_ref(), b"weights");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new(file: &File) -> io::Result<Self> {
        // SAFETY: The mapping is read-only, and `Mmap` keeps it until it is dropped, after its last borrow. Every bit pattern is a valid
        // `u8`, so whatever the file holds is a value. This process never writes into a file that it has mapped: it replaces files by
        // renaming. That no other process changes the file is the caller's part, as the documentation of this type says; a shorter file
        // ends the process before it reads anything that is not there.
        unsafe { Mmap::map(file) }.map(Self)
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
