//! The frozen model with everything that turns an image and an instruction into its input, loaded by one function.
//!
//! A directory in Hugging Face's layout: `config.json`, `generation_config.json`, `model.safetensors` or shards with their
//! index, a `.gguf` file for the language model, `preprocessor_config.json`, `tokenizer.json`, and `qformer_tokenizer/tokenizer.json` for InstructBLIP.

use super::Model;
use super::reader::{Reader, Template, TextFormat, end_of_answer};
use super::tokenizers::processor_of;
use crate::choice::Choice;
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use fwd_data::{ImageLimits, Orientation, Processor};
use fwd_models::{GenerationConfig, Precision, Reading, Sample, Tap, WeightDtype, WeightFile};
use fwd_ops::Compute;
use fwd_prompt::{FrozenModel, PromptBatch, PromptPool, Selection};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A frozen model, its processor, and what identifies them.
#[derive(Debug)]
pub struct Backbone {
    /// The weights, frozen.
    pub model: Box<Model>,
    /// Turns images and texts into what the model reads.
    pub processor: Processor,
    /// Where it was loaded from.
    pub dir: PathBuf,
    /// SHA-256 of all its files, in hexadecimal; of large weight files, a part counts ([`WeightFile::samples`]).
    pub hash: String,
    /// Numbers in its weight files.
    pub n_parameters: u64,
    /// What the directory asks for that is not done, each in a line for people to read.
    pub remarks: Vec<String>,
    /// How its matrices are kept in memory.
    pub dtype: WeightDtype,
    /// How its frozen products are computed.
    pub compute: Compute,
    format: TextFormat,
}

/// What a model is opened with; the default is f32 throughout and the template that suits the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelOptions {
    /// How the matrices are kept in memory.
    pub dtype: WeightDtype,
    /// How frozen products are computed.
    pub compute: Compute,
    /// How prompts are written; none: as the model's chat template does, if its directory has one and the model was trained with it.
    pub template: Option<Template>,
}

/// The names in files and on command lines.
impl Choice for WeightDtype {
    fn all() -> Vec<(Self, &'static str, String)> {
        vec![
            (Self::F32, "f32", "4 bytes a number".to_owned()),
            (Self::Bf16, "bf16", "2 bytes, with the range of f32".to_owned()),
            (Self::F16, "f16", "2 bytes, more precise, up to 65504".to_owned()),
            (Self::Q8, "q8", "Blocks of 8 bits, 1.06 bytes".to_owned()),
            (
                Self::Q4,
                "q4",
                "Blocks of 4 bits in the layers of the language model, 0.56 bytes; 8 bits elsewhere"
                    .to_owned(),
            ),
        ]
    }
}

/// The names in files and on command lines.
impl Choice for Compute {
    fn all() -> Vec<(Self, &'static str, String)> {
        vec![
            (Self::F32, "f32", "In f32, whatever type the weights are kept in".to_owned()),
            (Self::Bf16, "bf16", "Both factors rounded to bf16, sums in f32; everything else in f32".to_owned()),
            (
                Self::Int8,
                "int8",
                "As bf16; and in decoding, weights in blocks of 8 or 4 bits times activations rounded to 8 bits".to_owned(),
            ),
        ]
    }
}

/// An answer and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// As the tokenizer writes it, without special tokens and white space around it.
    pub text: String,
    /// The prompts that were put in front, best first.
    pub selection: Selection,
}

impl Backbone {
    /// Loads a directory into the memory of a device.
    ///
    /// # Errors
    /// That names the file that is missing or damaged, or the parts that do not fit.
    pub fn open(dir: &Path, options: ModelOptions, device: &Device) -> Result<Self> {
        let ModelOptions { dtype, compute, template } = options;
        ensure!(
            compute == Compute::F32 || device.is_cpu(),
            "compute is `{}`, which only the CPU has: on another device leave it out, or make it `f32`",
            compute.name()
        );
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        let model = fwd_models::load(&dir, Precision { dtype, compute }, device)?;
        let reading = Reading::of(&*model);
        let processor = processor_of(&dir, &reading)?;
        let (side, image) = (model.image_size(), &processor.image);
        ensure!(
            (image.height, image.width) == (side, side),
            "{}: preprocessor_config.json makes images of {}x{}, config.json wants {side}x{side}",
            dir.display(),
            image.height,
            image.width
        );
        let eos = end_of_answer(&processor.text, model.special_tokens());
        let format = TextFormat::open(&dir, template, reading, eos)?;
        let (hash, n_parameters) = examine(&dir, &files_of(&dir)?)?;
        let remarks = remarks(&dir)?;
        Ok(Self { model, processor, dir, hash, n_parameters, remarks, dtype, compute, format })
    }

    /// How prompts are written.
    pub fn template(&self) -> Template {
        self.format.template()
    }

