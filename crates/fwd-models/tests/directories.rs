//! Model directories as people have them: each is read right, or refused with what it is and what to do.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;
mod copy;

use candle_core::{DType, Device, Tensor, safetensors};
use copy::{Copy, with_cause};
use fwd_models::{ModelError, MultimodalModel, WeightDtype, WeightFile, ignored_generation, load};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

const SHARED: &str = "language_model.shared.weight";
const ENCODER: &str = "language_model.encoder.embed_tokens.weight";
const DECODER: &str = "language_model.decoder.embed_tokens.weight";

fn open(dir: &Path) -> Result<Box<dyn MultimodalModel>, ModelError> {
    load(dir, WeightDtype::F32, &Device::Cpu)
}

/// The text of the error with which a directory is refused, in which all parts must stand; it is one line of bounded length.
fn refused(dir: &Path, expected: &[&str]) {
    let error = with_cause(&open(dir).expect_err("must be refused"));
    for part in expected {
        assert!(error.contains(part), "`{part}` is missing in: {error}");
    }
    let own = error.replace(&dir.display().to_string(), "");
    assert!(own.len() < 600 && !own.contains('\n'), "{error}");
}

#[test]
fn a_copy_of_the_embedding_that_differs_is_refused_and_an_equal_one_of_either_type_is_not() {
    for name in [ENCODER, DECODER] {
        let copy = Copy::new();
        let mut tensors = copy.tensors();
        let shared = tensors[SHARED].clone();
        tensors.insert(name.into(), shared.copy().unwrap());
        copy.save(&tensors);
        open(copy.dir()).unwrap();
        // The last element alone.
        let mut rows: Vec<f32> = shared.flatten_all().unwrap().to_vec1().unwrap();
        *rows.last_mut().unwrap() += 1e-3;
        tensors.insert(name.into(), Tensor::from_vec(rows, shared.shape(), &Device::Cpu).unwrap());
        copy.save(&tensors);
        refused(copy.dir(), &[&format!("{name} (differs from {SHARED})"), "should be copies"]);
        // A copy with more rows.
        let taller = Tensor::cat(&[&shared, &shared], 0).unwrap();
        tensors.insert(name.into(), taller);
        copy.save(&tensors);
        refused(copy.dir(), &[&format!("{name} (differs from {SHARED})")]);
        // The same values in another float type are the same.
        let half = shared.to_dtype(DType::BF16).unwrap();
        tensors.insert(SHARED.into(), half.to_dtype(DType::F32).unwrap());
        tensors.insert(name.into(), half);
        copy.save(&tensors);
        open(copy.dir()).unwrap();
    }
}

#[test]
fn without_the_shared_embedding_its_two_copies_must_agree() {
    let copy = Copy::new();
    let mut tensors = copy.tensors();
    let shared = tensors.remove(SHARED).unwrap();
    tensors.insert(ENCODER.into(), shared.clone());
    tensors.insert(DECODER.into(), (shared * 2.0).unwrap());
    copy.save(&tensors);
    refused(copy.dir(), &[&format!("{DECODER} (differs from {ENCODER})")]);
}

#[test]
fn an_index_buffer_that_does_not_count_is_refused() {
    const POSITIONS: &str = "qformer.embeddings.position_ids";
    let copy = Copy::new();
    let mut tensors = copy.tensors();
    let positions: Vec<i64> = (0..32).collect();
    tensors.insert(POSITIONS.into(), Tensor::from_vec(positions.clone(), (1, 32), &Device::Cpu).unwrap());
    copy.save(&tensors);
    open(copy.dir()).unwrap();
    let turned = positions.into_iter().rev().collect::<Vec<_>>();
    tensors.insert(POSITIONS.into(), Tensor::from_vec(turned, (1, 32), &Device::Cpu).unwrap());
    copy.save(&tensors);
    refused(copy.dir(), &[POSITIONS]);
}

#[test]
fn shards_without_an_index_are_read_if_all_are_there() {
    let copy = Copy::new();
    let want = embedded(&*open(copy.dir()).unwrap());
    let mut shards = [HashMap::new(), HashMap::new(), HashMap::new()];
    for (i, (name, tensor)) in copy.tensors().into_iter().enumerate() {
        shards[i % 3].insert(name, tensor);
    }
    fs::remove_file(copy.path("model.safetensors")).unwrap();
    let name = |i: usize| format!("model-{:05}-of-00003.safetensors", i + 1);
    for (i, shard) in shards.iter().enumerate() {
        safetensors::save(shard, copy.path(&name(i))).unwrap();
    }
    assert_eq!(embedded(&*open(copy.dir()).unwrap()), want);
    fs::remove_file(copy.path(&name(1))).unwrap();
    refused(copy.dir(), &["1 of 3 shards are missing (model-00002-of-00003.safetensors)", "download"]);
}

