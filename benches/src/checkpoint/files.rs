//! The small files of a checkpoint: configurations, tokenizers, templates.

use super::kind::{Kind, Language, Scale, size};
use super::vocabulary::{Family, Vocabulary};
use anyhow::Result;
use serde_json::{Value, json};

/// The chat template of LLaVA-1.5.
const LLAVA_TEMPLATE: &str = "{% for message in messages %}{{ message['role'].upper() + ': ' }}{% for content in message['content'] \
    | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}{% for content in message['content'] | selectattr('type', \
    'equalto', 'text') %}{{ content['text'] + ' ' }}{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";

/// The tokenizer of the language model; none for a vision tower alone.
pub(crate) fn vocabulary(kind: Kind, scale: Scale, config: &Value) -> Result<Option<Vocabulary>> {
    let text = if kind.is_language_alone() { config } else { &config["text_config"] };
    let Some(language) = kind.language() else { return Ok(None) };
    let n = size(text, "vocab_size")?;
    let image = config["image_token_index"].as_u64().map(|id| id as u32);
    let mut named: Vec<(u32, String)> = image.map(|id| (id, "<image>".to_owned())).into_iter().collect();
    let family = match language {
        Language::T5 => {
            // The sentinels end at the published size of the tokenizer, which <image> follows where there is one.
            let end = image.unwrap_or(if scale == Scale::Full { 32100 } else { n as u32 });
            named.extend((0..100).map(|k| (end - 1 - k, format!("<extra_id_{k}>"))));
            Family::T5
        }
        Language::Opt => Family::Opt,
        Language::Llama if kind == Kind::SmolLm2_135m => Family::SmolLm2,
        Language::Llama => Family::Llama,
    };
    if kind == Kind::Llava1_5_7b {
        named.extend(image.map(|id| (id + 1, "<pad>".to_owned())));
    }
    let named: Vec<(u32, &str)> = named.iter().map(|(id, name)| (*id, name.as_str())).collect();
    let mut vocabulary = Vocabulary::new(family, n, &named)?;
    if language == Language::Opt {
        // An answer ends with its line.
        vocabulary.place("\u{10a}", size(text, "eos_token_id")? as u32);
    }
    debug_assert!(scale == Scale::Tiny || n > 30_000);
    Ok(Some(vocabulary))
}

/// Names and contents of the small files.
pub(crate) fn files(
    kind: Kind,
    config: &Value,
    vocabulary: Option<&Vocabulary>,
) -> Result<Vec<(String, String)>> {
    let mut files = vec![("config.json".to_owned(), pretty(config)?)];
    if let Some(image) = image_processor(kind, config) {
        files.push(("preprocessor_config.json".into(), pretty(&image)?));
    }
    if let Some(vocabulary) = vocabulary {
        files.push(("generation_config.json".into(), pretty(&generation(kind, config))?));
        files.push(("tokenizer.json".into(), vocabulary.tokenizer_json().to_string()));
        files.push(("tokenizer_config.json".into(), pretty(&tokenizer_config(vocabulary.family, kind))?));
    }
    if kind == Kind::Llava1_5_7b {
        files.push(("chat_template.json".into(), pretty(&json!({ "chat_template": LLAVA_TEMPLATE }))?));
    }
    if kind.is_instructblip() {
        let n = size(&config["qformer_config"], "vocab_size")?;
        let bert = Vocabulary::new(Family::Bert, n, &[(n as u32 - 1, "[DEC]")])?;
        files.push(("qformer_tokenizer/tokenizer.json".into(), bert.tokenizer_json().to_string()));
        files.push((
            "qformer_tokenizer/tokenizer_config.json".into(),
            pretty(&tokenizer_config(Family::Bert, kind))?,
        ));
    }
    Ok(files)
}

fn pretty(value: &Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn generation(kind: Kind, config: &Value) -> Value {
    let ids = |pad: Value, bos: Value, eos: Value| json!({ "pad_token_id": pad, "bos_token_id": bos, "eos_token_id": eos });
    let text = if kind.is_language_alone() { config } else { &config["text_config"] };
    match kind.language() {
        Some(Language::T5) => {
            let mut of_t5 = ids(json!(0), json!(1), json!(1));
            of_t5["decoder_start_token_id"] = json!(0);
            of_t5
        }
        Some(Language::Llama) if kind == Kind::Llava1_5_7b => {
            ids(config["pad_token_id"].clone(), json!(1), json!(2))
        }
        _ => ids(text["pad_token_id"].clone(), text["bos_token_id"].clone(), text["eos_token_id"].clone()),
    }
}

fn tokenizer_config(family: Family, kind: Kind) -> Value {
    let (bos, eos, pad, unk) = match family {
        Family::T5 => (Value::Null, json!("</s>"), json!("<pad>"), json!("<unk>")),
        Family::Llama if kind == Kind::Llava1_5_7b => {
            (json!("<s>"), json!("</s>"), json!("<pad>"), json!("<unk>"))
        }
        Family::Llama => (json!("<s>"), json!("</s>"), json!("<unk>"), json!("<unk>")),
        Family::Opt => (json!("</s>"), json!("</s>"), json!("<pad>"), json!("</s>")),
        Family::SmolLm2 => {
            (json!("<|im_start|>"), json!("<|im_end|>"), json!("<|im_end|>"), json!("<|endoftext|>"))
        }
        Family::Bert => (Value::Null, Value::Null, json!("[PAD]"), json!("[UNK]")),
    };
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false, "model_max_length": 2048,
        "pad_token": pad, "unk_token": unk,
    });
    for (key, token) in [("bos_token", bos), ("eos_token", eos)] {
        if !token.is_null() {
            config[key] = token;
        }
    }
    if family == Family::Bert {
        (config["cls_token"], config["sep_token"], config["mask_token"]) =
            (json!("[CLS]"), json!("[SEP]"), json!("[MASK]"));
    }
    config
}

/// `preprocessor_config.json`, as the published one.
fn image_processor(kind: Kind, config: &Value) -> Option<Value> {
    let common = |class: &str| {
        json!({
            "image_processor_type": class, "do_resize": true, "resample": 3, "do_rescale": true, "rescale_factor": 1.0 / 255.0,
            "do_normalize": true, "do_convert_rgb": true,
        })
    };
    let clip = [json!([0.48145466, 0.4578275, 0.40821073]), json!([0.26862954, 0.26130258, 0.27577711])];
    let image_net = [json!([0.485, 0.456, 0.406]), json!([0.229, 0.224, 0.225])];
    let side = &config["vision_config"]["image_size"];
    let (mut processor, [mean, std]) = if kind.is_blip() {
        let mut processor = common("BlipImageProcessor");
        processor["size"] = json!({ "height": side, "width": side });
        (processor, clip)
    } else {
        let (class, edge, crop, of) = match kind {
            Kind::Llava1_5_7b => ("CLIPImageProcessor", side.clone(), side.clone(), clip),
            Kind::Dinov2Small => ("BitImageProcessor", json!(256), json!(224), image_net),
            _ => return None,
        };
        let mut processor = common(class);
        processor["size"] = json!({ "shortest_edge": edge });
        processor["do_center_crop"] = json!(true);
        processor["crop_size"] = json!({ "height": crop, "width": crop });
        (processor, of)
    };
    (processor["image_mean"], processor["image_std"]) = (mean, std);
    if kind == Kind::Llava1_5_7b {
        processor["processor_class"] = json!("LlavaProcessor");
    }
    Some(processor)
}
