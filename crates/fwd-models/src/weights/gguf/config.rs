//! The configuration of a LLaMA in Hugging Face's words, from the metadata of a GGUF file.

use super::ROPE_FACTORS;
use super::metadata::Metadata;
use crate::weights::entry::Entry;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The `config.json` that the metadata and the shapes of the tensors stand for, as `LlamaConfig` of transformers names its fields; or the
/// key that is missing or has a value that is not supported.
///
/// Frequencies that the converter has scaled (`factors`) become `rope_scaling` of type `llama3` if they are those of LLaMA 3.1 and later.
pub(in crate::weights) fn config(
    metadata: &Metadata,
    tensors: &BTreeMap<String, Entry>,
    factors: Option<&[f32]>,
) -> Result<Value, String> {
    let find = |key: &str| metadata.whole(&format!("llama.{key}"));
    let need = |key: &str| find(key)?.ok_or_else(|| format!("the key `llama.{key}` is missing"));
    let need_float = |key: &str| {
        let value = metadata.float(&format!("llama.{key}"));
        value.ok_or_else(|| format!("the number `llama.{key}` is missing"))
    };
    let shape = |name: &str| tensors.get(name).map(|entry| &entry.shape[..]);
    let Some(&[vocab_size, _]) = shape("model.embed_tokens.weight") else {
        return Err("the matrix `token_embd.weight` is missing".into());
    };
    let (width, n_heads) = (need("embedding_length")?, need("attention.head_count")?);
    let head_dim = find("attention.key_length")?.or_else(|| width.checked_div(n_heads));
    let head_dim = head_dim.ok_or("`llama.attention.head_count` is 0")?;
    if find("attention.value_length")?.is_some_and(|of_values| of_values != head_dim) {
        return Err("keys and values of different widths are not supported".into());
    }
    let turned = find("rope.dimension_count")?.unwrap_or(head_dim);
    if turned != head_dim {
        return Err(format!(
            "`llama.rope.dimension_count` is {turned}; only the whole width of a head, {head_dim}, is supported"
        ));
    }
    let token = |key: &str| metadata.whole(&format!("tokenizer.ggml.{key}_token_id"));
    Ok(json!({
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": need("feed_forward_length")?,
        "num_hidden_layers": need("block_count")?,
        "num_attention_heads": n_heads,
        "num_key_value_heads": find("attention.head_count_kv")?.unwrap_or(n_heads),
        "head_dim": head_dim,
        "vocab_size": vocab_size,
        "max_position_embeddings": need("context_length")?,
        "rms_norm_eps": need_float("attention.layer_norm_rms_epsilon")?,
        "rope_theta": metadata.float("llama.rope.freq_base").unwrap_or(10000.0),
        "rope_scaling": rope_scaling(metadata, factors)?,
        "attention_bias": shape("model.layers.0.self_attn.q_proj.bias").is_some(),
        "mlp_bias": shape("model.layers.0.mlp.up_proj.bias").is_some(),
        "tie_word_embeddings": shape("lm_head.weight").is_none(),
        "bos_token_id": token("bos")?,
        "eos_token_id": token("eos")?,
        "pad_token_id": token("padding")?,
    }))
}

/// `rope_scaling` of Hugging Face's configuration.
fn rope_scaling(metadata: &Metadata, factors: Option<&[f32]>) -> Result<Value, String> {
    let kind = metadata.text("llama.rope.scaling.type");
    let linear = metadata
        .float("llama.rope.scaling.factor")
        .filter(|_| kind == Some("linear"))
        .or(metadata.float("llama.rope.scale_linear").filter(|&factor| factor != 1.0));
    match (kind, linear, factors) {
        (None | Some("none" | "linear"), Some(factor), None) => {
            Ok(json!({ "rope_type": "linear", "factor": factor }))
        }
        (None | Some("none" | "linear"), None, None) => Ok(Value::Null),
        (None | Some("none"), None, Some(factors)) => llama3(metadata, factors),
        _ => Err(format!(
            "rotary positions scaled by {:.40?} are not supported; `linear` and those of LLaMA 3 are",
            kind.unwrap_or("several rules at once")
        )),
    }
}

