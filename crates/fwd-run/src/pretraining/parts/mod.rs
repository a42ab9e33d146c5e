//! A model directory of three pre-trained models: DINOv2 as the vision tower, the first layers of a BERT as the text side of a Q-Former, and a
//! LLaMA in a GGUF file as the language model. What lies between them (neck, queries, cross-attention, the queries' feed-forward layers,
//! projection) is missing there: [`pretrain`](super::pretrain) trains it.

mod onnx;

use super::paths::ModelPaths;
use crate::files::{read, read_json, write_atomically, write_atomically_with, write_json};
use anyhow::{Context, Result, anyhow, bail, ensure};
use candle_core::{Device, Tensor};
use fwd_data::TextTokenizer;
use fwd_models::{ModelConfig, WeightFile, interpolated_positions};
use onnx::Graph;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the three models lie.
#[derive(Debug, Clone)]
pub struct Parts {
    /// An ONNX file with a DINOv2 of transformers as its `backbone`.
    pub vision: PathBuf,
    /// The folder of a BERT: `model.safetensors`, `config.json`, `tokenizer.json`.
    pub text: PathBuf,
    /// A GGUF file of a LLaMA with a byte-level vocabulary.
    pub language: PathBuf,
}

/// Shape and elements.
type Array = (Vec<usize>, Vec<f32>);
type Arrays = BTreeMap<String, Array>;

/// Side of the images in pixels: 8 × 8 patches.
const IMAGE_SIZE: usize = 112;
const PATCH: usize = 14;
/// Layers of the BERT that become layers of the Q-Former.
const QFORMER_LAYERS: usize = 3;
const QUERIES: usize = 16;

/// A conversation in the format of models with the token `<|im_start|>`, without SmolLM2's default system message, which costs 20 tokens in front of every picture.
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + \
    '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// What [`CHAT_TEMPLATE`] writes in front of an instruction, and so of the image.
const TURN: &str = "<|im_start|>user\n";

/// Writes the directory `out`, which must not have a model yet.
///
/// # Errors
/// A file that is missing or damaged, or of another kind, with what is missing in it.
pub fn assemble(parts: &Parts, out: &Path) -> Result<()> {
    check_new(out)?;
    let paths = ModelPaths::new(out);
    let Parts { vision, text: bert, language } = parts;
    let of_vision = || vision.display().to_string();
    let tower = dinov2(&onnx::read(&read(vision)?).with_context(of_vision)?).with_context(of_vision)?;
    let norm = tower.get("vision_model.layernorm.weight");
    let width = norm.with_context(|| format!("{}: no DINOv2 is its backbone", of_vision()))?.1.len();
    let is_norm = |name: &&String| name.ends_with(".norm1.weight");
    let n_layers = tower.keys().filter(is_norm).count();
    // The middle layer knows colors and numbers, the last one kinds.
    let read_layers = [n_layers / 2, n_layers];
    let text = qformer(&bert.join("model.safetensors"))?;
    let bert_config = qformer_config(&text, &bert.join("config.json"))?;
    let mut map: BTreeMap<&String, &str> = tower.keys().map(|name| (name, "vision.safetensors")).collect();
    map.extend(text.keys().map(|name| (name, "qformer.safetensors")));
    let language = Language::read(language)?;
    let mut config = json!({
        "model_type": "instructblip",
        "num_query_tokens": QUERIES,
        "projection_norm": true,
        "uses_chat_template": true,
        "vision_config": {
            "model_type": "dinov2", "hidden_size": width, "num_hidden_layers": n_layers,
            "num_attention_heads": width / 64, "image_size": IMAGE_SIZE, "patch_size": PATCH, "layer_norm_eps": 1e-6,
            "out_indices": read_layers, "neck_width": bert_config["hidden_size"],
        },
        "qformer_config": bert_config,
        "text_config": language.config,
    });
    let readable = serde_json::from_value::<ModelConfig>(config.clone()).map(drop);
    readable.with_context(|| format!("{} and {} make no model", bert.display(), language.path.display()))?;

    language.write(out)?;
    config["image_after"] =
        TextTokenizer::open(&out.join("tokenizer.json"))?.encode_prompt(TURN)?.len().into();
    write_json(&out.join("model.safetensors.index.json"), &json!({ "weight_map": map }))?;
    write_weights(&paths.vision(), &tower)?;
    write_weights(&paths.qformer(), &text)?;
    let qformer_tokenizer = read(&bert.join("tokenizer.json"))?;
    fs::create_dir_all(out.join("qformer_tokenizer"))
        .with_context(|| format!("cannot make {}", out.join("qformer_tokenizer").display()))?;
    write_atomically(&out.join("qformer_tokenizer/tokenizer.json"), &qformer_tokenizer)?;
    let preprocessor = json!({
        "image_processor_type": "BlipImageProcessor", "size": { "height": IMAGE_SIZE, "width": IMAGE_SIZE }, "resample": 3,
        "do_resize": true, "do_rescale": true, "do_normalize": true,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "background": [255, 255, 255],
    });
    write_json(&out.join("preprocessor_config.json"), &preprocessor)?;
    // Last: with it the folder is a model.
    write_json(&paths.config(), &config)
}

