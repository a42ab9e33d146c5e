//! How frozen products are computed, and at which level of vector instructions: recorded, kept apart, and said.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use common::{Place, fail, files, stderr, succeed};
use fwd_run::run::{LossPoint, read_losses};
use fwd_simd::{Cpu, Level};
use serde_json::{Value, json};
use std::fs;

/// The program's output on both streams, of a command that must succeed.
fn said(command: &mut std::process::Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    stderr(&output)
}

fn losses(place: &Place, run: &str) -> Vec<LossPoint> {
    read_losses(&place.path(run)).unwrap().concat()
}

#[test]
fn a_run_in_bf16_is_recorded_opened_and_continued_as_such() {
    let place = Place::new();
    succeed(&mut place.train("f32", &["--method", "fwd"]));
    let n_features = files(&place.path(".fwd-cache")).len();
    fs::write(place.path("bf16.toml"), "compute = \"bf16\"\n").unwrap();
    succeed(&mut place.train("bf16", &["--method", "fwd", "--config", "bf16.toml"]));
    // Not one feature of the other run was taken.
    assert_eq!(files(&place.path(".fwd-cache")).len(), 2 * n_features);
    assert_eq!(place.json("bf16/manifest.json")["run"]["config"]["compute"], "bf16");
    assert_eq!(place.json("f32/manifest.json")["run"]["config"]["compute"], "f32");
    let (metrics, level) = (place.metrics("bf16"), Cpu::current().level().name());
    assert_eq!((&metrics["compute"], &metrics["levels"]), (&json!("bf16"), &json!([level])));
    assert!(metrics["measures"]["leakage"].as_f64().unwrap() <= 1e-5, "{metrics}");
    // The rounding is there, and no more than rounding: the first loss is of untrained prompts, behind a few dozen products.
    let (first, other) = (&losses(&place, "bf16")[0], &losses(&place, "f32")[0]);
    let off = (first.loss - other.loss).abs() / other.loss;
    assert!(off > 0.0 && off < 4.0 * (2f64).powi(-9) * (2.0 * 64f64).sqrt(), "{off:e}");

    let compared = succeed(&mut place.program(&["compare", "f32", "bf16"]));
    assert!(compared.contains("fwd (compute bf16)") && compared.contains("fwd (compute f32)"), "{compared}");
    // Opened as it was made, unless told otherwise.
    assert!(!said(&mut place.program(&["eval", "bf16"])).contains("the run learnt with"));
    let noted = said(&mut place.program(&["eval", "bf16", "--compute", "f32"]));
    assert!(noted.contains("the run learnt with compute `bf16`, the model is opened with `f32`"), "{noted}");
    // Continued as it was begun, to the same bytes.
    let before = place.metrics_bytes("bf16");
    fs::remove_file(place.path("bf16/metrics.json")).unwrap();
    let refused = fail(&mut place.train("bf16", &["--method", "fwd"]));
    assert!(refused.contains("config.compute is \"bf16\" there, \"f32\" here"), "{refused}");
    succeed(&mut place.train("bf16", &["--method", "fwd", "--compute", "bf16"]));
    assert_eq!(place.metrics_bytes("bf16"), before);
    // From before there was a choice.
    let mut manifest = place.json("f32/manifest.json");
    manifest["run"]["config"].as_object_mut().unwrap().remove("compute");
    manifest["machine"].as_object_mut().unwrap().remove("levels");
    fs::write(place.path("f32/manifest.json"), manifest.to_string()).unwrap();
    let mut metrics = place.metrics("f32");
    for key in ["compute", "levels"] {
        metrics.as_object_mut().unwrap().remove(key);
    }
    fs::write(place.path("f32/metrics.json"), metrics.to_string()).unwrap();
    let compared = succeed(&mut place.program(&["compare", "f32", "bf16"]));
    assert!(compared.contains("fwd (compute f32)"), "{compared}");
}

