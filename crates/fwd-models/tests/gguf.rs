//! GGUF files of LLaMAs: every value of a set to the bit, under the names of Hugging Face; what is damaged or not supported is refused.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{DType, Device, IndexOp, Tensor, safetensors};
use common::{Report, fixtures, sets_of};
use fwd_models::{
    Checkpoint, GenerationConfig, LanguageInput, ModelError, Segment, SegmentKind, Tap, WeightDtype,
    WeightFile, Weights, generate, load_language_model,
};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;

const KINDS: [&str; 1] = ["gguf-llama"];

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn every_value_is_that_of_hugging_face_to_the_bit() {
    for set in sets_of(&KINDS) {
        let (name, path) = (&set.name, set.dir.join("model.gguf"));
        let expected = safetensors::load(set.dir.join("dequantised_hf.safetensors"), &Device::Cpu).unwrap();
        for dtype in WeightDtype::ALL {
            let mut checkpoint = Checkpoint::open_file(&path, dtype, &Device::Cpu).unwrap();
            for (tensor, want) in &expected {
                let got = checkpoint.get(tensor, want.dims()).unwrap();
                assert_eq!(bits(&floats(&got)), bits(&floats(want)), "{name}: {tensor}");
                // The blocks stay, whatever type is asked for.
                if let &[n_rows, n_cols] = want.dims() {
                    let fwd_ops::Weight::Matrix(matrix) =
                        checkpoint.weight(tensor, [n_rows, n_cols]).unwrap()
                    else {
                        panic!("{name}: {tensor} became a tensor");
                    };
                    assert_eq!(bits(&matrix.values().unwrap()), bits(&floats(want)), "{name}: {tensor}");
                }
            }
        }
    }
}

#[test]
fn the_configuration_is_that_of_hugging_face() {
    for set in sets_of(&KINDS) {
        let meta: Value = serde_json::from_slice(&fs::read(set.dir.join("meta.json")).unwrap()).unwrap();
        let ours = WeightFile::open(&set.dir.join("model.gguf")).unwrap().config().unwrap().unwrap();
        let same = |key: &str, want: &Value| {
            let (got, want) = (&ours[key], want);
            let is_same = got == want || got.as_f64().is_some_and(|value| Some(value) == want.as_f64());
            assert!(is_same, "{}: {key} is {got}, expected {want}", set.name);
        };
        for (key, want) in meta["config"].as_object().unwrap() {
            match key.as_str() {
                "rope_parameters" => same("rope_theta", &want["rope_theta"]),
                key => same(key, want),
            }
        }
        for (key, want) in
            ["bos_token_id", "eos_token_id"].into_iter().zip(meta["bos_eos_pad"].as_array().unwrap())
        {
            same(key, want);
        }
    }
    let safetensors = fixtures().join("sets/instructblip-tiny/model.safetensors");
    assert!(WeightFile::open(&safetensors).unwrap().config().unwrap().is_none());
}

/// The error of logits is that of f32, 2e-5 at most on these sets.
const LOGITS: f64 = 1e-4;
const LOSS: f64 = 1e-5;

#[test]
fn losses_logits_and_answers_are_those_of_hugging_face() {
    let mut report = Report::default();
    for set in sets_of(&KINDS) {
        report.enter(&set.name);
        let (model, tokens) =
            load_language_model(&set.dir.join("model.gguf"), WeightDtype::F32, &Device::Cpu).unwrap();
        assert_eq!((tokens.eos.clone(), tokens.pad), (vec![set.eos_and_pad().0], set.eos_and_pad().1));
        let words = model.embed(&set.io("gen.input_ids")).unwrap();
        let text = Segment::new(SegmentKind::Text, words, &set.io("gen.attention_mask")).unwrap();
        let input = LanguageInput::new(vec![text]).unwrap();
        let rows: Vec<Vec<i64>> = set.io("right.labels").to_vec2().unwrap();
        let is_label = |id: &i64| *id != fwd_ops::IGNORE_INDEX;
        let answers: Vec<Vec<i64>> =
            rows.iter().map(|row| row.iter().copied().filter(is_label).collect()).collect();
        let answers: Vec<&[i64]> = answers.iter().map(|row| &row[..]).collect();
        let labels = fwd_models::padded(&answers, fwd_ops::IGNORE_INDEX, &Device::Cpu).unwrap();
        let scored = model.score(&input, &labels, &mut Tap::none()).unwrap();
        report.close("loss", &scored.loss.unsqueeze(0).unwrap(), &set.io("loss"), LOSS);
        for (i, row) in rows.iter().enumerate() {
            let (first, n) = (row.iter().position(is_label).unwrap(), answers[i].len());
            let want = set.io("logits").i((i, first - 1..first - 1 + n)).unwrap();
            report.close("logits", &scored.logits.i((i, ..n)).unwrap(), &want, LOGITS);
        }
        let want: Vec<Vec<i64>> = set.io("greedy.ids").to_vec2().unwrap();
        let config = GenerationConfig::greedy(want[0].len(), tokens.clone());
        let mut steps = Vec::new();
        let mut on_step = |step: &Tensor| steps.push(step.clone());
        let answers = generate(&*model, &input, &config, Some(&mut on_step)).unwrap();
        let read: Vec<Vec<i64>> = set.io("gen.input_ids").to_vec2().unwrap();
        let sequences: Option<Vec<Vec<i64>>> =
            set.has("greedy.sequences").then(|| set.io("greedy.sequences").to_vec2().unwrap());
        for (i, (answer, want)) in answers.iter().zip(&want).enumerate() {
            let mut ids: Vec<i64> = answer[0].ids.iter().map(|&id| id.into()).collect();
            ids.resize(want.len(), tokens.pad.into());
            report.same("greedy.ids", &ids, want);
            if let Some(sequences) = &sequences {
                let mut whole = [&read[i][..], &ids].concat();
                whole.truncate(sequences[i].len());
                report.same("greedy.sequences", &whole, &sequences[i]);
            }
        }
        if set.has("greedy.logits") {
            let steps = Tensor::stack(&steps, 1).unwrap();
            report.close("greedy.logits", &steps, &set.io("greedy.logits"), LOGITS);
        }
        // The rows of the left are those of the right.
        report.covers(&set, |name| !["right.", "left.", "gen."].iter().any(|rows| name.starts_with(rows)));
    }
    report.finish();
}

