//! How many operations the linear maps of a prompt-tuning step are, from the shapes of a checkpoint's tensors.

/// Tokens of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Tokens {
    /// Of all inputs, the soft prompts among them.
    pub inputs: usize,
    /// Of all labels.
    pub labels: usize,
}

/// 10⁹ operations of the linear maps of a language model in one prompt-tuning step: `2·n_out·n_in` a token forward, and as many for the
/// gradient to the input. Products within attention are not counted; neither are tensors of other parts than the language model.
///
/// Tensors have the names of T5 or LLaMA in Hub files, with or without `language_model.` in front. An encoder-decoder reads inputs in its
/// encoder and in the keys and values of its cross-attention, and labels elsewhere; a decoder reads both everywhere; a head, labels only.
pub fn step_gflop<'a>(tensors: impl Iterator<Item = (&'a str, &'a [usize])>, tokens: Tokens) -> f64 {
    let all: Vec<(&str, f64)> = tensors
        .filter(|(name, shape)| shape.len() == 2 && !name.contains("relative_attention_bias"))
        .map(|(name, shape)| (name, (shape[0] * shape[1]) as f64))
        .collect();
    let is_multimodal = all.iter().any(|(name, _)| name.starts_with("language_model."));
    let has_head = all.iter().any(|(name, _)| name.ends_with("lm_head.weight"));
    let (inputs, labels) = (tokens.inputs as f64, tokens.labels as f64);
    let products = all.into_iter().filter_map(|(name, size)| {
        let name = match name.strip_prefix("language_model.") {
            Some(name) => name,
            None if is_multimodal => return None,
            None => name,
        };
        let is_read_from_encoder = |part: &str| name.ends_with(&format!("EncDecAttention.{part}.weight"));
        let n = if name.starts_with("encoder.") || is_read_from_encoder("k") || is_read_from_encoder("v") {
            inputs
        } else if name.starts_with("decoder.") || name.ends_with("lm_head.weight") {
            labels
        } else if name.contains("layers.") {
            inputs + labels
        } else if has_head {
            0.0
        } else {
            // The embedding table is the head.
            labels
        };
        Some(size * n)
    });
    4.0 * products.sum::<f64>() / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gflop(tensors: &[(&str, &[usize])], inputs: usize, labels: usize) -> f64 {
        step_gflop(tensors.iter().copied(), Tokens { inputs, labels }) * 1e9
    }

    #[test]
    fn an_encoder_decoder_reads_inputs_and_labels_apart() {
        let tensors: [(&str, &[usize]); 8] = [
            ("shared.weight", &[100, 4]),
            ("encoder.block.0.layer.0.SelfAttention.q.weight", &[4, 4]),
            ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", &[32, 2]),
            ("encoder.block.0.layer.0.layer_norm.weight", &[4]),
            ("decoder.block.0.layer.1.EncDecAttention.k.weight", &[4, 4]),
            ("decoder.block.0.layer.1.EncDecAttention.q.weight", &[4, 4]),
            ("vision_model.layer.weight", &[50, 50]),
            ("lm_head.weight", &[100, 4]),
        ];
        let named: Vec<(String, &[usize])> = tensors
            .iter()
            .map(|(name, shape)| match name.starts_with("vision") {
                true => ((*name).to_owned(), *shape),
                false => (format!("language_model.{name}"), *shape),
            })
            .collect();
        let within: Vec<(&str, &[usize])> =
            named.iter().map(|(name, shape)| (name.as_str(), *shape)).collect();
        let alone: Vec<(&str, &[usize])> =
            tensors.into_iter().filter(|(name, _)| !name.starts_with("vision")).collect();
        let expected = 4.0 * (2.0 * 16.0 * 10.0 + (16.0 + 400.0) * 3.0);
        assert!((gflop(&within, 10, 3) - expected).abs() < 1e-3);
        assert!((gflop(&alone, 10, 3) - expected).abs() < 1e-3);
    }

    #[test]
    fn a_tied_table_of_a_decoder_is_its_head() {
        let tensors: [(&str, &[usize]); 2] =
            [("model.embed_tokens.weight", &[100, 4]), ("model.layers.0.mlp.up_proj.weight", &[8, 4])];
        assert!((gflop(&tensors, 10, 3) - 4.0 * (400.0 * 3.0 + 32.0 * 13.0)).abs() < 1e-3);
    }
}
