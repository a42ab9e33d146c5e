//! `generation_config.json`: the ids that generation starts, ends and fills up with.

use super::field::{read_json, token_ids};
use super::t5::OneOrMany;
use super::text::TextConfig;
use crate::error::{ModelError, Result};
use serde::Deserialize;
use serde_json::Value;
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
    pad_token_id: Option<i64>,
    bos_token_id: Option<u32>,
}

impl SpecialTokens {
    /// From `generation_config.json` if the file exists, else from the text configuration, else those of the model's class in
    /// transformers.
    ///
    /// The configurations of LLaMA-1 models (Vicuna v1.1, InstructBLIP-Vicuna) say padding −1, beginning 0 and end 1, while their
    /// tokenizers have 0, 1 and 2. Where the padding is −1, it is read as 0 and an end of 1 as 2: with the ids as they stand,
    /// transformers never stops at `</s>`. The beginning stays 0, although the tokenizer's is 1, because transformers does start an empty
    /// instruction from 0 ([`Blip::empty_instructions`](crate::Blip::empty_instructions)); texts begin with what the tokenizer gives.
    ///
    /// # Errors
    /// [`ModelError::Io`] or [`ModelError::Json`] if the file exists and cannot be read; [`ModelError::Config`] for ids that are none,
    /// or that are outside the vocabulary.
    pub fn read(path: &Path, text: &TextConfig) -> Result<Self> {
        let fail = |what| ModelError::Config { origin: path.display().to_string(), what };
        let mut raw = RawGeneration::default();
        if path.exists() {
            let mut value: Value = read_json(path)?;
            if let Value::Object(fields) = &mut value {
                fields.insert("model_type".into(), text.model_type().into());
            }
            token_ids(&value, "").map_err(fail)?;
            raw = read_json(path)?;
        }
        let tokens = Self::from_parts(raw, text);
        tokens.check(text.vocab_size()).map_err(fail)?;
        Ok(tokens)
    }

    /// From the text configuration alone.
    pub fn of(text: &TextConfig) -> Self {
        Self::from_parts(RawGeneration::default(), text)
    }

    fn from_parts(raw: RawGeneration, text: &TextConfig) -> Self {
        let (decoder_start, eos, pad, bos) = text.token_ids();
        let mut eos = match raw.eos_token_id.unwrap_or(eos) {
            OneOrMany::One(id) => vec![id],
            OneOrMany::Many(ids) => ids,
        };
        let pad = raw.pad_token_id.unwrap_or(pad);
        if pad < 0 && eos == [1] {
            eos = vec![2];
        }
        eos.sort_unstable();
        eos.dedup();
        Self {
            decoder_start: raw.decoder_start_token_id.unwrap_or(decoder_start),
            eos,
            pad: u32::try_from(pad).unwrap_or(0),
            // transformers takes this one from the text configuration.
            bos: bos.or(raw.bos_token_id).unwrap_or(1),
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
    use super::{RawGeneration, SpecialTokens, TextConfig};
    use serde_json::{Value, json};

    fn text(value: Value) -> TextConfig {
        TextConfig::parse(value, "t5").unwrap()
    }

    #[test]
    fn special_tokens_are_checked_against_the_vocabulary() {
        let config = text(json!({"eos_token_id": [1, 2, 1], "vocab_size": 10}));
        assert_eq!(SpecialTokens::of(&config).eos, [1, 2]);
        assert!(SpecialTokens::of(&config).check(10).is_ok());
        let error = SpecialTokens::of(&text(json!({"eos_token_id": 10}))).check(10).unwrap_err();
        assert_eq!(error, "eos_token_id 10 is outside the vocabulary of 10");
    }

    #[test]
    fn a_padding_of_minus_one_means_the_ids_of_the_tokenizer() {
        let quirk = json!({"pad_token_id": -1, "bos_token_id": 0, "eos_token_id": 1});
        let mut llama = quirk.clone();
        llama["model_type"] = json!("llama");
        let llama = text(llama);
        let with = |generation: Value| {
            let raw: RawGeneration = serde_json::from_value(generation).unwrap();
            let SpecialTokens { eos, pad, bos, .. } = SpecialTokens::from_parts(raw, &llama);
            (eos, pad, bos)
        };
        assert_eq!(with(json!({})), (vec![2], 0, 0));
        assert_eq!(with(quirk), (vec![2], 0, 0));
        // What a file says outright counts.
        assert_eq!(with(json!({"pad_token_id": 3, "eos_token_id": 1})), (vec![1], 3, 0));
        assert_eq!(with(json!({"eos_token_id": 7})), (vec![7], 0, 0));
    }

    #[test]
    fn each_class_has_its_own_ids() {
        let of = |kind: &str| {
            let SpecialTokens { eos, pad, bos, .. } = SpecialTokens::of(&text(json!({"model_type": kind})));
            (eos[0], pad, bos)
        };
        assert_eq!((of("t5"), of("llama"), of("opt")), ((1, 0, 1), (2, 0, 1), (2, 1, 2)));
    }
}
