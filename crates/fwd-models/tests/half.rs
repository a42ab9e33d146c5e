//! Weights in other types than f32, through the reference sets.
//!
//! # bf16 and f16 through BLIP-2 and InstructBLIP with FlanT5
//!
//! Only the weight matrices are rounded (relative error up to u = 2⁻⁹ for bf16, 2⁻¹² for f16); norms, biases, queries and all
//! activations stay f32. The rounding errors of the layers are independent, so an output made by `n` matrices in a row is
//! off by about `u·sqrt(n)` of its own size, and the worst of some thousand elements by four times that. A gradient
//! depends on every matrix twice, and in the `lowvar` sets divides by norms close to their eps. Hence `4·u·sqrt(n)` for
//! outputs and `16·u·sqrt(n)` for the gradient, relative to the largest element.
//!
//! # Every type through LLaMA and OPT
//!
//! Blocks of 4 bits change a model of these widths by as much as its outputs are, so no bound on outputs would say much. Two exact
//! statements do: each stored element is as close to the original as its format promises, and the model is that of the stored values in
//! f32, whose sums it only orders otherwise.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{BLIP_T5, Report, Set, abs_max, sets_of};
use fwd_models::{
    CausalLm, Checkpoint, GenerationConfig, Instructions, LanguageInput, LanguageModel, MultimodalModel,
    QFormerText, Result, Segment, SegmentKind, SpecialTokens, Tap, WeightDtype, Weights, generate,
};
use fwd_ops::{Format, Weight};
use std::collections::BTreeSet;

/// Matrices that an input passes one after the other: patches, 4 a layer, projection, head.
fn depth(config: &fwd_models::ModelConfig) -> f64 {
    let layers = config.vision.num_hidden_layers + config.qformer.num_hidden_layers + config.text.n_layers();
    (4 * layers + 3) as f64
}

fn check(dtype: WeightDtype, unit: f64) {
    let mut report = Report::default();
    for set in sets_of(&BLIP_T5) {
        report.enter(&format!("{} {dtype:?}", set.name));
        let model = set.model_in("config.json", dtype);
        let tolerance = 4.0 * unit * depth(model.config()).sqrt();
        let (ids, mask) =
            model.without_placeholders(&set.io("input_ids"), &set.io("attention_mask")).unwrap();
        let qformer = set.has("qformer_input_ids").then(|| QFormerText {
            ids: set.io("qformer_input_ids"),
            mask: set.io("qformer_attention_mask"),
        });
        let instructions = Instructions { ids, mask, qformer };
        let features = model.features(&set.io("pixel_values"), &instructions, &mut Tap::none()).unwrap();
        let input = &features.input;
        let scored = model.language().score(input, &set.io("labels"), &mut Tap::none()).unwrap();
        let against = |name: &str, ours: &Tensor, report: &mut Report| {
            let want = set.io(name);
            report.close(name, ours, &want, tolerance * abs_max(&want));
        };
        against("language_projection", &features.visual_tokens().unwrap(), &mut report);
        against("logits", &scored.logits, &mut report);
        against("loss", &scored.loss.unsqueeze(0).unwrap(), &mut report);
        let prompt = Var::from_tensor(&set.io("soft.prompt")).unwrap();
        let with_prompt = input.with_prompt(&prompt).unwrap();
        let loss = model.language().score(&with_prompt, &set.io("labels"), &mut Tap::none()).unwrap().loss;
        let gradient = &fwd_ops::backward(&loss, &[("prompt", &prompt)]).unwrap()[0];
        let want = set.io("soft.grad");
        report.close("soft.grad", gradient, &want, 4.0 * tolerance * abs_max(&want));
        // The rounding must be there: a model that silently stayed in f32 would pass every bound above.
        let off = common::max_diff(&scored.logits, &set.io("logits")) / abs_max(&set.io("logits"));
        assert!(off > unit / 8.0, "{}: the weights were not rounded to {dtype:?}", set.name);
    }
    report.finish();
}

#[test]
fn bf16_weights_stay_within_their_rounding() {
    check(WeightDtype::Bf16, (2f64).powi(-9));
}

#[test]
fn f16_weights_stay_within_their_rounding() {
    check(WeightDtype::F16, (2f64).powi(-12));
}

/// A checkpoint whose matrices are widened to f32 when they are asked for.
struct Widened {
    stored: Checkpoint,
    /// Name, format and values of each.
    matrices: Vec<(String, Format, Tensor)>,
}

impl Weights for Widened {
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.stored.get(name, shape)
    }

    fn weight(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight> {
        let Weight::Matrix(matrix) = self.stored.weight(name, shape)? else {
            panic!("{name} is stored in f32");
        };
        let values = Tensor::from_vec(matrix.values()?, &shape, &Device::Cpu)?;
        self.matrices.push((name.into(), matrix.format(), values.clone()));
        Ok(values.into())
    }

    fn has(&self, name: &str) -> bool {
        self.stored.has(name)
    }
}

/// The largest error of an element that a format may make.
///
/// Half precision rounds to the nearest of `p` bits: `2^−p·|x|`, and f16 has no smaller step than 2⁻²⁴. In a block of 32 elements, of
/// which the largest is `m`, `Q8_0` has steps of `m/127`, and `Q4_0` of `m/8`, whose top step is missing on the side that has not the
/// largest element, so that an element there may be off by a whole step instead of half of one. Their scale is an f16, whose error of 2⁻¹¹
/// counts once for each step up to the element.
fn bound(format: Format, x: f64, largest_of_block: f64) -> f64 {
    let scale_error = (2f64).powi(-11);
    match format {
        Format::Bf16 => (2f64).powi(-8) * x.abs(),
        Format::F16 => (2f64).powi(-11) * x.abs() + (2f64).powi(-25),
        Format::Q8_0 => largest_of_block / 127.0 * (0.5 + 127.0 * scale_error),
        Format::Q4_0 => largest_of_block / 8.0 * (1.0 + 8.0 * scale_error),
        other => panic!("no type makes {other:?}"),
    }
}