/// Converters leave buffers in the index that they drop from the shards.
#[test]
fn an_index_may_list_buffers_that_no_shard_has() {
    let copy = Copy::new();
    fs::rename(copy.path("model.safetensors"), copy.path("model-00001-of-00001.safetensors")).unwrap();
    let names = copy_names(&copy.path("model-00001-of-00001.safetensors"));
    let save = |more: &[&str]| {
        let all = names.iter().map(String::as_str).chain(more.iter().copied());
        let map: serde_json::Map<String, serde_json::Value> =
            all.map(|name| (name.into(), "model-00001-of-00001.safetensors".into())).collect();
        let index = serde_json::json!({"metadata": {}, "weight_map": map});
        fs::write(copy.path("model.safetensors.index.json"), index.to_string()).unwrap();
    };
    save(&["language_model.model.layers.0.self_attn.rotary_emb.inv_freq", "qformer.embeddings.position_ids"]);
    open(copy.dir()).unwrap();
    save(&["qformer.embeddings.other"]);
    refused(copy.dir(), &["qformer.embeddings.other (listed in model.safetensors.index.json)"]);
}

fn copy_names(path: &Path) -> Vec<String> {
    safetensors::load(path, &Device::Cpu).unwrap().into_keys().collect()
}

/// DINOv2 in the place of EVA: its published weights have a token for pre-training, which nothing reads.
#[test]
fn a_model_with_a_dinov2_tower_is_loaded() {
    let copy = Copy::new();
    let tower = common::fixtures().join("sets/dinov2-tiny");
    let json =
        |path: &Path| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let mut config = json(&copy.path("config.json"));
    config["vision_config"] = json(&tower.join("config.json"));
    fs::write(copy.path("config.json"), config.to_string()).unwrap();
    let mut tensors = copy.tensors();
    tensors.retain(|name, _| !name.starts_with("vision_model."));
    let of_tower = safetensors::load(tower.join("model.safetensors"), &Device::Cpu).unwrap();
    assert!(of_tower.contains_key("embeddings.mask_token"));
    tensors.extend(of_tower.into_iter().map(|(name, tensor)| (format!("vision_model.{name}"), tensor)));
    copy.save(&tensors);
    let model = open(copy.dir()).unwrap();
    let pixels = Tensor::zeros((1, 3, 56, 56), DType::F32, &Device::Cpu).unwrap();
    let features = model.image_features(&pixels, &mut fwd_models::Tap::none()).unwrap();
    assert_eq!(features.dims(), [1, 1 + 16, 32]);
}

/// A repository of the original LLaVA code, of either model_type.
#[test]
fn an_original_llava_is_refused_with_the_converted_one() {
    for model_type in ["llava", "llava_llama"] {
        let folder = tempfile::tempdir().unwrap();
        let config = serde_json::json!({"model_type": model_type, "mm_vision_tower": "openai/clip-vit-large-patch14-336"});
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        refused(folder.path(), &["original LLaVA code", "llava-hf/llava-1.5-7b-hf"]);
    }
}

fn embedded(model: &dyn MultimodalModel) -> Vec<f32> {
    let ids = Tensor::new(&[7i64], &Device::Cpu).unwrap();
    model.language().embed(&ids).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn weights_of_another_format_are_named_with_the_way_to_convert_them() {
    let copy = Copy::new();
    fs::remove_file(copy.path("model.safetensors")).unwrap();
    refused(copy.dir(), &["has no weights", "model.safetensors"]);
    fs::write(copy.path("pytorch_model.bin"), "PK").unwrap();
    let convert = "t.InstructBlipForConditionalGeneration.from_pretrained(";
    refused(copy.dir(), &["pytorch_model.bin", convert, "save_pretrained(", "safe_serialization=True"]);
    fs::remove_file(copy.path("pytorch_model.bin")).unwrap();
    fs::write(copy.path("model-Q4_K_M.gguf"), "GGUF").unwrap();
    refused(copy.dir(), &["model-Q4_K_M.gguf", "GGUF"]);
}

#[test]
fn pointers_pages_and_archives_in_the_place_of_files_are_told() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 134\n";
    let page = "\n<!DOCTYPE html>\n<html><head><title>Not found</title></head></html>";
    for file in ["model.safetensors", "config.json", "generation_config.json"] {
        for (content, expected) in
            [(pointer, "Git LFS pointer"), (page, "web page"), ("Entry not found", "server")]
        {
            let copy = Copy::new();
            fs::write(copy.path(file), content).unwrap();
            refused(copy.dir(), &[file, expected, "download"]);
        }
    }
    let copy = Copy::new();
    fs::write(copy.path("model.safetensors"), b"PK\x03\x04\x00\x00\x08\x08").unwrap();
    refused(copy.dir(), &["zip archive"]);
}

