//! Measures one piece of work of one size, in this process, and prints JSON: `{"seconds": …, "bytes": …, "peak_mib": …}`.

#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;
use fwd_benches::memory_mib;
use fwd_benches::scaling::{Size, Work, measure};
use serde_json::json;
use std::path::PathBuf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about)]
struct Args {
    /// The piece of work.
    #[arg(value_enum)]
    work: Work,
    /// Tasks learnt so far, or in all.
    #[arg(long, default_value_t = 5)]
    tasks: usize,
    /// Prompts in the pool.
    #[arg(long, default_value_t = 100)]
    prompts: usize,
    /// Width of embeddings, queries and keys.
    #[arg(long, default_value_t = 768)]
    dim: usize,
    /// Samples of a task.
    #[arg(long, default_value_t = 1000)]
    samples: usize,
    /// Tokens of a prompt.
    #[arg(long, default_value_t = 8)]
    tokens: usize,
    /// Threads of the pool that does the arithmetic.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// The built program, for `report`.
    #[arg(long)]
    program: Option<PathBuf>,
}

#[allow(clippy::print_stdout)]
fn main() -> Result<()> {
    let args = Args::parse();
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    let Args { tasks, prompts, dim, samples, tokens, .. } = args;
    let size = Size { tasks, prompts, dim, samples, tokens };
    let cost = measure(args.work, &size, args.program.as_deref())?;
    let peak_mib = cost.peak_mib.or_else(|| memory_mib("VmHWM"));
    println!("{}", json!({ "seconds": cost.seconds, "bytes": cost.bytes, "peak_mib": peak_mib }));
    Ok(())
}
