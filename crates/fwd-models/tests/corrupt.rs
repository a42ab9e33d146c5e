//! Damaged checkpoints: each gives an error that says which file or tensor and what is wrong with it, and none a panic.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;
mod copy;

use candle_core::{DType, Device, Tensor, safetensors};
use common::fixtures;
use copy::{Copy, with_cause};
use fwd_models::{Blip, MultimodalModel, WeightDtype, load};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

const NORM: &str = "language_model.encoder.final_layer_norm.weight";
const HEAD: &str = "language_model.lm_head.weight";

#[test]
fn the_undamaged_copy_loads() {
    Copy::new().load().unwrap();
}

#[test]
fn truncated_weights() {
    let copy = Copy::new();
    let bytes = fs::read(copy.path("model.safetensors")).unwrap();
    for keep in [0, 4, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(copy.path("model.safetensors"), &bytes[..keep]).unwrap();
        copy.fails_with(&["model.safetensors", "not a valid safetensors file"]);
    }
    fs::write(copy.path("model.safetensors"), [&bytes[..], b"extra"].concat()).unwrap();
    copy.fails_with(&["model.safetensors", "not a valid safetensors file"]);
}

#[test]
fn an_absurd_header_length() {
    let copy = Copy::new();
    let mut bytes = fs::read(copy.path("model.safetensors")).unwrap();
    for length in [u64::MAX, u64::MAX / 2, 1 << 40, 0] {
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        fs::write(copy.path("model.safetensors"), &bytes).unwrap();
        copy.fails_with(&["model.safetensors", "not a valid safetensors file"]);
    }
}

