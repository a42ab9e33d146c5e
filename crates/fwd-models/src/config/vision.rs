//! `vision_config`: the vision tower.

use super::field::{LAYERS, LENGTH, WIDTH, activation, at_most, divides, epsilon, not_zero};
use serde::Deserialize;

/// The vision towers, as `model_type` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VisionKind {
    /// The EVA-style transformer of BLIP-2 and InstructBLIP (`blip_2_vision_model`, `instructblip_vision_model`).
    Eva,
    /// The transformer of CLIP (`clip_vision_model`), which LLaVA has.
    Clip,
    /// DINOv2 (`dinov2`).
    DinoV2,
    /// EfficientNet-Lite0 (`efficientnet_lite0`), of whose configuration width, image size and epsilon alone matter.
    Lite0,
}

/// The vision tower. What a file leaves out has the default of the Hugging Face class that `model_type` names.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Fields")]
pub struct VisionConfig {
    /// Which network it is; [`Self::kind`] reads it.
    pub model_type: String,
    /// Width of the tokens that the bridge reads.
    pub hidden_size: usize,
    /// Width of the hidden layer of a feed-forward sublayer. DINOv2 gives it as a multiple of its width.
    pub intermediate_size: usize,
    /// Blocks of attention and feed-forward.
    pub num_hidden_layers: usize,
    /// Heads of every attention; they share `hidden_size` evenly.
    pub num_attention_heads: usize,
    /// Side of the square input image in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Activation of the feed-forward layers by its Hugging Face name (`gelu`, `gelu_new`, `quick_gelu`, `relu` …).
    pub hidden_act: String,
    /// ε under the root of every layer norm.
    pub layer_norm_eps: f64,
    /// Whether the projections to query, key and value have a bias (EVA, DINOv2).
    pub qkv_bias: bool,
    /// Whether the feed-forward layers have a gate, `silu(W₁x)∘W₂x` (DINOv2 giant).
    pub use_swiglu_ffn: bool,
    /// After how many layers the tokens are read that the bridge sees; each of these states goes through the final norm, and their
    /// channels stand one behind the other, as in `Dinov2Backbone`. The last layer alone unless a DINOv2 says otherwise.
    pub out_indices: Vec<usize>,
    /// The width of the bridge's tokens where a trained neck makes them of those of a DINOv2 (ours; no published model has it).
    pub neck_width: Option<usize>,
}

/// The fields as a file has them.
#[derive(Deserialize, Default)]
struct Fields {
    model_type: Option<String>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    mlp_ratio: Option<f64>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    image_size: Option<usize>,
    patch_size: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    qkv_bias: Option<bool>,
    use_swiglu_ffn: Option<bool>,
    out_indices: Option<Vec<usize>>,
    neck_width: Option<usize>,
}

impl Default for VisionConfig {
    fn default() -> Self {
        Fields::default().into()
    }
}

impl From<Fields> for VisionConfig {
    fn from(fields: Fields) -> Self {
        let model_type = fields.model_type.unwrap_or_else(|| "instructblip_vision_model".into());
        let kind = kind(&model_type);
        let is_eva = !matches!(kind, Some(VisionKind::Clip | VisionKind::DinoV2));
        let hidden_size = fields.hidden_size.unwrap_or(if is_eva { 1408 } else { 768 });
        let use_swiglu_ffn = fields.use_swiglu_ffn.unwrap_or(false) && kind == Some(VisionKind::DinoV2);
        let default_intermediate = match kind {
            Some(VisionKind::Clip) => 3072,
            Some(VisionKind::DinoV2) => {
                dinov2_intermediate(hidden_size, fields.mlp_ratio.unwrap_or(4.0), use_swiglu_ffn)
            }
            _ => 6144,
        };
        let (default_act, default_eps, default_patch) = match kind {
            Some(VisionKind::Clip) => ("quick_gelu", 1e-5, 32),
            _ => ("gelu", 1e-6, 14),
        };
        let num_hidden_layers = fields.num_hidden_layers.unwrap_or(if is_eva { 39 } else { 12 });
        let out_indices = fields.out_indices.filter(|_| kind == Some(VisionKind::DinoV2));
        Self {
            hidden_size,
            out_indices: out_indices.unwrap_or_else(|| vec![num_hidden_layers]),
            neck_width: fields.neck_width,
            intermediate_size: fields.intermediate_size.unwrap_or(default_intermediate),
            num_hidden_layers,
            num_attention_heads: fields.num_attention_heads.unwrap_or(if is_eva { 16 } else { 12 }),
            image_size: fields.image_size.unwrap_or(224),
            patch_size: fields.patch_size.unwrap_or(default_patch),
            hidden_act: fields.hidden_act.unwrap_or_else(|| default_act.into()),
            layer_norm_eps: fields.layer_norm_eps.unwrap_or(default_eps),
            qkv_bias: fields.qkv_bias.unwrap_or(true),
            use_swiglu_ffn,
            model_type,
        }
    }
}

/// The hidden width of DINOv2: `d·ratio`, and with a gate two thirds of it, rounded up to a multiple of 8.
fn dinov2_intermediate(d: usize, ratio: f64, is_gated: bool) -> usize {
    let wide = (d as f64 * ratio) as usize;
    if is_gated { ((wide as f64 * 2.0 / 3.0) as usize).saturating_add(7) / 8 * 8 } else { wide }
}

