//! Three pre-trained models as parts of one.

use super::onnx::{self, Graph};
use candle_core::{Device, Tensor};
use fwd_models::{WeightFile, interpolated_positions};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

/// What a caller is told.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;
/// Shape and elements.
type Array = (Vec<usize>, Vec<f32>);
type Arrays = BTreeMap<String, Array>;

/// Side of the images in pixels: 8 × 8 patches.
const IMAGE_SIZE: usize = 112;
const PATCH: usize = 14;
/// Layers of the BERT that become layers of the Q-Former.
const QFORMER_LAYERS: usize = 3;
const QUERIES: usize = 16;

/// A conversation without SmolLM2's default system message, which costs 20 tokens in front of every picture.
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + \
    '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Writes the directory `out` of an ONNX file that has a DINOv2 as its `backbone`, the folder of a BERT (`model.safetensors`, `config.json`,
/// `tokenizer.json`) and a GGUF file of a LLaMA.
pub(crate) fn assemble(vision: &Path, bert: &Path, language: &Path, out: &Path) -> Result<()> {
    fs::create_dir_all(out.join("qformer_tokenizer"))?;
    let tower = dinov2(&onnx::read(&fs::read(vision)?)?)?;
    let width = tower
        .get("vision_model.layernorm.weight")
        .ok_or("the ONNX file has no DINOv2 as its backbone")?
        .1
        .len();
    let is_norm = |name: &&String| name.ends_with(".norm1.weight");
    let n_layers = tower.keys().filter(is_norm).count();
    // The middle layer knows colors and numbers, the last one kinds.
    let read_layers = [n_layers / 2, n_layers];
    let text = qformer(&bert.join("model.safetensors"))?;
    let bert_config = qformer_config(&text, &bert.join("config.json"))?;
    let mut map: BTreeMap<&String, &str> = tower.keys().map(|name| (name, "vision.safetensors")).collect();
    map.extend(text.keys().map(|name| (name, "qformer.safetensors")));
    write_json(&out.join("model.safetensors.index.json"), &json!({ "weight_map": map }))?;
    write_weights(&out.join("vision.safetensors"), &tower)?;
    write_weights(&out.join("qformer.safetensors"), &text)?;

    let file = WeightFile::open(language)?;
    let text_config = file.config()?.ok_or("the language model must be a GGUF file")?;
    let tokenizer = file.tokenizer()?.ok_or("the language model must be a GGUF file")?;
    let token = |key: &str| -> Result<&Value> {
        let id = text_config[key].as_u64().ok_or_else(|| format!("the GGUF file does not say its {key}"))?;
        let named = tokenizer["added_tokens"].as_array().and_then(|all| all.iter().find(|t| t["id"] == id));
        Ok(&named.ok_or_else(|| format!("{key} {id} is no special token"))?["content"])
    };
    let special = json!({
        "bos_token": token("bos_token_id")?, "eos_token": token("eos_token_id")?, "pad_token": token("eos_token_id")?,
    });
    write_json(&out.join("tokenizer_config.json"), &special)?;
    write_json(&out.join("tokenizer.json"), &tokenizer)?;
    let ends = json!({ "bos_token_id": text_config["bos_token_id"], "eos_token_id": text_config["eos_token_id"],
                       "pad_token_id": text_config["eos_token_id"] });
    write_json(&out.join("generation_config.json"), &ends)?;
    fwd_files::write_atomically(&out.join("chat_template.jinja"), CHAT_TEMPLATE.as_bytes())?;
    let name = language.file_name().ok_or("the language model has no name")?;
    fwd_files::write_atomically(&out.join(name), &fs::read(language)?)?;

    let qformer_tokenizer = fs::read(bert.join("tokenizer.json"))?;
    fwd_files::write_atomically(&out.join("qformer_tokenizer/tokenizer.json"), &qformer_tokenizer)?;
    let preprocessor = json!({
        "image_processor_type": "BlipImageProcessor", "size": { "height": IMAGE_SIZE, "width": IMAGE_SIZE }, "resample": 3,
        "do_resize": true, "do_rescale": true, "do_normalize": true,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "background": [255, 255, 255],
    });
    write_json(&out.join("preprocessor_config.json"), &preprocessor)?;
    let config = json!({
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
        "text_config": text_config,
    });
    write_json(&out.join("config.json"), &config)
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
        found.next().map(|(_, tensor)| tensor).ok_or("the ONNX file has no positions of a DINOv2")
    };
    let class = unnamed(&|shape| matches!(shape, [1, 1, _]))?;
    let patches = unnamed(&|shape| matches!(shape, [1, n, _] if *n > 1))?;
    let &[_, n, d] = &patches.shape[..] else {
        return Err("the positions of the patches are no table".into());
    };
    if n.isqrt().pow(2) != n {
        return Err(format!("the ONNX file has positions of {n} patches, which make no square").into());
    }
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
    let bytes = fs::read(path)?;
    let file = safetensors::SafeTensors::deserialize(&bytes)?;
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
    let (_, kinds) = kinds.ok_or_else(|| lacks("embeddings of token types"))?;
    let positions = arrays.get_mut("qformer.embeddings.position_embeddings.weight");
    let (shape, positions) = positions.ok_or_else(|| lacks("position embeddings"))?;
    let width = shape.last().copied().unwrap_or_default().max(1);
    for row in positions.chunks_exact_mut(width) {
        row.iter_mut().zip(&kinds).for_each(|(position, kind)| *position += kind);
    }
    Ok(arrays)
}

/// The `qformer_config`: the sizes of the BERT, and what its `config.json` says of heads, activation and norms.
fn qformer_config(arrays: &Arrays, config: &Path) -> Result<Value> {
    let bert: Value =
        serde_json::from_slice(&fs::read(config).map_err(|e| format!("{}: {e}", config.display()))?)?;
    let matrix = |name: &str| match arrays.get(name).map(|(shape, _)| &shape[..]) {
        Some(&[n_rows, n_cols]) => Ok((n_rows, n_cols)),
        _ => Err(format!("the BERT has no matrix `{name}`")),
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
    Ok(fwd_files::write_atomically(path, &safetensors::serialize(views, None)?)?)
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    Ok(fwd_files::write_atomically(path, &serde_json::to_vec_pretty(value)?)?)
}
