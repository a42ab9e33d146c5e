//! Parity with Hugging Face transformers: every tensor of every reference set in `tests/fixtures/sets`, or in the folder
//! that `FWD_ORACLE_DIR` names; with the feature `emulate` also as an emulated GPU computes them. How the sets were made is told in `tests/fixtures/README.md`.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{BLIP_T5, Report, Set, Share, sets_of};
use fwd_linalg::{AdamW, AdamWState};
use fwd_models::{
    Blip, EarlyStopping, FrozenFeatures, GenerationConfig, Hypothesis, Instructions, LanguageInput,
    MultimodalModel, QFormerText, Tap, generate,
};
use std::collections::BTreeMap;

/// Largest error of an activation. f32 itself is up to 4e-5 away from f64 on these sets.
const ACTIVATION: f64 = 1e-4;
const LOSS: f64 = 1e-5;
/// Largest error of dLoss/dP relative to its largest element.
const GRADIENT: f64 = 1e-4;

fn instructions(set: &Set, model: &Blip) -> Instructions {
    let (ids, mask) = model.without_placeholders(&set.io("input_ids"), &set.io("attention_mask")).unwrap();
    Instructions { ids, mask, qformer: qformer_text(set) }
}

fn qformer_text(set: &Set) -> Option<QFormerText> {
    set.has("qformer_input_ids")
        .then(|| QFormerText { ids: set.io("qformer_input_ids"), mask: set.io("qformer_attention_mask") })
}

fn features(set: &Set, model: &Blip) -> FrozenFeatures {
    model.features(&set.io("pixel_values"), &instructions(set, model), &mut Tap::none()).unwrap()
}

/// Runs the whole model and checks every stage that the set holds.
fn check_stages(set: &Set, model: &Blip, report: &mut Report) {
    let mut stages = BTreeMap::new();
    let mut look = |name: &str, value: &Tensor| {
        stages.insert(name.to_string(), value.clone());
    };
    let mut tap = Tap::new(&mut look);
    let features = model.features(&set.io("pixel_values"), &instructions(set, model), &mut tap).unwrap();
    let input = features.input;
    let labels = set.io("labels");
    let scored = model.language().score(&input, &labels, &mut tap).unwrap();
    stages.insert("t5.attention_mask".into(), input.concatenated().unwrap().mask);
    stages.insert("logits".into(), scored.logits.clone());
    stages.insert("token_nll".into(), fwd_ops::token_nll(&scored.logits, &labels).unwrap());
    let stage_names = ["vision.", "qformer.", "t5.", "language_projection", "logits", "token_nll"];
    for name in set.names().filter(|name| stage_names.iter().any(|s| name.starts_with(s))) {
        match stages.get(name) {
            Some(ours) => report.close(name, ours, &set.io(name), ACTIVATION),
            None => report.fail(format!("{name}: no such stage")),
        }
    }
    report.close("loss", &scored.loss.unsqueeze(0).unwrap(), &set.io("loss"), LOSS);
}

/// Loss and gradient of a prompt.
fn loss_and_gradient(model: &Blip, input: &LanguageInput, prompt: &Var, labels: &Tensor) -> (Tensor, Tensor) {
    let input = input.with_prompt(prompt).unwrap();
    let loss = model.language().score(&input, labels, &mut Tap::none()).unwrap().loss;
    let mut gradients = fwd_ops::backward(&loss, &[("prompt", prompt)]).unwrap();
    (loss.detach(), gradients.remove(0))
}

fn check_prompts(set: &Set, model: &Blip, report: &mut Report) {
    let (input, labels) = (features(set, model).input, set.io("labels"));
    let prompt = Var::from_tensor(&set.io("soft.prompt")).unwrap();
    let with_prompt = input.with_prompt(&prompt).unwrap();
    let mut look = |name: &str, value: &Tensor| {
        if name == "t5.encoder.last_hidden_state" {
            report.close(
                "soft.encoder_last_hidden_state",
                value,
                &set.io("soft.encoder_last_hidden_state"),
                ACTIVATION,
            );
        }
    };
    let scored = model.language().score(&with_prompt, &labels, &mut Tap::new(&mut look)).unwrap();
    let read = with_prompt.concatenated().unwrap();
    report.close("soft.inputs_embeds", &read.embeds, &set.io("soft.inputs_embeds"), ACTIVATION);
    report.close("soft.attention_mask", &read.mask, &set.io("soft.attention_mask"), 0.0);
    report.close("soft.logits", &scored.logits, &set.io("soft.logits"), ACTIVATION);
    for name in ["soft", "soft_shared"] {
        let prompt = Var::from_tensor(&set.io(&format!("{name}.prompt"))).unwrap();
        let (loss, gradient) = loss_and_gradient(model, &input, &prompt, &labels);
        report.close(
            &format!("{name}.loss"),
            &loss.unsqueeze(0).unwrap(),
            &set.io(&format!("{name}.loss")),
            LOSS,
        );
        let want = set.io(&format!("{name}.grad"));
        report.close(&format!("{name}.grad"), &gradient, &want, GRADIENT * common::abs_max(&want));
    }
}

