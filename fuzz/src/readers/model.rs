//! What a model directory holds: weights, configurations, tokenizers.

use crate::folder::Folder;
use crate::reader::{Reader, Seed};
use anyhow::{Context, Result};
use candle_core::Device;
use fwd_data::{ChatTemplate, ImageProcessor, RgbImage, TextTokenizer};
use fwd_models::{Checkpoint, WeightDtype, WeightFile, Weights};
use fwd_ops::Weight;
use serde_json::{Map, Value, json};
use std::path::Path;

const SETS: &str = "crates/fwd-models/tests/fixtures/sets";
const MODEL: &str = "model.safetensors";
const SHARD: &str = "model-00001-of-00001.safetensors";

/// `model.safetensors`, and shards with their index.
pub(crate) fn weights(folder: &Path) -> Result<Reader> {
    let set = format!("{SETS}/instructblip-tiny");
    let weights = Seed::copy(&format!("single/{MODEL}"), &format!("{set}/{MODEL}"))?;
    let (length, rest) = weights.bytes.split_first_chunk().context("a header")?;
    let header: Map<String, Value> = serde_json::from_slice(&rest[..u64::from_le_bytes(*length) as usize])?;
    let names = header.keys().filter(|name| *name != "__metadata__");
    let index =
        json!({ "weight_map": names.map(|name| (name.clone(), SHARD.into())).collect::<Map<_, _>>() });
    let seeds = vec![
        Seed::new(format!("sharded/{SHARD}"), weights.bytes.clone()),
        Seed::new(format!("sharded/{MODEL}.index.json"), index.to_string()),
        weights,
    ];
    let mut intact = seeds.clone();
    for place in ["single", "sharded"] {
        for name in ["config.json", "generation_config.json"] {
            intact.push(Seed::copy(&format!("{place}/{name}"), &format!("{set}/{name}"))?);
        }
    }
    model(folder, seeds, &intact)
}

/// A GGUF file: its header, the configuration that it stands for, and all its tensors, as matrices and as vectors.
pub(crate) fn gguf(folder: &Path) -> Result<Reader> {
    let seeds = vec![Seed::copy("model.gguf", &format!("{SETS}/gguf-llama-tiny/model.gguf"))?];
    let mut folder = Folder::new(folder, &seeds)?;
    Ok(Reader::new(seeds, move |input| {
        let path = folder.damage(input)?;
        let file = WeightFile::open(&path)?;
        // A file may be refused for its vocabulary alone.
        let _ = file.tokenizer();
        let config = file.config()?.context("a configuration")?;
        let size = |key: &str| config[key].as_u64().unwrap_or(0) as usize;
        let (d, hidden) = (size("hidden_size"), size("intermediate_size"));
        let heads = |key: &str| size(key).saturating_mul(size("head_dim"));
        let (queries, keys) = (heads("num_attention_heads"), heads("num_key_value_heads"));
        let mut checkpoint = Checkpoint::open_file(&path, WeightDtype::F32, &Device::Cpu)?;
        let mut matrix = |name: &str, shape: [usize; 2]| -> Result<()> {
            if let Weight::Matrix(matrix) = checkpoint.weight(name, shape)? {
                // Zeros in the place of a tensor that is missing have the size that the configuration says.
                if matrix.n_bytes() as u64 <= file.n_bytes() {
                    matrix.values()?;
                }
            }
            checkpoint.get(name, &[shape[0]])?;
            Ok(())
        };
        matrix("model.embed_tokens.weight", [size("vocab_size"), d])?;
        matrix("model.norm.weight", [d, 1])?;
        for layer in 0..size("num_hidden_layers").min(4) {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            matrix(&name("self_attn.q_proj"), [queries, d])?;
            matrix(&name("self_attn.k_proj"), [keys, d])?;
            matrix(&name("self_attn.v_proj"), [keys, d])?;
            matrix(&name("mlp.down_proj"), [d, hidden])?;
            matrix(&name("input_layernorm"), [d, 1])?;
        }
        Ok(())
    }))
}

/// `config.json` and `generation_config.json` beside the right weights.
pub(crate) fn config(folder: &Path) -> Result<Reader> {
    let (mut seeds, mut intact) = (Vec::new(), Vec::new());
    for set in ["instructblip-tiny", "blip2-tiny", "llava-tiny", "blip2-opt-tiny", "instructblip-vicuna-tiny"]
    {
        for name in ["config.json", "generation_config.json"] {
            seeds.push(Seed::copy(&format!("{set}/{name}"), &format!("{SETS}/{set}/{name}"))?);
        }
        intact.push(Seed::copy(&format!("{set}/{MODEL}"), &format!("{SETS}/{set}/{MODEL}"))?);
    }
    intact.extend(seeds.iter().cloned());
    model(folder, seeds, &intact)
}

