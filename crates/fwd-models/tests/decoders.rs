//! Parity of decoder-only language models with Hugging Face transformers: LLaMA and OPT alone and behind BLIP-2, InstructBLIP and LLaVA.
//! Every tensor of every set of these kinds in `tests/fixtures/sets`, or in the folder that `FWD_ORACLE_DIR` names; with the feature
//! `emulate` also as an emulated GPU computes them.
//!
//! Two paths are checked. The *literal* one puts together the rows that transformers was given, padding where it was, with the positions
//! that its forward pass counts (LLaMA's counts padding, OPT's does not), and compares each stage. The *product's* one gives the model a
//! [`LanguageInput`] and labels and compares losses, gradients, trajectories and generated ids.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod case;
mod common;

use candle_core::{DType, Device, IndexOp, Tensor, Var};
use case::*;
use common::{Report, Share, sets_of};
use fwd_linalg::{AdamW, AdamWState};
use fwd_models::{Assembled, LanguageModel, Llava, MultimodalModel, Tap, TextConfig};
use fwd_ops::IGNORE_INDEX;
use std::collections::BTreeMap;

/// Vision tower and projector of LLaVA. It computes no layer behind the one that the projector reads, but another LLaVA may.
fn check_llava(case: &Case<'_>, llava: &Llava, config: &str, report: &mut Report) {
    let stages_of = |llava: &Llava| {
        let mut stages = BTreeMap::new();
        let mut look = |name: &str, value: &Tensor| {
            stages.insert(name.to_string(), value.clone());
        };
        case.of_llava(llava, &mut Tap::new(&mut look));
        stages
    };
    let stages = stages_of(llava);
    let of_all = stages_of(&case.set.llava(config, |config| config.vision_feature_layer = -1));
    report.against(case, "image_features", &stages["image_features"], ACTIVATION);
    for name in case.set.names().filter(|n| n.starts_with("vision.") || n.starts_with("projector.")) {
        let tolerance = if name.starts_with("vision.") { CLIP } else { ACTIVATION };
        let is_behind = name.starts_with("vision.layer.") && !stages.contains_key(name);
        match if is_behind { of_all.get(name) } else { stages.get(name) } {
            Some(ours) => report.close(name, ours, &case.io(name), tolerance),
            None => report.fail(format!("{name}: no such stage")),
        }
    }
}

/// Vision tower and Q-Former, and the rows of both batches at every layer.
fn check_stages(case: &Case<'_>, config: &str, report: &mut Report) {
    if let Some(llava) = &case.llava {
        check_llava(case, llava, config, report);
    }
    if let Some(blip) = &case.blip {
        let mut stages = BTreeMap::new();
        let mut look = |name: &str, value: &Tensor| {
            stages.insert(name.to_string(), value.clone());
        };
        let n = case.io("pixel_values").dim(0).unwrap();
        let empty = blip.empty_instructions(n, qformer_text(case.set), &Device::Cpu).unwrap();
        blip.features(&case.io("pixel_values"), &empty, &mut Tap::new(&mut look)).unwrap();
        let image = stages.remove("language_projection").unwrap();
        report.against(case, "image_features", &image, ACTIVATION);
        for name in case.set.names().filter(|n| n.starts_with("vision.") || n.starts_with("qformer.")) {
            match stages.get(name) {
                Some(ours) => report.close(name, ours, &case.io(name), ACTIVATION),
                None => report.fail(format!("{name}: no such stage")),
            }
        }
    }
    for batch in ["right", "left"] {
        let read = case.literal(batch);
        let positions = case.literal_positions(&read.mask);
        let mut stages = BTreeMap::new();
        let mut look = |name: &str, value: &Tensor| {
            stages.insert(name.to_string(), value.clone());
        };
        let logits = case.literal_logits(&read, &positions, &mut Tap::new(&mut look));
        let embeds = stages["decoder.inputs_embeds"].clone();
        let own = |part: &str| format!("{batch}.{part}");
        report.against(case, &own("inputs_embeds"), &embeds, ACTIVATION);
        let mut first_input = embeds;
        if let Some(added) = stages.get("decoder.position_embeds") {
            report.against(case, &own("position_embeds"), added, 0.0);
            first_input = (first_input + added).unwrap();
        }
        let attention = (&stages["decoder.attention.0"] - first_input).unwrap();
        if case.set.has(&own("layer.0.self_attn")) {
            let want = real(&case.io(&own("layer.0.self_attn")), &read.mask);
            report.close(&own("layer.0.self_attn"), &real(&attention, &read.mask), &want, ACTIVATION);
        }
        for i in 0..case.config.n_layers() {
            let ours = real(&stages[&format!("decoder.layer.{i}")], &read.mask);
            let tolerance = if i == 0 { FIRST_LAYER } else { ACTIVATION };
            report.against(case, &own(&format!("layer.{i}")), &ours, tolerance);
        }
        report.against(case, &own("norm"), &real(&stages["decoder.norm"], &read.mask), ACTIVATION);
        report.against(case, &own("logits"), &real(&logits, &read.mask), ACTIVATION);
        let labels = case.io(&own("labels"));
        report.against(case, &own("loss"), &one(&shifted_loss(&logits, &labels)), LOSS);
        check_token_nll(case, &own("token_nll"), &logits, &labels, report);
    }
    let read = case.literal("left");
    report.same(
        "left.position_ids",
        &counted(&read),
        &case.io("left.position_ids").to_vec2::<i64>().unwrap(),
    );
    report.same(
        "gen.position_ids",
        &counted(&case.literal("gen")),
        &case.io("gen.position_ids").to_vec2::<i64>().unwrap(),
    );
    let logits = case.literal_logits(&read, &case.io("left.position_ids"), &mut Tap::none());
    report.against(case, "left_pos.logits", &real(&logits, &read.mask), ACTIVATION);
}

