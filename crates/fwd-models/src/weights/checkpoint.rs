//! The tensors of all weight files of a checkpoint, and the account of which of them a model has taken.

use super::directory::{Listing, list};
use super::file::WeightFile;
use super::source::{WeightDtype, Weights};
use crate::error::{ModelError, Result, TensorProblems};
use candle_core::{Device, Tensor, WithDType};
use half::{bf16, f16};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The tensors of a checkpoint directory (`model.safetensors`, or shards with or without `model.safetensors.index.json`) or of one
/// file.
pub struct Checkpoint {
    /// The directory or the single file, for errors.
    path: PathBuf,
    files: Vec<WeightFile>,
    /// The file of every tensor.
    places: BTreeMap<String, usize>,
    used: BTreeSet<String>,
    /// Listed in the index, but in no shard.
    lost: BTreeSet<String>,
    problems: TensorProblems,
    /// Elements of the zeros that stand in for tensors.
    n_placeholders: u64,
    dtype: WeightDtype,
    device: Device,
}

/// What a tensor that a model does not ask for must hold, so that it may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redundant<'a> {
    /// The elements of the first of these tensors that the checkpoint holds.
    CopyOf(&'a [String]),
    /// The integers 0, 1, 2 … in their order.
    Positions,
    /// Anything: it belongs to a part of the published model that this one has no use for.
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
    /// # Errors
    /// [`ModelError::Io`] if a file cannot be opened, [`ModelError::Json`] for a damaged index, [`ModelError::WeightFile`]
    /// for a damaged header, a file that is shorter or longer than its header says, or quantised weights,
    /// [`ModelError::Directory`] for a directory whose weights are of another format or incomplete.
    pub fn open(dir: &Path, dtype: WeightDtype, device: &Device) -> Result<Self> {
        let mut checkpoint = Self::empty(dir, dtype, device);
        let Listing { files, names } = list(dir)?;
        for file in files {
            checkpoint.add(&file)?;
        }
        let lost = names.into_iter().filter(|name| !checkpoint.places.contains_key(name));
        checkpoint.lost = lost.collect();
        Ok(checkpoint)
    }

    /// Opens a single weight file of any name and reads its header.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_file(path: &Path, dtype: WeightDtype, device: &Device) -> Result<Self> {
        let mut checkpoint = Self::empty(path, dtype, device);
        checkpoint.add(path)?;
        Ok(checkpoint)
    }

    fn empty(path: &Path, dtype: WeightDtype, device: &Device) -> Self {
        Self {
            path: path.into(),
            files: Vec::new(),
            places: BTreeMap::new(),
            used: BTreeSet::new(),
            lost: BTreeSet::new(),
            problems: TensorProblems::default(),
            n_placeholders: 0,
            dtype,
            device: device.clone(),
        }
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let file = WeightFile::open(path)?;
        let damaged = |what: String| ModelError::WeightFile { path: path.into(), what };
        for name in file.names() {
            if is_quantised(name) {
                return Err(damaged(format!(
                    "tensor `{name}` belongs to quantised weights, which are not supported; load the model in transformers, call \
                     `dequantize()` and save it again"
                )));
            }
            if self.places.insert(name.clone(), self.files.len()).is_some() {
                return Err(damaged(format!("tensor `{name}` stands in another file too")));
            }
        }
        self.files.push(file);
        Ok(())
    }

    /// Ends the loading: every tensor asked for was there, of the right shape and finite, and none is left over.
    ///
    /// `redundant` says what a left-over tensor must hold to be harmless; it is read and compared, piece by piece.
    ///
    /// # Errors
    /// [`ModelError::Tensors`] with all that is wrong; those of reading.
    pub fn finish<'a>(mut self, redundant: impl Fn(&str) -> Option<Redundant<'a>>) -> Result<()> {
        let left: Vec<&String> = self.places.keys().filter(|name| !self.used.contains(*name)).collect();
        for name in left {
            match redundant(name) {
                None => self.problems.unexpected.push(name.clone()),
                Some(what) => self.problems.differing.extend(self.difference(name, what)?),
            }
        }
        // Converters keep tied copies in the index that they drop from the shards.
        self.lost.retain(|name| redundant(name).is_none() && !self.problems.missing.contains(name));
        let listed = self.lost.iter().map(|name| format!("{name} (listed in {})", super::directory::INDEX));
        self.problems.missing.extend(listed);
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(ModelError::Tensors { path: self.path, problems: Box::new(self.problems) })
    }

    /// What a redundant tensor differs from, if it does.
    fn difference(&self, name: &str, redundant: Redundant<'_>) -> Result<Option<String>> {
        let place = |name: &str| Some(&self.files[*self.places.get(name)?]);
        let Some(file) = place(name) else { return Ok(None) };
        Ok(match redundant {
            Redundant::Unused => None,
            Redundant::Positions => {
                let positions = file.integers(name)?.unwrap_or_default();
                let is_counting =
                    !positions.is_empty() && positions.iter().copied().eq(0..positions.len() as i64);
                (!is_counting).then(|| format!("{name} (is not 0, 1, 2 …)"))
            }
            Redundant::CopyOf(names) => match names.iter().find_map(|of| Some((of, place(of)?))) {
                Some((original, of)) if !file.is_equal(name, of, original)? => {
                    Some(format!("{name} (differs from {original})"))
                }
                _ => None,
            },
        })
    }

    fn read(&mut self, name: &str, shape: &[usize], dtype: WeightDtype) -> Result<Tensor> {
        let Some(file) = self.places.get(name).map(|&place| &self.files[place]) else {
            self.problems.missing.push(name.into());
            return self.placeholder(shape);
        };
        let Some(entry) = file.entry(name) else { return self.placeholder(shape) };
        self.used.insert(name.into());
        if entry.shape != shape {
            self.problems.misshapen.push(format!("{name}: expected {shape:?}, found {:?}", entry.shape));
            return self.placeholder(shape);
        }
        let loaded = match dtype {
            WeightDtype::F32 => self.load(file, name, |x| x, |x| x.is_finite())?,
            WeightDtype::Bf16 => self.load(file, name, bf16::from_f32, |x| x.is_finite())?,
            WeightDtype::F16 => self.load(file, name, f16::from_f32, |x| x.is_finite())?,
        };
        let Some((tensor, is_finite)) = loaded else {
            self.problems.wrong_dtype.push(format!("{name}: {:?}", entry.dtype));
            return self.placeholder(shape);
        };
        if !is_finite {
            let what = if dtype == WeightDtype::F16 { " (in f16)" } else { "" };
            self.problems.non_finite.push(format!("{name}{what}"));
        }
        Ok(tensor)
    }

    /// Loading goes on after a problem, so that one error can list them all: zeros stand in for a tensor that cannot be used. A
    /// configuration of a much larger model ends it, before the zeros take the memory of that model.
    fn placeholder(&mut self, shape: &[usize]) -> Result<Tensor> {
        const FREE: u64 = 1 << 24;
        let n_there: u64 = self.files.iter().map(WeightFile::n_elements).sum();
        let n_elements = shape.iter().fold(1, |n: u64, &side| n.saturating_mul(side as u64));
        self.n_placeholders = self.n_placeholders.saturating_add(n_elements);
        if self.n_placeholders > n_there.saturating_add(FREE) {
            let problems = Box::new(std::mem::take(&mut self.problems));
            return Err(ModelError::Tensors { path: self.path.clone(), problems });
        }
        Ok(Tensor::zeros(shape, candle_core::DType::F32, &self.device)?)
    }

    /// A tensor, and whether all of it is finite; none for a tensor of integers.
    fn load<T: WithDType>(
        &self,
        file: &WeightFile,
        name: &str,
        convert: impl Fn(f32) -> T,
        is_finite: impl Fn(&T) -> bool,
    ) -> Result<Option<(Tensor, bool)>> {
        let (Some(entry), Some(elements)) = (file.entry(name), file.floats(name, convert)?) else {
            return Ok(None);
        };
        let all_finite = elements.iter().all(is_finite);
        Ok(Some((Tensor::from_vec(elements, &entry.shape[..], &self.device)?, all_finite)))
    }
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
        let dtype = if shape.len() >= 2 { self.dtype } else { WeightDtype::F32 };
        self.read(name, shape, dtype)
    }

    fn get_f32(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.read(name, shape, WeightDtype::F32)
    }

    fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }
}