    /// What tells features and answers of this model from those of the same files opened otherwise; empty for f32 and plain prompts.
    pub(crate) fn variant(&self) -> String {
        let mut parts = Vec::new();
        if self.dtype != WeightDtype::F32 {
            parts.push(self.dtype.name().to_owned());
        }
        if self.compute != Compute::F32 {
            parts.push(format!("compute {}", self.compute.name()));
        }
        if self.template() == Template::Chat {
            parts.push(Template::Chat.name().to_owned());
        }
        parts.join(" ")
    }

    /// The frozen pass over one encoded image and instruction; the labels are left empty, `origin` names the image in errors.
    ///
    /// One at a time, so that the result does not depend, in its last bits, on what else is computed.
    ///
    /// # Errors
    /// An instruction of more tokens than [`Reader::max_instruction_tokens`]; those of the tokenizers and of the model.
    pub fn features(
        &self,
        image: &[u8],
        origin: &str,
        orientation: Orientation,
        instruction: &str,
    ) -> Result<Sample> {
        let processor = &self.processor;
        let shape = (1, 3, processor.image.height, processor.image.width);
        let instructions = self.reader().instructions(&[instruction])?;
        let pixels = processor.image.process_bytes(image, origin, ImageLimits::default(), orientation)?;
        let pixels = Tensor::from_vec(pixels, shape, &Device::Cpu)?;
        let features = self.model.features(&pixels, &instructions, &mut Tap::none())?;
        let no_labels = Tensor::full(fwd_ops::IGNORE_INDEX, (1, 1), &Device::Cpu)?;
        features.samples(&no_labels)?.pop().context("the model returned no sample")
    }

    /// That the bridge reads only the beginning of an instruction, in a sentence for people to read; none if it reads all of it, or reads no
    /// instruction.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn bridge_cut(&self, instruction: &str) -> Result<Option<String>> {
        let excess = self.reader().bridge_excess(instruction)?;
        Ok(excess.map(|(n_tokens, limit)| {
            format!(
                "the instruction has {n_tokens} tokens for the Q-Former, which has {limit} positions and reads its beginning; the language \
                 model reads all of it"
            )
        }))
    }

    /// The tokens of an answer that is to be learnt, end of sequence included. Where the prompt of its instruction ends in no white space,
    /// some vocabularies need a space in front of the answer.
    ///
    /// # Errors
    /// Those of the tokenizer and of the chat template.
    pub fn labels(&self, instruction: &str, answer: &str) -> Result<Vec<i64>> {
        Ok(self.reader().answer_ids(instruction, answer)?.into_iter().map(i64::from).collect())
    }

    /// Answers of a batch by greedy search, each sample behind the prompts that its own query selects, if it selects any.
    ///
    /// # Errors
    /// Those of the model; prompts of another width.
    pub fn answer(&self, batch: &[&Sample], pool: &PromptPool, max_new_tokens: usize) -> Result<Vec<Answer>> {
        self.answer_behind(self.behind(batch, pool)?, max_new_tokens)
    }

    /// As [`Self::answer`], of a batch whose prompts are selected.
    ///
    /// # Errors
    /// Those of the model.
    pub(crate) fn answer_behind(&self, behind: Behind<'_>, max_new_tokens: usize) -> Result<Vec<Answer>> {
        let Behind { selections, prompts, samples } = behind;
        let read: Vec<&Sample> = samples.iter().map(|sample| &**sample).collect();
        let config = GenerationConfig::greedy(max_new_tokens, self.model.special_tokens().clone());
        let hypotheses = fwd_models::answer(&*self.model, &read, &prompts, &config)?;
        let answers = hypotheses.into_iter().zip(selections).map(|(hypothesis, selection)| {
            let text = self.processor.text.decode(&hypothesis.ids)?.trim().to_owned();
            Ok(Answer { text, selection })
        });
        answers.collect()
    }

    /// A batch as the model reads it, each sample behind the prompts that its own query selects, if it selects any.
    ///
    /// # Errors
    /// Those of the model; prompts of another width.
    pub(crate) fn behind<'s>(&self, batch: &[&'s Sample], pool: &PromptPool) -> Result<Behind<'s>> {
        let queries =
            batch.iter().map(|sample| Ok(self.model.queries(sample)?)).collect::<Result<Vec<_>>>()?;
        let selections = pool.select_all(&queries)?;
        let samples = batch.iter().map(|sample| pool.read(&*self.model, sample)).collect::<Result<_, _>>()?;
        Ok(Behind { prompts: pool.gather(&selections)?, selections, samples })
    }

    /// Whether a library of prompts lies in the model's directory, as `fwd-prompt pretrain --library` makes one.
    pub fn has_library(&self) -> bool {
        library_beside(&self.dir).is_file()
    }

    /// What turns texts into what the model reads.
    pub fn reader(&self) -> Reader<'_> {
        Reader { processor: &self.processor, format: &self.format }
    }
}

