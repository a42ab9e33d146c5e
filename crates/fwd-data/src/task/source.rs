//! A text file read byte by byte in bounded memory: where it stands, and what marks stand at its start.
//!
//! Some of the marks are those of other files, which come under a wrong name: compressed ones, pages of an error in HTML, pointers of Git LFS.

use crate::error::{DataError, Result};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// The longest record: a bracket or quotation mark that is never closed must not read a whole file into memory.
pub(super) const MAX_RECORD: usize = 16 << 20;

/// A file and the place in it.
pub(super) struct Source {
    reader: BufReader<File>,
    path: PathBuf,
    at: u64,
}

impl Source {
    /// Opens a file and passes over the byte-order mark of UTF-8.
    ///
    /// # Errors
    /// [`DataError::Io`], or [`DataError::TaskSyntax`] for UTF-16.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = fwd_files::open(path).map_err(|source| DataError::Io { path: path.into(), source })?;
        let mut source = Self { reader: BufReader::with_capacity(1 << 16, file), path: path.into(), at: 0 };
        let start = source.chunk()?;
        if let Some(what) = other_kind(start) {
            return Err(source.syntax(what));
        }
        if start.starts_with(&[0xef, 0xbb, 0xbf]) {
            source.consume(3);
        }
        if source.chunk()?.starts_with(b"PAR1") {
            return Err(source.syntax("the file is parquet; give it the ending `.parquet`"));
        }
        Ok(source)
    }

    /// The path that the file was opened by.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next byte's place, counted from 0.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Some of the bytes that follow; empty at the end.
    pub(super) fn chunk(&mut self) -> Result<&[u8]> {
        let path = &self.path;
        self.reader.fill_buf().map_err(|source| DataError::Io { path: path.clone(), source })
    }

    /// Passes over bytes of [`Self::chunk`].
    pub(super) fn consume(&mut self, n_bytes: usize) {
        self.reader.consume(n_bytes);
        self.at += n_bytes as u64;
    }

    /// The next byte, which stays the next.
    pub(super) fn peek(&mut self) -> Result<Option<u8>> {
        Ok(self.chunk()?.first().copied())
    }

    /// The next byte that is no white space, which stays the next.
    pub(super) fn peek_past_space(&mut self) -> Result<Option<u8>> {
        loop {
            let chunk = self.chunk()?;
            let n_spaces = chunk.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let next = chunk.get(n_spaces).copied();
            let is_at_end = chunk.is_empty();
            self.consume(n_spaces);
            if next.is_some() || is_at_end {
                return Ok(next);
            }
        }
    }

    /// A syntax error at the next byte.
    pub(super) fn syntax(&self, what: impl Into<String>) -> DataError {
        DataError::TaskSyntax { path: self.path.clone(), at: self.at, what: what.into() }
    }
}

/// What a file is that begins so, if it holds no text of records.
pub(super) fn other_kind(start: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 9] = [
        (&[0xff, 0xfe], "the file is UTF-16; save it as UTF-8"),
        (&[0xfe, 0xff], "the file is UTF-16; save it as UTF-8"),
        (&[0x1f, 0x8b], "the file is compressed by gzip; unpack it with `gunzip`"),
        (b"PK\x03\x04", "the file is a ZIP archive; unpack it with `unzip`"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "the file is compressed by zstd; unpack it with `unzstd`"),
        (b"BZh", "the file is compressed by bzip2; unpack it with `bunzip2`"),
        (&[0xfd, b'7', b'z', b'X', b'Z'], "the file is compressed by xz; unpack it with `unxz`"),
        (
            b"version https://git-lfs",
            "the file is a pointer of Git LFS, not its content; fetch that with `git lfs pull`",
        ),
        (b"<", "the file is a page of HTML or XML, maybe the error of a failed download; download it again"),
    ];
    KINDS.iter().find(|(mark, _)| start.starts_with(mark)).map(|(_, what)| *what)
}
