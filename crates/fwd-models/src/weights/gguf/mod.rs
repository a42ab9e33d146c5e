//! A GGUF file, the format of llama.cpp: metadata, the place of every tensor, and the tensors, in blocks of few bits.
//!
//! ```text
//! "GGUF"  version u32  number of tensors u64  number of values u64
//! values:   key (u64 length, bytes)  type u32  value
//! tensors:  name (u64 length, bytes)  number of sides u32  sides u64 (innermost first)  type u32  offset u64
//! padding to a multiple of `general.alignment`, from which the offsets count
//! ```
//!
//! Every length is checked against the file before anything is made of it. The tensors of a LLaMA get the names of Hugging Face.
//!
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>; the names and the order of rows are those of
//! `convert_hf_to_gguf.py` of llama.cpp.

mod config;
mod cursor;
mod metadata;
mod names;
mod tokenizer;

pub(super) use config::config;
pub(super) use metadata::Metadata;
pub(super) use names::deinterleave;
pub(super) use tokenizer::tokenizer;

use super::entry::{Entry, Stored};
use crate::error::{ModelError, Result};
use cursor::Cursor;
use fwd_ops::Format;
use metadata::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// The bytes that a GGUF file begins with.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";

/// Factors of the frequencies of the rotary positions, which the converter computes from the configuration.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// More values or tensors than any model has.
const MOST: u64 = 1 << 16;

/// More elements than any list of a vocabulary has.
const LONGEST_LIST: u64 = 1 << 24;

/// The longest token or merge, in bytes.
const LONGEST_TOKEN: u64 = 1 << 12;

/// What a GGUF file says of itself before its tensors begin.
pub(super) struct Header {
    pub(super) metadata: Metadata,
    /// By the names of Hugging Face; what no LLaMA has keeps its own.
    pub(super) tensors: BTreeMap<String, Entry>,
}

/// A tensor as the file lists it.
struct Info {
    name: String,
    /// The outermost dimension first.
    shape: Vec<usize>,
    kind: u32,
    offset: u64,
}

/// Reads all that stands before the tensors.
///
/// # Errors
/// [`ModelError::WeightFile`] for a damaged file, and for what is not supported: another architecture than `llama`, big-endian numbers,
/// parts of a split file, tensors of other types.
pub(super) fn read(path: &Path, file: &File, n_bytes: u64) -> Result<Header> {
    let mut cursor = Cursor::new(path, file, n_bytes)?;
    let (n_tensors, n_values) = counts(&mut cursor)?;
    let mut metadata = BTreeMap::new();
    for _ in 0..n_values {
        let key = cursor.name("a key")?;
        let value = value(&mut cursor, &key, false)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(cursor.damaged(format!("the key `{key}` stands there twice")));
        }
    }
    let metadata = Metadata::new(metadata);
    supported(&metadata).map_err(|what| ModelError::WeightFile { path: path.into(), what })?;
    let infos = (0..n_tensors).map(|_| info(&mut cursor)).collect::<Result<Vec<Info>>>()?;
    let alignment = metadata.whole("general.alignment").map_err(|what| cursor.damaged(what))?.unwrap_or(32);
    if !alignment.is_power_of_two() || !(8..=MOST).contains(&alignment) {
        return Err(cursor.damaged(format!("the alignment is {alignment}")));
    }
    let tensors = entries(&cursor, &metadata, infos, alignment)?;
    Ok(Header { metadata, tensors })
}

/// Reads up to the metadata: the numbers of tensors and of values.
fn counts(cursor: &mut Cursor<'_>) -> Result<(u64, u64)> {
    if cursor.array::<4>("the beginning")? != MAGIC {
        return Err(cursor.damaged("it does not begin with `GGUF`".into()));
    }
    let version = cursor.u32("the version")?;
    let is_big_endian = (1..=0xff).contains(&version.swap_bytes());
    if is_big_endian || !(2..=3).contains(&version) {
        let what = if is_big_endian {
            "its numbers are big-endian, which is not read; convert the model again without `--bigendian`"
                .into()
        } else {
            format!(
                "version {version} of the GGUF format is not read, 2 and 3 are; convert the model again with today's llama.cpp"
            )
        };
        return Err(ModelError::WeightFile { path: cursor.path().into(), what });
    }
    let (n_tensors, n_values) = (cursor.u64("the number of tensors")?, cursor.u64("the number of values")?);
    if n_tensors > MOST || n_values > MOST {
        return Err(cursor.damaged(format!("it would have {n_tensors} tensors and {n_values} values")));
    }
    Ok((n_tensors, n_values))
}

