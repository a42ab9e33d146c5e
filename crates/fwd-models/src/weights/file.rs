//! A safetensors file: eight bytes of length, a JSON header with the place of every tensor, and the elements, little endian.

use crate::error::{ModelError, Result};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The longest header that is read, in bytes, as in the library `safetensors`.
const LONGEST_HEADER: u64 = 100_000_000;

/// Bytes that are read and converted at a time, a multiple of every element's size.
const CHUNK: usize = 1 << 20;

/// A safetensors file whose header has been read and checked against the length of the file.
#[derive(Debug)]
pub struct WeightFile {
    path: PathBuf,
    file: File,
    tensors: BTreeMap<String, Entry>,
}

/// Where a tensor lies in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// From the beginning of the file.
    start: u64,
    n_bytes: u64,
}

impl WeightFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`ModelError::Io`] if the file cannot be opened or is no ordinary file; [`ModelError::WeightFile`] for another kind of file, a
    /// damaged header, or a file that is shorter or longer than its header says.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| ModelError::Io { path: path.into(), source };
        let mut file = fwd_files::open(path).map_err(io)?;
        let n_bytes = file.metadata().map_err(io)?.len();
        let mut head = Vec::new();
        file.by_ref().take(fwd_files::HEAD).read_to_end(&mut head).map_err(io)?;
        if let Some(what) = fwd_files::foreign(&head) {
            return Err(ModelError::WeightFile { path: path.into(), what: what.into() });
        }
        let damaged = |what: String| ModelError::WeightFile {
            path: path.into(),
            what: format!("not a valid safetensors file: {what}; download or copy it again"),
        };
        let Some(length) = head.first_chunk::<8>() else {
            return Err(damaged(format!("it has {n_bytes} bytes")));
        };
        let (length, rest) = (u64::from_le_bytes(*length), n_bytes - 8);
        if length > rest.min(LONGEST_HEADER) {
            let what = format!("the header would have {length} bytes, the file has {n_bytes}");
            return Err(damaged(what));
        }
        let mut header = vec![0; length as usize];
        file.seek(SeekFrom::Start(8)).and_then(|_| file.read_exact(&mut header)).map_err(io)?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| damaged(e.to_string()))?;
        let n_data = metadata.data_len() as u64;
        if n_data != rest - length {
            let what = format!("the header speaks of {n_data} bytes of tensors, there are {}", rest - length);
            return Err(damaged(what));
        }
        let entry = |info: &safetensors::tensor::TensorInfo| Entry {
            dtype: info.dtype,
            shape: info.shape.clone(),
            start: 8 + length + info.data_offsets.0 as u64,
            n_bytes: (info.data_offsets.1 - info.data_offsets.0) as u64,
        };
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, entry(info))).collect();
        Ok(Self { path: path.into(), file, tensors })
    }

    /// The number of elements of all tensors.
    pub fn n_elements(&self) -> u64 {
        let sizes = self.tensors.values().map(|t| t.shape.iter().product::<usize>() as u64);
        sizes.sum()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.tensors.keys()
    }

    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        self.tensors.get(name)
    }

    /// The elements of a float tensor, each converted from f32; none for a tensor of integers.
    pub(super) fn floats<T>(&self, name: &str, convert: impl Fn(f32) -> T) -> Result<Option<Vec<T>>> {
        let Some(entry) = self.tensors.get(name).filter(|entry| is_float(entry.dtype)) else {
            return Ok(None);
        };
        let mut elements = Vec::with_capacity(entry.shape.iter().product());
        let mut floats = Vec::new();
        for at in entry.pieces() {
            decode(entry.dtype, &self.piece(name, entry, at)?, &mut floats);
            elements.extend(floats.iter().map(|&x| convert(x)));
        }
        Ok(Some(elements))
    }

    /// The elements of a tensor of 64-bit integers; none for one of another type.
    pub(super) fn integers(&self, name: &str) -> Result<Option<Vec<i64>>> {
        let Some(entry) = self.tensors.get(name).filter(|entry| entry.dtype == Dtype::I64) else {
            return Ok(None);
        };
        let mut elements = Vec::with_capacity(entry.shape.iter().product());
        for at in entry.pieces() {
            let bytes = self.piece(name, entry, at)?;
            elements.extend(bytes.as_chunks::<8>().0.iter().map(|&b| i64::from_le_bytes(b)));
        }
        Ok(Some(elements))
    }

    /// Whether a tensor has the shape and, to the bit, the elements of one in another file or in this one; both are read side by
    /// side, a piece at a time. Tensors of different float types are compared in f32.
    pub(super) fn is_equal(&self, name: &str, other: &Self, other_name: &str) -> Result<bool> {
        let (Some(a), Some(b)) = (self.entry(name), other.entry(other_name)) else { return Ok(false) };
        if a.shape != b.shape || (a.dtype != b.dtype && !(is_float(a.dtype) && is_float(b.dtype))) {
            return Ok(false);
        }
        let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
        // Pieces of one number of elements, so that the bytes of the wider type fit into a chunk.
        let n_elements: u64 = a.shape.iter().product::<usize>() as u64;
        let step = (CHUNK / 8) as u64;
        for first in (0..n_elements).step_by(CHUNK / 8) {
            let n = step.min(n_elements - first);
            let bytes = |file: &Self, name: &str, entry: &Entry| {
                let width = entry.n_bytes / n_elements;
                file.piece(name, entry, (first * width, n * width))
            };
            let (bytes_a, bytes_b) = (bytes(self, name, a)?, bytes(other, other_name, b)?);
            let is_equal = if a.dtype == b.dtype {
                bytes_a == bytes_b
            } else {
                decode(a.dtype, &bytes_a, &mut of_a);
                decode(b.dtype, &bytes_b, &mut of_b);
                of_a.iter().map(|x| x.to_bits()).eq(of_b.iter().map(|x| x.to_bits()))
            };
            if !is_equal {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Bytes of a tensor, from where and how many.
    fn piece(&self, name: &str, entry: &Entry, (from, n_bytes): (u64, u64)) -> Result<Vec<u8>> {
        let mut bytes = vec![0; n_bytes as usize];
        let mut file = &self.file;
        let read = file.seek(SeekFrom::Start(entry.start + from)).and_then(|_| file.read_exact(&mut bytes));
        match read {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                let what = format!("the file became shorter while it was read, within tensor `{name}`");
                Err(ModelError::WeightFile { path: self.path.clone(), what })
            }
            Err(source) => Err(ModelError::Io { path: self.path.clone(), source }),
        }
    }
}

impl Entry {
    /// The pieces in which a tensor is read: where each begins, and how many bytes it has.
    fn pieces(&self) -> impl Iterator<Item = (u64, u64)> {
        let n_bytes = self.n_bytes;
        (0..n_bytes).step_by(CHUNK).map(move |from| (from, (n_bytes - from).min(CHUNK as u64)))
    }
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// Writes the little-endian elements of a float tensor over `floats`.
fn decode(dtype: Dtype, bytes: &[u8], floats: &mut Vec<f32>) {
    floats.clear();
    let halves = || bytes.as_chunks::<2>().0.iter();
    match dtype {
        Dtype::BF16 => floats.extend(halves().map(|&b| bf16::from_le_bytes(b).to_f32())),
        Dtype::F16 => {
            let half: Vec<f16> = halves().map(|&b| f16::from_le_bytes(b)).collect();
            floats.resize(half.len(), 0.0);
            half.convert_to_f32_slice(floats);
        }
        _ => floats.extend(bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b))),
    }
}
