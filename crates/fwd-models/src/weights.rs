//! Where a model's parameters come from: a Hugging Face directory of safetensors files, memory-mapped, or any other
//! [`Weights`].
//!
//! Files are mapped, so only the tensors that are asked for are read, one at a time. A mapped file must not be changed
//! while a model is being loaded from it.

use crate::config::read_json;
use crate::error::{ModelError, Result, TensorProblems};
use candle_core::{Device, Tensor};
use filebuffer::FileBuffer;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How the weight matrices are kept in memory. Vectors (norms, biases) and the learned queries stay in f32, and so do all
/// activations: half precision saves memory, not accuracy elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightDtype {
    /// 4 bytes an element.
    #[default]
    F32,
    /// 2 bytes, the range of f32, 8 bits of precision.
    Bf16,
    /// 2 bytes, up to 65504, 11 bits of precision.
    F16,
}

/// Named parameters of known shape.
pub trait Weights {
    /// A parameter in f32, or for a matrix in the source's matrix type. A source may return anything of the right shape for
    /// one that it does not have, and say so later.
    ///
    /// # Errors
    /// An error of the source.
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor>;

    /// The same, always in f32.
    ///
    /// # Errors
    /// An error of the source.
    fn get_f32(&mut self, name: &str, shape: &[usize]) -> Result<Tensor>;

    /// Whether the source holds a parameter of this name.
    fn has(&self, name: &str) -> bool;
}

#[derive(Debug, Clone)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: (usize, usize),
}

/// The tensors of a checkpoint directory (`model.safetensors`, or shards with `model.safetensors.index.json`) or of one
/// file.
pub struct Checkpoint {
    /// The directory or the single file, for errors.
    path: PathBuf,
    files: Vec<(PathBuf, FileBuffer)>,
    entries: BTreeMap<String, Entry>,
    used: BTreeSet<String>,
    /// Listed in the index, but in no shard.
    lost: BTreeSet<String>,
    problems: TensorProblems,
    dtype: WeightDtype,
    device: Device,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let n_tensors = self.entries.len();
        f.debug_struct("Checkpoint")
            .field("path", &self.path)
            .field("n_tensors", &n_tensors)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl Checkpoint {
    /// Maps the weight files of a directory and reads their headers.
    ///
    /// # Errors
    /// [`ModelError::Io`] if a file cannot be opened, [`ModelError::Json`] for a damaged index, [`ModelError::WeightFile`]
    /// for a damaged header or a file that is shorter or longer than its header says.
    pub fn open(dir: &Path, dtype: WeightDtype, device: &Device) -> Result<Self> {
        let mut checkpoint = Self::empty(dir, dtype, device);
        let index_path = dir.join(INDEX);
        if dir.join(SINGLE).exists() || !index_path.exists() {
            checkpoint.map(&dir.join(SINGLE))?;
            return Ok(checkpoint);
        }
        let index: ShardIndex = read_json(&index_path)?;
        let shards: BTreeSet<&String> = index.weight_map.values().collect();
        for shard in shards {
            if Path::new(shard).components().count() != 1 || shard.starts_with("..") {
                let what = format!("shard `{shard}` is not a plain file name");
                return Err(ModelError::WeightFile { path: index_path, what });
            }
            checkpoint.map(&dir.join(shard))?;
        }
        let lost = index.weight_map.into_keys().filter(|name| !checkpoint.entries.contains_key(name));
        checkpoint.lost = lost.collect();
        Ok(checkpoint)
    }

    /// Maps a single weight file of any name and reads its header.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_file(path: &Path, dtype: WeightDtype, device: &Device) -> Result<Self> {
        let mut checkpoint = Self::empty(path, dtype, device);
        checkpoint.map(path)?;
        Ok(checkpoint)
    }

    fn empty(path: &Path, dtype: WeightDtype, device: &Device) -> Self {
        Self {
            path: path.into(),
            files: Vec::new(),
            entries: BTreeMap::new(),
            used: BTreeSet::new(),
            lost: BTreeSet::new(),
            problems: TensorProblems::default(),
            dtype,
            device: device.clone(),
        }
    }

    fn map(&mut self, path: &Path) -> Result<()> {
        let buffer = FileBuffer::open(path).map_err(|source| ModelError::Io { path: path.into(), source })?;
        let (header_len, metadata) = SafeTensors::read_metadata(&buffer).map_err(|e| {
            ModelError::WeightFile { path: path.into(), what: format!("not a valid safetensors file: {e}") }
        })?;
        let start = header_len + size_of::<u64>();
        for (name, info) in metadata.tensors() {
            let bytes = (start + info.data_offsets.0, start + info.data_offsets.1);
            let entry = Entry { file: self.files.len(), dtype: info.dtype, shape: info.shape.clone(), bytes };
            if self.entries.insert(name.clone(), entry).is_some() {
                let what = format!("tensor `{name}` stands in another file too");
                return Err(ModelError::WeightFile { path: path.into(), what });
            }
        }
        self.files.push((path.into(), buffer));
        Ok(())
    }

    /// Ends the loading: every tensor asked for was there, of the right shape and finite, and none is left over.
    ///
    /// `ignorable` says which left-over tensors are harmless.
    ///
    /// # Errors
    /// [`ModelError::Tensors`] with all that is wrong.
    pub fn finish(mut self, ignorable: impl Fn(&str) -> bool) -> Result<()> {
        let left = self.entries.keys().filter(|name| !self.used.contains(*name) && !ignorable(name));
        self.problems.unexpected = left.cloned().collect();
        // Converters keep tied copies in the index that they drop from the shards.
        self.lost.retain(|name| !ignorable(name) && !self.problems.missing.contains(name));
        self.problems.missing.extend(self.lost.iter().map(|name| format!("{name} (listed in {INDEX})")));
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(ModelError::Tensors { path: self.path, problems: Box::new(self.problems) })
    }

