//! The names of the files in a model directory that a pre-training writes and reads, beside those of Hugging Face's layout.

use crate::model::library_beside;
use crate::run::CACHE;
use std::path::{Path, PathBuf};

/// The files of a model directory, whether or not they are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPaths {
    dir: PathBuf,
}

impl ModelPaths {
    /// Those of the model directory `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    /// The model directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The recipe by which the model is trained ([`Recipe`](super::Recipe)).
    pub fn recipe(&self) -> PathBuf {
        self.dir.join("recipe.toml")
    }

    /// The gates that were measured ([`Report`](super::gates::Report)).
    pub fn gates(&self) -> PathBuf {
        self.dir.join("gates.json")
    }

    /// The weights of the frozen vision network.
    pub fn vision(&self) -> PathBuf {
        self.dir.join("vision.safetensors")
    }

    /// The weights of the text side of a Q-Former that is not trained, if there is one.
    pub fn qformer(&self) -> PathBuf {
        self.dir.join("qformer.safetensors")
    }

    /// The model's configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    /// The weights that are trained.
    pub fn trained(&self) -> PathBuf {
        self.dir.join("trained.safetensors")
    }

    /// The folder of the saved state, where training goes on; it is there until training is finished.
    pub fn state(&self) -> PathBuf {
        self.dir.join("training-state")
    }

    /// The loss curve as CSV.
    pub fn curve(&self) -> PathBuf {
        self.dir.join("loss.csv")
    }

    /// The library of prompts that comes with the model ([`library`](super::library())).
    pub fn library(&self) -> PathBuf {
        library_beside(&self.dir)
    }

    /// The run directory in which the library's prompts are tuned.
    pub fn library_run(&self) -> PathBuf {
        self.dir.join("library").join("run")
    }

    /// Where frozen features are kept: in `given`, or in the model directory.
    pub fn cache(&self, given: Option<&Path>) -> PathBuf {
        given.map_or_else(|| self.dir.join(CACHE), Path::to_path_buf)
    }
}
