//! Hugging Face directories with random weights of published shapes, for tests of what cannot be downloaded: time and memory of models
//! of full size do not depend on what their weights are.

mod files;
mod gguf;
mod kind;
mod random;
mod tensors;
mod vocabulary;
mod weights;

pub use kind::{Kind, Scale};
pub use random::{Fill, Format};
pub use tensors::Parameter;
pub use weights::OnBytes;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use kind::Language;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use vocabulary::Vocabulary;

/// The type of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 32-bit floating point.
    F32,
    /// The upper half of f32.
    Bf16,
    /// IEEE half precision.
    F16,
    /// The language model as `model.gguf` in Q4_0, the rest in bf16.
    Q4,
    /// The language model as `model.gguf` in Q8_0, the rest in bf16.
    Q8,
}

/// What will be written.
#[derive(Debug)]
pub struct Plan {
    kind: Kind,
    config: Value,
    vocabulary: Option<Vocabulary>,
    files: Vec<(String, String)>,
    parameters: Vec<Parameter>,
    /// Of what goes into safetensors files.
    dense: Format,
    /// Of a language model that goes into a GGUF file.
    blocks: Option<Format>,
}

impl Plan {
    /// Plans a checkpoint; nothing is written.
    ///
    /// # Errors
    /// A language model in a type that llama.cpp has no file for.
    pub fn new(kind: Kind, scale: Scale, dtype: Dtype) -> Result<Self> {
        let (dense, blocks) = match dtype {
            Dtype::F32 => (Format::F32, None),
            Dtype::Bf16 => (Format::Bf16, None),
            Dtype::F16 => (Format::F16, None),
            Dtype::Q4 => (Format::Bf16, Some(Format::Q4)),
            Dtype::Q8 => (Format::Bf16, Some(Format::Q8)),
        };
        if blocks.is_some() && kind.language() != Some(Language::Llama) {
            bail!(
                "only LLaMA language models are written as GGUF; write {kind:?} in bf16 and let the program make blocks on loading"
            );
        }
        let mut config = kind.config(scale);
        config["torch_dtype"] = match dense {
            Format::F32 => "float32",
            Format::F16 => "float16",
            _ => "bfloat16",
        }
        .into();
        let vocabulary = files::vocabulary(kind, scale, &config)?;
        let files = files::files(kind, &config, vocabulary.as_ref())?;
        let parameters = tensors::parameters(kind, &config)?;
        Ok(Self { kind, config, vocabulary, files, parameters, dense, blocks })
    }

    /// All parameters, in the order in which they are written.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The number of numbers in them.
    pub fn n_parameters(&self) -> usize {
        self.parameters.iter().map(Parameter::n_elements).sum()
    }

    /// The format of a parameter's elements.
    fn format(&self, parameter: &Parameter) -> Format {
        match self.blocks {
            Some(_) if parameter.is_language && parameter.fill == Fill::One => Format::F32,
            Some(blocks) if parameter.is_language => blocks,
            _ => self.dense,
        }
    }

    /// Bytes of all parameters; headers and small files come to it.
    pub fn n_bytes(&self) -> u64 {
        self.parameters.iter().map(|parameter| weights::n_bytes(parameter, self.format(parameter))).sum()
    }

    /// Bytes that must be free on the disk: the parameters, the small files, and 16 MiB for headers.
    pub fn n_bytes_on_disk(&self) -> u64 {
        let small: usize = self.files.iter().map(|(_, text)| text.len()).sum();
        self.n_bytes() + small as u64 + (16 << 20)
    }

    /// Refuses a disk that is too full.
    ///
    /// # Errors
    /// Both figures, if less is free than is needed.
    pub fn check_space(&self, free: u64) -> Result<()> {
        let needed = self.n_bytes_on_disk();
        let gb = |bytes: u64| bytes as f64 / 1e9;
        ensure!(
            free >= needed,
            "the checkpoint takes {:.2} GB and {:.2} GB are free; free space or name a folder on another disk",
            gb(needed),
            gb(free)
        );
        Ok(())
    }

    /// Writes the checkpoint into a folder that does not exist yet. It comes under its name when it is complete.
    ///
    /// # Errors
    /// A folder that exists, a disk that is too full, the system's errors with the path, and the error of `on_bytes`.
    pub fn write(&self, dir: &Path, seed: u64, on_bytes: &mut OnBytes<'_>) -> Result<()> {
        ensure!(!dir.exists(), "{} exists; delete it or name another folder", dir.display());
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        fwd_files::sweep(parent);
        if let Some(free) = free_bytes(parent) {
            self.check_space(free)?;
        }
        let folder = fwd_files::temporary_folder(parent)
            .with_context(|| format!("cannot write into {}", parent.display()))?;
        for (name, text) in &self.files {
            write_file(&folder.path().join(name), |out| Ok(out.write_all(text.as_bytes())?))?;
        }
        self.write_weights(folder.path(), seed, on_bytes)?;
        folder.persist(dir).with_context(|| format!("cannot rename the finished folder to {}", dir.display()))
    }

    fn write_weights(&self, dir: &Path, seed: u64, on_bytes: &mut OnBytes<'_>) -> Result<()> {
        let in_gguf = |parameter: &Parameter| self.blocks.is_some() && parameter.is_language;
        let dense: Vec<Parameter> =
            self.parameters.iter().filter(|parameter| !in_gguf(parameter)).cloned().collect();
        let shards = weights::shards(&dense, self.dense);
        for (at, shard) in shards.iter().enumerate() {
            write_file(&dir.join(weights::shard_name(at, shards.len())), |out| {
                weights::write_safetensors(out, shard, self.dense, seed, on_bytes)
            })?;
        }
        if shards.len() > 1 {
            let index = serde_json::to_string_pretty(&weights::index(&shards, self.dense))?;
            write_file(
                &dir.join("model.safetensors.index.json"),
                |out| Ok(out.write_all(index.as_bytes())?),
            )?;
        }
        if let (Some(blocks), Some(vocabulary)) = (self.blocks, &self.vocabulary) {
            let text =
                if self.kind == Kind::SmolLm2_135m { &self.config } else { &self.config["text_config"] };
            let language: Vec<&Parameter> =
                self.parameters.iter().filter(|parameter| in_gguf(parameter)).collect();
            write_file(&dir.join("model.gguf"), |out| {
                gguf::write(out, (text, vocabulary), &language, (blocks, seed), on_bytes)
            })?;
        }
        Ok(())
    }
}

fn write_file(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    // An error that is not the system's goes around the one that the writer may return.
    let mut failed = None;
    let written = fwd_files::write_atomically_with(path, |out| {
        fill(out).map_err(|error| {
            let shown = std::io::Error::other(error.to_string());
            failed = Some(error);
            shown
        })
    });
    match failed {
        Some(error) => Err(error),
        None => written.with_context(|| format!("cannot write {}", path.display())),
    }
}

/// Bytes that a user may still write to the disk of a folder; none where the system does not tell.
pub fn free_bytes(dir: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(dir).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        None
    }
}