/// A batch behind prompts.
pub(crate) struct Behind<'s> {
    /// For each sample, which prompts it has in front.
    pub(crate) selections: Vec<Selection>,
    /// Their tokens.
    pub(crate) prompts: PromptBatch,
    /// The samples, after the pool's map if there is one.
    pub(crate) samples: Vec<fwd_prompt::Reading<'s, Sample>>,
}

/// Where the library of prompts that comes with a model lies in its directory. It is no part of the model's identity.
pub(crate) fn library_beside(dir: &Path) -> PathBuf {
    dir.join("library").join("prompts.safetensors")
}

/// What a model directory asks of generation and does not get.
fn remarks(dir: &Path) -> Result<Vec<String>> {
    let ignored = fwd_models::ignored_generation(dir)?;
    if ignored.is_empty() {
        return Ok(Vec::new());
    }
    let what = "the model's generation settings that greedy search does not follow";
    Ok(vec![format!("{what}: {}", ignored.join(", "))])
}

/// The files that make up a model, sorted.
fn files_of(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json" || e == "jinja" || e == "safetensors") {
            files.push(path);
        }
    }
    let qformer = dir.join("qformer_tokenizer/tokenizer.json");
    if qformer.exists() {
        files.push(qformer);
    }
    files.extend(fwd_models::gguf_file(dir)?);
    files.sort();
    Ok(files)
}

/// Weight files of up to so many bytes are hashed as a whole: it takes a fraction of a second.
const WHOLE: u64 = 256 << 20;

/// SHA-256 over names, lengths and contents of all files, and the number of elements in the weight files among them.
///
/// Of weight files above [`WHOLE`], whose gigabytes would take longer to hash than to use, header and samples of every tensor stand for
/// the content.
fn examine(dir: &Path, files: &[PathBuf]) -> Result<(String, u64)> {
    let (mut hasher, mut n_parameters) = (Sha256::new(), 0);
    for path in files {
        let name = path.strip_prefix(dir).unwrap_or(path).to_string_lossy().into_owned();
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        let cannot = || format!("cannot read {}", path.display());
        if path.extension().is_none_or(|e| e == "json" || e == "jinja") {
            hash_file(&mut hasher, path).with_context(cannot)?;
            continue;
        }
        let weights = WeightFile::open(path)?;
        n_parameters += weights.n_elements();
        if weights.n_bytes() <= WHOLE {
            hash_file(&mut hasher, path).with_context(cannot)?;
        } else {
            hasher.update(weights.n_bytes().to_le_bytes());
            weights.samples(|bytes| hasher.update(bytes))?;
        }
    }
    Ok((hex(&hasher.finalize()), n_parameters))
}

/// Hashes the length of a file and its content, a piece at a time.
fn hash_file(hasher: &mut Sha256, path: &Path) -> io::Result<()> {
    let mut file = fwd_files::open(path)?;
    let n_bytes = file.metadata()?.len();
    hasher.update(n_bytes.to_le_bytes());
    let (mut piece, mut n_read) = (vec![0; 1 << 20], 0);
    loop {
        let n = file.read(&mut piece)?;
        if n == 0 {
            break;
        }
        hasher.update(&piece[..n]);
        n_read += n as u64;
    }
    if n_read == n_bytes { Ok(()) } else { Err(io::Error::other("the file changed while it was read")) }
}

/// Hexadecimal digits of bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::{Seek, SeekFrom, Write};

    #[test]
    fn a_large_weight_file_is_told_from_one_with_another_tensor_without_reading_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        // A matrix of 512 MiB and a vector of 16 bytes after it, all zeros, which take no room on the disk.
        let header = r#"{"m":{"dtype":"F32","shape":[32768,4096],"data_offsets":[0,536870912]},
            "v":{"dtype":"F32","shape":[4],"data_offsets":[536870912,536870928]}}"#;
        let head = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        fs::write(&path, &head).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len((head.len() + 536_870_928) as u64).unwrap();
        let hash = || examine(folder.path(), std::slice::from_ref(&path)).unwrap();
        let write = |at: usize| {
            (&file).seek(SeekFrom::Start((head.len() + at) as u64)).unwrap();
            (&file).write_all(&1f32.to_le_bytes()).unwrap();
        };
        let (first, n) = hash();
        assert_eq!((&first, n), (&hash().0, (1 << 27) + 4));
        // The end of the matrix, then its beginning, then the vector: each makes another model.
        let mut seen = vec![first];
        for at in [536_870_908, 0, 536_870_912 + 4] {
            write(at);
            let (now, _) = hash();
            assert!(!seen.contains(&now));
            seen.push(now);
        }
    }
}