    fn read(&mut self, name: &str, shape: &[usize], dtype: WeightDtype) -> Result<Tensor> {
        // Loading goes on after a problem, so that one error can list them all: zeros stand in for the tensor.
        let placeholder = || Ok(Tensor::zeros(shape, candle_core::DType::F32, &self.device)?);
        let Some(entry) = self.entries.get(name) else {
            self.problems.missing.push(name.into());
            return placeholder();
        };
        self.used.insert(name.into());
        if entry.shape != shape {
            self.problems.misshapen.push(format!("{name}: expected {shape:?}, found {:?}", entry.shape));
            return placeholder();
        }
        let bytes = &self.files[entry.file].1[entry.bytes.0..entry.bytes.1];
        let Some(values) = decode(entry.dtype, bytes) else {
            self.problems.wrong_dtype.push(format!("{name}: {:?}", entry.dtype));
            return placeholder();
        };
        let (tensor, finite) = match dtype {
            WeightDtype::F32 => {
                let finite = values.iter().all(|v| v.is_finite());
                (Tensor::from_vec(values, shape, &self.device)?, finite)
            }
            WeightDtype::Bf16 => {
                let half: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
                let finite = half.iter().all(|v| v.is_finite());
                (Tensor::from_vec(half, shape, &self.device)?, finite)
            }
            WeightDtype::F16 => {
                let half: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
                let finite = half.iter().all(|v| v.is_finite());
                (Tensor::from_vec(half, shape, &self.device)?, finite)
            }
        };
        if !finite {
            let what = if dtype == WeightDtype::F16 { " (in f16)" } else { "" };
            self.problems.non_finite.push(format!("{name}{what}"));
        }
        Ok(tensor)
    }
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
        self.entries.contains_key(name)
    }
}

/// The little-endian elements of a float tensor.
fn decode(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let halves = || bytes.as_chunks::<2>().0.iter();
    match dtype {
        Dtype::F32 => Some(bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
        Dtype::BF16 => Some(halves().map(|&b| bf16::from_le_bytes(b).to_f32()).collect()),
        Dtype::F16 => {
            let half: Vec<f16> = halves().map(|&b| f16::from_le_bytes(b)).collect();
            Some(half.to_f32_vec())
        }
        _ => None,
    }
}

/// A prefix in front of parameter names, so that a layer can be built without knowing where it stands.
pub(crate) struct Scope<'a> {
    weights: &'a mut dyn Weights,
    prefix: String,
    /// Read matrices in f32 too.
    full_precision: bool,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(weights: &'a mut dyn Weights, prefix: &str) -> Self {
        Self { weights, prefix: prefix.into(), full_precision: false }
    }

    /// The scope of a part.
    pub(crate) fn at(&mut self, part: &str) -> Scope<'_> {
        Scope { prefix: self.name(part), weights: self.weights, full_precision: self.full_precision }
    }

    /// This scope again, for a part that lies at the same level.
    pub(crate) fn same(&mut self) -> Scope<'_> {
        Scope { prefix: self.prefix.clone(), weights: self.weights, full_precision: self.full_precision }
    }

    /// This scope with all its parameters in f32.
    pub(crate) fn in_full_precision(self) -> Self {
        Self { full_precision: true, ..self }
    }

    /// The full name of a parameter.
    pub(crate) fn name(&self, part: &str) -> String {
        if self.prefix.is_empty() { part.into() } else { format!("{}.{part}", self.prefix) }
    }

    pub(crate) fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let name = self.name(name);
        if self.full_precision { self.weights.get_f32(&name, shape) } else { self.weights.get(&name, shape) }
    }

    pub(crate) fn get_f32(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let name = self.name(name);
        self.weights.get_f32(&name, shape)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.weights.has(&self.name(name))
    }

    /// `{name}.weight (n_out, n_in)`, and `{name}.bias (n_out)` if wanted.
    pub(crate) fn linear(
        &mut self,
        name: &str,
        n_out: usize,
        n_in: usize,
        bias: bool,
    ) -> Result<fwd_ops::Linear> {
        let weight = self.get(&format!("{name}.weight"), &[n_out, n_in])?;
        let bias = if bias { Some(self.get(&format!("{name}.bias"), &[n_out])?) } else { None };
        Ok(fwd_ops::Linear::new(weight, bias)?)
    }

    /// `{name}.weight (d)` and `{name}.bias (d)`.
    pub(crate) fn layer_norm(&mut self, name: &str, d: usize, eps: f64) -> Result<fwd_ops::Norm> {
        let weight = self.get(&format!("{name}.weight"), &[d])?;
        let bias = self.get(&format!("{name}.bias"), &[d])?;
        Ok(fwd_ops::Norm::layer(weight, bias, eps)?)
    }

    /// `{name}.weight (d)`.
    pub(crate) fn rms_norm(&mut self, name: &str, d: usize, eps: f64) -> Result<fwd_ops::Norm> {
        Ok(fwd_ops::Norm::rms(self.get(&format!("{name}.weight"), &[d])?, eps)?)
    }
}
