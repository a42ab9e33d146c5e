//! The header of a safetensors file: eight bytes of length, and JSON with the place of every tensor.

use super::entry::{Entry, Stored};
use super::scaled::scales_of;
use crate::error::{ModelError, Result};
use fwd_ops::Format;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The longest header that is read, in bytes, as in the library `safetensors`.
const LONGEST_HEADER: u64 = 100_000_000;

/// Reads the header of a file of `n_bytes` bytes.
///
/// # Errors
/// [`ModelError::WeightFile`] for a damaged header, or a file that is shorter or longer than its header says.
pub(super) fn read(
    path: &Path,
    mut file: &File,
    head: &[u8],
    n_bytes: u64,
) -> Result<BTreeMap<String, Entry>> {
    let io = |source| ModelError::Io { path: path.into(), source };
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
    let entry = |info: &TensorInfo| Entry {
        stored: Stored::of(info.dtype),
        shape: info.shape.clone(),
        start: 8 + length + info.data_offsets.0 as u64,
        n_bytes: (info.data_offsets.1 - info.data_offsets.0) as u64,
        interleaved: None,
    };
    let mut tensors: BTreeMap<String, Entry> =
        metadata.tensors().into_iter().map(|(name, info)| (name, entry(info))).collect();
    let is_scaled = |(name, entry): (&String, &Entry)| {
        let scales = tensors.get(&scales_of(name))?;
        let fits = matches!(entry.shape[..], [n_rows, _] if scales.shape == [n_rows, 1]);
        let has_types =
            entry.stored == Stored::Other(Dtype::I8) && scales.stored == Stored::Floats(Format::F32);
        (fits && has_types).then(|| name.clone())
    };
    let scaled: Vec<String> = tensors.iter().filter_map(is_scaled).collect();
    for name in scaled {
        tensors.entry(name).and_modify(|entry| entry.stored = Stored::ScaledRows);
    }
    Ok(tensors)
}
