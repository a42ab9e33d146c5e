//! The tensors of all weight files of a checkpoint, and the account of which of them a model has taken.

use super::directory::{Listing, gguf_within, list};
use super::entry::{Entry, Stored};
use super::file::WeightFile;
use super::gguf::ROPE_FACTORS;
use super::precision::Precision;
use super::scaled::scales_of;
use super::source::Weights;
use super::spelling::{hub_name, is_of_llava};
use crate::error::{ModelError, Result, TensorProblems};
use candle_core::{DType, Device, Tensor};
use fwd_ops::{Compute, Format, Matrix, Unfit, Weight};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The tensors of a checkpoint directory (`model.safetensors`, or shards with or without `model.safetensors.index.json`; and what these
/// lack from the directory's `.gguf` file) or of one file.
pub struct Checkpoint {
    /// The directory or the single file, for errors.
    path: PathBuf,
    files: Vec<WeightFile>,
    /// The file of every tensor, and the tensor's name in it; by the name that the model asks for.
    places: BTreeMap<String, (usize, String)>,
    used: BTreeSet<String>,
    /// Listed in the index, but in no shard.
    lost: BTreeSet<String>,
    problems: TensorProblems,
    /// Elements of the zeros that stand in for tensors.
    n_placeholders: u64,
    precision: Precision,
    device: Device,
}

/// What a tensor that a model does not ask for must hold, so that it may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redundant<'a> {
    /// The elements of the first of these tensors that the checkpoint holds.
    CopyOf(&'a [String]),
    /// The integers 0, 1, 2 … in their order.
    Positions,
    /// Anything: it belongs to a part of the published model that this one has no use for, or no model reads it.
    Unused,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let n_tensors = self.places.len();
        f.debug_struct("Checkpoint")
            .field("path", &self.path)
            .field("n_tensors", &n_tensors)
            .finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Opens the weight files of a directory and reads their headers.
    ///
    /// The tensors of a LLaVA have the names of the Hub (`vision_tower.vision_model.…`, `language_model.model.…`,
    /// `language_model.lm_head.weight`), in whichever of the spellings of transformers 4 and 5 the files have them.
    ///
    /// A `.gguf` file holds the language model for which the safetensors files have no tensors: beside those of a multimodal model its
    /// tensors are called `language_model.model.layers.0…`, alone or beside those of a LLaMA `model.layers.0…`. Where both have a tensor, that
    /// of the safetensors files counts. A name that begins with `mmproj` is passed over, and so are several files beside safetensors files.
    ///
    /// # Errors
    /// [`ModelError::Io`] if a file cannot be opened, [`ModelError::Json`] for a damaged index, [`ModelError::WeightFile`]
    /// for a damaged header, a file that is shorter or longer than its header says, or quantised weights,
    /// [`ModelError::Directory`] for a directory whose weights are of another format or incomplete.
    pub fn open(dir: &Path, precision: impl Into<Precision>, device: &Device) -> Result<Self> {
        let mut checkpoint = Self::empty(dir, precision.into(), device);
        let Listing { files, names, gguf } = list(dir)?;
        for file in files {
            checkpoint.add(&file)?;
        }
        let mut names = names;
        if checkpoint.places.keys().chain(&names).any(|name| is_of_llava(name)) {
            checkpoint.spell_as_on_the_hub()?;
            names.iter_mut().for_each(|name| *name = hub_name(name));
        }
        if let Some(file) = gguf {
            checkpoint.fill_up(&file)?;
        }
        let lost = names.into_iter().filter(|name| !checkpoint.places.contains_key(name));
        checkpoint.lost = lost.collect();
        Ok(checkpoint)
    }

    /// Opens a single weight file of any name and reads its header. The tensors of a `.gguf` file have the names of Hugging Face,
    /// `model.layers.0…`; [`WeightFile::config`] says what model they make.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_file(path: &Path, precision: impl Into<Precision>, device: &Device) -> Result<Self> {
        let mut checkpoint = Self::empty(path, precision.into(), device);
        checkpoint.add(path)?;
        Ok(checkpoint)
    }

    /// Opens some safetensors files of a directory, and fills up what they lack from its `.gguf` file as [`Self::open`] does: the frozen
    /// parts of a model whose other parts are trained.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_parts(
        dir: &Path,
        files: &[PathBuf],
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Self> {
        let mut checkpoint = Self::empty(dir, precision.into(), device);
        for file in files {
            checkpoint.add(file)?;
        }
        if let Some(file) = gguf_within(dir)? {
            checkpoint.fill_up(&file)?;
        }
        Ok(checkpoint)
    }

    fn empty(path: &Path, precision: Precision, device: &Device) -> Self {
        Self {
            path: path.into(),
            files: Vec::new(),
            places: BTreeMap::new(),
            used: BTreeSet::new(),
            lost: BTreeSet::new(),
            problems: TensorProblems::default(),
            n_placeholders: 0,
            precision,
            device: device.clone(),
        }
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let file = WeightFile::open(path)?;
        let damaged = |what: String| ModelError::WeightFile { path: path.into(), what };
        for name in file.names() {
            if is_quantised(name) {
                return Err(damaged(format!(
                    "tensor `{name}` belongs to quantised weights, which are not supported; use the original, whose weights \
                     `dtype = \"q4\"` or \"q8\" quantises on loading, or if there is none load this one in transformers, call \
                     `dequantize()` and save it again"
                )));
            }
            if self.places.insert(name.clone(), (self.files.len(), name.clone())).is_some() {
                return Err(damaged(format!("tensor `{name}` stands in another file too")));
            }
        }
        self.files.push(file);
        Ok(())
    }

    /// Gives the tensors of a LLaVA the names of the Hub.
    fn spell_as_on_the_hub(&mut self) -> Result<()> {
        for (name, place) in std::mem::take(&mut self.places) {
            if let Some((_, other)) = self.places.insert(hub_name(&name), place) {
                let what =
                    format!("`{other:.200}` and `{name:.200}` are two names of one tensor; keep one of them");
                return Err(ModelError::WeightFile { path: self.path.clone(), what });
            }
        }
        Ok(())
    }

    /// Adds the tensors of a GGUF file that no other file has.
    fn fill_up(&mut self, path: &Path) -> Result<()> {
        let file = WeightFile::open(path)?;
        let is_of_llama =
            |name: &String| name.starts_with("model.layers.") || name.starts_with("model.embed_tokens.");
        let is_alone = self.places.is_empty() || self.places.keys().any(is_of_llama);
        for name in file.names() {
            let known = if is_alone { name.clone() } else { format!("language_model.{name}") };
            self.places.entry(known).or_insert_with(|| (self.files.len(), name.clone()));
        }
        self.files.push(file);
        Ok(())
    }

    /// Ends the loading: every tensor asked for was there, of the right shape, and none is left over. Those that were read are finite; those
    /// that stay in a mapped file are looked at when they are first used.
    ///
    /// `redundant` says what a left-over tensor must hold to be harmless; it is read and compared, piece by piece, a large one in part.
    /// Index buffers (`position_ids`) and frequencies of rotary positions, which old checkpoints carry, need not be said.
    ///
    /// # Errors
    /// [`ModelError::Tensors`] with all that is wrong; those of reading.
    pub fn finish<'a>(mut self, redundant: impl Fn(&str) -> Option<Redundant<'a>>) -> Result<()> {
        let left: Vec<&String> = self.places.keys().filter(|name| !self.used.contains(*name)).collect();
        for name in left {
            match buffer(name).or_else(|| redundant(name)) {
                // Under the name that the file has.
                None => self.problems.unexpected.push(self.places[name].1.clone()),
                Some(what) => self.problems.differing.extend(self.difference(name, what)?),
            }
        }
        // Converters keep tied copies and buffers in the index that they drop from the shards.
        self.lost.retain(|name| {
            buffer(name).or_else(|| redundant(name)).is_none() && !self.problems.missing.contains(name)
        });
        let listed = self.lost.iter().map(|name| format!("{name} (listed in {})", super::directory::INDEX));
        self.problems.missing.extend(listed);
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(ModelError::Tensors { path: self.path, problems: Box::new(self.problems) })
    }

    /// What a redundant tensor differs from, if it does.
    fn difference(&self, name: &str, redundant: Redundant<'_>) -> Result<Option<String>> {
        let place = |name: &str| self.places.get(name).map(|(file, name)| (&self.files[*file], name));
        let Some((file, inside)) = place(name) else { return Ok(None) };
        Ok(match redundant {
            Redundant::Unused => None,
            Redundant::Positions => {
                let positions = file.integers(inside)?.unwrap_or_default();
                let is_counting =
                    !positions.is_empty() && positions.iter().copied().eq(0..positions.len() as i64);
                (!is_counting).then(|| format!("{name} (is not 0, 1, 2 …)"))
            }
            Redundant::CopyOf(names) => match names.iter().find_map(|of| Some((of, place(of)?))) {
                Some((original, (of, within))) if !file.is_equal(inside, of, within)? => {
                    Some(format!("{name} (differs from {original})"))
                }
                _ => None,
            },
        })
    }

    /// A tensor of floats that a model asks for, unless something is wrong with it, which is noted.
    fn find(&mut self, name: &str, shape: &[usize]) -> Option<Place> {
        let Some((index, inside)) = self.places.get(name) else {
            self.problems.missing.push(name.into());
            return None;
        };
        let entry = self.files[*index].entry(inside)?.clone();
        self.used.insert(name.into());
        if entry.shape != shape {
            self.problems.misshapen.push(format!("{name}: expected {shape:?}, found {:?}", entry.shape));
            return None;
        }
        match entry.stored {
            Stored::Floats(format) => {
                Some(Place { file: *index, name: inside.clone(), entry, format: Some(format) })
            }
            Stored::ScaledRows => {
                self.used.insert(scales_of(name));
                Some(Place { file: *index, name: inside.clone(), entry, format: None })
            }
            Stored::Other(dtype) => {
                self.problems.wrong_dtype.push(format!("{name}: {dtype:?}"));
                None
            }
        }
    }

    /// A matrix in a format that is not, or not always, f32.
    fn matrix(&mut self, name: &str, place: &Place, format: Format) -> Result<Weight> {
        let file = &self.files[place.file];
        if place.format == Some(format) {
            // Packed weights are a copy: a mapped file would stay in memory beside it.
            let is_packed = self.precision.compute != Compute::F32 && format.block_len() == 1;
            if is_packed {
                return Ok(file.matrix_in_memory(&place.name, &place.entry, format)?.into());
            }
            return Ok(file.matrix(&place.name, &place.entry, format)?.into());
        }
        let converted = match place.format {
            Some(from) => file.converted(&place.name, &place.entry, from, format),
            None => file.scaled_rows_in(&place.name, &place.entry, format),
        };
        let problem = match converted? {
            Ok(matrix) => return Ok(matrix.into()),
            Err(Unfit::NotFinite(_)) => name.into(),
            Err(Unfit::TooLarge(_) | Unfit::ReadOnly) => format!("{name} (in {format})"),
        };
        self.problems.non_finite.push(problem);
        self.empty_matrix(name, &place.entry.shape)
    }

    /// A matrix on another device than the CPU, where no format but half precision can be used.
    fn on_device(&mut self, name: &str, shape: [usize; 2], format: Format) -> Result<Weight> {
        let dtype = match format {
            Format::F32 => DType::F32,
            Format::Bf16 => DType::BF16,
            Format::F16 => DType::F16,
            blocks => {
                let what = format!(
                    "`{name:.200}` is in blocks of {blocks}, which the CPU alone can read; take f32, bf16 or f16 of a safetensors file on {:?}",
                    self.device.location()
                );
                return Err(ModelError::input("weights", what));
            }
        };
        Ok(self.get(name, &shape)?.to_dtype(dtype)?.into())
    }

    /// Loading goes on after a problem, so that one error can list them all: zeros stand in for a tensor that cannot be used. A
    /// configuration of a much larger model ends it, before the zeros take the memory of that model.
    fn placeholder(&mut self, shape: &[usize]) -> Result<Tensor> {
        self.count_placeholder(shape)?;
        Ok(Tensor::zeros(shape, DType::F32, &self.device)?)
    }

    /// Zeros in the place of a matrix; no byte of them is touched.
    fn empty_matrix(&mut self, name: &str, shape: &[usize]) -> Result<Weight> {
        self.count_placeholder(shape)?;
        let [n_rows, n_cols] = *shape else { return Ok(self.placeholder(shape)?.into()) };
        let n_bytes = Format::Bf16.row_bytes(n_cols) * n_rows;
        let zeros = Arc::new(vec![0u8; n_bytes]);
        Ok(Matrix::new(name, Format::Bf16, [n_rows, n_cols], zeros, 0..n_bytes)?.into())
    }

    fn count_placeholder(&mut self, shape: &[usize]) -> Result<()> {
        const FREE: u64 = 1 << 24;
        let n_there: u64 = self.files.iter().map(WeightFile::n_elements).sum();
        let n_elements = shape.iter().fold(1, |n: u64, &side| n.saturating_mul(side as u64));
        self.n_placeholders = self.n_placeholders.saturating_add(n_elements);
        if self.n_placeholders > n_there.saturating_add(FREE) {
            let problems = Box::new(std::mem::take(&mut self.problems));
            return Err(ModelError::Tensors { path: self.path.clone(), problems });
        }
        Ok(())
    }
}

