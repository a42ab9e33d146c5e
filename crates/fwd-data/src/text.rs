//! `tokenizer.json` files (T5's Unigram, BERT's WordPiece) and batches of token ids.

use crate::error::{DataError, Result};
use std::path::Path;
use tokenizers::Tokenizer;

/// A tokenizer with its padding id.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    pad: u32,
    origin: String,
}

/// Token ids of several texts, filled up on the right to the longest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    /// The ids, `(rows, width)` row-major.
    pub ids: Vec<i64>,
    /// 1 for a token and 0 for padding, `(rows, width)` row-major.
    pub mask: Vec<i64>,
    /// The number of texts.
    pub rows: usize,
    /// The number of tokens of the longest text.
    pub width: usize,
}

impl TextTokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] naming the file if it is missing, damaged or has neither `<pad>` nor `[PAD]`.
    pub fn open(path: &Path) -> Result<Self> {
        let origin = path.display().to_string();
        let fail = |what: String| DataError::Tokenizer { origin: origin.clone(), what };
        let mut inner = Tokenizer::from_file(path).map_err(|e| fail(e.to_string()))?;
        // A file may carry the padding and truncation of its last use; ours are explicit.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| fail(e.to_string()))?;
        let pad = ["<pad>", "[PAD]"].iter().find_map(|token| inner.token_to_id(token));
        let pad = pad.ok_or_else(|| fail("has neither `<pad>` nor `[PAD]`".into()))?;
        Ok(Self { inner, pad, origin })
    }

    /// Token ids of a text, with the special tokens that the tokenizer adds (`</s>`, or `[CLS]` and `[SEP]`).
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] if the tokenizer fails on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, true)
    }

    /// The same without special tokens.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, false)
    }

    fn encode_with(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode(text, special).map_err(|e| DataError::Tokenizer {
            origin: self.origin.clone(),
            what: format!("{}: {e}", excerpt(text)),
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Several texts, filled up on the right with the padding id.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_batch<T: AsRef<str>>(&self, texts: &[T]) -> Result<TokenBatch> {
        let rows = texts.iter().map(|t| self.encode(t.as_ref())).collect::<Result<Vec<_>>>()?;
        let width = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut batch = TokenBatch { ids: Vec::new(), mask: Vec::new(), rows: rows.len(), width };
        for row in &rows {
            let filler = width - row.len();
            batch.ids.extend(row.iter().map(|&id| i64::from(id)));
            batch.ids.extend(std::iter::repeat_n(i64::from(self.pad), filler));
            batch.mask.extend(std::iter::repeat_n(1, row.len()));
            batch.mask.extend(std::iter::repeat_n(0, filler));
        }
        Ok(batch)
    }

    /// The text of token ids, special tokens left out.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] if the decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.decode_with(ids, true)
    }

    /// The text of token ids, special tokens written out.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_with_special(&self, ids: &[u32]) -> Result<String> {
        self.decode_with(ids, false)
    }

    /// A token as the vocabulary writes it (Unigram marks the beginning of a word by `▁`, WordPiece its continuation by `##`); none for
    /// an id without one.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    fn decode_with(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner
            .decode(ids, skip_special)
            .map_err(|e| DataError::Tokenizer { origin: self.origin.clone(), what: format!("{ids:?}: {e}") })
    }
}

/// The beginning of a text in quotes, for messages: at most 80 characters of it in one line, control characters escaped.
///
/// # Examples
/// ```
/// assert_eq!(fwd_data::excerpt("two\nlines"), r#""two\nlines""#);
/// assert_eq!(fwd_data::excerpt(&"a".repeat(100)).len(), 80 + "\"\"…".len());
/// ```
pub fn excerpt(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

impl TokenBatch {
    /// The ids as labels: padding replaced by `ignore` (−100 for cross entropy).
    pub fn labels(&self, ignore: i64) -> Vec<i64> {
        self.ids.iter().zip(&self.mask).map(|(&id, &m)| if m == 0 { ignore } else { id }).collect()
    }
}