/// Writes the directory `out` of a language model alone, of a GGUF file of a LLaMA with a byte-level vocabulary.
///
/// # Errors
/// As [`assemble`].
pub fn assemble_language(language: &Path, out: &Path) -> Result<()> {
    check_new(out)?;
    let language = Language::read(language)?;
    language.write(out)?;
    write_json(&ModelPaths::new(out).config(), &language.config)
}

fn check_new(out: &Path) -> Result<()> {
    let has_model = ModelPaths::new(out).config().exists();
    ensure!(!has_model, "{} has a model already; name another folder", out.display());
    Ok(())
}

/// What a GGUF file says of its model.
struct Language<'a> {
    path: &'a Path,
    config: Value,
    tokenizer: Value,
    /// `tokenizer_config.json`.
    special: Value,
}

impl<'a> Language<'a> {
    fn read(path: &'a Path) -> Result<Self> {
        let file = WeightFile::open(path)?;
        let (Some(config), Some(tokenizer)) = (file.config()?, file.tokenizer()?) else {
            bail!("{}: the language model must be a GGUF file", path.display());
        };
        let added = tokenizer["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
        let token = |key: &str| -> Result<&Value> {
            let id =
                config[key].as_u64().with_context(|| format!("{} does not say its {key}", path.display()))?;
            let named = added.iter().find(|token| token["id"] == id);
            Ok(
                &named.with_context(|| format!("{}: {key} {id} is no special token", path.display()))?["content"],
            )
        };
        let (bos, eos) = (token("bos_token_id")?, token("eos_token_id")?);
        let special = json!({ "bos_token": bos, "eos_token": eos, "pad_token": eos });
        Ok(Self { path, special, config, tokenizer })
    }

    /// Writes all of it but the configuration, and the file itself.
    fn write(&self, out: &Path) -> Result<()> {
        let Self { path, config, tokenizer, special } = self;
        write_json(&out.join("tokenizer_config.json"), special)?;
        write_json(&out.join("tokenizer.json"), tokenizer)?;
        let ends = json!({ "bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"],
                           "pad_token_id": config["eos_token_id"] });
        write_json(&out.join("generation_config.json"), &ends)?;
        let is_chat = |token: &Value| token["content"] == "<|im_start|>";
        if tokenizer["added_tokens"].as_array().is_some_and(|all| all.iter().any(is_chat)) {
            write_atomically(&out.join("chat_template.jinja"), CHAT_TEMPLATE.as_bytes())?;
        }
        let name = path.file_name().context("the language model has no name")?;
        let mut from = fwd_files::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        write_atomically_with(&out.join(name), |to| std::io::copy(&mut from, to).map(drop))
    }
}

/// The backbone of the ONNX file under the names of Hugging Face, with positions for our image size.
///
/// Linear maps lie there transposed, under names that say nothing; the node that reads one says which it is. The saliency head that this file
/// has behind the backbone is left out.
fn dinov2(graph: &Graph) -> Result<Arrays> {
    let mut arrays = Arrays::new();
    for (name, tensor) in &graph.tensors {
        if let Some(rest) = name.strip_prefix("backbone.") {
            arrays.insert(format!("vision_model.{rest}"), (tensor.shape.clone(), tensor.values.clone()));
        }
    }
    for (name, operator, inputs) in &graph.nodes {
        let map = inputs.get(1).and_then(|input| graph.tensors.get(input)).filter(|_| operator == "MatMul");
        let path = name.strip_prefix("/backbone/").and_then(|rest| rest.strip_suffix("/MatMul"));
        if let (Some(map), Some(path)) = (map, path) {
            let &[n_in, n_out] = &map.shape[..] else { continue };
            let transposed = (0..n_out).flat_map(|j| (0..n_in).map(move |i| map.values[i * n_out + j]));
            let name = format!("vision_model.{}.weight", path.replace('/', "."));
            arrays.insert(name, (vec![n_out, n_in], transposed.collect()));
        }
    }
    // The class token's position and those of the patches lie apart, and nothing else without a name has their shapes.
    let unnamed = |is_it: &dyn Fn(&[usize]) -> bool| {
        let mut found =
            graph.tensors.iter().filter(|(name, t)| name.starts_with("onnx::") && is_it(&t.shape));
        found.next().map(|(_, tensor)| tensor).context("there are no positions of a DINOv2")
    };
    let class = unnamed(&|shape| matches!(shape, [1, 1, _]))?;
    let patches = unnamed(&|shape| matches!(shape, [1, n, _] if *n > 1))?;
    let &[_, n, d] = &patches.shape[..] else {
        bail!("the positions of the patches are no table");
    };
    ensure!(n.isqrt().pow(2) == n, "there are positions of {n} patches, which make no square");
    let all = [&class.values[..], &patches.values].concat();
    let positions = Tensor::from_vec(all, (1, 1 + n, d), &Device::Cpu)?;
    let side = IMAGE_SIZE / PATCH;
    let positions = interpolated_positions(&positions, n.isqrt(), (side, side))?;
    let shape = positions.dims().to_vec();
    arrays.insert(
        "vision_model.embeddings.position_embeddings".into(),
        (shape, positions.flatten_all()?.to_vec1()?),
    );
    Ok(arrays)
}

