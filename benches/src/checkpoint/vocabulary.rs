//! Made-up tokenizers of the family and size that a checkpoint has: `tokenizer.json` for `tokenizers` and transformers, and the same
//! tokens for the vocabulary of a GGUF file.
//!
//! All texts can be encoded and decoded: single characters (or bytes) come first, then syllables of two, three and four letters until the
//! vocabulary is full.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

/// The family of a tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// SentencePiece's Unigram, with `<pad>`, `</s>`, `<unk>` and 100 sentinels at the end.
    T5,
    /// SentencePiece's BPE with bytes for unknown characters.
    Llama,
    /// GPT-2's BPE on bytes, with the special tokens of OPT.
    Opt,
    /// GPT-2's BPE on bytes, with the special tokens of SmolLM2.
    SmolLm2,
    /// BERT's WordPiece, lower case.
    Bert,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A piece of text.
    Piece,
    /// One byte (`<0x0A>`).
    Byte,
    /// A token that stands for unknown characters.
    Unknown,
    /// A token with a meaning of its own (`<s>`, `<image>`).
    Control,
}

/// The tokens of a made-up tokenizer; the index of a token is its id.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pub(crate) family: Family,
    pub(crate) tokens: Vec<(String, Role)>,
    /// The pairs that byte-pair encoding joins, in order.
    pub(crate) merges: Vec<(String, String)>,
}

/// The word boundary of SentencePiece and of GPT-2's bytes.
const SPIECE: &str = "\u{2581}";
const GPT2: &str = "\u{120}";

/// Pairs of syllables, joined until `n` tokens are there. Every part of a pair comes before it.
fn grow(boundary: &str, taken: usize, n: usize) -> (Vec<String>, Vec<(String, String)>) {
    let letters = || ('a'..='z').map(String::from);
    let pairs: Vec<(String, String)> =
        letters().flat_map(|a| letters().map(move |b| (a.clone(), b))).collect();
    let two: Vec<String> = pairs.iter().map(|(a, b)| format!("{a}{b}")).collect();
    let begin = letters().chain(two.iter().cloned()).map(|s| (boundary.to_owned(), s));
    let three = two.iter().flat_map(|a| letters().map(move |b| (a.clone(), b)));
    let four = two.iter().flat_map(|a| two.iter().map(move |b| (a.clone(), b.clone())));
    let merges: Vec<_> =
        pairs.iter().cloned().chain(begin).chain(three).chain(four).take(n.saturating_sub(taken)).collect();
    (merges.iter().map(|(a, b)| format!("{a}{b}")).collect(), merges)
}

/// Letters, digits and punctuation of ASCII.
fn characters() -> impl Iterator<Item = char> {
    ('!'..='~').filter(|c| !c.is_ascii_control())
}

/// The character that GPT-2 writes for a byte.
fn gpt2_byte(byte: u8) -> char {
    let is_shown = |b: u8| (b'!'..=b'~').contains(&b) || (0xA1..=0xAC).contains(&b) || b >= 0xAE;
    if is_shown(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !is_shown(*b)).count() as u32;
    char::from_u32(256 + before).unwrap_or_default()
}

