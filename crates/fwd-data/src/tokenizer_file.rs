//! The fence around `tokenizer.json`: the library `tokenizers` panics, waits for ever or asks for all memory on some damaged files.
//! The file is bounded and its sections are looked at first, and the library reads it in a thread of its own within a time limit.

use crate::error::{DataError, Result};
use crate::excerpt::{bounded, excerpt};
use crate::fence;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;
use tokenizers::Tokenizer;

/// The largest file that is read, in bytes; that of a vocabulary of 256,000 tokens has 33 MB.
const LARGEST: u64 = 64 << 20;
/// The longest token, in bytes; the library goes through the bytes of a token recursively.
const LONGEST_TOKEN: usize = 1024;
/// The largest count in a section that cuts or pads; no real file has more than a few.
const LARGEST_COUNT: u64 = 1024;
/// A file of the largest size loads in a tenth of this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads a `tokenizer.json`.
pub(crate) fn load(path: &Path) -> Result<Tokenizer> {
    let fail = |what: String| DataError::Tokenizer { origin: path.display().to_string(), what };
    let bytes = fwd_files::read(path, LARGEST).map_err(|error| match error.kind() {
        ErrorKind::NotFound => fail(instead(path)),
        _ => DataError::Io { path: path.into(), source: error },
    })?;
    if let Some(what) = fwd_files::foreign(&bytes) {
        return Err(fail(what.into()));
    }
    let file: Value = serde_json::from_slice(&bytes).map_err(|e| fail(format!("damaged: {e}")))?;
    check(&file).map_err(fail)?;
    drop(file);
    let read = move || {
        let tokenizer = Tokenizer::from_bytes(&bytes).map_err(|e| e.to_string())?;
        try_out(&tokenizer)?;
        Ok(tokenizer)
    };
    let read =
        fence::in_time(PATIENCE, read).map_err(|source| DataError::Io { path: path.into(), source })?;
    read.and_then(|outcome: std::result::Result<_, String>| outcome)
        .map_err(|what| fail(format!("damaged: {}", bounded(&what))))
}

/// Runs what may panic within the library.
pub(crate) fn guarded<T>(
    work: impl FnOnce() -> std::result::Result<T, String>,
) -> std::result::Result<T, String> {
    fence::caught(work).unwrap_or_else(|what| Err(format!("the tokenizer library failed ({what})")))
}

/// Encodes and decodes once, so that a section that fails on every text is found before the work begins.
fn try_out(tokenizer: &Tokenizer) -> std::result::Result<(), String> {
    const TEXT: &str = "Is this 1 cat, or 2?  Ça va";
    let ids = tokenizer.encode(TEXT, true).map_err(|e| e.to_string())?.get_ids().to_vec();
    tokenizer.decode(&ids, false).map_err(|e| e.to_string())?;
    Ok(())
}

/// What lies where a `tokenizer.json` is missing, and how to make one of it.
fn instead(path: &Path) -> String {
    let dir = path.parent().unwrap_or(Path::new("."));
    let source = ["spiece.model", "tokenizer.model", "vocab.txt", "vocab.json"]
        .iter()
        .find(|name| dir.join(name).exists());
    match source {
        None => "there is no such file; the model's tokenizer is needed".to_owned(),
        Some(source) => format!(
            "there is no such file, only {source}; make it in Python: `from transformers import AutoTokenizer as T; \
             T.from_pretrained(\"{0}\").save_pretrained(\"{0}\")`",
            dir.display()
        ),
    }
}

type Checked = std::result::Result<(), String>;

/// What is wrong with a file that the library should not see.
fn check(file: &Value) -> Checked {
    let Value::Object(sections) = file else {
        return Err("is no tokenizer: it holds no JSON object".into());
    };
    let model = sections.get("model").filter(|model| model.is_object());
    check_model(model.ok_or("is no tokenizer: it has no section `model`")?)?;
    for name in ["normalizer", "pre_tokenizer", "post_processor", "decoder"] {
        if let Some(section) = sections.get(name) {
            check_section(section).map_err(|what| format!("section `{name}`: {what}"))?;
        }
    }
    for token in sections.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        check_token(token["content"].as_str().unwrap_or_default())?;
    }
    Ok(())
}

