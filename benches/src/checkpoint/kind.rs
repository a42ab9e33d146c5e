//! The published shapes, as the `config.json` of transformers 4.57 describes them, and a small variant of each.

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

/// A checkpoint of the Hugging Face Hub whose shape is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Salesforce/instructblip-flan-t5-xl.
    #[value(name = "instructblip-flan-t5-xl")]
    InstructBlipFlanT5Xl,
    /// Salesforce/instructblip-vicuna-7b.
    #[value(name = "instructblip-vicuna-7b")]
    InstructBlipVicuna7b,
    /// Salesforce/blip2-flan-t5-xl.
    #[value(name = "blip2-flan-t5-xl")]
    Blip2FlanT5Xl,
    /// Salesforce/blip2-opt-2.7b.
    #[value(name = "blip2-opt-2.7b")]
    Blip2Opt2_7b,
    /// llava-hf/llava-1.5-7b-hf.
    #[value(name = "llava-1.5-7b")]
    Llava1_5_7b,
    /// HuggingFaceTB/SmolLM2-135M-Instruct, a language model alone.
    #[value(name = "smollm2-135m", alias = "SmolLM2-135M")]
    SmolLm2_135m,
    /// google/flan-t5-base, a language model alone.
    #[value(name = "flan-t5-base")]
    FlanT5Base,
    /// facebook/dinov2-small, a vision tower alone.
    #[value(name = "dinov2-small")]
    Dinov2Small,
}

/// How large the model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scale {
    /// As published.
    Full,
    /// The same architecture with two layers and narrow ones, for tests.
    Tiny,
}

/// The language model within a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    T5,
    Llama,
    Opt,
}

impl Kind {
    /// Its language model, if it has one.
    pub(crate) fn language(self) -> Option<Language> {
        match self {
            Self::InstructBlipFlanT5Xl | Self::Blip2FlanT5Xl | Self::FlanT5Base => Some(Language::T5),
            Self::InstructBlipVicuna7b | Self::Llava1_5_7b | Self::SmolLm2_135m => Some(Language::Llama),
            Self::Blip2Opt2_7b => Some(Language::Opt),
            Self::Dinov2Small => None,
        }
    }

    /// Whether the configuration is that of a language model, without one around it.
    pub(crate) fn is_language_alone(self) -> bool {
        matches!(self, Self::SmolLm2_135m | Self::FlanT5Base)
    }

    pub(crate) fn is_instructblip(self) -> bool {
        matches!(self, Self::InstructBlipFlanT5Xl | Self::InstructBlipVicuna7b)
    }

    pub(crate) fn is_blip(self) -> bool {
        self.is_instructblip() || matches!(self, Self::Blip2FlanT5Xl | Self::Blip2Opt2_7b)
    }

    /// What `config.json` says.
    pub(crate) fn config(self, scale: Scale) -> Value {
        let mut config = match self {
            Self::Llava1_5_7b => llava(scale),
            Self::SmolLm2_135m => smollm2(scale),
            Self::FlanT5Base => flan_t5_base(scale),
            Self::Dinov2Small => dinov2(scale),
            _ => blip(self, scale),
        };
        config["transformers_version"] = json!("4.57.3");
        config["torch_dtype"] = json!("float32");
        config
    }
}

/// A whole number of a configuration.
pub(crate) fn size(config: &Value, key: &str) -> Result<usize> {
    match config[key].as_u64() {
        Some(size) => Ok(size as usize),
        None => bail!("the configuration has no whole number `{key}`"),
    }
}

/// Takes the sizes of the tiny variant over.
fn scaled(mut config: Value, scale: Scale, tiny: Value) -> Value {
    if let (Scale::Tiny, Value::Object(sizes)) = (scale, tiny) {
        sizes.into_iter().for_each(|(key, size)| config[key] = size);
    }
    config
}

/// The configuration of FlanT5-xl.
fn t5(scale: Scale) -> Value {
    let config = json!({
        "model_type": "t5", "d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24, "num_decoder_layers": 24, "num_heads": 32,
        "vocab_size": 32128, "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "dropout_rate": 0.1,
        "layer_norm_epsilon": 1e-6, "feed_forward_proj": "gated-gelu", "is_encoder_decoder": true, "tie_word_embeddings": false,
        "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1, "decoder_start_token_id": 0
    });
    let tiny = json!({
        "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4, "vocab_size": 640
    });
    scaled(config, scale, tiny)
}

fn flan_t5_base(scale: Scale) -> Value {
    let mut config = t5(scale);
    config["architectures"] = json!(["T5ForConditionalGeneration"]);
    if scale == Scale::Full {
        let sizes = [
            ("d_model", 768),
            ("d_ff", 2048),
            ("num_layers", 12),
            ("num_decoder_layers", 12),
            ("num_heads", 12),
        ];
        sizes.into_iter().for_each(|(key, size)| config[key] = json!(size));
    }
    config
}

/// Sizes of LLaMA-7B.
fn llama(scale: Scale) -> Value {
    let config = json!({
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "rope_scaling": null, "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": false, "vocab_size": 32001
    });
    let tiny = json!({
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
        "vocab_size": 641
    });
    scaled(config, scale, tiny)
}