fn check_training(set: &Set, model: &Blip, report: &mut Report) {
    let (input, labels) = (features(set, model).input, set.io("labels"));
    for (name, weight_decay) in [("train.adamw", 0.0), ("train.adamw_wd", 0.01)] {
        let want = set.io(&format!("{name}.losses"));
        let shape = set.io("soft_shared.prompt").shape().clone();
        let mut values: Vec<f32> = set.io("soft_shared.prompt").flatten_all().unwrap().to_vec1().unwrap();
        let mut state = AdamWState::new(values.len());
        let optimiser = AdamW { lr: 0.05, weight_decay, ..AdamW::default() };
        let mut losses = Vec::new();
        for _ in 0..want.elem_count() {
            let prompt = Var::from_slice(&values, &shape, &Device::Cpu).unwrap();
            let (loss, gradient) = loss_and_gradient(model, &input, &prompt, &labels);
            losses.push(loss.to_scalar::<f32>().unwrap());
            if losses.len() < want.elem_count() {
                let gradient: Vec<f32> = gradient.flatten_all().unwrap().to_vec1().unwrap();
                optimiser.step(&mut state, &mut values, &gradient).unwrap();
            }
        }
        report.close(
            &format!("{name}.losses"),
            &Tensor::new(losses, &Device::Cpu).unwrap(),
            &want,
            5.0 * LOSS,
        );
        let last = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        report.close(
            &format!("{name}.final_prompt"),
            &last,
            &set.io(&format!("{name}.final_prompt")),
            ACTIVATION,
        );
    }
}

/// Ids up to and including the first `</s>`, filled up with 0.
fn padded(hypothesis: &Hypothesis, len: usize) -> Vec<i64> {
    let mut ids: Vec<i64> = hypothesis.ids.iter().map(|&id| i64::from(id)).collect();
    ids.resize(len, 0);
    ids
}

fn check_greedy(set: &Set, model: &Blip, input: &LanguageInput, name: &str, report: &mut Report) {
    let want_ids: Vec<Vec<i64>> = set.io(&format!("{name}.ids")).to_vec2().unwrap();
    let n = want_ids[0].len();
    let config = GenerationConfig::greedy(n, model.special_tokens().clone());
    let mut logits = Vec::new();
    let mut on_step = |step: &Tensor| logits.push(step.clone());
    let rows = generate(model.language(), input, &config, Some(&mut on_step)).unwrap();
    let ids: Vec<Vec<i64>> = rows.iter().map(|row| padded(&row[0], n)).collect();
    report.same(&format!("{name}.ids"), &ids, &want_ids);
    let sequences: Vec<Vec<i64>> = set.io(&format!("{name}.sequences")).to_vec2().unwrap();
    let ours = ids
        .iter()
        .map(|row| std::iter::once(0).chain(row.iter().copied()).take(sequences[0].len()).collect());
    report.same(&format!("{name}.sequences"), &ours.collect::<Vec<Vec<i64>>>(), &sequences);
    if set.has(&format!("{name}.logits")) {
        let logits = Tensor::stack(&logits, 1).unwrap();
        report.close(&format!("{name}.logits"), &logits, &set.io(&format!("{name}.logits")), ACTIVATION);
    }
}

