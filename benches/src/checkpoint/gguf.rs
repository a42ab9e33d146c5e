//! A LLaMA language model as a GGUF file (version 3) that llama.cpp loads: its names, its order of the rows of q and k, its tokenizer.
//!
//! Matrices, also the embeddings and the head, are Q4_0 or Q8_0; norms are f32. (llama.cpp's own quantiser keeps the head in Q6_K.)

use super::kind::size;
use super::random::{Fill, Format, Stream};
use super::tensors::Parameter;
use super::vocabulary::{Family, Role, Vocabulary};
use super::weights::{OnBytes, n_bytes, write_rows};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::io::Write;

/// Tensors begin at multiples of so many bytes.
const ALIGNMENT: u64 = 32;

/// Heads of queries and of keys.
#[derive(Clone, Copy)]
struct Heads {
    query: usize,
    key: usize,
}

/// Writes the file.
///
/// # Errors
/// A width that is no multiple of 32, and those of writing.
pub(crate) fn write(
    out: &mut dyn Write,
    (config, vocabulary): (&Value, &Vocabulary),
    parameters: &[&Parameter],
    (format, seed): (Format, u64),
    on_bytes: &mut OnBytes<'_>,
) -> Result<()> {
    let metadata = metadata(config, vocabulary, format)?;
    let mut head = b"GGUF".to_vec();
    head.extend(3u32.to_le_bytes());
    head.extend((parameters.len() as u64).to_le_bytes());
    head.extend(metadata.n.to_le_bytes());
    head.extend(metadata.bytes);
    let mut offset = 0;
    for parameter in parameters {
        let format = format_of(parameter, format);
        ensure!(
            parameter.shape.last().is_some_and(|width| width.is_multiple_of(format.block_len())),
            "{} has rows of {:?} elements, which blocks of 32 do not divide",
            parameter.name,
            parameter.shape.last()
        );
        put_string(&mut head, &llama_cpp_name(&parameter.name)?);
        head.extend((parameter.shape.len() as u32).to_le_bytes());
        parameter.shape.iter().rev().for_each(|n| head.extend((*n as u64).to_le_bytes()));
        let kind: u32 = match format {
            Format::Q4 => 2,
            Format::Q8 => 8,
            _ => 0,
        };
        head.extend(kind.to_le_bytes());
        head.extend(u64::to_le_bytes(offset));
        offset += n_bytes(parameter, format).next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
    out.write_all(&head)?;
    let heads =
        Heads { query: size(config, "num_attention_heads")?, key: size(config, "num_key_value_heads")? };
    for parameter in parameters {
        write_tensor(out, parameter, (format_of(parameter, format), seed), heads, on_bytes)?;
    }
    Ok(())
}

fn format_of(parameter: &Parameter, format: Format) -> Format {
    if parameter.fill == Fill::One { Format::F32 } else { format }
}

fn write_tensor(
    out: &mut dyn Write,
    parameter: &Parameter,
    (format, seed): (Format, u64),
    heads: Heads,
    on_bytes: &mut OnBytes<'_>,
) -> Result<()> {
    let (n, width) =
        (parameter.n_elements(), *parameter.shape.last().context("a tensor without dimensions")?);
    if parameter.fill == Fill::One {
        let mut bytes = vec![0; n * format.block_bytes()];
        Stream::new(seed, &parameter.name).fill(parameter.fill, format, 0, &mut bytes);
        out.write_all(&bytes)?;
        on_bytes(bytes.len() as u64)?;
    } else {
        let n_heads = match &parameter.name {
            name if name.contains(".q_proj.") => Some(heads.query),
            name if name.contains(".k_proj.") => Some(heads.key),
            _ => None,
        };
        let d_head = n_heads.map(|heads| n / width / heads);
        let what = (parameter.name.as_str(), parameter.fill, format, seed);
        write_rows(
            out,
            what,
            (n, width),
            |row| d_head.map_or(row, |d_head| half_split_row(row, d_head)),
            on_bytes,
        )?;
    }
    let bytes = n_bytes(parameter, format);
    let gap = bytes.next_multiple_of(ALIGNMENT) - bytes;
    out.write_all(&[0; ALIGNMENT as usize][..gap as usize])?;
    Ok(())
}

/// The row of Hugging Face's q or k that llama.cpp has at `row`: pairs that are rotated together lie beside each other there, and half
/// a head apart here.
fn half_split_row(row: usize, d_head: usize) -> usize {
    let (head, at) = (row / d_head, row % d_head);
    head * d_head + at % 2 * (d_head / 2) + at / 2
}

fn llama_cpp_name(name: &str) -> Result<String> {
    const PARTS: [(&str, &str); 9] = [
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let bare = name.strip_prefix("language_model.").unwrap_or(name);
    Ok(match bare {
        "model.embed_tokens.weight" => "token_embd.weight".into(),
        "model.norm.weight" => "output_norm.weight".into(),
        "lm_head.weight" => "output.weight".into(),
        _ => {
            let of_layer = bare.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
            let (layer, part) = of_layer.with_context(|| format!("llama.cpp has no name for {name}"))?;
            let part = part.strip_suffix(".weight").unwrap_or(part);
            let known = PARTS.iter().find(|(hf, _)| *hf == part);
            let (_, part) = known.with_context(|| format!("llama.cpp has no name for {name}"))?;
            format!("blk.{layer}.{part}.weight")
        }
    })
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Key-value pairs in the making.
#[derive(Default)]
struct Metadata {
    bytes: Vec<u8>,
    n: u64,
}

impl Metadata {
    fn key(&mut self, key: &str, kind: u32) {
        put_string(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
        self.n += 1;
    }

    fn u32(&mut self, key: &str, value: u32) {
        self.key(key, 4);
        self.bytes.extend(value.to_le_bytes());
    }

    fn f32(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.bytes.extend(value.to_le_bytes());
    }

    fn flag(&mut self, key: &str, value: bool) {
        self.key(key, 7);
        self.bytes.push(value.into());
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        put_string(&mut self.bytes, value);
    }

    /// The head of an array; its elements follow.
    fn array(&mut self, key: &str, kind: u32, n: usize) {
        self.key(key, 9);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((n as u64).to_le_bytes());
    }

    fn texts<'t>(&mut self, key: &str, texts: impl ExactSizeIterator<Item = std::borrow::Cow<'t, str>>) {
        self.array(key, 8, texts.len());
        texts.for_each(|text| put_string(&mut self.bytes, &text));
    }
}

fn metadata(config: &Value, vocabulary: &Vocabulary, format: Format) -> Result<Metadata> {
    let number = |key: &str| size(config, key).map(|n| n as u32);
    let real = |key: &str| config[key].as_f64().map(|v| v as f32).with_context(|| format!("no {key}"));
    let d_head = number("hidden_size")? / number("num_attention_heads")?;
    let mut all = Metadata::default();
    all.text("general.architecture", "llama");
    all.text("general.name", "random weights");
    all.u32("general.file_type", if format == Format::Q4 { 2 } else { 7 });
    all.u32("general.quantization_version", 2);
    all.u32("llama.context_length", number("max_position_embeddings")?);
    all.u32("llama.embedding_length", number("hidden_size")?);
    all.u32("llama.block_count", number("num_hidden_layers")?);
    all.u32("llama.feed_forward_length", number("intermediate_size")?);
    all.u32("llama.attention.head_count", number("num_attention_heads")?);
    all.u32("llama.attention.head_count_kv", number("num_key_value_heads")?);
    all.f32("llama.attention.layer_norm_rms_epsilon", real("rms_norm_eps")?);
    all.u32("llama.attention.key_length", d_head);
    all.u32("llama.attention.value_length", d_head);
    all.u32("llama.rope.dimension_count", d_head);
    all.f32("llama.rope.freq_base", real("rope_theta")?);
    all.u32("llama.vocab_size", number("vocab_size")?);
    tokenizer(&mut all, vocabulary);
    Ok(all)
}

fn tokenizer(all: &mut Metadata, vocabulary: &Vocabulary) {
    let n = vocabulary.tokens.len();
    let is_bytes = vocabulary.family != Family::Llama;
    all.text("tokenizer.ggml.model", if is_bytes { "gpt2" } else { "llama" });
    if is_bytes {
        all.text("tokenizer.ggml.pre", "default");
    }
    all.texts("tokenizer.ggml.tokens", vocabulary.tokens.iter().map(|(text, _)| text.as_str().into()));
    if is_bytes {
        all.texts("tokenizer.ggml.merges", vocabulary.merges.iter().map(|(a, b)| format!("{a} {b}").into()));
    } else {
        // Later pieces are less likely, as in files that were converted from SentencePiece.
        all.array("tokenizer.ggml.scores", 6, n);
        (0..n).for_each(|at| all.bytes.extend((-(at as f32)).to_le_bytes()));
    }
    all.array("tokenizer.ggml.token_type", 5, n);
    for (_, role) in &vocabulary.tokens {
        let kind: i32 = match role {
            Role::Piece => 1,
            Role::Unknown => 2,
            Role::Control => 3,
            Role::Byte => 6,
        };
        all.bytes.extend(kind.to_le_bytes());
    }
    all.u32("tokenizer.ggml.bos_token_id", 1);
    all.u32("tokenizer.ggml.eos_token_id", 2);
    all.u32(
        "tokenizer.ggml.padding_token_id",
        vocabulary.id("<pad>").unwrap_or(if is_bytes { 2 } else { 0 }),
    );
    if !is_bytes {
        all.u32("tokenizer.ggml.unknown_token_id", 0);
    }
    all.flag("tokenizer.ggml.add_bos_token", !is_bytes);
}

#[cfg(test)]
mod tests {
    use super::{half_split_row, llama_cpp_name};

    #[test]
    fn rows_of_a_head_are_interleaved_and_heads_stay() {
        let rows: Vec<usize> = (0..16).map(|row| half_split_row(row, 8)).collect();
        assert_eq!(rows, [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]);
    }

    #[test]
    fn names_are_those_of_llama_cpp() {
        let of = |name| llama_cpp_name(name).unwrap();
        assert_eq!(of("language_model.model.layers.31.self_attn.o_proj.weight"), "blk.31.attn_output.weight");
        assert_eq!(of("model.embed_tokens.weight"), "token_embd.weight");
        assert!(llama_cpp_name("language_projection.weight").is_err());
    }
}