const SET: &str = "sets/gguf-llama-tiny";

#[test]
fn a_gguf_file_beside_safetensors_is_the_language_model_and_gives_way_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    fs::copy(fixtures().join(SET).join("model.gguf"), place("llava-Q4_1.gguf")).unwrap();
    let open = || Checkpoint::open(folder.path(), WeightDtype::F32, &Device::Cpu);
    // Alone.
    let norm = floats(&open().unwrap().get("model.norm.weight", &[32]).unwrap());
    // Beside the rest of a multimodal model.
    let mut tensors = HashMap::new();
    tensors.insert(
        "multi_modal_projector.linear_1.bias".to_owned(),
        Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap(),
    );
    safetensors::save(&tensors, place("model.safetensors")).unwrap();
    let mut checkpoint = open().unwrap();
    assert!(!checkpoint.has("model.norm.weight") && checkpoint.has("multi_modal_projector.linear_1.bias"));
    assert_eq!(floats(&checkpoint.get("language_model.model.norm.weight", &[32]).unwrap()), norm);
    // A tensor that both have, under the name of the Hub and as states without conversion call it.
    for name in ["language_model.model.norm.weight", "model.language_model.norm.weight"] {
        let mut tensors = tensors.clone();
        tensors.insert(name.into(), Tensor::ones(32, DType::F32, &Device::Cpu).unwrap());
        safetensors::save(&tensors, place("model.safetensors")).unwrap();
        let mut checkpoint = open().unwrap();
        assert!(!checkpoint.has("model.language_model.norm.weight"));
        assert_eq!(floats(&checkpoint.get("language_model.model.norm.weight", &[32]).unwrap()), [1.0; 32]);
    }
    // A vision tower of llama.cpp is passed over; of two language models none is taken, and without safetensors files both are named.
    fs::write(place("mmproj-model-f16.gguf"), "GGUF").unwrap();
    assert!(open().unwrap().has("language_model.lm_head.weight"));
    fs::copy(place("llava-Q4_1.gguf"), place("llava-Q8_0.gguf")).unwrap();
    assert!(!open().unwrap().has("language_model.lm_head.weight"));
    fs::remove_file(place("model.safetensors")).unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.contains("several GGUF files (llava-Q4_1.gguf, llava-Q8_0.gguf)"), "{error}");
}

/// The error with which bytes are refused as a GGUF file.
fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    let error = WeightFile::open(&path).err().or_else(|| WeightFile::open(&path).unwrap().config().err());
    let error = error.expect("must be refused");
    assert!(matches!(error, ModelError::WeightFile { .. }), "{error:?}");
    let text = error.to_string().replace(&path.display().to_string(), "model.gguf");
    assert!(text.starts_with("model.gguf: ") && text.len() < 500, "{text}");
    text
}

