//! The frozen model with everything that turns an image and an instruction into its input, loaded by one function.
//!
//! A directory in Hugging Face's layout: `config.json`, `generation_config.json`, `model.safetensors` or shards with their
//! index, `preprocessor_config.json`, `tokenizer.json`, and `qformer_tokenizer/tokenizer.json` for InstructBLIP.

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use filebuffer::FileBuffer;
use fwd_data::{ImageLimits, Processor, TokenBatch};
use fwd_models::{
    Blip as Model, BlipSample as Sample, GenerationConfig, Instructions, ModelKind, QFormerText, Tap,
    WeightDtype,
};
use fwd_prompt::{FrozenModel, PromptBatch, PromptPool, Selection};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// A frozen model, its processor, and what identifies them.
#[derive(Debug)]
pub struct Backbone {
    /// The weights, frozen.
    pub model: Model,
    /// Turns images and texts into what the model reads.
    pub processor: Processor,
    /// Where it was loaded from.
    pub dir: PathBuf,
    /// SHA-256 of all its files, in hexadecimal.
    pub hash: String,
    /// Numbers in its weight files.
    pub n_parameters: u64,
}

/// An answer and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// As the tokenizer writes it, without special tokens.
    pub text: String,
    /// The prompts that were put in front, best first.
    pub selection: Selection,
}

impl Backbone {
    /// Loads a directory into the memory of a device.
    ///
    /// # Errors
    /// That names the file that is missing or damaged, or the parts that do not fit.
    pub fn open(dir: &Path, device: &Device) -> Result<Self> {
        ensure!(dir.is_dir(), "the model directory {} does not exist", dir.display());
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        let model = Model::load(&dir, WeightDtype::F32, device)?;
        let processor = Processor::open(&dir)?;
        let (side, image) = (model.config().vision.image_size, &processor.image);
        ensure!(
            (image.height, image.width) == (side, side),
            "{}: preprocessor_config.json makes images of {}x{}, config.json wants {side}x{side}",
            dir.display(),
            image.height,
            image.width
        );
        if model.kind() == ModelKind::InstructBlip {
            let missing = dir.join("qformer_tokenizer/tokenizer.json");
            ensure!(processor.qformer.is_some(), "{}: InstructBLIP needs it", missing.display());
        }
        let files = files_of(&dir)?;
        let (hash, n_parameters) = examine(&dir, &files)?;
        Ok(Self { model, processor, dir, hash, n_parameters })
    }

    /// The frozen pass over one encoded image and instruction; the labels are left empty, `origin` names the image in errors.
    ///
    /// One at a time, so that the result does not depend, in its last bits, on what else is computed.
    ///
    /// # Errors
    /// Those of the tokenizers and of the model.
    pub fn features(&self, image: &[u8], origin: &str, instruction: &str) -> Result<Sample> {
        let processor = &self.processor;
        let shape = (1, 3, processor.image.height, processor.image.width);
        let pixels = processor.image.process_bytes(image, origin, ImageLimits::default())?;
        let pixels = Tensor::from_vec(pixels, shape, &Device::Cpu)?;
        let instructions = instructions(processor, self.model.kind(), &[instruction])?;
        let features = self.model.features(&pixels, &instructions, &mut Tap::none())?;
        let no_labels = Tensor::full(fwd_ops::IGNORE_INDEX, (1, 1), &Device::Cpu)?;
        features.samples(&no_labels)?.pop().context("the model returned no sample")
    }

