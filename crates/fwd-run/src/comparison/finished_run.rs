//! A finished run, read from its directory.

use crate::choice::Choice;
use crate::method::Method;
use crate::model::Template;
use crate::run::{Manifest, RunMetrics, RunPaths, Timing};
use anyhow::{Result, ensure};
use fwd_continual::ScoreMatrix;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A finished run.
#[derive(Debug)]
pub struct FinishedRun {
    /// The run directory.
    pub dir: PathBuf,
    /// Configuration, hashes, program and machine.
    pub manifest: Manifest,
    /// Score matrix, measures and sizes.
    pub metrics: RunMetrics,
    /// Its seconds; zeros if there is no readable file of them.
    pub timing: Timing,
}

impl FinishedRun {
    /// Reads a run directory.
    ///
    /// # Errors
    /// If it is none, if the run is not finished, or if a file is damaged: also if the measures are not those of the scores, the scores
    /// not those of the answers beside them, or the result not that of the manifest's run.
    pub fn read(dir: &Path) -> Result<Self> {
        let manifest = Manifest::read(dir)?;
        let paths = RunPaths::new(dir);
        ensure!(
            paths.is_finished(),
            "{} is not finished: it has no {}; go on with it by the command that began it, or leave it out",
            dir.display(),
            paths.metrics_json().file_name().unwrap_or_default().display()
        );
        let metrics = RunMetrics::read(dir)?;
        metrics.check_manifest(dir, &manifest)?;
        metrics.check_answers(dir)?;
        let timing = Timing::read(&paths.timing());
        Ok(Self { dir: dir.to_path_buf(), manifest, metrics, timing })
    }

    /// The optimiser's step with its projection, in percent of the training time; none without seconds.
    pub fn optimiser_percent(&self) -> Option<f64> {
        (self.timing.training > 0.0).then(|| 100.0 * self.timing.optimiser / self.timing.training)
    }

    /// The score matrix, one row a moment.
    pub fn matrix(&self) -> ScoreMatrix {
        ScoreMatrix { n_tasks: self.metrics.tasks.len(), rows: self.metrics.scores.clone() }
    }

    /// The names of the tasks as they were learnt.
    pub fn order(&self) -> Vec<String> {
        self.metrics.tasks.iter().map(|task| task.name.clone()).collect()
    }

    /// The configuration by key, without the seed and without what the method does not read.
    pub(super) fn settings(&self) -> Result<BTreeMap<String, String>> {
        let config = serde_json::to_value(&self.manifest.run.config)?;
        let mut out = BTreeMap::new();
        flatten("", &config, &mut out);
        // Manifests leave out what newer keys are by default.
        let defaults = [
            ("template", Template::Plain.name()),
            ("pool.inference", "prompts"),
            ("pool.place", "front"),
            ("training.lr_unit", "one"),
            ("pool.start", "normal"),
            ("pool.fallback", "nothing"),
            ("pool.anchors.count", "0"),
            ("pool.anchors.quantile", "0.05"),
        ];
        for (key, default) in defaults {
            let value = out.entry(key.to_owned()).or_insert_with(|| default.to_owned());
            // Which library it was belongs to what it was used for.
            if let Some(library) = self.manifest.run.library.as_deref().filter(|_| value != default)
                && matches!(key, "pool.start" | "pool.fallback")
            {
                *value = format!("{value} {}", &library[..library.len().min(8)]);
            }
        }
        let method = self.metrics.method;
        let is_projected = matches!(
            method,
            Method::LoraResidual | Method::LoraFwd | Method::LoraFwdWeighted | Method::KeepLora
        );
        let is_read = |key: &str| {
            let of_prompts =
                ["pool", "project_at", "map"].iter().any(|part| key.split('.').next() == Some(part))
                    || ["prompts", "keys", "key_weight", "lr_unit"].iter().any(|part| {
                        key.strip_prefix("training.").is_some_and(|rest| rest.split('.').next() == Some(part))
                    });
            if method.has_adapters() && (of_prompts || key.starts_with("subspace") && !is_projected) {
                return false;
            }
            let reader = match key {
                "lora.overlap_weight" => Some(Method::OLora),
                "lora.experts" => Some(Method::MoeLora),
                "lora.key_share" | "lora.key_weight" => Some(Method::RegLora),
                "lora.gradient_samples" => Some(Method::KeepLora),
                _ => None,
            };
            if let Some(reader) = reader {
                return method == reader;
            }
            let section = key.split('.').next().unwrap_or_default();
            match section {
                "seed" | "method" | "order" | "tasks" | "split" => false,
                "alpha" => matches!(method, Method::FwdWeighted | Method::LoraFwdWeighted),
                "lora" => method.has_adapters(),
                "finetune" => method == Method::Finetune,
                _ => fwd_continual::MethodConfig::named(section)
                    .is_none_or(|method| self.metrics.method.beside() == Some(method.name())),
            }
        };
        out.retain(|key, _| is_read(key));
        Ok(out)
    }
}

/// The leaves of a JSON value by dotted key.
fn flatten(key: &str, value: &Value, out: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(&key, value, out);
            }
        }
        Value::Null => drop(out.insert(key.to_owned(), "none".to_owned())),
        Value::String(text) => drop(out.insert(key.to_owned(), text.clone())),
        other => drop(out.insert(key.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_of_a_configuration() {
        let mut out = BTreeMap::new();
        let value = serde_json::json!({ "a": { "b": 1.5, "c": null }, "d": "x", "e": [1, 2] });
        flatten("", &value, &mut out);
        let leaves: Vec<(&str, &str)> = out.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(leaves, [("a.b", "1.5"), ("a.c", "none"), ("d", "x"), ("e", "[1,2]")]);
    }
}
