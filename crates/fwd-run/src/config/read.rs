//! How a [`RunConfig`] is deserialised: its own keys, and a section for each method of [`fwd_continual`].
//!
//! Written by hand, because serde cannot refuse unknown keys of a struct that has a flattened part, nor keep the lines of errors.

use super::options::Section;
use super::run_config::RunConfig;
use fwd_continual::MethodConfig;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use std::fmt;

/// Reads the value of a key into the field of the same name.
macro_rules! fields {
    ($($field:ident),* $(,)?) => {
        const FIELDS: &[&str] = &[$(stringify!($field)),*];

        fn read<'de, A: MapAccess<'de>>(config: &mut RunConfig, key: &str, map: &mut A) -> Result<bool, A::Error> {
            match key {
                $(stringify!($field) => config.$field = map.next_value()?,)*
                _ => return Ok(false),
            }
            Ok(true)
        }
    };
}

fields![
    method,
    seed,
    tasks,
    order,
    split,
    device,
    dtype,
    compute,
    template,
    instruction,
    skip_bad,
    limits,
    training_samples,
    pretraining_samples,
    retention_samples,
    max_new_tokens,
    eval_batch,
    pool,
    subspace,
    project_at,
    map,
    training,
    alpha,
    finetune,
    lora,
    save_every,
    paths,
];

struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = RunConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration of a run")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RunConfig, A::Error> {
        let mut config = RunConfig::default();
        while let Some(key) = map.next_key_seed(KnownKey)? {
            if read(&mut config, &key, &mut map)? {
                continue;
            }
            if let Some(method) = MethodConfig::named(&key) {
                config.options.set(map.next_value_seed(Section(method))?);
            }
        }
        Ok(config)
    }
}

/// A key that is one of the configuration's; the error of another one has the place of the key.
struct KnownKey;

impl<'de> serde::de::DeserializeSeed<'de> for KnownKey {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        let key = String::deserialize(deserializer)?;
        let methods: Vec<&str> = MethodConfig::all().iter().map(MethodConfig::name).collect();
        if FIELDS.contains(&&*key) || methods.contains(&&*key) {
            return Ok(key);
        }
        // In serde's own words, in which suggestions are looked for.
        let known: Vec<String> = FIELDS.iter().chain(&methods).map(|name| format!("`{name}`")).collect();
        Err(D::Error::custom(format!("unknown field `{key}`, expected one of {}", known.join(", "))))
    }
}

impl<'de> Deserialize<'de> for RunConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Keys)
    }
}