fn model(folder: &Path, seeds: Vec<Seed>, intact: &[Seed]) -> Result<Reader> {
    let mut folder = Folder::new(folder, intact)?;
    Ok(Reader::new(seeds, move |input| {
        let path = folder.damage(input)?;
        fwd_models::load(path.parent().context("a folder")?, WeightDtype::F32, &Device::Cpu)?;
        Ok(())
    }))
}

/// `tokenizer.json` of all kinds, and for BPE the file beside it that names special tokens.
pub(crate) fn tokenizer(folder: &Path) -> Result<Reader> {
    const FILE: &str = "tokenizer.json";
    const FILES: [(&str, &str); 6] = [
        ("bert_wordpiece", FILE),
        ("t5_unigram", FILE),
        ("llama_bpe", FILE),
        ("llama_bpe", "tokenizer_config.json"),
        ("opt_bpe", FILE),
        ("opt_bpe", "tokenizer_config.json"),
    ];
    let copy = |(kind, file)| {
        Seed::copy(
            &format!("{kind}/{file}"),
            &format!("crates/fwd-data/tests/fixtures/tokenizers/{kind}/{file}"),
        )
    };
    let seeds: Vec<Seed> = FILES.into_iter().map(copy).collect::<Result<_>>()?;
    let mut folder = Folder::new(folder, &seeds)?;
    Ok(Reader::new(seeds, move |input| {
        let tokenizer = TextTokenizer::open(&folder.damage(input)?.with_file_name(FILE))?;
        for text in ["What colour is the dog's <image> 2 é?", "", " \u{0}\u{fffd}日本 🙂"] {
            let ids = tokenizer.encode(text)?;
            tokenizer.decode(&ids)?;
            tokenizer.encode_prompt(&format!("<s>{text}"))?;
        }
        tokenizer.encode_batch(&["one", "one two three"])?;
        tokenizer.decode(&[0, 1, 5, 1000, u32::MAX])?;
        Ok(())
    }))
}

/// The chat template of a model, in each of its files, and the prompts that it writes.
pub(crate) fn chat_template(folder: &Path) -> Result<Reader> {
    let cases = Seed::copy("", "crates/fwd-data/tests/fixtures/chat_templates.json")?;
    let cases: Vec<Value> = serde_json::from_slice(&cases.bytes)?;
    let names = json!({ "bos_token": "<s>", "eos_token": "</s>" });
    let mut seeds = Vec::new();
    // Every template is there with two questions.
    for (i, case) in cases.iter().step_by(2).enumerate() {
        let template = &case["template"];
        let text = template.as_str().context("a template")?;
        seeds.push(Seed::new(format!("jinja-{i}/chat_template.jinja"), text));
        seeds.push(Seed::new(format!("jinja-{i}/tokenizer_config.json"), names.to_string()));
        let json = json!({ "chat_template": template });
        seeds.push(Seed::new(format!("json-{i}/chat_template.json"), json.to_string()));
        seeds.push(Seed::new(format!("json-{i}/tokenizer_config.json"), names.to_string()));
        let mut named = names.clone();
        named["chat_template"] = json!([{ "name": "default", "template": template }]);
        seeds.push(Seed::new(format!("named-{i}/tokenizer_config.json"), named.to_string()));
    }
    let mut folder = Folder::new(folder, &seeds)?;
    Ok(Reader::new(seeds, move |input| {
        let path = folder.damage(input)?;
        let template = ChatTemplate::open(path.parent().context("a folder")?)?.context("a template")?;
        // A template may be made for one of the two only.
        let rendered = [true, false].map(|with_image| template.render("What is it? {{ 1 }}", with_image));
        rendered.into_iter().find(Result::is_ok).unwrap_or_else(|| template.render("", false))?;
        Ok(())
    }))
}

/// `preprocessor_config.json`, and the processing that it describes.
pub(crate) fn processor(folder: &Path) -> Result<Reader> {
    let from = "crates/fwd-data/tests/fixtures/images/preprocessor_config.json";
    let seeds = vec![
        Seed::copy("a/preprocessor_config.json", from)?,
        Seed::copy("b/preprocessor_config.json", "assets/mini/preprocessor_config.json")?,
        Seed::copy(
            "c/preprocessor_config.json",
            "crates/fwd-data/tests/fixtures/crops/clip/preprocessor_config.json",
        )?,
    ];
    let mut folder = Folder::new(folder, &seeds)?;
    let image = RgbImage::new(5, 3, vec![77; 45])?;
    Ok(Reader::new(seeds, move |input| {
        let path = folder.damage(input)?;
        let processor = ImageProcessor::open(path.parent().context("a folder")?)?;
        processor.process(&image);
        Ok(())
    }))
}
