//! A weight file: its header is read first, a tensor when it is asked for.
//!
//! What is widened or converted is read piece by piece, so that no file is ever in memory as a whole. What stays as it is stored is
//! mapped, and nothing of it is read before it is used.

use super::entry::{Entry, Stored};
use super::scaled::{scales_of, widened};
use super::{gguf, safetensors as header};
use crate::error::{ModelError, Result};
use fwd_files::Mapped;
use fwd_ops::{Format, Matrix, Unfit};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::tensor::Dtype;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Bytes that are read at a time.
const CHUNK: u64 = 1 << 20;

/// A safetensors or GGUF file whose header has been read and checked against the length of the file.
#[derive(Debug)]
pub struct WeightFile {
    path: PathBuf,
    file: File,
    n_bytes: u64,
    tensors: BTreeMap<String, Entry>,
    /// Of a GGUF file.
    metadata: Option<gguf::Metadata>,
    mapped: OnceLock<Arc<Mapped>>,
}

impl WeightFile {
    /// Opens a file and reads its header: that of a GGUF file if its name ends with `.gguf`, else that of a safetensors file.
    ///
    /// The tensors of a GGUF file get the names that they have at Hugging Face.
    ///
    /// # Errors
    /// [`ModelError::Io`] if the file cannot be opened or is no ordinary file; [`ModelError::WeightFile`] for another kind of file, a
    /// damaged header, a file that is shorter or longer than its header says, and for GGUF files of another architecture than `llama` or
    /// with tensors of a type that is not read.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| ModelError::Io { path: path.into(), source };
        let mut file = fwd_files::open(path).map_err(io)?;
        let n_bytes = file.metadata().map_err(io)?.len();
        let mut head = Vec::new();
        file.by_ref().take(fwd_files::HEAD).read_to_end(&mut head).map_err(io)?;
        let is_gguf = is_gguf(path);
        if let Some(what) = fwd_files::foreign(&head).filter(|_| !(is_gguf && head.starts_with(&gguf::MAGIC)))
        {
            return Err(ModelError::WeightFile { path: path.into(), what: what.into() });
        }
        let (tensors, metadata) = if is_gguf {
            let gguf::Header { metadata, tensors } = gguf::read(path, &file, n_bytes)?;
            (tensors, Some(metadata))
        } else {
            (header::read(path, &file, &head, n_bytes)?, None)
        };
        Ok(Self { path: path.into(), file, n_bytes, tensors, metadata, mapped: OnceLock::new() })
    }

    /// The length of the file.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The number of elements of all tensors.
    pub fn n_elements(&self) -> u64 {
        self.tensors.values().map(Entry::n_elements).sum()
    }

    /// The `config.json` that a GGUF file stands for, with the fields of `LlamaConfig` of transformers: `model_type`, `hidden_size`,
    /// `num_hidden_layers`, `rope_scaling` and so on. None for a safetensors file, which has none.
    ///
    /// # Errors
    /// [`ModelError::WeightFile`] that names the key that is missing or has a value that is not supported; those of reading.
    pub fn config(&self) -> Result<Option<serde_json::Value>> {
        let Some(metadata) = &self.metadata else { return Ok(None) };
        let factors = self.floats(gguf::ROPE_FACTORS)?;
        let config = gguf::config(metadata, &self.tensors, factors.as_deref());
        config.map(Some).map_err(|what| ModelError::WeightFile { path: self.path.clone(), what })
    }

    /// The `tokenizer.json` that a GGUF file stands for, in the format of the library `tokenizers`. None for a safetensors file.
    ///
    /// # Errors
    /// [`ModelError::WeightFile`] for another vocabulary than one of byte-level BPE (GPT-2, SmolLM2); those of reading.
    pub fn tokenizer(&self) -> Result<Option<serde_json::Value>> {
        let of_gguf = |_| gguf::tokenizer(&self.path, &self.file, self.n_bytes);
        self.metadata.as_ref().map(of_gguf).transpose()
    }

    /// Calls `see` with what tells models apart without reading gigabytes: all that stands before the tensors, every tensor of at most
    /// 16 KiB, and of each larger one four pieces of 4 KiB, the first and the last among them.
    ///
    /// # Errors
    /// Those of reading.
    pub fn samples(&self, mut see: impl FnMut(&[u8])) -> Result<()> {
        const PIECE: u64 = 1 << 12;
        const N_PIECES: u64 = 4;
        let mut places: Vec<(u64, u64)> = self.tensors.values().map(|t| (t.start, t.n_bytes)).collect();
        places.sort_unstable();
        let header = places.first().map_or(self.n_bytes, |place| place.0);
        for from in (0..header).step_by(CHUNK as usize) {
            see(&self.bytes("the header", from, (header - from).min(CHUNK))?);
        }
        for (start, n_bytes) in places {
            if n_bytes <= N_PIECES * PIECE {
                see(&self.bytes("a tensor", start, n_bytes)?);
                continue;
            }
            for i in 0..N_PIECES {
                let from = (n_bytes - PIECE) / (N_PIECES - 1) * i;
                let from = if i == N_PIECES - 1 { n_bytes - PIECE } else { from };
                see(&self.bytes("a tensor", start + from, PIECE)?);
            }
        }
        Ok(())
    }

    pub(super) fn is_gguf(&self) -> bool {
        self.metadata.is_some()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.tensors.keys()
    }

    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        self.tensors.get(name)
    }

    /// The elements of a float tensor in f32; none if there is no such tensor, or it is one of integers.
    pub(super) fn floats(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(entry) = self.entry(name) else { return Ok(None) };
        let Some(format) = entry.stored.format() else {
            return if entry.stored == Stored::ScaledRows {
                self.scaled_rows(name, entry).map(Some)
            } else {
                Ok(None)
            };
        };
        if format.block_len() > 1 || entry.interleaved.is_some() {
            return Ok(Some(self.matrix(name, entry, format)?.values()?));
        }
        let mut elements = Vec::with_capacity(entry.n_elements() as usize);
        for piece in entry.pieces(CHUNK) {
            decode(format, &self.piece(name, entry, piece)?, &mut elements);
        }
        Ok(Some(elements))
    }

    /// The elements of a matrix of signed bytes, multiplied by the scales of their rows.
    fn scaled_rows(&self, name: &str, entry: &Entry) -> Result<Vec<f32>> {
        let scales = self.floats(&scales_of(name))?.unwrap_or_default();
        let codes = self.piece(name, entry, (0, entry.n_bytes))?;
        Ok(widened(&codes, &scales, sides(entry)[1]))
    }

    /// A matrix of signed bytes in a format of floats; or why it does not fit that format.
    pub(super) fn scaled_rows_in(
        &self,
        name: &str,
        entry: &Entry,
        format: Format,
    ) -> Result<std::result::Result<Matrix, Unfit>> {
        let encoded = match format.encode(&self.scaled_rows(name, entry)?) {
            Ok(bytes) => bytes,
            Err(unfit) => return Ok(Err(unfit)),
        };
        let n_bytes = encoded.len();
        Ok(Ok(Matrix::new(name, format, sides(entry), Arc::new(encoded), 0..n_bytes)?))
    }

    /// A matrix in the format that it is stored in: mapped, unless its rows must be brought into order.
    pub(super) fn matrix(&self, name: &str, entry: &Entry, format: Format) -> Result<Matrix> {
        if entry.interleaved.is_some() {
            return self.matrix_in_memory(name, entry, format);
        }
        let (start, end) = (entry.start as usize, (entry.start + entry.n_bytes) as usize);
        Ok(Matrix::new(name, format, sides(entry), self.mapped()?, start..end)?)
    }

    /// A matrix in the format that it is stored in, read.
    pub(super) fn matrix_in_memory(&self, name: &str, entry: &Entry, format: Format) -> Result<Matrix> {
        let mut bytes = self.piece(name, entry, (0, entry.n_bytes))?;
        if let Some(n_heads) = entry.interleaved {
            bytes = gguf::deinterleave(&bytes, n_heads, entry.shape[0]);
        }
        let n_bytes = bytes.len();
        Ok(Matrix::new(name, format, sides(entry), Arc::new(bytes), 0..n_bytes)?)
    }

    /// A matrix of floats in another format, made of pieces of it, each by a thread of the pool; or why it does not fit that format.
    pub(super) fn converted(
        &self,
        name: &str,
        entry: &Entry,
        from: Format,
        to: Format,
    ) -> Result<std::result::Result<Matrix, Unfit>> {
        /// Elements that a thread converts at a time: whole blocks of any format.
        const TASK: usize = 1 << 16;
        let [n_rows, n_cols] = sides(entry);
        let mut all = Vec::with_capacity(n_rows * to.row_bytes(n_cols));
        for piece in entry.pieces(16 * CHUNK) {
            let bytes = self.piece(name, entry, piece)?;
            let task = |bytes: &[u8]| {
                let mut floats = Vec::with_capacity(TASK);
                decode(from, bytes, &mut floats);
                to.encode(&floats)
            };
            let tasks: Vec<_> = bytes.par_chunks(from.row_bytes(TASK)).map(task).collect();
            for encoded in tasks {
                match encoded {
                    Ok(bytes) => all.extend(bytes),
                    Err(unfit) => return Ok(Err(unfit)),
                }
            }
        }
        let n_bytes = all.len();
        Ok(Ok(Matrix::new(name, to, [n_rows, n_cols], Arc::new(all), 0..n_bytes)?))
    }

    /// The elements of a tensor of 64-bit integers; none for one of another type.
    pub(super) fn integers(&self, name: &str) -> Result<Option<Vec<i64>>> {
        let Some(entry) = self.entry(name).filter(|entry| entry.stored == Stored::Other(Dtype::I64)) else {
            return Ok(None);
        };
        let mut elements = Vec::with_capacity(entry.n_elements() as usize);
        for at in entry.pieces(CHUNK) {
            let bytes = self.piece(name, entry, at)?;
            elements.extend(bytes.as_chunks::<8>().0.iter().map(|&b| i64::from_le_bytes(b)));
        }
        Ok(Some(elements))
    }

    /// Whether a tensor has the shape and, to the bit, the elements of one in another file or in this one. Tensors of different float
    /// types are compared in f32.
    ///
    /// Both are read side by side, in pieces of 131,072 elements; of more than 64 such pieces every n-th and the last, so that 64 MiB at
    /// most are read. A copy that was trained on its own differs everywhere.
    pub(super) fn is_equal(&self, name: &str, other: &Self, other_name: &str) -> Result<bool> {
        const STEP: u64 = 1 << 17;
        const MOST: u64 = 64;
        let (Some(a), Some(b)) = (self.entry(name), other.entry(other_name)) else { return Ok(false) };
        if a.shape != b.shape || a.interleaved != b.interleaved {
            return Ok(false);
        }
        if [a, b].iter().any(|entry| entry.stored == Stored::ScaledRows) {
            return Ok(self.floats(name)? == other.floats(other_name)?);
        }
        let formats = match a.stored.format().zip(b.stored.format()) {
            _ if a.stored == b.stored => None,
            Some((of_a, of_b)) if of_a.block_len() == 1 && of_b.block_len() == 1 => Some((of_a, of_b)),
            _ => return Ok(false),
        };
        let n_elements = a.n_elements();
        let n_pieces = n_elements.div_ceil(STEP);
        let stride = n_pieces.div_ceil(MOST).max(1);
        for index in (0..n_pieces).filter(|index| index % stride == 0 || index + 1 == n_pieces) {
            let (first, end) = (index * STEP, n_elements.min((index + 1) * STEP));
            let bytes = |file: &Self, name: &str, entry: &Entry| {
                // Pieces are whole blocks, and so is a tensor.
                let at = |element: u64| {
                    (u128::from(element) * u128::from(entry.n_bytes) / u128::from(n_elements)) as u64
                };
                file.piece(name, entry, (at(first), at(end) - at(first)))
            };
            let (bytes_a, bytes_b) = (bytes(self, name, a)?, bytes(other, other_name, b)?);
            let is_equal = match formats {
                None => bytes_a == bytes_b,
                Some((of_a, of_b)) => {
                    let (mut a, mut b) = (Vec::new(), Vec::new());
                    decode(of_a, &bytes_a, &mut a);
                    decode(of_b, &bytes_b, &mut b);
                    a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits()))
                }
            };
            if !is_equal {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The file in memory, mapped when it is first asked for.
    fn mapped(&self) -> Result<Arc<Mapped>> {
        if let Some(mapped) = self.mapped.get() {
            return Ok(mapped.clone());
        }
        let mapped =
            Mapped::new(&self.file).map_err(|source| ModelError::Io { path: self.path.clone(), source })?;
        if (mapped.as_ref().len() as u64) < self.n_bytes {
            let what = "the file became shorter while it was read".into();
            return Err(ModelError::WeightFile { path: self.path.clone(), what });
        }
        Ok(self.mapped.get_or_init(|| Arc::new(mapped)).clone())
    }

    /// Bytes of a tensor, from where and how many.
    fn piece(&self, name: &str, entry: &Entry, (from, n_bytes): (u64, u64)) -> Result<Vec<u8>> {
        self.bytes(&format!("tensor `{name}`"), entry.start + from, n_bytes)
    }

    fn bytes(&self, of: &str, from: u64, n_bytes: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; n_bytes as usize];
        let mut file = &self.file;
        match file.seek(SeekFrom::Start(from)).and_then(|_| file.read_exact(&mut bytes)) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                let what = format!("the file became shorter while it was read, within {of}");
                Err(ModelError::WeightFile { path: self.path.clone(), what })
            }
            Err(source) => Err(ModelError::Io { path: self.path.clone(), source }),
        }
    }
}

/// Whether a file is one of GGUF, by its name.
pub(super) fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"))
}

/// Rows and columns: all sides but the innermost are rows.
fn sides(entry: &Entry) -> [usize; 2] {
    let (n_cols, rows) = entry.shape.split_last().map_or((1, &[][..]), |(last, rows)| (*last, rows));
    [rows.iter().product(), n_cols]
}

/// Appends the elements of f32, bf16 or f16.
fn decode(format: Format, bytes: &[u8], floats: &mut Vec<f32>) {
    let halves = || bytes.as_chunks::<2>().0.iter();
    match format {
        Format::Bf16 => floats.extend(halves().map(|&b| bf16::from_le_bytes(b).to_f32())),
        Format::F16 => {
            let half: Vec<f16> = halves().map(|&b| f16::from_le_bytes(b)).collect();
            let n = floats.len();
            floats.resize(n + half.len(), 0.0);
            half.convert_to_f32_slice(&mut floats[n..]);
        }
        _ => floats.extend(bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b))),
    }
}
