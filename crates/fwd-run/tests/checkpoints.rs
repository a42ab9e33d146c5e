//! Model directories as people have them, opened as the program does it.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod model;

use candle_core::Device;
use fwd_run::model::Backbone;
use image::{ImageFormat, RgbImage};
use std::fs;
use std::io::Cursor;
use std::path::Path;

fn open(dir: &Path) -> Backbone {
    model::write(dir);
    Backbone::open(dir, &Device::Cpu).unwrap()
}

fn png() -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    RgbImage::new(24, 24).write_to(&mut png, ImageFormat::Png).unwrap();
    png.into_inner()
}

#[test]
fn an_instruction_beyond_the_positions_of_the_model_is_refused_with_both_figures_and_without_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let backbone = open(folder.path());
    let limit = backbone.max_instruction_tokens().unwrap();
    assert_eq!(limit, 64, "max_position_embeddings of the Q-Former");
    // [CLS] and [SEP] count too.
    let fitting = "a ".repeat(limit - 2);
    assert_eq!(backbone.count_instruction_tokens(&fitting).unwrap(), limit);
    backbone.features(&png(), "shared.png", &fitting).unwrap();
    let long = format!("{fitting} a");
    assert_eq!(backbone.count_instruction_tokens(&long).unwrap(), limit + 1);
    let error = format!("{:#}", backbone.features(&png(), "shared.png", &long).unwrap_err());
    assert!(error.contains("the instruction has 65 tokens, the model's limit is 64"), "{error}");
    assert!(!error.contains("shared.png") && error.len() < 250, "{error}");
    assert_eq!(backbone.count_answer_tokens("a cat").unwrap(), backbone.labels("a cat").unwrap().len());
}

#[test]
fn a_model_whose_bridge_reads_no_instruction_has_no_limit() {
    let folder = tempfile::tempdir().unwrap();
    let sets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fwd-models/tests/fixtures/sets/blip2-small");
    model::write(folder.path());
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(sets.join(name), folder.path().join(name)).unwrap();
    }
    let backbone = Backbone::open(folder.path(), &Device::Cpu).unwrap();
    assert_eq!(backbone.max_instruction_tokens(), None);
    let long = "a cat ".repeat(200);
    let n_tokens = backbone.processor.text.encode(&long).unwrap().len();
    assert_eq!(backbone.count_instruction_tokens(&long).unwrap(), n_tokens);
    backbone.features(&png(), "x.png", &long).unwrap();
}
