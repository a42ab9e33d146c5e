//! Frozen products in bf16 and with 8-bit activations, through the reference sets of every kind, against the same models in f32, which the
//! other tests compare with transformers.
//!
//! A product in bf16 rounds both factors, each with a relative error of up to u = 2⁻⁹. The roundings are independent, so that a product is
//! off by about √2·u of its own size, and an output behind `n` products in a row by √(2n)·u; the worst of some thousand elements by four
//! times that. A gradient depends on every product twice, and in the `lowvar` sets divides by norms close to their eps: four times as much
//! again. These are the bounds of `half.rs`, where one factor is rounded. The number of matrices in the checkpoint stands for `n`, which it
//! exceeds: queries, keys and values lie side by side.
//!
//! 8-bit activations have steps of `m/127`, where `m` is the largest of a block of 32, at most √32 times the root of the mean square of
//! the block. A step of that size makes an error of `√32/(127·√12)` in the root of the mean square.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{DType, Device, Tensor, Var, safetensors};
use common::{Report, Set, abs_max, max_diff, sets_of};
use fwd_models::{
    Instructions, LanguageInput, LanguageModel, Precision, QFormerText, Segment, SegmentKind, SpecialTokens,
    Tap, VisionTransformer, WeightDtype, load, load_language_model,
};
use fwd_ops::Compute;
use std::path::PathBuf;

const MULTIMODAL: [&str; 5] = ["blip2", "instructblip", "blip2-opt", "instructblip-vicuna", "llava"];
const LANGUAGE: [&str; 2] = ["llama", "gguf-llama"];
const VISION: [&str; 1] = ["dinov2"];

/// The relative error of a factor that is rounded to bf16.
const U: f64 = 1.0 / 512.0;

