//! Texts, sizes and waiting have bounds, and what they cost is counted.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use common::{Place, fail, stderr, succeed};
use std::fs;

/// A benchmark in which the answer of one training record of `colours` has 3,000 words.
fn with_long_answer() -> Place {
    with_answer(&"red ".repeat(3000))
}

/// A benchmark in which the answer of one training record of `colours` is this one.
fn with_answer(long: &str) -> Place {
    let place = Place::new();
    let path = place.path("bench/tasks/colours.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen(r#""answer":"red""#, &format!(r#""answer":"{}""#, long.trim()), 1))
        .unwrap();
    place
}

#[test]
fn a_long_answer_is_refused_left_out_or_cut_and_counted() {
    let place = with_long_answer();
    let refused = fail(&mut place.train("refused", &[]));
    assert!(refused.contains("colours/train/0") && refused.contains("limits.max_target_tokens"), "{refused}");
    assert!(refused.contains("the limit is 256") && refused.len() < 500, "{refused}");

    let output = place.train("left-out", &["--skip-bad"]).output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success() && said.trim_end().ends_with("1 records left out"), "{said}");
    let manifest = place.json("left-out/manifest.json");
    assert_eq!(manifest["skipped"]["n_records"], 1);
    assert!(manifest["skipped"]["reasons"][0].as_str().unwrap().contains("colours/train/0"));

    let output = place.train("cut", &["--set", "limits.too_long=cut"]).output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success() && said.contains("0 instructions and 1 answers cut"), "{said}");
    assert_eq!(place.json("cut/manifest.json")["cut"]["answers"], 1);
    assert_eq!(place.json("cut/manifest.json")["run"]["config"]["limits"]["too_long"], "cut");
}

#[test]
fn an_answer_of_megabytes_is_refused_without_counting_its_tokens() {
    let place = with_answer(&"red ".repeat(1 << 19));
    let refused = fail(&mut place.train("refused", &[]));
    assert!(
        refused.contains("its answer has 2097151 bytes, more than the 1048576 that are read"),
        "{refused}"
    );
    succeed(&mut place.train("cut", &["--set", "limits.too_long=cut"]));
    assert_eq!(place.json("cut/manifest.json")["cut"]["answers"], 1);
}

#[test]
fn what_training_refuses_is_what_the_check_finds() {
    let place = with_long_answer();
    let mut check = place.program(&["data", "check", "bench", "--backbone", "model"]);
    let output = check.output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(report.contains("colours/train/0") && report.contains("the limit is 256"), "{report}");
    let mut check = place.program(&["data", "check", "bench", "--backbone", "model", "--skip-bad"]);
    let report = String::from_utf8_lossy(&check.output().unwrap().stdout).into_owned();
    assert!(report.contains("the limit is 256"), "{report}");
}

#[test]
fn sizes_beyond_memory_are_errors_of_the_configuration() {
    let place = Place::new();
    let refused = fail(&mut place.train("run", &["--set", "pool.prompt_len=1000000000000"]));
    assert!(
        refused.contains("pool.prompt_len = 1000000000000") && refused.contains("GiB are free"),
        "{refused}"
    );
    assert!(!place.path("run").exists());
}

#[test]
fn a_run_without_a_folder_gets_one_by_its_method_and_seed() {
    let place = Place::new();
    let train = |seed: &str| {
        let mut command = place.train("unused", &["--seed", seed]);
        let args: Vec<_> = command.get_args().map(|arg| arg.to_owned()).collect();
        let without = args.iter().filter(|arg| *arg != "--out" && *arg != "unused");
        let mut again = place.program(&[]);
        again.args(without);
        std::mem::swap(&mut command, &mut again);
        command
    };
    succeed(&mut train("3"));
    assert!(place.path("runs/fwd-seed-3/metrics.json").is_file());
    // Another run of the same name lies beside it.
    succeed(&mut train("3"));
    let second = place.path("runs/fwd-seed-3-2/metrics.json");
    assert!(second.is_file());
    // One that is not finished goes on.
    fs::remove_file(&second).unwrap();
    succeed(&mut train("3"));
    assert!(second.is_file() && !place.path("runs/fwd-seed-3-3").exists());
}

#[test]
fn training_that_diverges_is_called_so() {
    let place = Place::new();
    let refused = fail(&mut place.train("run", &["--lr", "1e30"]));
    assert!(refused.contains("training diverged at step 1"), "{refused}");
}

#[cfg(unix)]
#[test]
fn a_signal_ends_long_steps_within_five_seconds() {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};
    let place = with_long_answer();
    let more = ["--steps", "10000", "--batch-size", "12", "--set", "limits.max_target_tokens=100000"];
    let mut run = place.train("run", &more).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while !place.path("run/predictions").exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "the run does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(2));
    let asked = Instant::now();
    succeed(Command::new("kill").args(["-TERM", &run.id().to_string()]));
    let status = run.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}
