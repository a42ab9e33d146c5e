//! `tokenizer.json` files (T5's Unigram, BERT's WordPiece, the BPE of LLaMA, OPT and GPT-2) and batches of token ids.

use crate::error::{DataError, Result};
use crate::excerpt::{bounded, excerpt};
use crate::special_tokens::SpecialNames;
use crate::tokenizer_file::{guarded, load};
use std::path::Path;
use tokenizers::{DecoderWrapper, Tokenizer};

/// The placeholder of an image in the instructions of the field's data sets.
const IMAGE_TOKEN: &str = "<image>";

/// A tokenizer with its padding id.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    pad: u32,
    origin: String,
    /// The rows of the model's table of embeddings.
    n_rows: Option<usize>,
    /// The id that stands for a visual token.
    image: Option<u32>,
    names: SpecialNames,
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
    /// Reads a `tokenizer.json` (Unigram, WordPiece or BPE), and what the files beside it say of its special tokens
    /// ([`SpecialNames`]).
    ///
    /// Batches are filled up with `<pad>` or `[PAD]`. Where a vocabulary has neither (LLaMA, GPT-2), it is the padding token that the files
    /// beside it name, else the end of a sequence, the unknown token, or the id 0: padding is masked, so that any id will do.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] naming the file if it is missing or damaged; [`DataError::Io`] if it cannot be read or is too large;
    /// [`DataError::Config`] for a damaged file beside it.
    pub fn open(path: &Path) -> Result<Self> {
        let origin = path.display().to_string();
        let fail = |what: String| DataError::Tokenizer { origin: origin.clone(), what };
        let mut inner = load(path)?;
        // A file may carry the padding and truncation of its last use; ours are explicit.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| fail(e.to_string()))?;
        let names = SpecialNames::open(path.parent().unwrap_or(Path::new(".")))?;
        let named = [&names.pad, &names.eos, &names.unk].into_iter().filter_map(Option::as_deref);
        let candidates = ["<pad>", "[PAD]"].into_iter().chain(named).chain(["</s>", "<unk>"]);
        let pad = candidates.filter_map(|token| inner.token_to_id(token)).next().unwrap_or(0);
        Ok(Self { inner, pad, origin, n_rows: None, image: None, names })
    }

    /// The same for a model with a table of `n_rows` embeddings, in which `image` is the id that stands for a visual token, if it has
    /// one. A text that has a token outside the table, or a visual token, cannot be encoded then.
    #[must_use]
    pub fn for_model(self, n_rows: usize, image: Option<u32>) -> Self {
        // Models that were given a padding token later do not always have a row for it.
        let pad = if (self.pad as usize) < n_rows { self.pad } else { 0 };
        Self { n_rows: Some(n_rows), image, pad, ..self }
    }

    /// What the files beside the tokenizer call its special tokens.
    pub fn names(&self) -> &SpecialNames {
        &self.names
    }

    /// The file that it was read from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The id of a token as the vocabulary writes it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The text that stands for an image in a prompt; none if the model has no id for it or the vocabulary no such token.
    pub fn image_token(&self) -> Option<String> {
        self.image.and_then(|id| self.token(id)).filter(|token| !token.is_empty())
    }

    /// Whether a word within a text has its space as part of its token (GPT-2, OPT, Llama 3), so that a text which goes on behind another
    /// must begin with that space. The tokens of other vocabularies (LLaMA) begin a word by themselves.
    pub fn is_byte_level(&self) -> bool {
        matches!(self.inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)))
    }

    /// A text that a user or a file gives, without what would become a visual token: `<image>`, and whatever else the vocabulary
    /// writes for the model's visual token. Other special tokens (`</s>`, `<extra_id_0>`) stay and become what they stand for, as in
    /// transformers.
    pub fn without_image_token(&self, text: &str) -> String {
        let own =
            self.image.and_then(|id| self.token(id)).filter(|own| !own.is_empty() && own != IMAGE_TOKEN);
        let tokens = [Some(IMAGE_TOKEN.to_owned()), own];
        tokens.into_iter().flatten().fold(text.to_owned(), |text, token| without_token(&text, &token))
    }

    /// Token ids of a text, with the special tokens that the tokenizer adds (`</s>`, or `[CLS]` and `[SEP]`).
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] if the tokenizer fails on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.without_image(text, self.encode_with(text, true)?)
    }

    /// The same without special tokens.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        self.without_image(text, self.encode_with(text, false)?)
    }

    /// Token ids of a whole prompt, which may hold the token that stands for an image. Special tokens are added (the BOS of LLaMA and OPT),
    /// unless the text begins with the BOS already, as chat templates write it, so that it would be there twice.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>> {
        let (bare, ids) = (self.encode_with(prompt, false)?, self.encode_with(prompt, true)?);
        let is_twice = matches!(ids.split_first(), Some((bos, rest)) if bare.first() == Some(bos) && rest.starts_with(&bare));
        Ok(if is_twice { bare } else { ids })
    }

    fn encode_with(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let fail = |what: String| DataError::Tokenizer {
            origin: self.origin.clone(),
            what: format!("{}: {what}", excerpt(text)),
        };
        let encode = || self.inner.encode(text, special).map_err(|e| bounded(&e.to_string()));
        let ids = guarded(encode).map_err(fail)?.get_ids().to_vec();
        let token = |id: u32| excerpt(&self.token(id).unwrap_or_default());
        if let Some((&id, n_rows)) =
            self.n_rows.and_then(|n| Some((ids.iter().find(|&&id| id as usize >= n)?, n)))
        {
            return Err(fail(format!(
                "the token {} has the id {id}, the model has embeddings for {n_rows} tokens; is this the model's tokenizer?",
                token(id)
            )));
        }
        Ok(ids)
    }

    /// Refuses a text that has become an image.
    fn without_image(&self, text: &str, ids: Vec<u32>) -> Result<Vec<u32>> {
        let Some(image) = self.image.filter(|image| ids.contains(image)) else { return Ok(ids) };
        let token = excerpt(&self.token(image).unwrap_or_default());
        let what =
            format!("{}: {token} stands for an image and must not be written in a text", excerpt(text));
        Err(DataError::Tokenizer { origin: self.origin.clone(), what })
    }

    /// Several texts, filled up on the right with the padding id.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_batch<T: AsRef<str>>(&self, texts: &[T]) -> Result<TokenBatch> {
        let rows = texts.iter().map(|t| self.encode(t.as_ref())).collect::<Result<Vec<_>>>()?;
        Ok(self.batch(&rows))
    }

    /// Rows of token ids, filled up on the right with the padding id.
    pub fn batch(&self, rows: &[Vec<u32>]) -> TokenBatch {
        let width = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut batch = TokenBatch { ids: Vec::new(), mask: Vec::new(), rows: rows.len(), width };
        for row in rows {
            let filler = width - row.len();
            batch.ids.extend(row.iter().map(|&id| i64::from(id)));
            batch.ids.extend(std::iter::repeat_n(i64::from(self.pad), filler));
            batch.mask.extend(std::iter::repeat_n(1, row.len()));
            batch.mask.extend(std::iter::repeat_n(0, filler));
        }
        batch
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
        let decode = || self.inner.decode(ids, skip_special).map_err(|e| bounded(&e.to_string()));
        guarded(decode).map_err(|what| {
            let more = if ids.len() > 20 { ", …" } else { "" };
            let shown = ids.iter().take(20).map(u32::to_string).collect::<Vec<_>>().join(", ");
            DataError::Tokenizer { origin: self.origin.clone(), what: format!("ids {shown}{more}: {what}") }
        })
    }
}

/// The text without a token, wherever it stands; the two sides are joined by a line break if one was between them, else by a space. A
/// text that does not hold it stays as it is.
pub(crate) fn without_token(text: &str, token: &str) -> String {
    if !text.contains(token) {
        return text.to_owned();
    }
    let mut parts = text.split(token);
    let mut joined = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (left, right) = (joined.trim_end(), part.trim_start());
        let gaps = [&joined[left.len()..], &part[..part.len() - right.len()]];
        let breaks = gaps.iter().any(|gap| gap.contains('\n'));
        let separator = match (left.is_empty() || right.is_empty(), breaks) {
            (true, _) => "",
            (false, true) => "\n",
            (false, false) => " ",
        };
        joined = format!("{left}{separator}{right}");
    }
    joined.trim().to_owned()
}

impl TokenBatch {
    /// The ids as labels: padding replaced by `ignore` (−100 for cross entropy).
    pub fn labels(&self, ignore: i64) -> Vec<i64> {
        self.ids.iter().zip(&self.mask).map(|(&id, &m)| if m == 0 { ignore } else { id }).collect()
    }
}