/// What keeps the file from being read, if anything.
fn supported(metadata: &Metadata) -> std::result::Result<(), String> {
    const ELSE: &str = "if the safetensors files beside it hold the whole model, move this file elsewhere";
    let shown = |text: &str| text.chars().take(60).collect::<String>().escape_debug().to_string();
    match metadata.text("general.architecture") {
        Some("llama") => {}
        Some("clip") => {
            return Err(format!(
                "a vision tower in a GGUF file (mmproj) is not read; use the model's safetensors files for it; {ELSE}"
            ));
        }
        other => {
            let found = shown(other.unwrap_or("none"));
            return Err(format!(
                "GGUF files of architecture `{found}` are not read, those of `llama` are; {ELSE}"
            ));
        }
    }
    if metadata.whole("split.count")?.is_some_and(|n| n > 1) {
        return Err(
            "it is one part of a split GGUF file; join the parts with `llama-gguf-split --merge`".into()
        );
    }
    if metadata.whole("llama.expert_count")?.is_some_and(|n| n > 0) {
        return Err("a mixture of experts is not supported".into());
    }
    Ok(())
}

/// A value; of a list its elements if they are wanted.
fn value(cursor: &mut Cursor<'_>, key: &str, with_lists: bool) -> Result<Value> {
    const LIST: u32 = 9;
    let kind = cursor.u32("the type of a value")?;
    if kind != LIST {
        return scalar(cursor, key, kind);
    }
    let (kind, n) = (cursor.u32("the type of a list")?, cursor.u64("the length of a list")?);
    match kind {
        TEXT => {
            // Each has eight bytes of length at least.
            cursor.has(n.saturating_mul(8), key)?;
            if n > LONGEST_LIST {
                return Err(cursor.damaged(format!("`{key}` would be a list of {n} texts")));
            }
            let mut texts = Vec::new();
            for _ in 0..n {
                let length = cursor.u64("the length of a text")?;
                if with_lists {
                    if length > LONGEST_TOKEN {
                        return Err(cursor.damaged(format!("`{key}` would have a text of {length} bytes")));
                    }
                    texts.push(cursor.string(length, key)?);
                } else {
                    cursor.skip(length, key)?;
                }
            }
            if with_lists {
                return Ok(Value::Texts(texts));
            }
        }
        LIST => return Err(cursor.damaged(format!("`{key}` is a list of lists"))),
        _ => {
            let Some(width) = width(kind) else { return Err(unknown_type(cursor, key, kind)) };
            if with_lists && matches!(kind, 4 | 5) {
                cursor.has(n.saturating_mul(width), key)?;
                if n > LONGEST_LIST {
                    return Err(cursor.damaged(format!("`{key}` would be a list of {n} numbers")));
                }
                let numbers = (0..n).map(|_| Ok(cursor.u32(key)?.into()));
                return Ok(Value::Numbers(numbers.collect::<Result<_>>()?));
            }
            cursor.skip(n.saturating_mul(width), key)?;
        }
    }
    Ok(Value::Long)
}

const TEXT: u32 = 8;

/// The bytes of a number of the metadata.
fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn unknown_type(cursor: &Cursor<'_>, key: &str, kind: u32) -> ModelError {
    cursor.damaged(format!("`{key}` is of a type {kind} that there is not"))
}

fn scalar(cursor: &mut Cursor<'_>, key: &str, kind: u32) -> Result<Value> {
    Ok(match kind {
        0 => Value::Unsigned(cursor.array::<1>(key)?[0].into()),
        1 => Value::Signed(i8::from_le_bytes(cursor.array(key)?).into()),
        2 => Value::Unsigned(u16::from_le_bytes(cursor.array(key)?).into()),
        3 => Value::Signed(i16::from_le_bytes(cursor.array(key)?).into()),
        4 => Value::Unsigned(u32::from_le_bytes(cursor.array(key)?).into()),
        5 => Value::Signed(i32::from_le_bytes(cursor.array(key)?).into()),
        // The decimal number that was meant, 1e-5 and not 9.999999747378752e-6.
        6 => {
            let value = f32::from_le_bytes(cursor.array(key)?);
            Value::Float(value.to_string().parse().unwrap_or_else(|_| value.into()))
        }
        7 => Value::Bool(cursor.array::<1>(key)?[0] != 0),
        TEXT => cursor.text(key)?.map_or(Value::Long, Value::Text),
        10 => Value::Unsigned(cursor.u64(key)?),
        11 => Value::Signed(i64::from_le_bytes(cursor.array(key)?)),
        12 => Value::Float(f64::from_le_bytes(cursor.array(key)?)),
        _ => return Err(unknown_type(cursor, key, kind)),
    })
}

