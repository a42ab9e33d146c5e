//! `config.json` of LLaVA-1.5 (`LlavaForConditionalGeneration`) as transformers 4.x and 5.x write it.

use super::field::{activation, not_quantised, read_json, token_ids};
use super::text::TextConfig;
use super::vision::{VisionConfig, VisionKind};
use crate::error::{ModelError, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;

/// What the parts of a LLaVA are and how large they are.
#[derive(Debug, Clone)]
pub struct LlavaConfig {
    /// `vision_config`: what turns pixels into features, a CLIP.
    pub vision: VisionConfig,
    /// `text_config`: what reads the visual tokens and the text, and writes.
    pub text: TextConfig,
    /// The id that stands for an image, or for each of its visual tokens, in the text.
    pub image_token: u32,
    /// The output of the layer that the projector reads: of layer `i` if it is `i` (0 for the input of the first layer), and −1 for the
    /// last layer, −2 for the last but one.
    pub vision_feature_layer: i64,
    /// Activation of the projector by its Hugging Face name.
    pub projector_hidden_act: String,
    /// Whether the maps of the projector have biases.
    pub multimodal_projector_bias: bool,
}

/// The fields of a file that are read as they are.
#[derive(Deserialize)]
struct Fields {
    image_token_index: Option<u32>,
    image_token_id: Option<u32>,
    #[serde(default)]
    vision_feature_layer: Value,
    vision_feature_select_strategy: Option<String>,
    projector_hidden_act: Option<String>,
    multimodal_projector_bias: Option<bool>,
}

impl LlavaConfig {
    /// Reads a `config.json` and checks that the model can be built.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Json`] with line and column, or [`ModelError::Config`] for a model that this crate cannot build.
    pub fn read(path: &Path) -> Result<Self> {
        let value: Value = read_json(path)?;
        Self::parse(value).map_err(|what| ModelError::Config { origin: path.display().to_string(), what })
    }

    /// The configuration that a JSON object describes. What it leaves out has the value of the classes in transformers.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn parse(mut value: Value) -> std::result::Result<Self, String> {
        let is_bare = value["text_config"].is_null() && !value["mm_vision_tower"].is_null();
        if is_bare || value["model_type"] == "llava_llama" {
            return Err("is that of the original LLaVA code; use the repository that was converted for transformers, \
                        `llava-hf/…` (llava-hf/llava-1.5-7b-hf for liuhaotian/llava-v1.5-7b)"
                .into());
        }
        token_ids(&value, "")?;
        not_quantised(&value)?;
        let text = match value["text_config"].take() {
            Value::Null => json!({}),
            text => text,
        };
        let vision = match value["vision_config"].take() {
            Value::Null => {
                json!({"hidden_size": 1024, "intermediate_size": 4096, "image_size": 336, "patch_size": 14,
                "num_hidden_layers": 24, "num_attention_heads": 16, "model_type": "clip_vision_model"})
            }
            mut vision => {
                if let Value::Object(fields) = &mut vision {
                    fields.entry("model_type").or_insert("clip_vision_model".into());
                }
                vision
            }
        };
        let fields: Fields = serde_json::from_value(value).map_err(|e| e.to_string())?;
        if let Some(strategy) = fields.vision_feature_select_strategy.filter(|s| s != "default") {
            return Err(format!(
                "vision_feature_select_strategy `{strategy:.40}` is not supported; `default` is, which leaves the class token out"
            ));
        }
        let vision_feature_layer = match fields.vision_feature_layer {
            Value::Null => -2,
            Value::Number(layer) if layer.is_i64() => layer.as_i64().unwrap_or_default(),
            other => {
                return Err(format!(
                    "vision_feature_layer {other:.40} is not supported; the features of one layer are, a whole number"
                ));
            }
        };
        let config = Self {
            vision: serde_json::from_value(vision).map_err(|e| format!("vision_config: {e}"))?,
            text: TextConfig::parse(text, "llama").map_err(|what| format!("text_config: {what}"))?,
            image_token: fields.image_token_index.or(fields.image_token_id).unwrap_or(32000),
            vision_feature_layer,
            projector_hidden_act: fields.projector_hidden_act.unwrap_or_else(|| "gelu".into()),
            multimodal_projector_bias: fields.multimodal_projector_bias.unwrap_or(true),
        };
        config.check()?;
        Ok(config)
    }

    /// The layers of the vision tower up to the one that the projector reads.
    pub fn n_vision_layers(&self) -> usize {
        let n = i64::try_from(self.vision.num_hidden_layers).unwrap_or(0);
        let layer = self.vision_feature_layer;
        usize::try_from(if layer < 0 { n + 1 + layer } else { layer }).unwrap_or(0)
    }

    /// Visual tokens of an image.
    pub fn n_visual_tokens(&self) -> usize {
        (self.vision.image_size / self.vision.patch_size).pow(2)
    }

    /// What makes the configuration impossible, if anything.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        self.text.check()?;
        if matches!(self.text, TextConfig::T5(_)) {
            return Err("text_config: a T5 is not supported in LLaVA; `llama` and `opt` are".into());
        }
        self.vision.check()?;
        if self.vision.kind() != Some(VisionKind::Clip) {
            return Err(format!(
                "vision_config.model_type `{:.60}` is not supported in LLaVA; `clip_vision_model` is",
                self.vision.model_type
            ));
        }
        activation("projector_hidden_act", &self.projector_hidden_act).map_err(|e| e.to_string())?;
        let (layer, n) = (self.vision_feature_layer, self.vision.num_hidden_layers as i64);
        if layer < -(n + 1) || layer > n {
            return Err(format!(
                "vision_feature_layer {layer} does not exist in a vision tower of {n} layers"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::LlavaConfig;
    use serde_json::{Value, json};

    /// The `config.json` of llava-1.5-7b as old files have it.
    fn sparse() -> Value {
        json!({"model_type": "llava", "image_token_index": 32000,
            "text_config": {"max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-5, "vocab_size": 32064},
            "vision_config": {"hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "model_type": "clip_vision_model",
                "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768}})
    }

    #[test]
    fn a_published_config_takes_the_defaults_of_the_classes() {
        let config = LlavaConfig::parse(sparse()).unwrap();
        assert_eq!(
            (config.n_vision_layers(), config.n_visual_tokens(), config.image_token),
            (23, 576, 32000)
        );
        assert_eq!((config.text.d_model(), config.vision.layer_norm_eps), (4096, 1e-5));
        assert_eq!(
            (config.projector_hidden_act.as_str(), config.vision.hidden_act.as_str()),
            ("gelu", "quick_gelu")
        );
        let bare = LlavaConfig::parse(json!({"model_type": "llava", "image_token_id": 7})).unwrap();
        assert_eq!((bare.n_vision_layers(), bare.n_visual_tokens(), bare.image_token), (23, 576, 7));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let refused = |key: &str, value: Value| {
            let mut config = sparse();
            config[key] = value;
            LlavaConfig::parse(config).unwrap_err()
        };
        assert!(refused("vision_feature_select_strategy", json!("full")).contains("`full` is not supported"));
        assert!(refused("vision_feature_layer", json!([-2, -5])).contains("vision_feature_layer [-2,-5]"));
        assert!(refused("vision_feature_layer", json!(-26)).contains("-26 does not exist"));
        assert!(
            refused("vision_config", json!({"model_type": "dinov2"}))
                .contains("`dinov2` is not supported in LLaVA")
        );
        assert!(refused("text_config", json!({"model_type": "t5"})).contains("T5"));
        let original = json!({"model_type": "llava", "mm_vision_tower": "openai/clip-vit-large-patch14-336", "hidden_size": 4096});
        assert!(LlavaConfig::parse(original).unwrap_err().contains("llava-hf/llava-1.5-7b-hf"));
        assert!(refused("projector_hidden_act", json!("swoosh")).contains("swoosh"));
    }

    #[test]
    fn every_layer_can_be_read() {
        let layers = |layer: i64| {
            let mut config = sparse();
            config["vision_feature_layer"] = json!(layer);
            LlavaConfig::parse(config).unwrap().n_vision_layers()
        };
        assert_eq!([-25, -1, 0, 5, 24].map(layers), [0, 24, 0, 5, 24]);
    }
}