/// The rule of LLaMA 3, if the file's factors are those that the converter computes from it.
///
/// Wavelengths below `L / high` stay, those above `L / low` are multiplied by `factor`, and in between the factor's reciprocal is
/// interpolated. All published models have `low = 1`, `high = 4`, `L = 8192`.
fn llama3(metadata: &Metadata, factors: &[f32]) -> Result<Value, String> {
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    const LENGTH: f64 = 8192.0;
    let theta = metadata.float("llama.rope.freq_base").unwrap_or(10000.0);
    let most = f64::from(factors.iter().copied().fold(1.0, f32::max));
    let expected = |i: usize| {
        let wavelength = 2.0 * std::f64::consts::PI * theta.powf(i as f64 / factors.len() as f64);
        let smooth = ((LENGTH / wavelength - LOW) / (HIGH - LOW)).clamp(0.0, 1.0);
        1.0 / ((1.0 - smooth) / most + smooth)
    };
    // The converter computes in f32, the steepest part of the rule from numbers of a relative error of some 1e-6.
    let is_close = |(i, &found): (usize, &f32)| (f64::from(found) / expected(i) - 1.0).abs() < 1e-4;
    if !factors.iter().enumerate().all(is_close) {
        return Err(format!(
            "the frequencies of `{ROPE_FACTORS}` are not those of LLaMA 3 (factor {most}, 1 to 4, of 8192 positions); use the model's \
             safetensors files"
        ));
    }
    Ok(json!({
        "rope_type": "llama3",
        "factor": most,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": LENGTH as u64,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::metadata::{Metadata, Value as Stored};
    use super::rope_scaling;
    use std::collections::BTreeMap;

    fn metadata(values: &[(&str, Stored)]) -> Metadata {
        Metadata::new(
            values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect::<BTreeMap<_, _>>(),
        )
    }

    #[test]
    fn the_factors_of_llama_3_are_known_and_others_are_refused() {
        // As the converter computes them for Llama-3.1-8B: 64 frequencies, theta 500000, factor 8.
        let of = |i: usize| -> f32 {
            let frequency = 500_000f64.powf(-(i as f64) / 64.0);
            let wavelength = 2.0 * std::f64::consts::PI / frequency;
            if wavelength < 8192.0 / 4.0 {
                1.0
            } else if wavelength > 8192.0 {
                8.0
            } else {
                let smooth = (8192.0 / wavelength - 1.0) / 3.0;
                (1.0 / ((1.0 - smooth) / 8.0 + smooth)) as f32
            }
        };
        let mut factors: Vec<f32> = (0..64).map(of).collect();
        let data = metadata(&[("llama.rope.freq_base", Stored::Float(500_000.0))]);
        let scaling = rope_scaling(&data, Some(&factors)).unwrap();
        assert_eq!((scaling["rope_type"].as_str(), scaling["factor"].as_f64()), (Some("llama3"), Some(8.0)));
        factors[34] *= 1.01;
        assert!(rope_scaling(&data, Some(&factors)).unwrap_err().contains("rope_freqs.weight"));
    }

    #[test]
    fn linear_scaling_is_read_and_other_rules_are_refused_by_name() {
        let of = |kind: &str| {
            let (kind, factor) = (Stored::Text(kind.into()), Stored::Float(4.0));
            metadata(&[("llama.rope.scaling.type", kind), ("llama.rope.scaling.factor", factor)])
        };
        assert_eq!(rope_scaling(&of("linear"), None).unwrap()["factor"], 4.0);
        assert!(rope_scaling(&of("none"), None).unwrap().is_null());
        assert!(rope_scaling(&of("yarn"), None).unwrap_err().contains("yarn"));
    }
}