fn info(cursor: &mut Cursor<'_>) -> Result<Info> {
    let name = cursor.name("the name of a tensor")?;
    let n_sides = cursor.u32(&name)?;
    if !(1..=4).contains(&n_sides) {
        return Err(cursor.damaged(format!("tensor `{name}` would have {n_sides} sides")));
    }
    let mut shape = Vec::new();
    for _ in 0..n_sides {
        let side = cursor.u64(&name)?;
        match usize::try_from(side) {
            Ok(side) if side > 0 => shape.insert(0, side),
            _ => return Err(cursor.damaged(format!("tensor `{name}` would have a side of {side}"))),
        }
    }
    let (kind, offset) = (cursor.u32(&name)?, cursor.u64(&name)?);
    Ok(Info { name, shape, kind, offset })
}

/// Checks that every tensor lies within the file and that none overlaps another.
fn entries(
    cursor: &Cursor<'_>,
    metadata: &Metadata,
    infos: Vec<Info>,
    alignment: u64,
) -> Result<BTreeMap<String, Entry>> {
    let first = cursor.at().next_multiple_of(alignment);
    let mut tensors: BTreeMap<String, Entry> = BTreeMap::new();
    let mut places = Vec::new();
    for info in infos {
        let Info { name, shape, kind, offset } = info;
        let format = format(cursor.path(), &name, kind)?;
        let damaged = |what: &str| cursor.damaged(format!("tensor `{name}` {what}"));
        let n_cols = shape[shape.len() - 1];
        if n_cols % format.block_len() != 0 {
            let what = format!("has rows of {n_cols} elements, no multiple of the blocks of {format:?}");
            return Err(damaged(&what));
        }
        let n_elements = shape.iter().try_fold(1u64, |n, &side| n.checked_mul(side as u64));
        let n_bytes = n_elements
            .map(|n| n / format.block_len() as u64)
            .and_then(|n| n.checked_mul(format.block_bytes() as u64));
        let start = offset.checked_add(first).filter(|_| offset % alignment == 0);
        let (Some(n_bytes), Some(start)) = (n_bytes, start) else {
            return Err(damaged(&format!("of shape {shape:?} would begin at {offset}")));
        };
        if start.checked_add(n_bytes).is_none_or(|end| end > cursor.n_bytes()) {
            let what = format!("would have {n_bytes} bytes from {start}, the file has {}", cursor.n_bytes());
            return Err(damaged(&what));
        }
        places.push((start, start + n_bytes));
        let interleaved = names::interleaved(&name, &shape, metadata).map_err(|what| damaged(&what))?;
        let entry = Entry { stored: Stored::Floats(format), shape, start, n_bytes, interleaved };
        let known = names::hugging_face(&name).unwrap_or_else(|| name.clone());
        if tensors.insert(known, entry).is_some() {
            return Err(damaged("stands there twice"));
        }
    }
    places.sort_unstable();
    if let Some(pair) = places.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        return Err(cursor.damaged(format!("two tensors overlap at byte {}", pair[1].0)));
    }
    let end = places.last().map_or(cursor.at(), |place| place.1);
    // Writers fill up after the last tensor too.
    if end.next_multiple_of(alignment) < cursor.n_bytes() {
        let what = format!("it has {} bytes, its tensors end at {end}", cursor.n_bytes());
        return Err(cursor.damaged(what));
    }
    Ok(tensors)
}

/// The format that a number stands for in GGUF files.
fn format(path: &Path, tensor: &str, kind: u32) -> Result<Format> {
    /// The types that are not read, by their numbers.
    const OTHERS: [(u32, &str); 22] = [
        (9, "Q8_1"),
        (10, "Q2_K"),
        (11, "Q3_K"),
        (15, "Q8_K"),
        (16, "IQ2_XXS"),
        (17, "IQ2_XS"),
        (18, "IQ3_XXS"),
        (19, "IQ1_S"),
        (20, "IQ4_NL"),
        (21, "IQ3_S"),
        (22, "IQ2_S"),
        (23, "IQ4_XS"),
        (24, "I8"),
        (25, "I16"),
        (26, "I32"),
        (27, "I64"),
        (28, "F64"),
        (29, "IQ1_M"),
        (34, "TQ1_0"),
        (35, "TQ2_0"),
        (39, "MXFP4"),
        (40, "NVFP4"),
    ];
    Ok(match kind {
        0 => Format::F32,
        1 => Format::F16,
        2 => Format::Q4_0,
        3 => Format::Q4_1,
        6 => Format::Q5_0,
        7 => Format::Q5_1,
        8 => Format::Q8_0,
        12 => Format::Q4K,
        13 => Format::Q5K,
        14 => Format::Q6K,
        30 => Format::Bf16,
        _ => {
            let known = OTHERS.iter().find(|(number, _)| *number == kind);
            let found = known.map_or_else(|| format!("type {kind}"), |(_, name)| (*name).to_owned());
            let what = format!(
                "tensor `{tensor}` is stored as {found}, which is not read; F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K \
                 and Q6_K are; take a file of those (`Q4_K_M`, `Q8_0`), or make one with `llama-quantize`"
            );
            return Err(ModelError::WeightFile { path: path.into(), what });
        }
    })
}