fn opt(scale: Scale) -> Value {
    let config = json!({
        "model_type": "opt", "hidden_size": 2560, "ffn_dim": 10240, "num_hidden_layers": 32, "num_attention_heads": 32,
        "word_embed_proj_dim": 2560, "max_position_embeddings": 2048, "activation_function": "relu", "do_layer_norm_before": true,
        "enable_bias": true, "layer_norm_elementwise_affine": true, "_remove_final_layer_norm": false, "vocab_size": 50304,
        "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 50118, "tie_word_embeddings": true
    });
    let tiny = json!({
        "hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 64,
        "max_position_embeddings": 256, "vocab_size": 704, "eos_token_id": 600
    });
    scaled(config, scale, tiny)
}

/// The index of the first token behind those of the published tokenizer: the one of an image.
fn image_token(kind: Kind, scale: Scale) -> u32 {
    match (kind.language(), scale) {
        (Some(Language::T5), Scale::Full) => 32100,
        (Some(Language::Opt), Scale::Full) => 50265,
        (_, Scale::Full) => 32000,
        (Some(Language::Opt), Scale::Tiny) => 650,
        (Some(Language::T5), Scale::Tiny) => 620,
        (_, Scale::Tiny) => 640,
    }
}

fn blip(kind: Kind, scale: Scale) -> Value {
    let instructed = kind.is_instructblip();
    let text = match kind.language() {
        Some(Language::Opt) => opt(scale),
        Some(Language::Llama) => {
            // As published: the ids of LLaMA 1's first conversion, which are not the tokenizer's (0, 1 and 2).
            let mut text = llama(scale);
            (text["pad_token_id"], text["bos_token_id"], text["eos_token_id"]) =
                (json!(-1), json!(0), json!(1));
            text
        }
        _ => t5(scale),
    };
    let vision = json!({
        "model_type": if instructed { "instructblip_vision_model" } else { "blip_2_vision_model" },
        "hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16, "image_size": 224,
        "patch_size": 14, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "qkv_bias": true
    });
    let tiny_vision = json!({
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 56
    });
    let vision = scaled(vision, scale, tiny_vision);
    let qformer = json!({
        "model_type": if instructed { "instructblip_qformer" } else { "blip_2_qformer" },
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "encoder_hidden_size": vision["hidden_size"], "cross_attention_frequency": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512, "vocab_size": if instructed { 30523 } else { 30522 }, "pad_token_id": 0
    });
    let tiny_qformer = json!({
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
        "vocab_size": 300
    });
    json!({
        "architectures": [if instructed { "InstructBlipForConditionalGeneration" } else { "Blip2ForConditionalGeneration" }],
        "model_type": if instructed { "instructblip" } else { "blip-2" },
        "num_query_tokens": if scale == Scale::Full { 32 } else { 4 },
        "image_token_index": image_token(kind, scale),
        "use_decoder_only_language_model": kind.language() != Some(Language::T5),
        "vision_config": vision,
        "qformer_config": scaled(qformer, scale, tiny_qformer),
        "text_config": text,
    })
}

fn llava(scale: Scale) -> Value {
    let mut text = llama(scale);
    text["rms_norm_eps"] = json!(1e-5);
    text["max_position_embeddings"] = json!(4096);
    text["vocab_size"] = json!(if scale == Scale::Full { 32064 } else { 704 });
    let vision = json!({
        "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "image_size": 336, "patch_size": 14, "projection_dim": 768, "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5
    });
    let tiny = json!({
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 56
    });
    json!({
        "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava",
        "image_seq_length": if scale == Scale::Full { 576 } else { 16 },
        "image_token_index": image_token(Kind::Llava1_5_7b, scale),
        "pad_token_id": image_token(Kind::Llava1_5_7b, scale) + 1,
        "projector_hidden_act": "gelu", "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
        "multimodal_projector_bias": true, "tie_word_embeddings": false,
        "text_config": text,
        "vision_config": scaled(vision, scale, tiny),
    })
}

fn smollm2(scale: Scale) -> Value {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_act": "silu",
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100_000.0, "rope_scaling": null, "attention_bias": false,
        "mlp_bias": false, "tie_word_embeddings": true, "vocab_size": 49152, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2
    });
    let tiny = json!({
        "hidden_size": 96, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
        "max_position_embeddings": 256, "vocab_size": 640
    });
    scaled(config, scale, tiny)
}

fn dinov2(scale: Scale) -> Value {
    let config = json!({
        "architectures": ["Dinov2Model"], "model_type": "dinov2", "hidden_size": 384, "num_hidden_layers": 12,
        "num_attention_heads": 6, "mlp_ratio": 4, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "image_size": 518, "patch_size": 14,
        "num_channels": 3, "qkv_bias": true, "layerscale_value": 1.0, "use_swiglu_ffn": false, "use_mask_token": true
    });
    let tiny =
        json!({ "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 56 });
    scaled(config, scale, tiny)
}
