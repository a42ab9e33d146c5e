//! The names of a LLaMA's tensors, and the order of rows that the converter of llama.cpp gives to queries and keys.

use super::metadata::Metadata;

/// The names outside the layers, in GGUF files and at Hugging Face.
const OUTSIDE: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// The names inside a layer.
const INSIDE: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The name of a tensor at Hugging Face: `blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`. None for a tensor that a
/// LLaMA does not have.
pub(super) fn hugging_face(name: &str) -> Option<String> {
    let of = |table: &[(&str, &'static str)], part: &str| {
        table.iter().find(|(gguf, _)| *gguf == part).map(|(_, known)| *known)
    };
    let (part, end) = name.rsplit_once('.').filter(|(_, end)| ["weight", "bias"].contains(end))?;
    if let Some(known) = of(&OUTSIDE, part) {
        return Some(format!("{known}.{end}"));
    }
    let (layer, part) = part.strip_prefix("blk.")?.split_once('.')?;
    // As it is written again: `007` is another name.
    layer.parse::<u32>().ok().filter(|number| number.to_string() == layer)?;
    Some(format!("model.layers.{layer}.{}.{end}", of(&INSIDE, part)?))
}

/// The number of heads over which the converter has interleaved the rows of this tensor; none for a tensor that it leaves as it is.
///
/// Hugging Face turns row `i` of a head together with row `i + d/2`, llama.cpp row `2i` with row `2i + 1`.
pub(super) fn interleaved(name: &str, shape: &[usize], metadata: &Metadata) -> Result<Option<usize>, String> {
    let part = name.rsplit('.').nth(1);
    let n_heads = metadata.whole("llama.attention.head_count")?;
    let n_heads = match part {
        Some("attn_q") => n_heads,
        Some("attn_k") => metadata.whole("llama.attention.head_count_kv")?.or(n_heads),
        _ => return Ok(None),
    };
    let Some(n_heads) = n_heads else {
        return Err("needs the number of heads, `llama.attention.head_count`, which is missing".into());
    };
    match usize::try_from(n_heads).ok().filter(|&n| n > 0 && shape[0].is_multiple_of(n.saturating_mul(2))) {
        Some(n_heads) => Ok(Some(n_heads)),
        None => Err(format!("has {} rows for {n_heads} heads of an even width", shape[0])),
    }
}

/// Brings the rows of every head back into the order of Hugging Face: `row (i, half)` of the file is `row (half, i)`.
pub(in crate::weights) fn deinterleave(bytes: &[u8], n_heads: usize, n_rows: usize) -> Vec<u8> {
    let row = bytes.len() / n_rows;
    let half = n_rows / n_heads / 2;
    let mut ordered = Vec::with_capacity(bytes.len());
    for head in bytes.chunks_exact(2 * half * row) {
        for which in 0..2 {
            for i in 0..half {
                let at = (2 * i + which) * row;
                ordered.extend_from_slice(&head[at..at + row]);
            }
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_hugging_face_or_none() {
        let of = |name: &str| hugging_face(name);
        assert_eq!(of("blk.12.attn_k.bias").unwrap(), "model.layers.12.self_attn.k_proj.bias");
        assert_eq!(of("output.weight").unwrap(), "lm_head.weight");
        for other in [
            "blk.0.ffn_gate_inp.weight",
            "blk.01.attn_q.weight",
            "blk.attn_q.weight",
            "output",
            "rope_freqs.weight",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn rows_of_a_head_return_to_their_halves() {
        // Two heads of four rows, each of two bytes that hold its number at Hugging Face.
        let row = |n: u8| [n, n];
        let interleaved = [0, 2, 1, 3, 4, 6, 5, 7].map(row).concat();
        assert_eq!(deinterleave(&interleaved, 2, 8), [0, 1, 2, 3, 4, 5, 6, 7].map(row).concat());
    }
}
