//! The `tokenizer.json` that the metadata of a GGUF file stand for, of models with byte-level BPE (`tokenizer.ggml.model` is `gpt2`).
//!
//! A GGUF file has the vocabulary and the merges, but of how a text is cut into words before the merges only a name
//! (`tokenizer.ggml.pre`), for which this module has the rule of the original's `tokenizer.json`.

use super::cursor::Cursor;
use super::{counts, value};
use crate::error::{ModelError, Result};
use crate::weights::gguf::metadata::Value as Stored;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// The type of control tokens, and of those that were added as they stand; no merge makes either.
const CONTROL: u64 = 3;
const ADDED: u64 = 4;

/// The `tokenizer.json`, in the format of the library `tokenizers`.
///
/// # Errors
/// [`ModelError::WeightFile`] for a damaged file, another kind of vocabulary than byte-level BPE, and a rule of cutting that is not known.
pub(in crate::weights) fn tokenizer(path: &Path, file: &File, n_bytes: u64) -> Result<Value> {
    let mut cursor = Cursor::new(path, file, n_bytes)?;
    let (_, n_values) = counts(&mut cursor)?;
    let mut metadata = BTreeMap::new();
    for _ in 0..n_values {
        let key = cursor.name("a key")?;
        let value = value(&mut cursor, &key, key.starts_with("tokenizer."))?;
        metadata.insert(key, value);
    }
    let fail = |what| ModelError::WeightFile { path: path.into(), what };
    of_metadata(&metadata).map_err(fail)
}

fn of_metadata(metadata: &BTreeMap<String, Stored>) -> std::result::Result<Value, String> {
    let text = |key: &str| match metadata.get(key) {
        Some(Stored::Text(text)) => text.as_str(),
        _ => "",
    };
    let texts = |key: &str| match metadata.get(key) {
        Some(Stored::Texts(texts)) => Ok(texts),
        _ => Err(format!("the list `{key}` is missing")),
    };
    let hint = "take the original's tokenizer.json";
    let model = text("tokenizer.ggml.model");
    if model != "gpt2" {
        return Err(format!(
            "`tokenizer.ggml.model` is `{model:.60}`, of which no tokenizer is made; {hint}"
        ));
    }
    let words = match text("tokenizer.ggml.pre") {
        "smollm" => json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Digits", "individual_digits": true },
            byte_level(),
        ] }),
        "gpt-2" => byte_level(),
        other => {
            return Err(format!(
                "`tokenizer.ggml.pre` is `{other:.60}`; `smollm` and `gpt-2` are known; {hint}"
            ));
        }
    };
    let tokens = texts("tokenizer.ggml.tokens")?;
    let mut vocabulary = Map::new();
    for (id, token) in tokens.iter().enumerate() {
        if vocabulary.insert(token.clone(), id.into()).is_some() {
            return Err(format!("the token `{token:.60}` stands there twice"));
        }
    }
    let kinds = match metadata.get("tokenizer.ggml.token_type") {
        Some(Stored::Numbers(kinds)) if kinds.len() == tokens.len() => kinds,
        _ => return Err("the list `tokenizer.ggml.token_type` is missing or of another length".into()),
    };
    let added = tokens.iter().zip(kinds).enumerate().filter(|(_, (_, kind))| [CONTROL, ADDED].contains(kind));
    let added: Vec<Value> = added
        .map(|(id, (token, &kind))| {
            json!({ "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": kind == CONTROL })
        })
        .collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": words,
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": texts("tokenizer.ggml.merges")?,
        },
    }))
}

fn byte_level() -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(model: &str, pre: &str) -> BTreeMap<String, Stored> {
        let texts = |list: &[&str]| Stored::Texts(list.iter().map(|text| (*text).to_owned()).collect());
        [
            ("tokenizer.ggml.model", Stored::Text(model.into())),
            ("tokenizer.ggml.pre", Stored::Text(pre.into())),
            ("tokenizer.ggml.tokens", texts(&["<|end|>", "a", "b", "ab"])),
            ("tokenizer.ggml.token_type", Stored::Numbers(vec![3, 1, 1, 1])),
            ("tokenizer.ggml.merges", texts(&["a b"])),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    #[test]
    fn a_byte_level_vocabulary_becomes_a_tokenizer() {
        let made = of_metadata(&metadata("gpt2", "smollm")).unwrap();
        assert_eq!(made["model"]["vocab"]["ab"], 3);
        assert_eq!(made["model"]["merges"][0], "a b");
        assert_eq!(made["added_tokens"].as_array().map(Vec::len), Some(1));
        assert_eq!(made["pre_tokenizer"]["pretokenizers"][0]["type"], "Digits");
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert!(of_metadata(&metadata("llama", "default")).unwrap_err().contains("`llama`"));
        assert!(of_metadata(&metadata("gpt2", "qwen2")).unwrap_err().contains("`qwen2`"));
        let mut short = metadata("gpt2", "gpt-2");
        short.insert("tokenizer.ggml.token_type".into(), Stored::Numbers(vec![1]));
        assert!(of_metadata(&short).unwrap_err().contains("token_type"));
    }
}
