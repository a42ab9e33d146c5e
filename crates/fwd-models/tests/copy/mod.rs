//! A copy of a small checkpoint that a test may damage.

#![allow(dead_code)] // Each test uses some of it.

use crate::common::fixtures;
use candle_core::{Device, Tensor, safetensors};
use fwd_models::{Blip, ModelError, WeightDtype};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A copy of a small checkpoint that a test may damage.
pub(crate) struct Copy(TempDir);

impl Copy {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for file in ["config.json", "generation_config.json", "model.safetensors"] {
            fs::copy(fixtures().join("sets/instructblip-tiny").join(file), dir.path().join(file)).unwrap();
        }
        Self(dir)
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    /// A file of it.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn tensors(&self) -> HashMap<String, Tensor> {
        safetensors::load(self.path("model.safetensors"), &Device::Cpu).unwrap()
    }

    pub(crate) fn save(&self, tensors: &HashMap<String, Tensor>) {
        safetensors::save(tensors, self.path("model.safetensors")).unwrap();
    }

    pub(crate) fn edit_text(&self, name: &str, edit: impl Fn(String) -> String) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        fs::write(self.path(name), edit(text)).unwrap();
    }

    pub(crate) fn load(&self) -> Result<Blip, ModelError> {
        Blip::load(self.0.path(), WeightDtype::F32, &Device::Cpu)
    }

    /// The error's text, in which `expected` must stand.
    pub(crate) fn fails_with(&self, expected: &[&str]) {
        let error = with_cause(&self.load().expect_err("a damaged checkpoint must not load"));
        for part in expected {
            assert!(error.contains(part), "`{part}` is missing in: {error}");
        }
    }
}

/// An error and what caused it.
pub(crate) fn with_cause(error: &ModelError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}
