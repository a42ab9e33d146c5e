//! The types in which weight matrices are kept, and which matrices are kept more precisely than others.

use fwd_ops::Format;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How the weight matrices are kept in memory. Vectors (norms, biases), kernels of convolutions, tables of positions and the learned
/// queries stay in f32, and so do all activations: a smaller type saves memory, not accuracy elsewhere.
///
/// | type | a matrix of a safetensors file |
/// |---|---|
/// | `f32` | is read and widened |
/// | `bf16`, `f16` | stays in the file, mapped into memory, if it has this type there; else it is converted on loading |
/// | `q8` | becomes blocks of `Q8_0` on loading: 8.5 bits an element |
/// | `q4` | becomes blocks of `Q4_0`, 4.5 bits; of `Q8_0` outside the layers of the language model, and in its embedding and head |
///
/// The embedding and the head of a 4-bit model have 8 bits, because a rounding there acts on every token directly (llama.cpp keeps them
/// above 4 bits too); vision network, bridge and projection are small beside the language model, and their rounding would act on every
/// answer. A matrix whose rows are no whole blocks of 32 elements is kept in bf16.
///
/// The matrices of a GGUF file are kept as they lie in the file, whatever this type is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightDtype {
    /// 4 bytes an element.
    #[default]
    F32,
    /// 2 bytes, the range of f32, 8 bits of precision.
    Bf16,
    /// 2 bytes, up to 65504, 11 bits of precision.
    F16,
    /// Blocks of 32 elements in 34 bytes: a scale, and 8 bits each.
    Q8,
    /// Blocks of 32 elements in 18 bytes: a scale, and 4 bits each.
    Q4,
}

impl WeightDtype {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::F32, Self::Bf16, Self::F16, Self::Q8, Self::Q4];

    /// The name in configurations and flags: `f32`, `bf16`, `f16`, `q8` or `q4`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        }
    }

    /// The format of a matrix with rows of `n_cols` elements; none where it is read and widened into a tensor.
    pub(super) fn format(self, name: &str, n_cols: usize) -> Option<Format> {
        let blocks = match self {
            Self::F32 => return None,
            Self::Bf16 => return Some(Format::Bf16),
            Self::F16 => return Some(Format::F16),
            Self::Q4 if !is_kept_finer(name) => Format::Q4_0,
            Self::Q8 | Self::Q4 => Format::Q8_0,
        };
        Some(if n_cols.is_multiple_of(blocks.block_len()) { blocks } else { Format::Bf16 })
    }
}

/// Whether a 4-bit model keeps a matrix in 8 bits: all but those in the layers of the language model.
fn is_kept_finer(name: &str) -> bool {
    const PARTS: [&str; 8] = [
        "shared",
        "embed_tokens",
        "lm_head",
        "vision_model",
        "vision_tower",
        "qformer",
        "language_projection",
        "multi_modal_projector",
    ];
    name.split('.').any(|part| PARTS.contains(&part))
}

impl fmt::Display for WeightDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for WeightDtype {
    type Err = String;

    /// Reads a name.
    ///
    /// # Errors
    /// A sentence with all names.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == text).ok_or_else(|| {
            let found: String = text.chars().take(40).collect();
            format!("`{}` is no type of weights; f32, bf16, f16, q8 and q4 are", found.escape_debug())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for dtype in WeightDtype::ALL {
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
        }
        assert!("Q4".parse::<WeightDtype>().unwrap_err().contains("f32, bf16, f16, q8 and q4"));
    }

    #[test]
    fn four_bits_are_for_the_layers_of_the_language_model() {
        let of = |name: &str| WeightDtype::Q4.format(name, 64);
        for name in [
            "language_model.encoder.block.0.layer.0.SelfAttention.q.weight",
            "language_model.model.layers.3.mlp.up_proj.weight",
            "model.decoder.layers.0.fc1.weight",
        ] {
            assert_eq!(of(name), Some(Format::Q4_0), "{name}");
        }
        for name in [
            "language_model.shared.weight",
            "language_model.model.embed_tokens.weight",
            "lm_head.weight",
            "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
            "qformer.encoder.layer.0.output.dense.weight",
            "multi_modal_projector.linear_1.weight",
        ] {
            assert_eq!(of(name), Some(Format::Q8_0), "{name}");
        }
        assert_eq!(WeightDtype::Q4.format("model.layers.0.mlp.up_proj.weight", 40), Some(Format::Bf16));
    }
}
