//! Image file and question to text, through the processors and the whole model, as transformers does it.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{Device, Tensor, safetensors};
use common::{Report, Set, fixtures};
use fwd_data::{ImageLimits, ImageProcessor, RgbImage, TextTokenizer, TokenBatch};
use fwd_models::{GenerationConfig, Instructions, MultimodalModel, QFormerText, Tap, generate};
use serde::Deserialize;
use std::path::PathBuf;

#[derive(Deserialize)]
struct Case {
    model: String,
    images: Vec<String>,
    text: Vec<String>,
    answers: Vec<String>,
    image_size: usize,
    decoded: Vec<String>,
}

fn data_fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fwd-data/tests/fixtures"))
}

fn tensor(values: &[i64], batch: &TokenBatch) -> Tensor {
    Tensor::from_slice(values, (batch.rows, batch.width), &Device::Cpu).unwrap()
}

fn check(kind: &str) {
    let case: Case =
        serde_json::from_slice(&std::fs::read(fixtures().join(format!("e2e/{kind}.json"))).unwrap()).unwrap();
    let io = safetensors::load(fixtures().join(format!("e2e/{kind}.safetensors")), &Device::Cpu).unwrap();
    let model = Set::open(&fixtures().join(&case.model)).model("config.json");
    let tokenizer = |name: &str| {
        TextTokenizer::open(&data_fixtures().join(format!("tokenizers/{name}/tokenizer.json"))).unwrap()
    };
    let mut report = Report::default();
    report.enter(kind);

    let images = ImageProcessor::clip(case.image_size);
    let pixels: Vec<f32> = case
        .images
        .iter()
        .flat_map(|name| {
            let path = data_fixtures().join("images").join(name);
            images.process(&RgbImage::open(&path, ImageLimits::default()).unwrap())
        })
        .collect();
    let side = case.image_size;
    let pixels = Tensor::from_vec(pixels, (case.images.len(), 3, side, side), &Device::Cpu).unwrap();
    report.close("pixel_values", &pixels, &io["pixel_values"], 0.0);

    let t5 = tokenizer("t5_unigram");
    let text = t5.encode_batch(&case.text).unwrap();
    let (ids, mask) = model.without_placeholders(&io["input_ids"], &io["attention_mask"]).unwrap();
    report.close("input_ids", &tensor(&text.ids, &text), &ids, 0.0);
    report.close("attention_mask", &tensor(&text.mask, &text), &mask, 0.0);
    let qformer = (kind == "instructblip").then(|| {
        let batch = tokenizer("bert_wordpiece").encode_batch(&case.text).unwrap();
        let text = QFormerText { ids: tensor(&batch.ids, &batch), mask: tensor(&batch.mask, &batch) };
        report.close("qformer_input_ids", &text.ids, &io["qformer_input_ids"], 0.0);
        report.close("qformer_attention_mask", &text.mask, &io["qformer_attention_mask"], 0.0);
        text
    });
    let answers = t5.encode_batch(&case.answers).unwrap();
    let labels = tensor(&answers.labels(fwd_ops::IGNORE_INDEX), &answers);
    report.close("labels", &labels, &io["labels"], 0.0);

    let instructions =
        Instructions { ids: tensor(&text.ids, &text), mask: tensor(&text.mask, &text), qformer };
    let input = model.features(&pixels, &instructions, &mut Tap::none()).unwrap().input;
    let scored = model.language().score(&input, &labels, &mut Tap::none()).unwrap();
    report.close("logits", &scored.logits, &io["logits"], 1e-4);
    report.close("loss", &scored.loss.unsqueeze(0).unwrap(), &io["loss"], 1e-5);

    let config = GenerationConfig::greedy(8, model.special_tokens().clone());
    let rows = generate(model.language(), &input, &config, None).unwrap();
    let sequences: Vec<Vec<i64>> = io["greedy_sequences"].to_vec2().unwrap();
    for (row, want) in rows.iter().zip(&sequences) {
        let mut ids = vec![0i64];
        ids.extend(row[0].ids.iter().map(|&id| i64::from(id)));
        ids.resize(want.len(), 0);
        report.same("greedy_sequences", &ids, want);
    }
    let decoded: Vec<String> = rows.iter().map(|row| t5.decode(&row[0].ids).unwrap()).collect();
    report.same("decoded", &decoded, &case.decoded);
    report.finish();
}

#[test]
fn blip2_answers_as_transformers_does() {
    check("blip2");
}

#[test]
fn instructblip_answers_as_transformers_does() {
    check("instructblip");
}
