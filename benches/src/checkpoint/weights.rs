//! Writing weights piece by piece: safetensors shards with their index, and GGUF.

use super::random::{Fill, Format, Stream};
use super::tensors::Parameter;
use anyhow::Result;
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::io::Write;

/// The largest shard, as transformers writes them.
const SHARD: u64 = 5_000_000_000;
/// Bytes that are computed before they are written.
const PIECE: usize = 16 << 20;
/// Elements of a row of a dense tensor, as it is computed: shapes do not matter to it.
const RUN: usize = 4096;

/// Is told how many bytes have been written; an error stops the writing.
pub type OnBytes<'a> = dyn FnMut(u64) -> Result<()> + 'a;

/// Bytes of a parameter in a format.
pub(crate) fn n_bytes(parameter: &Parameter, format: Format) -> u64 {
    (parameter.n_elements() / format.block_len() * format.block_bytes()) as u64
}

/// Writes a parameter whose row `at` of width `row` elements is the row `source(at)` of its random numbers.
pub(crate) fn write_rows(
    out: &mut dyn Write,
    (name, fill, format, seed): (&str, Fill, Format, u64),
    (n_elements, row): (usize, usize),
    source: impl Fn(usize) -> usize + Sync,
    on_bytes: &mut OnBytes<'_>,
) -> Result<()> {
    let stream = Stream::new(seed, name);
    let blocks = row / format.block_len();
    let bytes = blocks * format.block_bytes();
    let rows_a_piece = (PIECE / bytes).max(1);
    let mut piece = Vec::new();
    let n_rows = n_elements / row;
    for begin in (0..n_rows).step_by(rows_a_piece) {
        piece.resize((n_rows - begin).min(rows_a_piece) * bytes, 0);
        piece.par_chunks_mut(bytes).enumerate().for_each(|(at, out)| {
            stream.fill(fill, format, (source(begin + at) * blocks) as u64, out);
        });
        out.write_all(&piece)?;
        on_bytes(piece.len() as u64)?;
    }
    Ok(())
}

/// Writes a dense parameter.
fn write_dense(
    out: &mut dyn Write,
    parameter: &Parameter,
    format: Format,
    seed: u64,
    on_bytes: &mut OnBytes<'_>,
) -> Result<()> {
    let n = parameter.n_elements();
    let what = |fill| (parameter.name.as_str(), fill, format, seed);
    let whole = n / RUN * RUN;
    write_rows(out, what(parameter.fill), (whole, RUN), |at| at, on_bytes)?;
    if n > whole {
        let mut rest = vec![0; (n - whole) * format.block_bytes()];
        Stream::new(seed, &parameter.name).fill(parameter.fill, format, whole as u64, &mut rest);
        out.write_all(&rest)?;
        on_bytes(rest.len() as u64)?;
    }
    Ok(())
}

/// The parameters of each shard, in order; none is larger than 5 GB unless one parameter is.
pub(crate) fn shards(parameters: &[Parameter], format: Format) -> Vec<Vec<&Parameter>> {
    let mut shards: Vec<Vec<&Parameter>> = Vec::new();
    let mut held = 0;
    for parameter in parameters {
        let bytes = n_bytes(parameter, format);
        if shards.is_empty() || held + bytes > SHARD {
            shards.push(Vec::new());
            held = 0;
        }
        held += bytes;
        if let Some(last) = shards.last_mut() {
            last.push(parameter);
        }
    }
    shards
}

/// The name of a shard.
pub(crate) fn shard_name(at: usize, of: usize) -> String {
    if of == 1 { "model.safetensors".into() } else { format!("model-{:05}-of-{of:05}.safetensors", at + 1) }
}

/// `model.safetensors.index.json`.
pub(crate) fn index(shards: &[Vec<&Parameter>], format: Format) -> Value {
    let total: u64 = shards.iter().flatten().map(|parameter| n_bytes(parameter, format)).sum();
    let map: Map<String, Value> = shards
        .iter()
        .enumerate()
        .flat_map(|(at, shard)| {
            shard.iter().map(move |p| (p.name.clone(), json!(shard_name(at, shards.len()))))
        })
        .collect();
    json!({ "metadata": { "total_size": total }, "weight_map": map })
}

/// Writes one safetensors file.
pub(crate) fn write_safetensors(
    out: &mut dyn Write,
    shard: &[&Parameter],
    format: Format,
    seed: u64,
    on_bytes: &mut OnBytes<'_>,
) -> Result<()> {
    let name = match format {
        Format::F32 => "F32",
        Format::Bf16 => "BF16",
        Format::F16 => "F16",
        Format::Q4 | Format::Q8 => unreachable!("safetensors files have no blocks"),
    };
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut begin = 0;
    for parameter in shard {
        let end = begin + n_bytes(parameter, format);
        header.insert(
            parameter.name.clone(),
            json!({ "dtype": name, "shape": parameter.shape, "data_offsets": [begin, end] }),
        );
        begin = end;
    }
    let mut header = Value::Object(header).to_string();
    // The data begin at a multiple of eight bytes.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    shard.iter().try_for_each(|parameter| write_dense(out, parameter, format, seed, on_bytes))
}