/// The first layers of a BERT under the names of InstructBLIP's Q-Former. The embedding of the first kind of sentence, which BERT adds to
/// every word, goes into the positions.
fn qformer(path: &Path) -> Result<Arrays> {
    let bytes = read(path)?;
    let file = safetensors::SafeTensors::deserialize(&bytes).with_context(|| path.display().to_string())?;
    let mut arrays = Arrays::new();
    for (name, view) in file.tensors() {
        if view.dtype() != Dtype::F32 {
            continue;
        }
        let layer = name
            .strip_prefix("encoder.layer.")
            .and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        if layer.is_some_and(|layer| layer >= QFORMER_LAYERS) || name.starts_with("pooler.") {
            continue;
        }
        let values = view.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        let known = match name.strip_prefix("embeddings.LayerNorm.") {
            Some(part) => format!("qformer.embeddings.layernorm.{part}"),
            None => format!("qformer.{}", name.replace(".attention.self.", ".attention.attention.")),
        };
        arrays.insert(known, (view.shape().to_vec(), values));
    }
    let lacks = |what: &str| {
        format!("{} has no {what} in f32 under the names of a BERT alone (`embeddings.…`)", path.display())
    };
    let kinds = arrays.remove("qformer.embeddings.token_type_embeddings.weight");
    let (_, kinds) = kinds.with_context(|| lacks("embeddings of token types"))?;
    let positions = arrays.get_mut("qformer.embeddings.position_embeddings.weight");
    let (shape, positions) = positions.with_context(|| lacks("position embeddings"))?;
    let width = shape.last().copied().unwrap_or_default().max(1);
    for row in positions.chunks_exact_mut(width) {
        row.iter_mut().zip(&kinds).for_each(|(position, kind)| *position += kind);
    }
    Ok(arrays)
}

/// The `qformer_config`: the sizes of the BERT, and what its `config.json` says of heads, activation and norms.
fn qformer_config(arrays: &Arrays, config: &Path) -> Result<Value> {
    let bert: Value = read_json(config)?;
    let matrix = |name: &str| match arrays.get(name).map(|(shape, _)| &shape[..]) {
        Some(&[n_rows, n_cols]) => Ok((n_rows, n_cols)),
        _ => Err(anyhow!("{}: the BERT beside it has no matrix `{name}`", config.display())),
    };
    let (n_words, width) = matrix("qformer.embeddings.word_embeddings.weight")?;
    let (n_positions, _) = matrix("qformer.embeddings.position_embeddings.weight")?;
    let (hidden, _) = matrix("qformer.encoder.layer.0.intermediate.dense.weight")?;
    Ok(json!({
        "vocab_size": n_words,
        "hidden_size": width,
        "intermediate_size": hidden,
        "max_position_embeddings": n_positions,
        "num_hidden_layers": QFORMER_LAYERS,
        "num_attention_heads": bert["num_attention_heads"],
        "cross_attention_frequency": 1,
        "hidden_act": bert["hidden_act"],
        "layer_norm_eps": bert["layer_norm_eps"],
    }))
}

fn write_weights(path: &Path, arrays: &Arrays) -> Result<()> {
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = arrays
        .iter()
        .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| {
            Ok((name.as_str(), TensorView::new(Dtype::F32, (*shape).clone(), bytes)?))
        })
        .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>()?;
    write_atomically(path, &safetensors::serialize(views, None)?)
}