fn kind(model_type: &str) -> Option<VisionKind> {
    Some(match model_type {
        "blip_2_vision_model" | "instructblip_vision_model" => VisionKind::Eva,
        "clip_vision_model" => VisionKind::Clip,
        "dinov2" => VisionKind::DinoV2,
        "efficientnet_lite0" => VisionKind::Lite0,
        _ => return None,
    })
}

impl VisionConfig {
    /// Which tower `model_type` names; none if it is not one of those.
    pub fn kind(&self) -> Option<VisionKind> {
        kind(&self.model_type)
    }

    /// What makes the tower impossible, if anything.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        if self.kind().is_none() {
            return Err(format!(
                "vision_config.model_type `{:.60}` is not supported; blip_2_vision_model, instructblip_vision_model, \
                 clip_vision_model, dinov2 and efficientnet_lite0 are",
                self.model_type
            ));
        }
        not_zero(&[
            ("vision_config.patch_size", self.patch_size),
            ("vision_config.hidden_size", self.hidden_size),
            ("vision_config.num_attention_heads", self.num_attention_heads),
        ])?;
        at_most(&[
            ("vision_config.num_hidden_layers", self.num_hidden_layers, LAYERS),
            ("vision_config.image_size", self.image_size, LENGTH),
            ("vision_config.hidden_size", self.hidden_size, WIDTH),
            ("vision_config.intermediate_size", self.intermediate_size, WIDTH),
        ])?;
        epsilon("vision_config.layer_norm_eps", self.layer_norm_eps)?;
        activation("vision_config", &self.hidden_act).map_err(|e| e.to_string())?;
        if self.image_size < self.patch_size {
            let what = (self.image_size, self.patch_size);
            return Err(format!("image_size {} is smaller than patch_size {}", what.0, what.1));
        }
        let in_order = self.out_indices.windows(2).all(|pair| pair[0] < pair[1]);
        let is_readable =
            in_order && self.out_indices.last().is_some_and(|&last| last <= self.num_hidden_layers);
        if self.kind() == Some(VisionKind::DinoV2) && !is_readable {
            return Err(format!(
                "vision_config.out_indices {:?} must be layers in order, up to {}",
                self.out_indices, self.num_hidden_layers
            ));
        }
        if let Some(width) = self.neck_width {
            not_zero(&[("vision_config.neck_width", width)])?;
            at_most(&[("vision_config.neck_width", width, WIDTH)])?;
            if self.kind() != Some(VisionKind::DinoV2) {
                return Err(format!(
                    "vision_config.neck_width goes with dinov2 and not with {}",
                    self.model_type
                ));
            }
        }
        divides("vision_config", self.hidden_size, self.num_attention_heads)
    }
}

#[cfg(test)]
mod tests {
    use super::{VisionConfig, VisionKind};

    fn config(text: &str) -> VisionConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_left_out_has_the_default_of_its_class() {
        let clip =
            config(r#"{"model_type": "clip_vision_model", "hidden_size": 1024, "num_attention_heads": 16}"#);
        assert_eq!(clip.kind(), Some(VisionKind::Clip));
        assert_eq!(
            (clip.hidden_act.as_str(), clip.layer_norm_eps, clip.patch_size),
            ("quick_gelu", 1e-5, 32)
        );
        assert_eq!((clip.intermediate_size, clip.num_hidden_layers), (3072, 12));
        let dino = config(
            r#"{"model_type": "dinov2", "hidden_size": 384, "num_attention_heads": 6, "mlp_ratio": 4}"#,
        );
        assert_eq!((dino.intermediate_size, dino.patch_size, dino.layer_norm_eps), (1536, 14, 1e-6));
        // The giant: int(1536·4·2/3) = 4096.
        let giant = config(r#"{"model_type": "dinov2", "hidden_size": 1536, "use_swiglu_ffn": true}"#);
        assert_eq!(giant.intermediate_size, 4096);
        assert_eq!(config("{}").num_hidden_layers, 39);
    }

    #[test]
    fn a_dinov2_may_be_read_after_several_layers_and_have_a_neck() {
        let small = |more: &str| {
            let size =
                r#""model_type": "dinov2", "hidden_size": 384, "num_attention_heads": 6, "image_size": 112"#;
            config(&format!("{{{size}{more}}}"))
        };
        let both = small(r#", "out_indices": [6, 12], "neck_width": 128"#);
        assert_eq!(both.check(), Ok(()));
        assert_eq!((both.feature_shape(), both.token_width(), both.query_width()), ((65, 768), 128, 384));
        assert_eq!((small("").feature_shape(), small("").token_width()), ((65, 384), 384));
        for refused in [r#", "out_indices": [12, 6]"#, r#", "out_indices": [13]"#, r#", "out_indices": []"#] {
            assert!(small(refused).check().unwrap_err().contains("out_indices"));
        }
        let neck = config(r#"{"neck_width": 128}"#).check().unwrap_err();
        assert!(neck.contains("neck_width goes with dinov2"), "{neck}");
    }

    #[test]
    fn an_unknown_tower_is_named() {
        let error = config(r#"{"model_type": "siglip_vision_model"}"#).check().unwrap_err();
        assert!(error.contains("`siglip_vision_model` is not supported"), "{error}");
    }
}
