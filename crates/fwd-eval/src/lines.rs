//! Lines of a text file as it comes: a byte order mark is passed over, CRLF ends a line as LF does, and each error names file and
//! line.

use crate::error::{EvalError, Result};
use std::io::{BufRead, Read};

/// No prediction and no row of scores is longer; what is, is another kind of file.
const MAX_LINE: usize = 16 << 20;

pub(crate) struct Lines<R> {
    reader: R,
    /// The name for errors.
    pub(crate) file: String,
    /// The number of the line read last, from 1.
    pub(crate) number: usize,
    /// Bytes a line may have.
    limit: usize,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R, file: &str) -> Self {
        Self { reader, file: file.to_owned(), number: 0, limit: MAX_LINE }
    }

    /// The next line without its end; none after the last.
    pub(crate) fn next_line(&mut self) -> Result<Option<String>> {
        self.number += 1;
        let (file, line) = (self.file.clone(), self.number);
        let mut bytes = Vec::new();
        // Two bytes more for the end of the line.
        let most = self.limit as u64 + 2;
        if let Err(error) = self.reader.by_ref().take(most).read_until(b'\n', &mut bytes) {
            return Err(EvalError::Read { file, line, message: error.to_string() });
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let rest = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let rest = rest.strip_suffix(b"\r").unwrap_or(rest);
        let rest = if line == 1 { rest.strip_prefix(b"\xef\xbb\xbf").unwrap_or(rest) } else { rest };
        if rest.len() > self.limit {
            return Err(EvalError::LongLine { file, line, limit: self.limit });
        }
        match std::str::from_utf8(rest) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(EvalError::Encoding { file, line }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], limit: usize) -> Result<Vec<String>> {
        let mut lines = Lines { limit, ..Lines::new(bytes, "f") };
        std::iter::from_fn(|| lines.next_line().transpose()).collect()
    }

    #[test]
    fn ends_and_marks_go() {
        let lines = all(b"\xef\xbb\xbfa\r\n\r\nb\n c \r\r\nd", 9).unwrap();
        assert_eq!(lines, ["a", "", "b", " c \r", "d"]);
        assert_eq!(all(b"", 9), Ok(vec![]));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        assert_eq!(all(b"a\n\xff\xfe", 9), Err(EvalError::Encoding { file: "f".into(), line: 2 }));
        assert_eq!(
            all(b"abc\r\nabcd\n", 3),
            Err(EvalError::LongLine { file: "f".into(), line: 2, limit: 3 })
        );
        assert_eq!(all(&[b'x'; 100], 3), Err(EvalError::LongLine { file: "f".into(), line: 1, limit: 3 }));
    }
}