/// A file with one more key, and one tensor of 32 elements.
fn one_tensor(key: &str, value: &[u8], kind: u32, offset: u64) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut bytes = [b"GGUF", &3u32.to_le_bytes()[..], &1u64.to_le_bytes(), &2u64.to_le_bytes()].concat();
    bytes.extend([text("general.architecture"), 8u32.to_le_bytes().to_vec(), text("llama")].concat());
    bytes.extend([text(key), value.to_vec()].concat());
    bytes.extend(
        [text("output_norm.weight"), 1u32.to_le_bytes().to_vec(), 32u64.to_le_bytes().to_vec()].concat(),
    );
    bytes.extend([&kind.to_le_bytes()[..], &offset.to_le_bytes()].concat());
    bytes.resize(bytes.len().next_multiple_of(32) + 128, 0);
    bytes
}

/// A 32-bit number as a value.
fn number(value: u32) -> Vec<u8> {
    [4u32.to_le_bytes(), value.to_le_bytes()].concat()
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let whole = |key: &str, value: u32| one_tensor(key, &number(value), 0, 0);
    assert!(
        refusal(&whole("x", 1)).contains("`token_embd.weight` is missing"),
        "only the configuration is refused"
    );
    for (kind, name) in [(10, "Q2_K"), (11, "Q3_K"), (18, "IQ3_XXS"), (24, "I8"), (77, "type 77")] {
        let error = refusal(&one_tensor("x", &number(1), kind, 0));
        assert!(error.contains(&format!("`output_norm.weight` is stored as {name}")), "{error}");
        assert!(error.contains("Q4_K_M"), "{error}");
    }
    let error = refusal(&whole("split.count", 3));
    assert!(error.contains("llama-gguf-split --merge"), "{error}");
    let error = refusal(&whole("llama.expert_count", 8));
    assert!(error.contains("mixture of experts"), "{error}");
    let mut bytes = whole("x", 1);
    bytes[4..8].copy_from_slice(&1u32.to_le_bytes());
    assert!(refusal(&bytes).contains("version 1"));
    bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
    assert!(refusal(&bytes).contains("big-endian"));
    for (architecture, expected) in
        [("qwen2", "architecture `qwen2`"), ("clip\u{7}", "architecture `clip\\u{7}`")]
    {
        let mut bytes = whole("x", 1);
        bytes.splice(24 + 8 + 20 + 4..24 + 8 + 20 + 4 + 8 + 5, {
            [&(architecture.len() as u64).to_le_bytes()[..], architecture.as_bytes()].concat()
        });
        let error = refusal(&bytes);
        assert!(error.contains(expected) && error.contains("move this file elsewhere"), "{error}");
    }
}

#[test]
fn lengths_and_places_that_do_not_fit_the_file_are_refused() {
    let with = |value: &[u8]| refusal(&one_tensor("x", value, 0, 0));
    let list = |kind: u32, n: u64| [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &n.to_le_bytes()].concat();
    for n in [u64::MAX, u64::MAX / 8, 1 << 60, 1 << 33] {
        for kind in [0, 4, 8, 12] {
            assert!(with(&list(kind, n)).contains("not a valid GGUF file"));
        }
        let text = [&8u32.to_le_bytes()[..], &n.to_le_bytes()].concat();
        assert!(with(&text).contains("not a valid GGUF file"));
        assert!(refusal(&one_tensor("x", &number(1), 0, n)).contains("`output_norm.weight`"));
    }
    assert!(with(&list(9, 1)).contains("list of lists"));
    assert!(with(&13u32.to_le_bytes()).contains("of a type 13"));
    for alignment in [0, 3, 1 << 30] {
        let error = refusal(&one_tensor("general.alignment", &number(alignment), 0, 0));
        assert!(error.contains(&format!("alignment is {alignment}")), "{error}");
    }
    let mut bytes = one_tensor("x", &number(1), 0, 0);
    bytes.extend([0; 64]);
    assert!(refusal(&bytes).contains("its tensors end at"));
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(refusal(&bytes).contains("tensors and"));
    // Blocks of 256 elements, for a row of 32.
    assert!(refusal(&one_tensor("x", &number(1), 12, 0)).contains("no multiple of the blocks"));
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let bytes = fs::read(fixtures().join(SET).join("model.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, &bytes).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    // The header ends before byte 5000.
    for length in (0..5000).chain((5000..bytes.len()).step_by(997)).rev() {
        file.set_len(length as u64).unwrap();
        let error = WeightFile::open(&path).unwrap_err();
        assert!(
            matches!(&error, ModelError::WeightFile { what, .. } if what.contains("GGUF")),
            "{length}: {error}"
        );
    }
}

#[test]
fn a_pointer_in_the_place_of_the_file_and_a_file_under_another_name_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\n").unwrap();
    assert!(WeightFile::open(&path).unwrap_err().to_string().contains("Git LFS pointer"));
    let other = folder.path().join("model.safetensors");
    fs::copy(fixtures().join(SET).join("model.gguf"), &other).unwrap();
    assert!(
        WeightFile::open(&other).unwrap_err().to_string().contains("a GGUF file and not what its name says")
    );
}