/// Where a tensor of floats is.
struct Place {
    file: usize,
    /// Its name in the file.
    name: String,
    entry: Entry,
    /// None of a matrix of signed bytes with scales.
    format: Option<Format>,
}

/// What old checkpoints and converters write beside the parameters.
fn buffer(name: &str) -> Option<Redundant<'static>> {
    if name.ends_with(".rotary_emb.inv_freq") || name.ends_with(ROPE_FACTORS) {
        return Some(Redundant::Unused);
    }
    (name.rsplit('.').next() == Some("position_ids")).then_some(Redundant::Positions)
}

/// Whether a tensor of this name is part of weights that bitsandbytes, GPTQ or AWQ have quantised.
fn is_quantised(name: &str) -> bool {
    const ENDS: [&str; 8] =
        ["SCB", "absmax", "nested_absmax", "quant_map", "qweight", "qzeros", "g_idx", "weight_format"];
    let last = name.rsplit('.').next().unwrap_or(name);
    ENDS.contains(&last) || name.contains(".quant_state.")
}

impl Weights for Checkpoint {
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(place) = self.find(name, shape) else { return self.placeholder(shape) };
        let Some(elements) = self.files[place.file].floats(&place.name)? else {
            return self.placeholder(shape);
        };
        if !elements.iter().all(|x| x.is_finite()) {
            self.problems.non_finite.push(name.into());
        }
        Ok(Tensor::from_vec(elements, shape, &self.device)?)
    }

    fn weight(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight> {
        let place = self.find(name, &shape);
        let wanted = match &place {
            // As it lies in the file: all products widen exactly.
            Some(place) if self.files[place.file].is_gguf() => place.format,
            _ => self.precision.dtype.format(name, shape[1]),
        };
        match (place, wanted) {
            (Some(_), Some(format)) if !self.device.is_cpu() => self.on_device(name, shape, format),
            (Some(place), Some(format)) => self.matrix(name, &place, format),
            (None, Some(_)) => self.empty_matrix(name, &shape),
            (None, None) => Ok(self.placeholder(&shape)?.into()),
            (Some(_), None) => Ok(self.get(name, &shape)?.into()),
        }
    }

    fn compute(&self) -> Compute {
        self.precision.compute
    }

    fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }
}