#[test]
fn quantised_weights_are_refused_by_configuration_and_by_the_names_of_tensors() {
    let copy = Copy::new();
    copy.edit_text("config.json", |text| {
        text.replacen(
            '{',
            r#"{"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true},"#,
            1,
        )
    });
    refused(copy.dir(), &["config.json", "quantised (bitsandbytes)", "dequantize()"]);
    for end in ["weight.SCB", "weight.absmax", "weight.quant_state.bitsandbytes__nf4", "qweight", "g_idx"] {
        let copy = Copy::new();
        let mut tensors = copy.tensors();
        let name = format!("language_model.encoder.block.0.layer.0.SelfAttention.q.{end}");
        tensors.insert(name.clone(), Tensor::zeros(4, DType::U8, &Device::Cpu).unwrap());
        copy.save(&tensors);
        refused(copy.dir(), &["model.safetensors", &name, "quantised", "dequantize()"]);
    }
}

#[test]
fn ids_of_tokens_that_are_none_are_named_by_their_key() {
    for (value, found) in
        [("-1", "-1"), ("1.5", "1.5"), ("1.0", "1.0"), ("\"</s>\"", "</s>"), ("[1, -2]", "[1,-2]")]
    {
        let copy = Copy::new();
        let text = format!(r#"{{"eos_token_id": {value}}}"#);
        fs::write(copy.path("generation_config.json"), text).unwrap();
        refused(
            copy.dir(),
            &[
                "generation_config.json",
                &format!("eos_token_id is {found}").replace("is </s>", "is \"</s>\""),
            ],
        );
        let copy = Copy::new();
        copy.edit_text("config.json", |text| {
            text.replace(r#""pad_token_id": 0,"#, &format!(r#""pad_token_id": {value},"#))
        });
        refused(copy.dir(), &["config.json", "_config.pad_token_id is"]);
    }
    let copy = Copy::new();
    fs::write(copy.path("generation_config.json"), r#"{"eos_token_id": [1, 2], "pad_token_id": null}"#)
        .unwrap();
    open(copy.dir()).unwrap();
}

#[test]
fn what_is_no_model_directory_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    refused(&place("nowhere"), &["there is no such folder"]);
    refused(folder.path(), &["it has no config.json"]);
    fs::write(place("model.safetensors"), "x").unwrap();
    refused(&place("model.safetensors"), &["is a file", "folder of a model"]);
    fs::write(place("adapter_config.json"), "{}").unwrap();
    refused(folder.path(), &["PEFT adapter", "merge_and_unload"]);
    let cache = place("models--Salesforce--instructblip-flan-t5-xl");
    for name in ["snapshots", "refs"] {
        fs::create_dir_all(cache.join(name)).unwrap();
    }
    refused(&cache, &["cache", "snapshots"]);
}

#[test]
fn a_weight_file_that_becomes_shorter_while_it_is_read_is_an_error_that_names_the_tensor() {
    let copy = Copy::new();
    let mut checkpoint = fwd_models::Checkpoint::open(copy.dir(), WeightDtype::F32, &Device::Cpu).unwrap();
    let path = copy.path("model.safetensors");
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5000).unwrap();
    let error = fwd_models::Weights::get(&mut checkpoint, SHARED, &[128, 32]).unwrap_err().to_string();
    assert!(error.contains("model.safetensors") && error.contains(SHARED), "{error}");
    assert!(error.contains("became shorter while it was read"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_folder_in_the_place_of_the_weights_is_refused() {
    let copy = Copy::new();
    fs::remove_file(copy.path("model.safetensors")).unwrap();
    fs::create_dir(copy.path("model.safetensors")).unwrap();
    refused(copy.dir(), &["model.safetensors", "no ordinary file"]);
}

#[test]
fn the_elements_of_a_file_are_counted() {
    let copy = Copy::new();
    let n: usize = copy.tensors().values().map(Tensor::elem_count).sum();
    assert_eq!(WeightFile::open(&copy.path("model.safetensors")).unwrap().n_elements(), n as u64);
}

#[test]
fn what_generation_is_asked_for_and_does_not_do_is_listed_from_either_file() {
    let copy = Copy::new();
    assert_eq!(ignored_generation(copy.dir()).unwrap(), [""; 0]);
    fs::write(copy.path("generation_config.json"), r#"{"num_beams": 5, "suppress_tokens": [7]}"#).unwrap();
    assert_eq!(ignored_generation(copy.dir()).unwrap(), ["num_beams = 5", "suppress_tokens = [7]"]);
    fs::remove_file(copy.path("generation_config.json")).unwrap();
    copy.edit_text("config.json", |text| {
        text.replace(r#""d_ff": 64,"#, r#""d_ff": 64, "repetition_penalty": 1.5,"#)
    });
    assert_eq!(ignored_generation(copy.dir()).unwrap(), ["repetition_penalty = 1.5"]);
}
