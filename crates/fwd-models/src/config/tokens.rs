//! `generation_config.json`: the ids that generation starts, ends and fills up with.

use super::field::{read_json, token_ids};
use super::t5::{OneOrMany, T5Config};
use crate::error::{ModelError, Result};
use serde::Deserialize;
use std::path::Path;

/// The special tokens of generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialTokens {
    /// The token that an encoder-decoder model starts to write from.
    pub decoder_start: u32,
    /// A sequence ends with any of these ids, which is part of it.
    pub eos: Vec<u32>,
    /// Fills up the rows of a batch that end earlier.
    pub pad: u32,
    /// The token that stands for an empty instruction.
    pub bos: u32,
}

#[derive(Deserialize, Default)]
struct RawGeneration {
    decoder_start_token_id: Option<u32>,
    eos_token_id: Option<OneOrMany>,
    pad_token_id: Option<u32>,
    bos_token_id: Option<u32>,
}

impl SpecialTokens {
    /// From `generation_config.json` if the file exists, else from the text configuration, else T5's own.
    ///
    /// # Errors
    /// [`ModelError::Io`] or [`ModelError::Json`] if the file exists and cannot be read; [`ModelError::Config`] for ids that are none,
    /// or that are outside the vocabulary.
    pub fn read(path: &Path, text: &T5Config) -> Result<Self> {
        let fail = |what| ModelError::Config { origin: path.display().to_string(), what };
        let mut raw = RawGeneration::default();
        if path.exists() {
            token_ids(&read_json(path)?, "").map_err(fail)?;
            raw = read_json(path)?;
        }
        let tokens = Self::from_parts(raw, text);
        tokens.check(text.vocab_size).map_err(fail)?;
        Ok(tokens)
    }

    /// From the text configuration alone, T5's own ids where it has none.
    pub fn of(text: &T5Config) -> Self {
        Self::from_parts(RawGeneration::default(), text)
    }

    fn from_parts(raw: RawGeneration, text: &T5Config) -> Self {
        let mut eos = match raw.eos_token_id.or_else(|| text.eos_token_id.clone()) {
            Some(OneOrMany::One(id)) => vec![id],
            Some(OneOrMany::Many(ids)) => ids,
            None => vec![1],
        };
        eos.sort_unstable();
        eos.dedup();
        Self {
            decoder_start: raw.decoder_start_token_id.or(text.decoder_start_token_id).unwrap_or(0),
            eos,
            pad: raw.pad_token_id.or(text.pad_token_id).unwrap_or(0),
            // transformers takes this one from the text configuration.
            bos: text.bos_token_id.or(raw.bos_token_id).unwrap_or(1),
        }
    }

    /// What makes the ids unusable with a vocabulary, if anything.
    pub(crate) fn check(&self, vocab_size: usize) -> std::result::Result<(), String> {
        let named = [
            ("decoder_start_token_id", self.decoder_start),
            ("pad_token_id", self.pad),
            ("bos_token_id", self.bos),
        ];
        let mut all = named.into_iter().chain(self.eos.iter().map(|&id| ("eos_token_id", id)));
        match all.find(|&(_, id)| id as usize >= vocab_size) {
            Some((name, id)) => Err(format!("{name} {id} is outside the vocabulary of {vocab_size}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{OneOrMany, SpecialTokens, T5Config};

    fn text(json: &str) -> T5Config {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn special_tokens_are_checked_against_the_vocabulary() {
        let mut config = text(r#"{"eos_token_id": [1, 2, 1], "vocab_size": 10}"#);
        assert_eq!(SpecialTokens::of(&config).eos, [1, 2]);
        assert!(SpecialTokens::of(&config).check(10).is_ok());
        config.eos_token_id = Some(OneOrMany::One(10));
        let error = SpecialTokens::of(&config).check(10).unwrap_err();
        assert_eq!(error, "eos_token_id 10 is outside the vocabulary of 10");
    }
}
