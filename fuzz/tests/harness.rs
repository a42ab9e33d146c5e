//! The harness itself: it names its readers, gives each some inputs, and fails by its exit code.

#![cfg(unix)]
#![allow(clippy::unwrap_used)] // A helper of a test may panic.

use std::process::{Command, Output};

fn harness(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fwd-fuzz")).args(args).output().unwrap()
}

#[test]
fn every_reader_takes_a_few_damaged_inputs() {
    let list = harness(&["--list"]);
    let list = String::from_utf8(list.stdout).unwrap();
    let readers: Vec<&str> = list.lines().collect();
    assert!(readers.len() >= 20 && readers.contains(&"parquet"), "{readers:?}");
    let output = harness(&["--inputs", "3", "--seed", "7"]);
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    for reader in readers {
        assert!(said.contains(reader), "{reader} is missing in:\n{said}");
    }
}

#[test]
fn a_reader_that_does_not_exist_is_an_error() {
    assert!(!harness(&["--inputs", "1", "--reader", "nothing"]).status.success());
}

#[test]
fn what_was_found_before_is_refused_now() {
    let findings = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/findings")).unwrap();
    let paths = findings.map(|entry| entry.unwrap().path());
    let inputs: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "bin")).collect();
    assert!(inputs.len() >= 8);
    for path in inputs {
        let output = harness(&["--replay", path.to_str().unwrap()]);
        assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stdout));
    }
}
