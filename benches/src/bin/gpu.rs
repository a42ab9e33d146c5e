//! Times every operation of the kernel crate on the GPU, by device events: JSON with the medians in milliseconds.
//!
//! Inputs rotate through enough copies to miss the L2 cache. A machine without a GPU gets the reason.

#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::Parser;
use std::path::PathBuf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    /// File to write; standard output otherwise.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Timed launches of each case.
    #[arg(long, default_value_t = 50)]
    iters: usize,
    /// Only cases whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

#[allow(clippy::print_stdout)]
fn main() -> Result<()> {
    let args = Args::parse();
    let device = fwd_kernels::Device::open(0)?;
    let report = fwd_benches::gpu_run::report(&device, args.iters, args.only.as_deref())?;
    let text = serde_json::to_string_pretty(&report)?;
    match &args.json {
        Some(path) => std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display())),
        None => {
            println!("{text}");
            Ok(())
        }
    }
}
