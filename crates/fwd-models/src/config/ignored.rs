//! What a `generation_config.json` asks for that is not done: answers come from greedy search, or from beam search where a caller
//! configures it.

use super::field::read_json;
use crate::error::Result;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The keys that change what is generated, with the value by which they change nothing; null and an empty list never do.
fn neutral() -> [(&'static str, Value); 27] {
    [
        ("num_beams", json!(1)),
        ("num_beam_groups", json!(1)),
        ("diversity_penalty", json!(0.0)),
        ("length_penalty", json!(1.0)),
        ("early_stopping", json!(false)),
        ("do_sample", json!(false)),
        ("penalty_alpha", Value::Null),
        ("repetition_penalty", json!(1.0)),
        ("encoder_repetition_penalty", json!(1.0)),
        ("no_repeat_ngram_size", json!(0)),
        ("encoder_no_repeat_ngram_size", json!(0)),
        ("bad_words_ids", Value::Null),
        ("force_words_ids", Value::Null),
        ("suppress_tokens", Value::Null),
        ("begin_suppress_tokens", Value::Null),
        ("forced_bos_token_id", Value::Null),
        ("forced_eos_token_id", Value::Null),
        ("forced_decoder_ids", Value::Null),
        ("sequence_bias", Value::Null),
        ("exponential_decay_length_penalty", Value::Null),
        ("constraints", Value::Null),
        ("stop_strings", Value::Null),
        ("guidance_scale", json!(1.0)),
        ("min_length", json!(0)),
        ("min_new_tokens", json!(0)),
        ("watermarking_config", Value::Null),
        ("dola_layers", Value::Null),
    ]
}

/// The keys that count only where tokens are sampled.
const OF_SAMPLING: [&str; 8] =
    ["temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"];

/// What a model directory asks of generation that greedy search does not do, as `key = value`, sorted by key.
///
/// As transformers does, it looks into `generation_config.json`, and only where that is missing into `config.json`.
///
/// # Errors
/// A file that exists and cannot be read.
pub fn ignored_generation(dir: &Path) -> Result<Vec<String>> {
    let own = dir.join("generation_config.json");
    if own.exists() {
        return Ok(ignored(&read_json(&own)?));
    }
    let mut config: Map<String, Value> = read_json(&dir.join("config.json"))?;
    if let Some(Value::Object(text)) = config.remove("text_config") {
        config.extend(text);
    }
    Ok(ignored(&config))
}

fn ignored(config: &Map<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    let mut say = |key: &str, value: &Value| {
        const LONGEST: usize = 60;
        let text = value.to_string();
        let end = text.char_indices().nth(LONGEST).map(|(end, _)| end);
        let shown = end.map_or_else(|| text.clone(), |end| format!("{}…", &text[..end]));
        found.push(format!("{key} = {shown}"));
    };
    for (key, neutral) in neutral() {
        match config.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::Array(list)) if list.is_empty() => {}
            Some(value)
                if *value == neutral || (neutral.is_number() && value.as_f64() == neutral.as_f64()) => {}
            Some(value) => say(key, value),
        }
    }
    if config.get("do_sample") == Some(&Value::Bool(true)) {
        let set =
            OF_SAMPLING.iter().filter_map(|key| Some((key, config.get(*key).filter(|v| !v.is_null())?)));
        set.for_each(|(key, value)| say(key, value));
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_from_greedy_search_is_said() {
        let of = |text: &str| ignored(&serde_json::from_str(text).unwrap());
        let neutral = r#"{"num_beams": 1, "do_sample": false, "repetition_penalty": 1, "length_penalty": 1.0, "bad_words_ids": null,
            "suppress_tokens": [], "temperature": 0.2, "eos_token_id": 1, "max_length": 20}"#;
        assert_eq!(of(neutral), [""; 0]);
        let asked = r#"{"num_beams": 5, "do_sample": true, "temperature": 0.2, "suppress_tokens": [3, 4],
            "no_repeat_ngram_size": 3, "length_penalty": -1.0}"#;
        let said = [
            "do_sample = true",
            "length_penalty = -1.0",
            "no_repeat_ngram_size = 3",
            "num_beams = 5",
            "suppress_tokens = [3,4]",
            "temperature = 0.2",
        ];
        assert_eq!(of(asked), said);
        let long = format!(r#"{{"bad_words_ids": [{}]}}"#, vec!["[1]"; 5000].join(","));
        assert!(of(&long)[0].len() < 100);
    }
}