/// Every element within its bound, and in the mean not far below, as it is where nothing was rounded.
fn check_elements(place: &str, format: Format, stored: &Tensor, original: &Tensor) {
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (stored, original) = (flat(stored), flat(original));
    let (mut error, mut allowed) = (0.0, 0.0);
    for (stored, original) in stored.chunks(32).zip(original.chunks(32)) {
        let largest = original.iter().fold(0f64, |m, x| m.max(f64::from(x.abs())));
        for (s, x) in stored.iter().zip(original) {
            let (off, most) = (f64::from((s - x).abs()), bound(format, f64::from(*x), largest));
            assert!(off <= most, "{place}: {x} became {s} in {format:?}");
            error += off;
            allowed += most;
        }
    }
    assert!(error > allowed / 16.0, "{place}: nothing was rounded to {format:?}");
}

fn causal(set: &Set, weights: &mut dyn Weights) -> CausalLm {
    let (_, config) = set.causal("config.json");
    let prefix = if set.has("pixel_values") { "language_model" } else { "" };
    CausalLm::new(&config, weights, prefix).unwrap()
}

/// Logits of the words of a set behind its prompts, and the gradient to these.
fn behind_prompts(set: &Set, model: &CausalLm) -> (Tensor, Tensor) {
    let words = model.embed(&set.io("gen.input_ids")).unwrap();
    let words = Segment::new(SegmentKind::Text, words, &set.io("gen.attention_mask")).unwrap();
    let prompt = Var::from_tensor(&set.io("soft.prompt")).unwrap();
    let input = LanguageInput::new(vec![words]).unwrap().with_prompt(&prompt).unwrap();
    let batch = input.batch();
    let labels = Tensor::arange(5i64, 5 + 2 * batch as i64, &Device::Cpu).unwrap();
    let labels = labels.reshape((batch, 2)).unwrap();
    let scored = model.score(&input, &labels, &mut Tap::none()).unwrap();
    let gradient = fwd_ops::backward(&scored.loss, &[("prompt", &prompt)]).unwrap().remove(0);
    assert_eq!(scored.logits.dtype(), DType::F32);
    (scored.logits, gradient)
}

/// Ids and logits `(batch, tokens, vocab)` of greedy search behind the words of a set; it ends only at its length.
fn greedy(set: &Set, model: &CausalLm) -> (Vec<Vec<u32>>, Tensor) {
    let words = model.embed(&set.io("gen.input_ids")).unwrap();
    let words = Segment::new(SegmentKind::Text, words, &set.io("gen.attention_mask")).unwrap();
    let input = LanguageInput::new(vec![words]).unwrap();
    let (eos, pad) = set.eos_and_pad();
    let tokens = SpecialTokens { decoder_start: 0, eos: vec![eos], pad, bos: 1 };
    let config = GenerationConfig { min_new_tokens: 6, ..GenerationConfig::greedy(6, tokens) };
    let mut steps = Vec::new();
    let mut on_step = |step: &Tensor| steps.push(step.clone());
    let rows = generate(model, &input, &config, Some(&mut on_step)).unwrap();
    let ids = rows.into_iter().map(|mut row| row.remove(0).ids).collect();
    (ids, Tensor::stack(&steps, 1).unwrap())
}

#[test]
fn a_decoder_of_any_type_is_that_of_its_stored_values() {
    let mut report = Report::default();
    let mut seen = BTreeSet::new();
    for set in sets_of(&["llama", "blip2-opt", "instructblip-vicuna", "llava"]) {
        for dtype in [WeightDtype::Bf16, WeightDtype::F16, WeightDtype::Q8, WeightDtype::Q4] {
            report.enter(&format!("{} {dtype}", set.name));
            let open = |dtype| Checkpoint::open(&set.dir, dtype, &Device::Cpu).unwrap();
            let mut widened = Widened { stored: open(dtype), matrices: Vec::new() };
            let (want, want_gradient) = behind_prompts(&set, &causal(&set, &mut widened));
            let mut original = open(WeightDtype::F32);
            for (name, format, values) in &widened.matrices {
                let original = original.get(name, values.dims()).unwrap();
                check_elements(&format!("{}: {name}", set.name), *format, values, &original);
            }
            let (logits, gradient) = behind_prompts(&set, &causal(&set, &mut open(dtype)));
            report.close("logits", &logits, &want, 1e-4);
            report.close("gradient", &gradient, &want_gradient, 1e-4 * abs_max(&want_gradient));
            // Steps of one token a row are products of few rows, which have code of their own.
            if seen.insert((set.kind(), dtype.name())) {
                let stored = causal(&set, &mut open(dtype));
                let widened = causal(&set, &mut Widened { stored: open(dtype), matrices: Vec::new() });
                let ((ids, logits), (want_ids, want)) = (greedy(&set, &stored), greedy(&set, &widened));
                report.same("greedy ids", &ids, &want_ids);
                report.close("greedy logits", &logits, &want, 1e-4);
            }
        }
    }
    report.finish();
}