/// The positions by which the model counts, 0 for padding as in the sets.
fn counted(read: &Assembled) -> Vec<Vec<i64>> {
    let mask = read.mask.to_dtype(DType::I64).unwrap();
    (read.positions().unwrap() * mask).unwrap().to_vec2().unwrap()
}

fn check_token_nll(case: &Case<'_>, name: &str, logits: &Tensor, labels: &Tensor, report: &mut Report) {
    let (batch, n) = labels.dims2().unwrap();
    let before = logits.narrow(1, 0, n - 1).unwrap().contiguous().unwrap();
    let after = labels.narrow(1, 1, n - 1).unwrap().contiguous().unwrap();
    let nll = fwd_ops::token_nll(&before, &after).unwrap();
    let first = Tensor::zeros((batch, 1), nll.dtype(), &Device::Cpu).unwrap();
    report.against(case, name, &Tensor::cat(&[&first, &nll], 1).unwrap(), ACTIVATION);
}

fn check_rotary(case: &Case<'_>, report: &mut Report) {
    let TextConfig::Llama(llama) = &case.config else { return };
    let frequencies = llama.inv_freq().unwrap();
    let of_f32: Vec<f32> = frequencies.iter().map(|&f| f as f32).collect();
    // Relative to f32, in which transformers computes a power and a quotient.
    report.close(
        "rope.inv_freq",
        &Tensor::new(of_f32, &Device::Cpu).unwrap(),
        &case.io("rope.inv_freq"),
        2e-7,
    );
    let n = case.io("rope.cos").dim(0).unwrap() as i64;
    let positions = Tensor::arange(0, n, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let rotary = fwd_ops::Rotary::new(&frequencies, &positions, DType::F32, &Device::Cpu).unwrap();
    // An angle of some hundred radians is rounded to f32 by 1.5e-5 at most.
    report.close("rope.cos", &rotary.cos().squeeze(0).unwrap(), &case.io("rope.cos"), 2e-5);
    report.close("rope.sin", &rotary.sin().squeeze(0).unwrap(), &case.io("rope.sin"), 2e-5);
}

/// Rows `[BOS ; P ; rest]` of the right-padded batch, or the same columns of a mask or of labels.
fn after_bos(whole: &Tensor, inserted: &Tensor) -> Tensor {
    let n = whole.dim(1).unwrap();
    let (bos, rest) = (whole.narrow(1, 0, 1).unwrap(), whole.narrow(1, 1, n - 1).unwrap());
    Tensor::cat(&[&bos, inserted, &rest], 1).unwrap()
}

/// The literal layouts of prompts: in front, after BOS, and in front of padding.
fn check_layouts(case: &Case<'_>, report: &mut Report) {
    let prompt = Var::from_tensor(&case.io("soft.prompt")).unwrap();
    let (batch, n, _) = prompt.dims3().unwrap();
    let ones = Tensor::ones((batch, n), DType::F32, &Device::Cpu).unwrap();
    let no_labels = Tensor::full(IGNORE_INDEX, (batch, n), &Device::Cpu).unwrap();
    let read_of = |layout: &str, side: &str| {
        let read = case.literal(side);
        let labels = case.io(&format!("{side}.labels"));
        let join = |whole: &Tensor, inserted: &Tensor| match layout {
            "soft_bos" => after_bos(whole, inserted),
            _ => Tensor::cat(&[inserted, whole], 1).unwrap(),
        };
        let read = Assembled { embeds: join(&read.embeds, &prompt), mask: join(&read.mask, &ones) };
        (read, join(&labels, &no_labels))
    };
    for (layout, side) in [
        ("soft", "right"),
        ("soft_bos", "right"),
        ("soft_left_default", "left"),
        ("soft_left_cumsum", "left"),
    ] {
        if !case.set.has(&format!("{layout}.loss")) {
            continue;
        }
        let (read, labels) = read_of(layout, side);
        let own = |part: &str| format!("{layout}.{part}");
        report.against(case, &own("inputs_embeds"), &read.embeds, ACTIVATION);
        report.against(case, &own("attention_mask"), &read.mask, 0.0);
        report.against(case, &own("labels"), &labels, 0.0);
        let positions = match layout {
            "soft_left_cumsum" => read.positions().unwrap(),
            _ => case.literal_positions(&read.mask),
        };
        let logits = case.literal_logits(&read, &positions, &mut Tap::none());
        report.against(case, &own("logits"), &real(&logits, &read.mask), ACTIVATION);
        let loss = shifted_loss(&logits, &labels);
        report.against(case, &own("loss"), &one(&loss), LOSS);
        report.gradient(case, &own("grad"), &gradient_of(&loss, &prompt));
    }
}

/// Losses, gradients and logits as a caller of the model gets them.
fn check_scores(case: &Case<'_>, report: &mut Report) {
    let (input, labels) = (case.input(), case.labels());
    let scored = case.language.score(&input, &labels, &mut Tap::none()).unwrap();
    report.against(case, "right.loss", &one(&scored.loss), LOSS);
    // The logits in front of the labels, which the sets have at every token.
    let rows: Vec<Vec<i64>> = case.io("right.labels").to_vec2().unwrap();
    for (i, row) in rows.iter().enumerate() {
        let first = row.iter().position(|&id| id != IGNORE_INDEX).unwrap();
        let n = row.iter().filter(|&&id| id != IGNORE_INDEX).count();
        let want = case.io("right.logits").i((i, first - 1..first - 1 + n)).unwrap();
        report.close("score, right.logits", &scored.logits.i((i, ..n)).unwrap(), &want, ACTIVATION);
    }
    for (name, input) in [("soft", &input), ("soft_bos", &case_input_after_bos(case, &input))] {
        for shared in ["", "_shared"] {
            let own = |part: &str| format!("{name}{shared}.{part}");
            if !case.set.has(&own("loss")) {
                continue;
            }
            let prompt = Var::from_tensor(&case.io(&format!("soft{shared}.prompt"))).unwrap();
            let loss = case.loss(input, &prompt);
            report.against(case, &own("loss"), &one(&loss), LOSS);
            report.gradient(case, &own("grad"), &gradient_of(&loss, &prompt));
        }
    }
}

fn check_training(case: &Case<'_>, report: &mut Report) {
    let (front, behind) = (case.input(), case_input_after_bos(case, &case.input()));
    for (name, input, weight_decay) in [
        ("train.adamw", &front, 0.0),
        ("train.adamw_wd", &front, 0.01),
        ("train_bos.adamw", &behind, 0.0),
        ("train_bos.adamw_wd", &behind, 0.01),
    ] {
        if !case.set.has(&format!("{name}.losses")) {
            continue;
        }
        let want = case.io(&format!("{name}.losses"));
        let shape = case.io("soft_shared.prompt").shape().clone();
        let mut values: Vec<f32> = case.io("soft_shared.prompt").flatten_all().unwrap().to_vec1().unwrap();
        let mut state = AdamWState::new(values.len());
        let optimiser = AdamW { lr: 0.05, weight_decay, ..AdamW::default() };
        let mut losses = Vec::new();
        for _ in 0..want.elem_count() {
            let prompt = Var::from_slice(&values, &shape, &Device::Cpu).unwrap();
            let loss = case.loss(input, &prompt);
            losses.push(loss.to_scalar::<f32>().unwrap());
            if losses.len() < want.elem_count() {
                let gradient: Vec<f32> =
                    gradient_of(&loss, &prompt).flatten_all().unwrap().to_vec1().unwrap();
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
        report.against(case, &format!("{name}.final_prompt"), &last, ACTIVATION);
    }
}

#[test]
fn every_stage_agrees() {
    for_all_sets(Share::Stages, |case, report| {
        check_stages(case, "config.json", report);
        check_rotary(case, report);
    });
}

#[test]
fn prompt_losses_and_gradients_agree() {
    for_all_sets(Share::Prompts, |case, report| {
        check_layouts(case, report);
        check_scores(case, report);
    });
}

#[test]
fn adamw_trajectories_agree() {
    for_all_sets(Share::Training, check_training);
}

#[test]
fn the_config_of_transformers_4_gives_the_same_model() {
    let mut report = Report::default();
    for set in sets_of(&KINDS).iter().filter(|set| set.dir.join("config_hf4.json").exists()) {
        report.enter(&format!("{} (config_hf4.json)", set.name));
        let case = Case::new(set, "config_hf4.json");
        check_stages(&case, "config_hf4.json", &mut report);
        check_scores(&case, &mut report);
    }
    report.finish();
}