fn check_token(token: &str) -> Checked {
    if token.len() <= LONGEST_TOKEN {
        return Ok(());
    }
    Err(format!(
        "the token {} has {} bytes, at most {LONGEST_TOKEN} are supported",
        excerpt(token),
        token.len()
    ))
}

/// Kinds of models: Unigram (T5), WordPiece (BERT) and BPE (LLaMA, OPT, GPT-2). Older files do not name them.
fn check_model(model: &Value) -> Checked {
    if let Some(kind) = model["type"].as_str().filter(|kind| !["Unigram", "WordPiece", "BPE"].contains(kind))
    {
        return Err(format!(
            "its model is of type {}; Unigram, WordPiece and BPE are supported",
            excerpt(kind)
        ));
    }
    // BPE with dropout encodes a text differently each time.
    if model["dropout"].as_f64().is_some_and(|dropout| dropout != 0.0) {
        return Err(format!(
            "its model has dropout {}, with which encoding is random; it must be null",
            model["dropout"]
        ));
    }
    match &model["vocab"] {
        Value::Array(pieces) => {
            for piece in pieces {
                check_token(piece[0].as_str().unwrap_or_default())?;
            }
            let unknown = &model["unk_id"];
            let is_there = unknown.as_u64().is_some_and(|id| (id as usize) < pieces.len());
            if !unknown.is_null() && !is_there {
                return Err(format!("unk_id {unknown} is outside the vocabulary of {}", pieces.len()));
            }
        }
        Value::Object(ids) => {
            for (token, id) in ids {
                check_token(token)?;
                if id.as_u64().is_none_or(|id| id > u64::from(u32::MAX)) {
                    return Err(format!("the token {} has no whole number as its id", excerpt(token)));
                }
            }
        }
        _ => return Err("its model has no vocabulary".into()),
    }
    Ok(())
}

/// Looks for patterns that match nothing, absurd counts and damaged tables, at any depth.
fn check_section(section: &Value) -> Checked {
    match section {
        Value::Array(parts) => return parts.iter().try_for_each(check_section),
        Value::Object(fields) => {
            for (key, value) in fields {
                let is_count = matches!(key.as_str(), "start" | "stop" | "length" | "max_length");
                if is_count && value.as_u64().is_some_and(|count| count > LARGEST_COUNT) {
                    return Err(format!("`{key}` {value} is absurd, at most {LARGEST_COUNT} is supported"));
                }
                let is_empty = |value: &Value| value.as_str() == Some("");
                if key == "pattern" && (is_empty(&value["String"]) || is_empty(&value["Regex"])) {
                    return Err("a pattern is empty".into());
                }
                if key == "precompiled_charsmap" {
                    check_charsmap(value)?;
                }
                check_section(value)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The table of a Precompiled normalizer, in base64: the length of its trie in u32, the trie, and texts. The library reserves memory for
/// whatever the length says.
fn check_charsmap(value: &Value) -> Checked {
    let digit =
        |c: u8| "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".find(char::from(c));
    let damaged = || "precompiled_charsmap is damaged".to_owned();
    let text = value.as_str().ok_or_else(damaged)?.as_bytes();
    // Six digits hold the four bytes of the length.
    let (first, _) = text.split_first_chunk::<6>().ok_or_else(damaged)?;
    let digits: Option<Vec<usize>> = first.iter().map(|&c| digit(c)).collect();
    let bits = digits.ok_or_else(damaged)?.iter().fold(0u64, |bits, &digit| bits << 6 | digit as u64);
    let n_trie = u64::from(((bits >> 4) as u32).swap_bytes());
    let n_bytes = (text.len() / 4 * 3) as u64;
    if n_trie < 4 || n_trie + 4 > n_bytes { Err(damaged()) } else { Ok(()) }
}