    /// The tokens of an answer that is to be learnt, end of sequence included.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn labels(&self, answer: &str) -> Result<Vec<i64>> {
        Ok(self.processor.text.encode(answer)?.into_iter().map(i64::from).collect())
    }

    /// Answers of a batch by greedy search, each sample behind the prompts that its own query selects, if it selects any.
    ///
    /// # Errors
    /// Those of the model; prompts of another width.
    pub fn answer(&self, batch: &[&Sample], pool: &PromptPool, max_new_tokens: usize) -> Result<Vec<Answer>> {
        let select = |sample: &&Sample| Ok(pool.select(&self.model.queries(sample)?)?);
        let selections = batch.iter().map(select).collect::<Result<Vec<_>>>()?;
        // Samples with and without prompts differ in length, so they must be batched separately.
        let (with, without): (Vec<usize>, Vec<usize>) =
            (0..batch.len()).partition(|&i| !selections[i].prompts.is_empty());
        let mut answers: Vec<Option<Answer>> = batch.iter().map(|_| None).collect();
        for part in [with, without].iter().filter(|part| !part.is_empty()) {
            let samples: Vec<&Sample> = part.iter().map(|&i| batch[i]).collect();
            let chosen: Vec<Selection> = part.iter().map(|&i| selections[i].clone()).collect();
            let texts = self.answer_behind(&samples, pool.gather(&chosen)?, max_new_tokens)?;
            for ((&i, text), selection) in part.iter().zip(texts).zip(chosen) {
                answers[i] = Some(Answer { text, selection });
            }
        }
        answers.into_iter().collect::<Option<_>>().context("the model returned no answer")
    }

    /// Answers of a batch whose samples all have as many prompt tokens in front, or none.
    fn answer_behind(
        &self,
        batch: &[&Sample],
        prompts: PromptBatch,
        max_new_tokens: usize,
    ) -> Result<Vec<String>> {
        let language = self.model.language();
        let mut input = self.model.language_input(batch, language.device())?;
        if prompts.n_tokens > 0 {
            let shape = (prompts.batch, prompts.n_tokens, prompts.dim);
            input = input.with_prompt(&Tensor::from_vec(prompts.values, shape, language.device())?)?;
        }
        let encoded = language.encode(&input, &mut Tap::none())?;
        let config = GenerationConfig::greedy(max_new_tokens, self.model.special_tokens().clone());
        let rows = language.generate(&encoded, &config, None)?;
        let texts = rows.iter().map(|row| {
            let best = row.first().context("the model returned no answer")?;
            Ok(self.processor.text.decode(&best.ids)?)
        });
        texts.collect()
    }
}

/// Instructions as a model of a kind reads them.
///
/// # Errors
/// Those of the tokenizers.
pub(crate) fn instructions(processor: &Processor, kind: ModelKind, texts: &[&str]) -> Result<Instructions> {
    let text = processor.text.encode_batch(texts)?;
    let qformer = match (&processor.qformer, kind) {
        (Some(tokenizer), ModelKind::InstructBlip) => {
            let batch = tokenizer.encode_batch(texts)?;
            Some(QFormerText { ids: tensor(&batch.ids, &batch)?, mask: tensor(&batch.mask, &batch)? })
        }
        _ => None,
    };
    Ok(Instructions { ids: tensor(&text.ids, &text)?, mask: tensor(&text.mask, &text)?, qformer })
}

fn tensor(values: &[i64], batch: &TokenBatch) -> Result<Tensor> {
    Ok(Tensor::from_slice(values, (batch.rows, batch.width), &Device::Cpu)?)
}

/// The files that make up a model, sorted.
fn files_of(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json" || e == "safetensors") {
            files.push(path);
        }
    }
    let qformer = dir.join("qformer_tokenizer/tokenizer.json");
    if qformer.exists() {
        files.push(qformer);
    }
    files.sort();
    Ok(files)
}

/// SHA-256 over names, lengths and contents of all files, and the number of elements in the weight files among them.
fn examine(dir: &Path, files: &[PathBuf]) -> Result<(String, u64)> {
    let (mut hasher, mut n_parameters) = (Sha256::new(), 0);
    for path in files {
        let content = FileBuffer::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(dir).unwrap_or(path).to_string_lossy().into_owned();
        for part in [name.as_bytes(), &*content] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        if path.extension().is_some_and(|e| e == "safetensors") {
            let (_, metadata) = SafeTensors::read_metadata(&content)
                .with_context(|| format!("{} is no safetensors file", path.display()))?;
            let sizes = metadata.tensors().into_values().map(|t| t.shape.iter().product::<usize>() as u64);
            n_parameters += sizes.sum::<u64>();
        }
    }
    Ok((hex(&hasher.finalize()), n_parameters))
}

/// Hexadecimal digits of bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
