//! The tests of products at every level of vector instructions that the processor has, named by `FWD_CPU`.
//!
//! `cargo test --workspace` runs at the best level, and the tests of `fwd-simd` try all kernels of the processor one after another. What
//! lies above them, operations, whole models and the program, runs at one level in a process; here it is run again at the others.

use crate::shell::{built_for_tests, command, run as execute};
use anyhow::{Result, bail, ensure};

/// The names that `FWD_CPU` takes, the lowest level first. The program refuses a name that is none.
const LEVELS: [&str; 5] = ["portable", "avx2", "avx512", "bf16", "amx"];

/// Test binaries whose results are made of products: operations with their gradients, whole models in each way to compute, runs.
const TESTS: [&str; 5] = ["gradients", "stored", "grouped", "trained", "compute"];

/// Runs the tests at every level below the best, which [`crate::ci`] has tested before; says which were tested and which were not.
pub(crate) fn levels() -> Result<()> {
    execute(&mut command("cargo", &["build", "--workspace", "--locked"]))?;
    let mut present = Vec::new();
    for level in LEVELS {
        if is_present(level)? {
            present.push(level);
        }
    }
    let Some((best, others)) = present.split_last() else { bail!("no level of vector instructions works") };
    for level in others {
        eprintln!("the tests of products at the level {level}");
        let mut test = command("cargo", &["test", "--workspace", "--locked", "--quiet"]);
        test.args(TESTS.iter().flat_map(|name| ["--test", name]));
        execute(test.env("FWD_CPU", level))?;
    }
    let lacking: Vec<&str> = LEVELS.into_iter().filter(|level| !present.contains(level)).collect();
    eprintln!(
        "levels of vector instructions tested: {} here, {best} by `cargo test --workspace`; this processor lacks: {}",
        list(others),
        list(&lacking)
    );
    if *best == "bf16" {
        eprintln!("the tests of fwd-simd run the tile instructions of amx in an emulator");
    }
    Ok(())
}

/// Whether the processor has a level: the program refuses one that it lacks.
fn is_present(level: &str) -> Result<bool> {
    let program = built_for_tests("fwd-prompt");
    let output =
        command(&program.to_string_lossy(), &["completions", "bash"]).env("FWD_CPU", level).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() || said.contains("this processor cannot run the level"),
        "{level} is no level of this program: {said}"
    );
    Ok(output.status.success())
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
