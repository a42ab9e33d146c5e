//! Killed, interrupted and damaged runs end where the unbroken one does.

#![cfg(unix)]
#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use common::{Place, fail, stderr, succeed};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// More steps than a machine does in a moment.
const LONG: [&str; 2] = ["--steps", "60"];

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_there() {
        assert!(began.elapsed() < Duration::from_secs(120), "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn ctrl_c_saves_and_says_how_to_go_on() {
    let place = Place::new();
    succeed(&mut place.train("whole", &LONG));
    let mut command = place.train("run", &LONG);
    let child = start(&mut command);
    wait_for("a saved state", || place.path("run/state/state.json").exists());
    // In the meantime nobody else may work there.
    let refused = fail(&mut place.train("run", &LONG));
    assert!(refused.contains(&format!("in use by another process (id {})", child.id())), "{refused}");
    succeed(Command::new("kill").args(["-INT", &child.id().to_string()]));
    let output = child.wait_with_output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{message}");
    assert!(message.contains("interrupted") && message.contains("train --out run"), "{message}");
    assert!(!place.path("run/metrics.json").exists());
    succeed(&mut place.train("run", &LONG));
    assert_eq!(place.metrics_bytes("run"), place.metrics_bytes("whole"));
}

#[test]
fn damaged_features_are_computed_anew() {
    let place = Place::new();
    succeed(&mut place.train("a", &[]));
    let mut files = Vec::new();
    for folder in fs::read_dir(place.path(".fwd-cache")).unwrap() {
        files.extend(fs::read_dir(folder.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
    }
    files.sort();
    for (i, file) in files.iter().enumerate() {
        let bytes = fs::read(file).unwrap();
        match i % 3 {
            0 => fs::write(file, &bytes[..bytes.len() / 2]).unwrap(),
            1 => fs::write(file, [&bytes[..40], b"\x7f\x7f\x7f\x7f", &bytes[44..]].concat()).unwrap(),
            _ => {}
        }
    }
    let output = place.train("b", &[]).output().unwrap();
    assert!(output.status.success() && stderr(&output).contains("computed anew"), "{}", stderr(&output));
    assert_eq!(place.metrics_bytes("a"), place.metrics_bytes("b"));
    // They are whole again.
    let output = place.train("c", &[]).output().unwrap();
    assert!(!stderr(&output).contains("computed anew"), "{}", stderr(&output));
}

#[test]
fn a_damaged_state_says_what_to_do() {
    let place = Place::new();
    succeed(&mut place.train("run", &[]));
    fs::remove_file(place.path("run/metrics.json")).unwrap();
    fs::write(place.path("run/state/state.json"), "{").unwrap();
    let refused = fail(&mut place.train("run", &[]));
    assert!(refused.contains("state.json") && refused.contains("delete run"), "{refused}");
}

#[test]
fn fine_tuning_goes_on_where_it_was_killed() {
    let place = Place::new();
    let more = [&LONG[..], &["--method", "finetune"]].concat();
    succeed(&mut place.train("whole", &more));
    let mut child = start(&mut place.train("run", &more));
    let state = place.path("run/state/state.json");
    wait_for("a saved step", || fs::read_to_string(&state).is_ok_and(|text| text.contains("\"train\"")));
    child.kill().unwrap();
    child.wait().unwrap();
    succeed(&mut place.train("run", &more));
    assert_eq!(place.metrics_bytes("run"), place.metrics_bytes("whole"));
    assert_eq!(place.ranks_bytes("run"), place.ranks_bytes("whole"));
}
