//! The model's own vocabulary: whole words, and for rarer ones the pieces they are spelt with, as BERT's WordPiece.
//!
//! A frequent word is one token. Frequent beginnings and ends of words are tokens too, and so is every character, so that nothing
//! is unknown that is made of known characters.

use fwd_data::bench::Record;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A piece at the start or the end of so many distinct words is a token.
const MIN_PIECE_COUNT: usize = 12;
const PIECE_LENGTHS: std::ops::RangeInclusive<usize> = 2..=5;

/// Everything that is read or written in a record.
pub(super) fn texts_of(record: &Record) -> impl Iterator<Item = &str> {
    std::iter::once(record.instruction.as_str()).chain(record.answers.iter().map(String::as_str))
}

/// The `tokenizer.json` of the words in some texts; ids 0, 1 and 2 are `<pad>`, `</s>` and `<unk>`.
pub(super) fn tokenizer_json<'a>(texts: impl Iterator<Item = &'a str>, min_word_count: usize) -> Value {
    let pieces = pieces(texts, min_word_count);
    let vocabulary: BTreeMap<&str, usize> =
        pieces.iter().enumerate().map(|(id, p)| (p.as_str(), id)).collect();
    let special = |id: usize| {
        json!({ "id": id, "content": pieces[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(0), special(1), special(2)],
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                        "strip_accents": true, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "SpecialToken": { "id": "</s>", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "SpecialToken": { "id": "</s>", "type_id": 0 } },
                     { "Sequence": { "id": "B", "type_id": 1 } }, { "SpecialToken": { "id": "</s>", "type_id": 1 } }],
            "special_tokens": { "</s>": { "id": "</s>", "ids": [1], "tokens": ["</s>"] } },
        },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": { "type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##",
                   "max_input_chars_per_word": 100, "vocab": vocabulary },
    })
}

fn pieces<'a>(texts: impl Iterator<Item = &'a str>, min_word_count: usize) -> Vec<String> {
    let mut words: BTreeMap<String, usize> = BTreeMap::new();
    for word in texts.flat_map(split) {
        *words.entry(word).or_default() += 1;
    }
    let mut parts: BTreeMap<String, usize> = BTreeMap::new();
    for word in words.keys() {
        let chars: Vec<char> = word.chars().collect();
        for n in PIECE_LENGTHS.filter(|n| chars.len() > n + 1) {
            let (start, end) =
                (chars[..n].iter().collect(), chars[chars.len() - n..].iter().collect::<String>());
            *parts.entry(start).or_default() += 1;
            *parts.entry(format!("##{end}")).or_default() += 1;
        }
    }
    // Printable ASCII, so that a user's question is spelt if need be, and whatever else the texts hold.
    let mut chars: BTreeSet<char> = words.keys().flat_map(|word| word.chars()).collect();
    chars.extend((' '..='~').filter(|c| *c != ' ' && !c.is_ascii_uppercase()));
    let mut pieces: Vec<String> = ["<pad>", "</s>", "<unk>"].map(String::from).to_vec();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let single = chars.iter().map(char::to_string).chain(chars.iter().map(|c| format!("##{c}")));
    let frequent = words.into_iter().filter(|(word, n)| *n >= min_word_count && word.chars().count() > 1);
    let shared = parts.into_iter().filter(|(_, n)| *n >= MIN_PIECE_COUNT);
    for piece in single.chain(frequent.map(|(word, _)| word)).chain(shared.map(|(part, _)| part)) {
        if seen.insert(piece.clone()) {
            pieces.push(piece);
        }
    }
    pieces
}

/// Runs of letters and digits, and every other visible character alone: close to BERT's rule, and only used for counting.
fn split(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut is_inside = false;
    for c in text.to_lowercase().chars() {
        match (c.is_alphanumeric(), is_inside) {
            (true, true) => words.last_mut().into_iter().for_each(|word| word.push(c)),
            (true, false) => words.push(c.to_string()),
            (false, _) if !c.is_whitespace() => words.push(c.to_string()),
            _ => {}
        }
        is_inside = c.is_alphanumeric();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use fwd_data::TextTokenizer;

    #[test]
    fn frequent_words_are_tokens_and_the_rest_is_spelt() {
        let texts = ["Is it a red fox?", "a red hen", "a red dog", "the hen"];
        let json = tokenizer_json(texts.into_iter(), 2);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, json.to_string()).unwrap();
        let tokenizer = TextTokenizer::open(&path).unwrap();
        let ids = tokenizer.encode("A red fox").unwrap();
        assert_eq!(ids.len(), 1 + 1 + 3 + 1, "{ids:?}");
        assert_eq!(ids.last(), Some(&1));
        for text in ["a red fox?", "zebra & co", "hen"] {
            let ids = tokenizer.encode(text).unwrap();
            assert!(!ids.contains(&2), "{text}: {ids:?}");
            assert_eq!(tokenizer.decode(&ids).unwrap().replace(' ', ""), text.replace(' ', ""));
        }
    }
}
