//! Reading a header from its beginning, with the file that remains as the measure of every length.

use crate::error::{ModelError, Result};
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

/// The longest key or name of a tensor, in bytes.
const LONGEST_NAME: u64 = 1 << 10;

/// The longest text that is kept, in bytes.
const LONGEST_TEXT: u64 = 1 << 8;

/// A place in a file.
pub(super) struct Cursor<'a> {
    path: &'a Path,
    reader: BufReader<&'a File>,
    at: u64,
    n_bytes: u64,
}

impl<'a> Cursor<'a> {
    /// Begins at the beginning of a file of `n_bytes` bytes.
    pub(super) fn new(path: &'a Path, mut file: &'a File, n_bytes: u64) -> Result<Self> {
        let io = |source| ModelError::Io { path: path.into(), source };
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        Ok(Self { path, reader: BufReader::new(file), at: 0, n_bytes })
    }

    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    pub(super) fn damaged(&self, what: String) -> ModelError {
        let what = format!("not a valid GGUF file: {what}; download or copy it again");
        ModelError::WeightFile { path: self.path.into(), what }
    }

    /// Whether the file has so many more bytes.
    pub(super) fn has(&self, n: u64, what: &str) -> Result<()> {
        let rest = self.n_bytes - self.at;
        if n <= rest {
            return Ok(());
        }
        Err(self.damaged(format!("{what} would have {n} bytes from {}, the file has {rest} more", self.at)))
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        self.has(N as u64, what)?;
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A key or the name of a tensor: short, and without control characters.
    pub(super) fn name(&mut self, what: &str) -> Result<String> {
        let length = self.u64(what)?;
        if length > LONGEST_NAME {
            return Err(self.damaged(format!("{what} would have {length} bytes")));
        }
        let text = self.string(length, what)?;
        if text.chars().any(char::is_control) {
            return Err(self.damaged(format!("{what} has control characters")));
        }
        Ok(text)
    }

    /// A text, unless it is long.
    pub(super) fn text(&mut self, what: &str) -> Result<Option<String>> {
        let length = self.u64(what)?;
        if length > LONGEST_TEXT {
            self.skip(length, what)?;
            return Ok(None);
        }
        self.string(length, what).map(Some)
    }

    /// A text of so many bytes.
    pub(super) fn string(&mut self, length: u64, what: &str) -> Result<String> {
        self.has(length, what)?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.damaged(format!("{what} is no UTF-8")))
    }

    pub(super) fn skip(&mut self, n: u64, what: &str) -> Result<()> {
        self.has(n, what)?;
        let io = |source| ModelError::Io { path: self.path.into(), source };
        self.reader.seek_relative(n as i64).map_err(io)?;
        self.at += n;
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        match self.reader.read_exact(bytes) {
            Ok(()) => {
                self.at += bytes.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(self.damaged("it became shorter while it was read".into()))
            }
            Err(source) => Err(ModelError::Io { path: self.path.into(), source }),
        }
    }
}