/// Tensors by name: those of the forward pass, and the gradient to a prompt.
struct Outputs {
    forward: Vec<(&'static str, Tensor)>,
    gradient: Option<Tensor>,
}

/// Logits behind a prompt, the gradient to that, and the logits of steps of one token a row.
fn of_language(
    language: &dyn LanguageModel,
    input: &LanguageInput,
    tokens: &SpecialTokens,
) -> (Vec<(&'static str, Tensor)>, Tensor) {
    let ids = |ids: &[i64]| Tensor::new(ids, &Device::Cpu).unwrap();
    let prompt = Var::from_tensor(&language.embed(&ids(&[11, 12, 13])).unwrap().detach()).unwrap();
    let batch = input.batch();
    let labels = ids(&[5, 9, 12]).unsqueeze(0).unwrap().repeat((batch, 1)).unwrap();
    let with_prompt = input.with_prompt(&prompt).unwrap();
    let scored = language.score(&with_prompt, &labels, &mut Tap::none()).unwrap();
    let gradient = fwd_ops::backward(&scored.loss, &[("prompt", &prompt)]).unwrap().remove(0);
    let (mut decoding, _) = language.start(input, tokens, 4).unwrap();
    let steps: Vec<Tensor> =
        [6u32, 9, 14].iter().map(|&id| decoding.step(&vec![id; batch]).unwrap()).collect();
    let steps = Tensor::stack(&steps, 1).unwrap();
    (vec![("logits", scored.logits), ("steps", steps)], gradient)
}

fn outputs(set: &Set, precision: Precision) -> Outputs {
    let device = Device::Cpu;
    if VISION.contains(&set.kind().as_str()) {
        let tower = VisionTransformer::load(&set.dir, precision, &device).unwrap();
        let sizes = set.names().filter(|name| name.starts_with("pixel_values."));
        let forward = |name: &str| tower.forward(&set.io(name), &mut Tap::none()).unwrap();
        return Outputs { forward: sizes.map(|name| ("features", forward(name))).collect(), gradient: None };
    }
    let words = vec![5i64, 9, 12, 3, 7];
    if LANGUAGE.contains(&set.kind().as_str()) {
        let (language, tokens) = load_language_model(&weights(set), precision, &device).unwrap();
        let words = Tensor::new(vec![words.clone(), words], &device).unwrap();
        let words = language.embed(&words).unwrap();
        let words = Segment::full(SegmentKind::Text, words).unwrap();
        let input = LanguageInput::new(vec![words]).unwrap();
        let (forward, gradient) = of_language(&*language, &input, &tokens);
        return Outputs { forward, gradient: Some(gradient) };
    }
    let model = load(&set.dir, precision, &device).unwrap();
    let pixels = set.io("pixel_values");
    let image = model.has_images_in_text().then(|| i64::from(model.image_token().unwrap()));
    let ids: Vec<i64> = image.into_iter().chain(words).collect();
    let ids = Tensor::new(vec![ids; pixels.dim(0).unwrap()], &device).unwrap();
    let mask = ids.ones_like().unwrap();
    let qformer =
        model.bridge_reads_instruction().then(|| QFormerText { ids: ids.clone(), mask: mask.clone() });
    let instructions = Instructions { ids, mask, qformer };
    let images = model.image_features(&pixels, &mut Tap::none()).unwrap();
    let features = model.features_of(&images, &instructions, &mut Tap::none()).unwrap();
    let (mut forward, gradient) = of_language(model.language(), &features.input, model.special_tokens());
    forward.push(("visual tokens", features.visual_tokens().unwrap()));
    Outputs { forward, gradient: Some(gradient) }
}

/// The file of a language model alone, or its directory.
fn weights(set: &Set) -> PathBuf {
    let gguf = set.dir.join("model.gguf");
    if gguf.exists() { gguf } else { set.dir.clone() }
}

/// The matrices and kernels in the files of a set.
fn n_matrices(set: &Set) -> f64 {
    let file = ["model.safetensors", "dequantised_hf.safetensors"].map(|name| set.dir.join(name));
    let file = file.iter().find(|path| path.exists()).unwrap();
    let tensors = safetensors::load(file, &Device::Cpu).unwrap();
    tensors.values().filter(|tensor| tensor.rank() > 1).count() as f64
}

fn root_mean_square(tensor: &Tensor) -> f64 {
    let squares = tensor.to_dtype(DType::F64).unwrap().sqr().unwrap();
    squares.mean_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
}

/// Everything within `4·unit·√n` of its largest element, the gradient within four times that.
fn compare(set: &Set, ours: &Outputs, want: &Outputs, unit: f64, report: &mut Report) {
    let tolerance = 4.0 * unit * n_matrices(set).sqrt();
    for ((name, ours), (_, want)) in ours.forward.iter().zip(&want.forward) {
        report.close(name, ours, want, tolerance * abs_max(want));
    }
    if let (Some(ours), Some(want)) = (&ours.gradient, &want.gradient) {
        report.close("gradient", ours, want, 4.0 * tolerance * abs_max(want));
    }
}

#[test]
fn products_in_bf16_stay_within_their_rounding_and_are_rounded() {
    let mut report = Report::default();
    for set in sets_of(&[&MULTIMODAL[..], &LANGUAGE, &VISION].concat()) {
        report.enter(&format!("{} bf16", set.name));
        let reference = outputs(&set, WeightDtype::F32.into());
        let ours = outputs(&set, Precision { dtype: WeightDtype::F32, compute: Compute::Bf16 });
        compare(&set, &ours, &reference, 2f64.sqrt() * U, &mut report);
        // A model that silently stayed in f32 would pass every bound above. The last product alone is off by 0.6·u in the root of the mean
        // square, if mantissas are spread evenly over their logarithm.
        for ((name, ours), (_, want)) in ours.forward.iter().zip(&reference.forward) {
            let off = root_mean_square(&(ours - want).unwrap()) / root_mean_square(want);
            // The bridge of BLIP-2 stays in f32, and the map behind it does not.
            if off < U / 4.0 {
                report.fail(format!("{name}: off by {off:.1e}, less than bf16 is"));
            }
        }
        // Weights that lie in the file in bf16, or are rounded to it on loading, are the same weights.
        let half = outputs(&set, Precision { dtype: WeightDtype::Bf16, compute: Compute::Bf16 });
        compare(&set, &half, &reference, 2f64.sqrt() * U, &mut report);
    }
    report.finish();
}

#[test]
fn activations_of_8_bits_stay_within_their_rounding_and_are_rounded() {
    let mut report = Report::default();
    let unit = 32f64.sqrt() / (127.0 * 12f64.sqrt()) + 2f64.sqrt() * U;
    let mut n_rounded = 0;
    for set in sets_of(&[&MULTIMODAL[..], &LANGUAGE, &VISION].concat()) {
        for dtype in [WeightDtype::Q8, WeightDtype::Q4] {
            report.enter(&format!("{} {dtype} int8", set.name));
            let of = |compute| outputs(&set, Precision { dtype, compute });
            let [reference, bf16, ours] = [Compute::F32, Compute::Bf16, Compute::Int8].map(of);
            compare(&set, &ours, &reference, unit, &mut report);
            compare(&set, &bf16, &reference, 2f64.sqrt() * U, &mut report);
            let steps = |outputs: &Outputs| {
                outputs.forward.iter().find(|(name, _)| *name == "steps").map(|(_, steps)| steps.clone())
            };
            // Few rows times blocks: decoding, where all products of few rows are. What has no decoding need not differ.
            if let (Some(ours), Some(bf16)) = (steps(&ours), steps(&bf16)) {
                n_rounded += usize::from(max_diff(&ours, &bf16) > U / 4.0 * root_mean_square(&bf16));
            }
        }
    }
    report.finish();
    assert!(n_rounded > 0, "no step of decoding has activations of 8 bits");
}