#[test]
fn weights_are_trained_in_f32_behind_a_frozen_rest_in_bf16() {
    let place = Place::new();
    for compute in ["f32", "bf16"] {
        succeed(&mut place.train(compute, &["--method", "finetune", "--steps", "3", "--compute", compute]));
    }
    let (ours, reference) = (losses(&place, "bf16"), losses(&place, "f32"));
    let off = (ours[0].loss - reference[0].loss).abs() / reference[0].loss;
    assert!(off > 0.0 && off < 4.0 * (2f64).powi(-9) * (2.0 * 64f64).sqrt(), "{off:e}");
    // Killed or not, it ends in the same bytes.
    let before = place.metrics_bytes("bf16");
    fs::remove_file(place.path("bf16/metrics.json")).unwrap();
    succeed(&mut place.train("bf16", &["--method", "finetune", "--steps", "3", "--compute", "bf16"]));
    assert_eq!(place.metrics_bytes("bf16"), before);
}

#[test]
fn unknown_ways_to_compute_are_refused_with_those_there_are() {
    let place = Place::new();
    fs::write(place.path("run.toml"), "seed = 1\ncompute = \"fp8\"\n").unwrap();
    let refused = fail(&mut place.program(&["train", "--config", "run.toml", "--out", "run"]));
    let has_all = |text: &str| ["compute", "f32", "bf16", "int8"].iter().all(|part| text.contains(part));
    assert!(refused.contains("run.toml") && refused.contains("line 2") && has_all(&refused), "{refused}");
    let output = place.train("run", &["--compute", "fp8"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(has_all(&stderr(&output)), "{}", stderr(&output));
    assert!(!place.path("run").exists());
}

#[test]
fn a_wrong_or_missing_level_is_refused_at_once() {
    let place = Place::new();
    let refused = fail(place.train("run", &[]).env("FWD_CPU", "sse9"));
    assert!(refused.contains("FWD_CPU") && refused.contains("`sse9`"), "{refused}");
    assert!(Level::ALL.iter().all(|level| refused.contains(level.name())), "{refused}");
    let best = Cpu::best().level();
    for missing in Level::ALL.into_iter().filter(|level| *level > best) {
        let refused = fail(place.train("run", &[]).env("FWD_CPU", missing.name()));
        assert!(
            refused.contains(&format!("`{missing}`")) && refused.contains(&format!("`{best}`")),
            "{refused}"
        );
    }
    assert!(!place.path("run").exists());
    // An empty variable is none.
    succeed(place.program(&["completions", "bash"]).env("FWD_CPU", ""));
}

#[test]
fn runs_at_two_levels_differ_by_rounding_and_a_continued_one_says_so() {
    let place = Place::new();
    let best = Cpu::best().level();
    let train = |out: &str, level: Level| {
        let mut command = place.train(out, &["--method", "fwd"]);
        command.env("FWD_CPU", level.name());
        command
    };
    assert!(!said(&mut train("portable", Level::Portable)).contains("vector instructions"));
    succeed(&mut train("best", best));
    assert_eq!(place.metrics("portable")["levels"], json!(["portable"]));
    assert_eq!(place.metrics("best")["levels"], json!([best.name()]));
    // Activations of these models in f32 are up to 4e-5 away from f64 (`oracle.rs` of fwd-models), so two ways to sum are up to twice that
    // away from each other. The first loss is of untrained prompts; AdamW makes more of a difference later.
    let (ours, reference) = (&losses(&place, "portable")[0], &losses(&place, "best")[0]);
    assert!((ours.loss - reference.loss).abs() <= 8e-5 * reference.loss.max(1.0));
    if best == Level::Portable {
        return;
    }
    // As if it had not finished.
    let metrics = |run: &str| {
        let mut metrics: Value = place.metrics(run);
        metrics.as_object_mut().unwrap().remove("levels");
        metrics
    };
    let before = metrics("portable");
    fs::remove_file(place.path("portable/metrics.json")).unwrap();
    let noted = said(&mut train("portable", best));
    let wanted = format!("the level `portable` and goes on with those of `{best}`");
    assert!(noted.contains(&wanted) && noted.contains("FWD_CPU=portable"), "{noted}");
    assert!(fs::read_to_string(place.path("portable/log.txt")).unwrap().contains(&wanted));
    // Nothing was left to compute.
    assert_eq!(metrics("portable"), before);
    let both = json!(["portable", best.name()]);
    assert_eq!(place.metrics("portable")["levels"], both);
    assert_eq!(place.json("portable/manifest.json")["machine"]["levels"], both);
}
