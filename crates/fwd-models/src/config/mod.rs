//! `config.json` and `generation_config.json` of BLIP-2, InstructBLIP and LLaVA as transformers 4.x and 5.x write them.
//!
//! Fields that a file leaves out take the defaults of the Hugging Face classes.

mod field;
mod ignored;
mod llama;
mod llava;
mod opt;
mod qformer;
mod rope;
mod t5;
mod text;
mod tokens;
mod vision;

pub(crate) use field::{activation, read_json};
pub use ignored::ignored_generation;
pub use llama::LlamaConfig;
pub use llava::LlavaConfig;
pub use opt::OptConfig;
pub use qformer::QFormerConfig;
pub use rope::RopeConfig;
pub use t5::{OneOrMany, T5Config};
pub use text::TextConfig;
pub use tokens::SpecialTokens;
pub use vision::{VisionConfig, VisionKind};

use crate::error::{ModelError, Result};
use field::{LENGTH, at_most, not_zero};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// The architecture that `model_type` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ModelKind {
    /// BLIP-2: the Q-Former sees the image only (Li et al. 2023).
    #[serde(rename = "blip-2")]
    Blip2,
    /// InstructBLIP: the Q-Former reads the instruction too (Dai et al. 2023).
    #[serde(rename = "instructblip")]
    InstructBlip,
}

/// `config.json`: what the parts of the model are and how large they are.
#[derive(Debug, Clone, Deserialize)]
pub struct ModelConfig {
    /// `model_type`: `blip-2` or `instructblip`.
    #[serde(rename = "model_type")]
    pub kind: ModelKind,
    /// Whether an RMS norm follows the projection to the language model, so that visual tokens are as long as those of text
    /// (the embedded model; not the published ones).
    #[serde(default)]
    pub projection_norm: bool,
    /// Whether the model's chat template writes the prompts (ours; the published models were trained without one).
    #[serde(default)]
    pub uses_chat_template: bool,
    /// How many tokens of a prompt stand in front of the image (ours; none in the published models): those that begin a turn of a chat.
    #[serde(default)]
    pub image_after: usize,
    /// Number of learned queries, the visual tokens of an image.
    #[serde(default = "default_num_query_tokens")]
    pub num_query_tokens: usize,
    /// The id that stands for a visual token in `input_ids`; older checkpoints have none.
    #[serde(default)]
    pub image_token_index: Option<i64>,
    /// `vision_config`: what turns pixels into features.
    #[serde(rename = "vision_config", default)]
    pub vision: VisionConfig,
    /// `qformer_config`: what turns image features into queries.
    #[serde(rename = "qformer_config", default)]
    pub qformer: QFormerConfig,
    /// `text_config`: what reads the visual tokens and the instruction, and writes.
    #[serde(rename = "text_config")]
    pub text: TextConfig,
}

fn default_num_query_tokens() -> usize {
    32
}

impl ModelConfig {
    /// Reads a `config.json` and checks that the model can be built.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Json`] with line and column, or [`ModelError::Config`] for a model that this crate
    /// cannot build.
    pub fn read(path: &Path) -> Result<Self> {
        let fail = |what| ModelError::Config { origin: path.display().to_string(), what };
        let all: Value = read_json(path)?;
        field::token_ids(&all, "").map_err(fail)?;
        field::not_quantised(&all).map_err(fail)?;
        let config: Self = read_json(path)?;
        config.check().map_err(fail)?;
        Ok(config)
    }

    /// What makes the configuration impossible, if anything.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        not_zero(&[("num_query_tokens", self.num_query_tokens)])?;
        at_most(&[
            ("num_query_tokens", self.num_query_tokens, LENGTH),
            ("image_after", self.image_after, LENGTH),
        ])?;
        self.text.check()?;
        self.vision.check()?;
        if self.vision.kind() == Some(VisionKind::Clip) {
            return Err(
                "vision_config.model_type `clip_vision_model` goes with LLaVA and not with a Q-Former".into(),
            );
        }
        self.qformer.check()
    }
}

#[cfg(test)]
mod tests {
    use super::{ModelConfig, ModelKind};

    #[test]
    fn a_published_config_takes_the_defaults_of_the_classes() {
        let config: ModelConfig = serde_json::from_str(
            r#"{"model_type": "instructblip", "num_query_tokens": 32, "image_token_index": null,
                "vision_config": {"model_type": "instructblip_vision_model", "dropout": 0.0},
                "qformer_config": {"model_type": "instructblip_qformer", "vocab_size": 30523},
                "text_config": {"model_type": "t5", "d_model": 2048, "num_layers": 24, "num_decoder_layers": null}}"#,
        )
        .unwrap();
        assert_eq!(config.check(), Ok(()));
        assert_eq!(config.kind, ModelKind::InstructBlip);
        let (v, q) = (&config.vision, &config.qformer);
        assert_eq!(
            (v.hidden_size, v.num_hidden_layers, v.num_attention_heads, v.layer_norm_eps),
            (1408, 39, 16, 1e-6)
        );
        assert_eq!(
            (q.hidden_size, q.num_hidden_layers, q.vocab_size, q.layer_norm_eps),
            (768, 12, 30523, 1e-12)
        );
        assert_eq!((config.text.n_layers(), config.image_token_index), (48, None));
    }
}