#[test]
fn a_header_that_lies_about_offsets_or_shapes() {
    let lie = |header: &str| {
        let copy = Copy::new();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 16]].concat();
        fs::write(copy.path("model.safetensors"), bytes).unwrap();
        copy.fails_with(&["model.safetensors", "not a valid safetensors file"]);
    };
    lie(r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,400]}}"#);
    lie(r#"{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,16]}}"#);
    lie(r#"{"a":{"dtype":"F32","shape":[4611686018427387905,4],"data_offsets":[0,16]}}"#);
    lie(r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}"#);
    lie(r#"{"a":{"dtype":"F99","shape":[4],"data_offsets":[0,16]}}"#);
    lie("{not json");
}

#[test]
fn missing_unexpected_misshapen_and_integer_tensors_are_listed_together() {
    let copy = Copy::new();
    let mut tensors = copy.tensors();
    tensors.remove(NORM).unwrap();
    tensors.insert("language_model.surprise".into(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap());
    let head = tensors[HEAD].clone();
    tensors.insert(HEAD.into(), head.t().unwrap().contiguous().unwrap());
    let query = tensors["query_tokens"].to_dtype(DType::U32).unwrap();
    tensors.insert("query_tokens".into(), query);
    copy.save(&tensors);
    copy.fails_with(&[
        &format!("1 tensors missing: {NORM}"),
        "1 tensors unexpected: language_model.surprise",
        &format!("1 tensors misshapen: {HEAD}: expected [128, 32], found [32, 128]"),
        "1 tensors of a wrong element type: query_tokens: U32",
    ]);
}

#[test]
fn a_nan_or_an_infinity_in_a_weight() {
    for value in [f32::NAN, f32::INFINITY] {
        let copy = Copy::new();
        let mut tensors = copy.tensors();
        let mut values: Vec<f32> = tensors[NORM].to_vec1().unwrap();
        values[5] = value;
        tensors.insert(NORM.into(), Tensor::new(values, &Device::Cpu).unwrap());
        copy.save(&tensors);
        copy.fails_with(&[&format!("1 tensors not finite: {NORM}")]);
    }
}

#[test]
fn a_weight_that_f16_cannot_hold() {
    let copy = Copy::new();
    let mut tensors = copy.tensors();
    let large = (tensors[HEAD].clone() * 1e6).unwrap();
    tensors.insert(HEAD.into(), large);
    copy.save(&tensors);
    Blip::load(copy.dir(), WeightDtype::Bf16, &Device::Cpu).unwrap();
    let error = Blip::load(copy.dir(), WeightDtype::F16, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains(&format!("not finite: {HEAD} (in f16)")), "{error}");
}

#[test]
fn missing_files_and_bad_json() {
    let copy = Copy::new();
    copy.edit_text("config.json", |text| text[..text.len() / 2].to_string());
    copy.fails_with(&["config.json", "line"]);
    fs::remove_file(copy.path("config.json")).unwrap();
    copy.fails_with(&["config.json"]);
    let copy = Copy::new();
    fs::write(copy.path("generation_config.json"), "{\"eos_token_id\": \"end\"}").unwrap();
    copy.fails_with(&["generation_config.json"]);
    fs::write(copy.path("generation_config.json"), r#"{"eos_token_id": 32128}"#).unwrap();
    copy.fails_with(&["generation_config.json", "eos_token_id 32128 is outside the vocabulary of 128"]);
    let copy = Copy::new();
    fs::remove_file(copy.path("model.safetensors")).unwrap();
    copy.fails_with(&["model.safetensors"]);
    let nowhere = Blip::load(Path::new("/no/such/dir"), WeightDtype::F32, &Device::Cpu).unwrap_err();
    assert!(nowhere.to_string().starts_with("/no/such/dir/config.json"), "{nowhere}");
}

#[test]
fn configurations_that_cannot_be_built() {
    for (from, to, expected) in [
        (r#""model_type": "t5""#, r#""model_type": "gpt_neox""#, "the language model is `gpt_neox`"),
        (r#""num_heads": 4"#, r#""num_heads": 0"#, "text_config.num_heads must not be 0"),
        (r#""dense_act_fn": "gelu_new""#, r#""dense_act_fn": "mish""#, "activation `mish` is not known"),
        (r#""num_attention_heads": 4"#, r#""num_attention_heads": 5"#, "is not a multiple of 5 heads"),
        (r#""model_type": "instructblip""#, r#""model_type": "llava""#, "config.json"),
        (r#""d_model": 32"#, r#""d_model": "wide""#, "config.json"),
        (
            r#""num_layers": 2"#,
            r#""num_layers": 1000000000000"#,
            "text_config.num_layers 1000000000000 is absurd",
        ),
        (r#""d_ff": 64"#, r#""d_ff": 20000000000000"#, "text_config.d_ff 20000000000000 is absurd"),
        (r#""image_size": 28"#, r#""image_size": 18446744073709551615"#, "vision_config.image_size"),
        (r#""layer_norm_epsilon": 1e-06"#, r#""layer_norm_epsilon": -1.0"#, "must lie in 0..1"),
    ] {
        let copy = Copy::new();
        copy.edit_text("config.json", |text| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        copy.fails_with(&[expected]);
    }
}

#[test]
fn the_architecture_is_found_by_name_and_an_unknown_one_is_refused_by_name() {
    let copy = Copy::new();
    let load = || load(copy.dir(), WeightDtype::F32, &Device::Cpu);
    let model = load().unwrap();
    assert!(model.bridge_reads_instruction());
    assert_eq!(model.image_size(), 28);
    copy.edit_text("config.json", |text| {
        text.replace(r#""model_type": "instructblip""#, r#""model_type": "qwen2_vl""#)
    });
    let error = load().unwrap_err().to_string();
    assert!(error.contains("config.json: model_type `qwen2_vl` is not supported"), "{error}");
    fs::write(copy.path("config.json"), "{}").unwrap();
    let error = with_cause(&load().unwrap_err());
    assert!(error.contains("config.json: missing field `model_type`"), "{error}");
}

/// Splits the checkpoint in two shards with an index.
fn sharded(copy: &Copy) -> serde_json::Value {
    let tensors = copy.tensors();
    fs::remove_file(copy.path("model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    let mut shards = [HashMap::new(), HashMap::new()];
    for (i, (name, tensor)) in tensors.into_iter().enumerate() {
        map.insert(name.clone(), format!("model-0000{}-of-00002.safetensors", i % 2 + 1).into());
        shards[i % 2].insert(name, tensor);
    }
    for (i, shard) in shards.iter().enumerate() {
        safetensors::save(shard, copy.path(&format!("model-0000{}-of-00002.safetensors", i + 1))).unwrap();
    }
    serde_json::json!({ "metadata": {}, "weight_map": map })
}

#[test]
fn shards_load_and_their_damage_is_named() {
    let copy = Copy::new();
    let index = sharded(&copy);
    let write = |index: &serde_json::Value| {
        fs::write(copy.path("model.safetensors.index.json"), index.to_string()).unwrap();
    };
    write(&index);
    copy.load().unwrap();

    let mut wrong = index.clone();
    wrong["weight_map"]["a.lost.tensor"] = "model-00001-of-00002.safetensors".into();
    write(&wrong);
    copy.fails_with(&["missing: a.lost.tensor (listed in model.safetensors.index.json)"]);

    // Converters list tied copies that they have dropped from the shards.
    let mut tied = index.clone();
    for stack in ["encoder", "decoder"] {
        let name = format!("language_model.{stack}.embed_tokens.weight");
        tied["weight_map"][name] = "model-00001-of-00002.safetensors".into();
    }
    write(&tied);
    copy.load().unwrap();

    for outside in ["../model.safetensors", "/etc/passwd", "..", "sub/model.safetensors"] {
        let mut wrong = index.clone();
        wrong["weight_map"][NORM] = outside.into();
        write(&wrong);
        copy.fails_with(&["is not a plain file name"]);
    }

    write(&index);
    fs::remove_file(copy.path("model-00002-of-00002.safetensors")).unwrap();
    copy.fails_with(&["model-00002-of-00002.safetensors"]);
}

/// The embedding of token 7.
fn embedded(model: &Blip) -> Vec<f32> {
    let ids = Tensor::new(&[7i64], &Device::Cpu).unwrap();
    model.language().embed(&ids).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_shared_embedding_is_found_under_each_of_its_names_and_published_extras_are_ignored() {
    let want = embedded(&Copy::new().load().unwrap());
    let (encoder, decoder) = ("encoder.embed_tokens", "decoder.embed_tokens");
    for names in [&[encoder][..], &[decoder], &[encoder, decoder]] {
        let copy = Copy::new();
        let mut tensors = copy.tensors();
        let shared = tensors.remove("language_model.shared.weight").unwrap();
        for name in names {
            tensors.insert(format!("language_model.{name}.weight"), shared.clone());
        }
        copy.save(&tensors);
        assert_eq!(embedded(&copy.load().unwrap()), want, "{names:?}");
    }
}

#[test]
fn a_lost_head_is_missing_unless_the_configuration_ties_it() {
    let copy = Copy::new();
    let mut tensors = copy.tensors();
    tensors.remove(HEAD).unwrap();
    copy.save(&tensors);
    copy.load().unwrap(); // transformers 5 writes that it is tied, whatever it is.
    fs::copy(fixtures().join("sets/instructblip-tiny/config_hf4.json"), copy.path("config.json")).unwrap();
    copy.fails_with(&[&format!("1 tensors missing: {HEAD}")]);
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let model = Copy::new().load().unwrap();
    let zeros = |dims: &[usize], dtype| Tensor::zeros(dims, dtype, &Device::Cpu).unwrap();
    let text = fwd_models::QFormerText { ids: zeros(&[1, 4], DType::I64), mask: zeros(&[1, 4], DType::F32) };
    let mut tap = fwd_models::Tap::none();
    let wrong = zeros(&[1, 3, 30, 30], DType::F32);
    let error = model.vision().features(&wrong, &mut tap).unwrap_err().to_string();
    assert!(error.contains("the images are 30x30, the model was trained on 28x28"), "{error}");
    let image = model.vision().features(&zeros(&[1, 3, 28, 28], DType::F32), &mut tap).unwrap();
    model.visual_tokens(&image, Some(&text), &mut tap).unwrap();
    let error = model.visual_tokens(&image, None, &mut tap).unwrap_err().to_string();
    assert!(error.contains("InstructBLIP needs the instruction's tokens"), "{error}");
    let long =
        fwd_models::QFormerText { ids: zeros(&[1, 33], DType::I64), mask: zeros(&[1, 33], DType::F32) };
    let error = model.visual_tokens(&image, Some(&long), &mut tap).unwrap_err().to_string();
    assert!(error.contains("the instruction has 33 tokens, the Q-Former reads at most 32"), "{error}");
    let ids = Tensor::new(&[[120i64, 120, 120, 5, 120]], &Device::Cpu).unwrap();
    let error = model.without_placeholders(&ids, &ids).unwrap_err().to_string();
    assert!(
        error.contains("row 0 has 4 image placeholders (120), 3 of them in front; 4 in front expected"),
        "{error}"
    );
}