impl Vocabulary {
    /// A vocabulary of `n` tokens; `named` are control tokens with their ids, at most `n`.
    ///
    /// # Errors
    /// A vocabulary that is too small for its characters.
    pub(crate) fn new(family: Family, n: usize, named: &[(u32, &str)]) -> Result<Self> {
        let control =
            |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), Role::Control)).collect::<Vec<_>>();
        let mut tokens: Vec<(String, Role)> = match family {
            Family::T5 => control(&["<pad>", "</s>"]),
            Family::Llama => vec![
                ("<unk>".into(), Role::Unknown),
                ("<s>".into(), Role::Control),
                ("</s>".into(), Role::Control),
            ],
            Family::Opt => control(&["<s>", "<pad>", "</s>", "<unk>"]),
            Family::SmolLm2 => control(&["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
            Family::Bert => control(&["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]),
        };
        let mut piece = |text: String| tokens.push((text, Role::Piece));
        match family {
            Family::T5 => {
                piece("<unk>".into());
                piece(SPIECE.into());
                characters().for_each(|c| piece(c.into()));
            }
            Family::Llama => {
                (0..=255u8).for_each(|byte| tokens.push((format!("<0x{byte:02X}>"), Role::Byte)));
                tokens.push((SPIECE.into(), Role::Piece));
                tokens.extend(characters().map(|c| (c.into(), Role::Piece)));
            }
            Family::Opt | Family::SmolLm2 => (0..=255u8).for_each(|byte| piece(gpt2_byte(byte).into())),
            Family::Bert => {
                let lower = || characters().filter(|c| !c.is_ascii_uppercase());
                lower().for_each(|c| piece(c.into()));
                // Letters behind `##` come with the syllables.
                lower().filter(char::is_ascii_digit).for_each(|c| piece(format!("##{c}")));
            }
        }
        if family == Family::T5 {
            tokens[2].1 = Role::Unknown;
        }
        let boundary = match family {
            Family::T5 | Family::Llama => SPIECE,
            Family::Opt | Family::SmolLm2 => GPT2,
            Family::Bert => "##",
        };
        let n_named = named.len();
        ensure!(
            tokens.len() + n_named <= n,
            "a vocabulary of {n} tokens has no room for its {} characters",
            tokens.len()
        );
        let (grown, merges) = grow(boundary, tokens.len() + n_named, n);
        tokens.extend(grown.into_iter().map(|text| (text, Role::Piece)));
        // Control tokens have the ids of the published tokenizer; those behind move up.
        let mut named = named.to_vec();
        named.sort_unstable();
        for (id, name) in named {
            let at = (id as usize).min(tokens.len());
            tokens.insert(at, (name.to_owned(), Role::Control));
        }
        let merges = if matches!(family, Family::T5 | Family::Bert) { Vec::new() } else { merges };
        ensure!(tokens.len() == n, "the vocabulary has {} tokens and should have {n}", tokens.len());
        Ok(Self { family, tokens, merges })
    }

    /// Puts a piece at an id, and what was there where the piece was.
    pub(crate) fn place(&mut self, piece: &str, id: u32) {
        if let Some(at) = self.tokens.iter().position(|(text, _)| text == piece) {
            self.tokens.swap(at, id as usize);
        }
    }

    pub(crate) fn id(&self, token: &str) -> Option<u32> {
        self.tokens.iter().position(|(text, _)| text == token).map(|at| at as u32)
    }

    /// The text of `tokenizer.json`.
    pub(crate) fn tokenizer_json(&self) -> Value {
        let special = |id: usize, content: &str| {
            json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true })
        };
        let added: Vec<Value> = self
            .tokens
            .iter()
            .enumerate()
            .filter(|(_, (_, role))| matches!(role, Role::Control | Role::Unknown))
            .map(|(id, (text, _))| special(id, text))
            .collect();
        let ids: serde_json::Map<String, Value> =
            self.tokens.iter().enumerate().map(|(id, (text, _))| (text.clone(), json!(id))).collect();
        let merges: Vec<[&str; 2]> = self.merges.iter().map(|(a, b)| [a.as_str(), b.as_str()]).collect();
        let (before, after) = match self.family {
            Family::T5 => (None, Some("</s>")),
            Family::Llama => (Some("<s>"), None),
            Family::Opt => (Some("</s>"), None),
            Family::SmolLm2 => (None, None),
            Family::Bert => (Some("[CLS]"), Some("[SEP]")),
        };
        let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
        let spaces =
            json!({ "type": "Metaspace", "replacement": SPIECE, "prepend_scheme": "always", "split": true });
        let bpe = |unknown: Value, falls_back: bool| {
            json!({ "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": falls_back, "byte_fallback": falls_back, "ignore_merges": false, "vocab": ids, "merges": merges })
        };
        let (normalizer, pre_tokenizer, decoder, model) = match self.family {
            Family::T5 => {
                // Longer pieces are likelier, so that they are taken.
                let score = |(text, role): &(String, Role)| match role {
                    Role::Piece => -14.0 + text.chars().count() as f64,
                    _ => 0.0,
                };
                let pieces: Vec<Value> =
                    self.tokens.iter().map(|token| json!([token.0, score(token)])).collect();
                let model =
                    json!({ "type": "Unigram", "unk_id": 2, "byte_fallback": false, "vocab": pieces });
                let split =
                    json!({ "type": "Sequence", "pretokenizers": [{ "type": "WhitespaceSplit" }, spaces] });
                (json!({ "type": "NFKC" }), split, spaces, model)
            }
            Family::Llama => (
                json!({ "type": "Sequence", "normalizers": [{ "type": "Prepend", "prepend": SPIECE },
                    { "type": "Replace", "pattern": { "String": " " }, "content": SPIECE }] }),
                Value::Null,
                json!({ "type": "Sequence", "decoders": [
                    { "type": "Replace", "pattern": { "String": SPIECE }, "content": " " }, { "type": "ByteFallback" },
                    { "type": "Fuse" }, { "type": "Strip", "content": " ", "start": 1, "stop": 0 }] }),
                bpe(json!("<unk>"), true),
            ),
            Family::Opt | Family::SmolLm2 => (Value::Null, bytes.clone(), bytes, bpe(Value::Null, false)),
            Family::Bert => (
                json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
                    "lowercase": true }),
                json!({ "type": "BertPreTokenizer" }),
                json!({ "type": "WordPiece", "prefix": "##", "cleanup": true }),
                json!({ "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                    "vocab": ids }),
            ),
        };
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer, "post_processor": self.post_processor(before, after), "decoder": decoder, "model": model,
        })
    }

    /// The template that puts special tokens before and after a text.
    fn post_processor(&self, before: Option<&str>, after: Option<&str>) -> Value {
        if before.or(after).is_none() {
            return Value::Null;
        }
        let token = |name: &str, of: u8| json!({ "SpecialToken": { "id": name, "type_id": of } });
        let text = |name: &str, of: u8| json!({ "Sequence": { "id": name, "type_id": of } });
        let one = |name, of| {
            before
                .map(|b| token(b, of))
                .into_iter()
                .chain([text(name, of)])
                .chain(after.map(|a| token(a, of)))
        };
        let specials: serde_json::Map<String, Value> = before
            .into_iter()
            .chain(after)
            .filter_map(|name| {
                Some((name.to_owned(), json!({ "id": name, "ids": [self.id(name)?], "tokens": [name] })))
            })
            .collect();
        json!({ "type": "TemplateProcessing", "single": one("A", 0).collect::<Vec<_>>(),
            "pair": one("A", 0).chain(one("B", 1)).collect::<Vec<_>>(), "special_tokens": specials })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_gpt2_writes_them() {
        let shown: String = [b' ', b'\n', b'a', 0xAD, 0xFF].into_iter().map(gpt2_byte).collect();
        assert_eq!(shown, "\u{120}\u{10a}a\u{143}\u{ff}");
    }

    #[test]
    fn vocabularies_are_full_and_named_tokens_have_their_ids() {
        let vocabulary =
            Vocabulary::new(Family::Llama, 32064, &[(32001, "<pad>"), (32000, "<image>")]).unwrap();
        assert_eq!(vocabulary.tokens.len(), 32064);
        assert_eq!(
            (vocabulary.id("<image>"), vocabulary.id("<pad>"), vocabulary.id("<0x0A>")),
            (Some(32000), Some(32001), Some(13))
        );
        let mut names: Vec<&String> = vocabulary.tokens.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 32064);
        assert!(Vocabulary::new(Family::Llama, 100, &[]).is_err());
    }
}