fn check_generation(set: &Set, model: &Blip, report: &mut Report) {
    let input = features(set, model).input;
    check_greedy(set, model, &input, "greedy", report);
    let with_prompt = input.with_prompt(&set.io("soft_shared.prompt")).unwrap();
    check_greedy(set, model, &with_prompt, "soft_shared.greedy", report);
    let batch = set.io("pixel_values").dim(0).unwrap();
    let empty = model.empty_instructions(batch, qformer_text(set), &Device::Cpu).unwrap();
    let captioned = model.features(&set.io("pixel_values"), &empty, &mut Tap::none()).unwrap();
    check_greedy(set, model, &captioned.input, "noprompt.greedy", report);

    for (name, length_penalty, early_stopping) in [
        ("beam3", 1.0, EarlyStopping::Heuristic),
        ("beam3_lp-1", -1.0, EarlyStopping::Heuristic),
        ("beam3_es", 1.0, EarlyStopping::Always),
    ] {
        let want: Vec<Vec<Vec<i64>>> = set.io(&format!("{name}.all_ids")).to_vec3().unwrap();
        let n = want[0][0].len();
        let greedy = GenerationConfig::greedy(n, model.special_tokens().clone());
        let config = GenerationConfig { num_beams: 3, length_penalty, early_stopping, ..greedy };
        let rows = generate(model.language(), &input, &config, None).unwrap();
        let ids: Vec<Vec<Vec<i64>>> = rows.iter().map(|r| r.iter().map(|h| padded(h, n)).collect()).collect();
        report.same(&format!("{name}.all_ids"), &ids, &want);
        let best: Vec<Vec<i64>> = ids.iter().map(|row| row[0].clone()).collect();
        report.same(&format!("{name}.ids"), &best, &set.io(&format!("{name}.ids")).to_vec2().unwrap());
        // The raw output of transformers fills up with `</s>` behind the first one.
        let sequences: Vec<Vec<i64>> = set.io(&format!("{name}.sequences")).to_vec2().unwrap();
        for (ours, raw) in best.iter().zip(&sequences) {
            let end = ours.iter().position(|&id| id == 1).map_or(n, |at| at + 1);
            report.same(&format!("{name}.sequences"), &ours[..end], &raw[1..=end]);
        }
        let scores: Vec<Vec<f32>> = rows.iter().map(|r| r.iter().map(|h| h.score).collect()).collect();
        let scores = Tensor::new(scores, &Device::Cpu).unwrap();
        // With length penalty −1 the score is the sum of n errors times the length n, not over it.
        let tolerance = if length_penalty < 0.0 { n as f64 * ACTIVATION } else { ACTIVATION };
        report.close(
            &format!("{name}.all_scores"),
            &scores,
            &set.io(&format!("{name}.all_scores")),
            tolerance,
        );
        let best = scores.narrow(1, 0, 1).unwrap().squeeze(1).unwrap();
        report.close(&format!("{name}.scores"), &best, &set.io(&format!("{name}.scores")), tolerance);
    }
}

/// Checks all sets, and that of each set no tensor of the share went unchecked.
fn for_all_sets(share: Share, check: impl Fn(&Set, &Blip, &mut Report)) {
    let check = |set: &Set, model: &Blip, report: &mut Report| {
        check(set, model, report);
        report.covers(set, |name| Share::of(name) == share);
    };
    let mut report = Report::default();
    for set in sets_of(&BLIP_T5) {
        let model = set.model("config.json");
        report.enter(&set.name);
        check(&set, &model, &mut report);
        #[cfg(feature = "emulate")]
        {
            report.enter(&format!("{} on an emulated GPU", set.name));
            fwd_ops::emulated(fwd_kernels::Target::H100, || check(&set, &model, &mut report));
        }
    }
    report.finish();
}

#[test]
fn every_stage_agrees() {
    for_all_sets(Share::Stages, check_stages);
}

#[test]
fn prompt_losses_and_gradients_agree() {
    for_all_sets(Share::Prompts, check_prompts);
}

#[test]
fn adamw_trajectories_agree() {
    for_all_sets(Share::Training, check_training);
}

#[test]
fn greedy_and_beam_search_agree() {
    for_all_sets(Share::Generation, check_generation);
}

#[test]
fn the_config_of_transformers_4_gives_the_same_model() {
    let (with_file, without): (Vec<Set>, Vec<Set>) =
        sets_of(&BLIP_T5).into_iter().partition(|set| set.dir.join("config_hf4.json").exists());
    // A folder of one's own may come from one generation of transformers only.
    if std::env::var_os("FWD_ORACLE_DIR").is_some() && with_file.is_empty() {
        return;
    }
    assert!(std::env::var_os("FWD_ORACLE_DIR").is_some() || without.is_empty());
    let mut report = Report::default();
    for set in with_file {
        report.enter(&format!("{} (config_hf4.json)", set.name));
        let model = set.model("config_hf4.json");
        check_stages(&set, &model, &mut report);
        check_prompts(&set, &model, &mut report);
    }
    report.finish();
}

#[test]
fn the_dtype_of_activations_is_f32() {
    let set = Set::open(&common::fixtures().join("sets/blip2-tiny"));
    let model = set.model("config.json");
    assert_eq!(features(&set, &model).visual_tokens().unwrap().dtype(), DType::F32);
}
