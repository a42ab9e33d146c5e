//! Starting other programs in the root of the workspace, and where they leave what they build.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Where cargo puts a program that it builds with `--release`.
pub(crate) fn built(name: &str) -> PathBuf {
    target().join("release").join(name)
}

/// Where cargo puts a program that it builds without `--release`, as for tests.
pub(crate) fn built_for_tests(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

fn target() -> PathBuf {
    // Cargo is started in the root, so that is what a relative folder is relative to.
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// A program of the benchmarks, in the environment that `fwd-prompt` gives itself: without candle's own thread pool, which spins, and
/// with an allocator that keeps the memory of one step for the next.
pub(crate) fn benchmark(name: &str, args: &[&str]) -> Command {
    let mut program = command(&built(name).to_string_lossy(), args);
    program.env("CANDLE_NUM_THREADS", "1").env("MIMALLOC_PURGE_DELAY", "10000");
    program.env("RUST_MIN_STACK", "33554432");
    program
}

/// A command in the root of the workspace.
pub(crate) fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    command
}

/// Runs a command to its end; an error if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

/// The standard output of a command that must succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {}\n{errors}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
