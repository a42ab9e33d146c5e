//! A small model is trained from scratch, goes on after an interrupt, and is an ordinary model directory.

#![cfg(unix)]
#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use common::{Place, RECIPE, fail, succeed};
use fwd_run::pretraining::{PretrainingOptions, Recipe};
use fwd_run::{DeviceKind, Observer, Progress};
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asks the work to stop after so many steps.
struct StopsAfter(usize, Arc<AtomicBool>);

impl Observer for StopsAfter {
    fn begin(&self, work: &str, _: usize) -> Box<dyn Progress + '_> {
        Box::new(Steps(if work == "pre-training" { self.0 } else { usize::MAX }, Arc::clone(&self.1)))
    }

    fn note(&self, _: &str) {}

    fn is_stop_requested(&self) -> bool {
        self.1.load(Ordering::SeqCst)
    }
}

struct Steps(usize, Arc<AtomicBool>);

impl Progress for Steps {
    fn advance(&self) {}

    fn set(&self, position: usize) {
        self.1.fetch_or(position == self.0, Ordering::SeqCst);
    }

    fn say(&self, _: &str) {}
}

#[test]
fn a_model_is_trained_interrupted_and_used() {
    let place = Place::new();
    fs::write(place.path("recipe.toml"), RECIPE).unwrap();
    let pretrain =
        |out: &str| place.program(&["pretrain", "--out", out, "--recipe", "recipe.toml", "--bench", "bench"]);
    succeed(&mut pretrain("whole"));
    let curve = fs::read_to_string(place.path("whole/loss.csv")).unwrap();
    assert!(curve.starts_with("step,loss,squares\n8,"), "{curve}");
    assert!(!place.path("whole/training-state").exists());

    // A finished training stays finished, whatever is left of its state; one of an older version is refused by its file.
    fs::create_dir(place.path("whole/training-state")).unwrap();
    let again = pretrain("whole").output().unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("holds a finished training"), "{again:?}");
    fs::create_dir(place.path("old")).unwrap();
    fs::copy(place.path("whole/recipe.toml"), place.path("old/recipe.toml")).unwrap();
    fs::write(place.path("old/training-state.safetensors"), "old").unwrap();
    let old = pretrain("old").output().unwrap();
    assert!(String::from_utf8_lossy(&old.stderr).contains("written by an older version"), "{old:?}");

    let child = pretrain("part").spawn().unwrap();
    // Anywhere: in the frozen pass, in a step, or after the end.
    std::thread::sleep(std::time::Duration::from_millis(400));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let code = child.wait_with_output().unwrap().status.code();
    if code != Some(0) {
        assert_eq!(code, Some(130));
        succeed(&mut pretrain("part"));
    }
    let weights = |out: &str| fs::read(place.path(out).join("trained.safetensors")).unwrap();
    assert!(weights("whole") == weights("part"), "an interrupted training ended elsewhere");
    // After three of eight steps: the mean loss of all of them stands in the curve.
    let recipe = Recipe::read(&place.path("recipe.toml")).unwrap();
    let device = DeviceKind::Cpu.open().unwrap();
    let (out, bench) = (place.path("third"), place.path("bench"));
    let options = PretrainingOptions { out, from: None, bench, cache: None, device };
    let stopped = std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(move || {
            fwd_run::pretraining::pretrain(&recipe, &options, &StopsAfter(3, Arc::default())).unwrap_err()
        })
        .unwrap()
        .join()
        .unwrap();
    assert!(fwd_run::is_interrupt(&stopped), "{stopped:?}");
    assert!(!place.path("third/loss.csv").exists());
    succeed(&mut pretrain("third"));
    let losses = |out: &str| fs::read_to_string(place.path(out).join("loss.csv")).unwrap();
    assert_eq!(losses("whole"), losses("third"));
    assert!(
        weights("whole") == weights("third"),
        "a training that was stopped in the middle ended elsewhere"
    );

    let refused = fail(&mut pretrain("whole"));
    assert!(refused.contains("finished training"), "{refused}");
    fs::write(place.path("recipe.toml"), RECIPE.replace("lr = 1e-3", "lr = 2e-3")).unwrap();
    assert!(fail(&mut pretrain("whole")).contains("another recipe"));
    fs::write(place.path("recipe.toml"), RECIPE.replace("squares = 1.0", "circles = 1.0")).unwrap();
    assert!(fail(&mut pretrain("other")).contains("`circles`"));

    // Another training starts from it: hardly a step further it is the same model, whatever its features are standardised by.
    let slow = RECIPE
        .replace("lr = 1e-3", "lr = 1e-9")
        .replace("views = 3", "views = 2, views_of = { squares = 5 }");
    fs::write(place.path("recipe.toml"), &slow).unwrap();
    succeed(pretrain("further").args(["--from", "whole"]));
    let (before, after) = (weights("whole"), weights("further"));
    let [before, after] =
        [&before, &after].map(|bytes| safetensors::SafeTensors::deserialize(bytes).unwrap());
    assert_eq!(before.len(), after.len());
    for (name, tensor) in before.tensors() {
        let values = |bytes: &[u8]| -> Vec<f32> {
            bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        };
        let (old, new) = (values(tensor.data()), values(after.tensor(&name).unwrap().data()));
        let close = |(old, new): (&f32, &f32)| (old - new).abs() <= 1e-2 * old.abs() + 1e-4;
        assert!(old.iter().zip(&new).all(close), "{name} is not what it was");
    }
    fs::write(place.path("recipe.toml"), slow.replace("d_ff = 48", "d_ff = 64")).unwrap();
    let refused = fail(pretrain("larger").args(["--from", "whole"]));
    assert!(refused.contains("trained.safetensors") && refused.contains("64"), "{refused}");

    // It learns in sequence like any model.
    image::RgbImage::new(8, 8).save(place.path("x.png")).unwrap();
    succeed(&mut place.program(&["ask", "--backbone", "whole", "--image", "x.png", "Is there a square?"]));
    succeed(&mut place.train("run", &["--backbone", "whole"]));
    assert!(place.metrics("run")["measures"]["leakage"].as_f64().unwrap() <= 1e-5);
}
