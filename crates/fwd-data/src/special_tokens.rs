//! The special tokens that the files beside a `tokenizer.json` name: `tokenizer_config.json` and `special_tokens_map.json`.
//!
//! A `tokenizer.json` says which tokens are special and not what they are for; chat templates and the end of an answer need that.

use crate::error::{DataError, Result};
use serde_json::{Map, Value};
use std::io::ErrorKind;
use std::path::Path;

/// The longest file that is read, in bytes; one that lists thousands of added tokens has some megabytes.
const MAX_FILE: u64 = 16 << 20;

/// Special tokens by what they are for, as texts; none where no file names one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialNames {
    /// The token that a sequence begins with.
    pub bos: Option<String>,
    /// The token that a sequence ends with.
    pub eos: Option<String>,
    /// The token that stands for what the vocabulary does not have.
    pub unk: Option<String>,
    /// The token that fills up a batch.
    pub pad: Option<String>,
}

impl SpecialNames {
    /// Reads the two files of a directory; what `tokenizer_config.json` names comes first, as in transformers.
    ///
    /// # Errors
    /// [`DataError::Io`] or [`DataError::Config`] naming a file that is there and cannot be read.
    pub fn open(dir: &Path) -> Result<Self> {
        let files =
            [object(&dir.join("tokenizer_config.json"))?, object(&dir.join("special_tokens_map.json"))?];
        let name = |key: &str| {
            let values = files.iter().flatten().filter_map(|file| file.get(key));
            values
                .filter_map(|value| value.as_str().or_else(|| value["content"].as_str()))
                .next()
                .map(str::to_owned)
        };
        Ok(Self {
            bos: name("bos_token"),
            eos: name("eos_token"),
            unk: name("unk_token"),
            pad: name("pad_token"),
        })
    }
}

/// The object that a JSON file holds; none if there is no file.
pub(crate) fn object(path: &Path) -> Result<Option<Map<String, Value>>> {
    let bytes = match fwd_files::read(path, MAX_FILE) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|source| DataError::Io { path: path.into(), source })?,
    };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|error| DataError::Config { path: path.into(), what: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn names_stand_as_texts_or_objects_in_either_file() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(SpecialNames::open(dir.path()).unwrap(), SpecialNames::default());
        let config =
            r#"{"bos_token": {"content": "<s>", "special": true}, "eos_token": "</s>", "pad_token": null}"#;
        fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        let map = r#"{"eos_token": "other", "pad_token": "<pad>"}"#;
        fs::write(dir.path().join("special_tokens_map.json"), map).unwrap();
        let some = |text: &str| Some(text.to_owned());
        let want = SpecialNames { bos: some("<s>"), eos: some("</s>"), unk: None, pad: some("<pad>") };
        assert_eq!(SpecialNames::open(dir.path()).unwrap(), want);
        fs::write(dir.path().join("special_tokens_map.json"), "[1]").unwrap();
        let error = SpecialNames::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("special_tokens_map.json"), "{error}");
    }
}
