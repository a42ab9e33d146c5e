//! Writes a Hugging Face directory with random weights of a published shape.

#![forbid(unsafe_code)]

use anyhow::{Context, Result, ensure};
use clap::Parser;
use fwd_benches::checkpoint::{Dtype, Kind, Plan, Scale, free_bytes};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

#[derive(Parser)]
#[command(about, bin_name = "cargo xtask random-checkpoint")]
struct Args {
    /// The published checkpoint.
    #[arg(value_enum, ignore_case = true)]
    kind: Kind,
    /// The folder to write; it must not exist.
    #[arg(required_unless_present = "plan")]
    dir: Option<PathBuf>,
    /// Seed of the weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Type of the weights. With q4 and q8 the language model (LLaMA only) is a model.gguf, and the rest is bf16.
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: Dtype,
    /// `tiny` has the same architecture with two narrow layers.
    #[arg(long, value_enum, default_value = "full")]
    scale: Scale,
    /// Only say how large it would be.
    #[arg(long)]
    plan: bool,
}

static STOPPED: AtomicBool = AtomicBool::new(false);

fn main() -> Result<()> {
    let args = Args::parse();
    let plan = Plan::new(args.kind, args.scale, args.dtype)?;
    let (total, gb) = (plan.n_bytes(), |bytes: u64| bytes as f64 / 1e9);
    eprintln!(
        "{} parameters in {} tensors, {:.2} GB",
        plan.n_parameters(),
        plan.parameters().len(),
        gb(total)
    );
    let Some(dir) = args.dir.filter(|_| !args.plan) else { return Ok(()) };
    let existing = dir.ancestors().skip(1).find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    if let Some(free) = free_bytes(existing) {
        eprintln!(
            "{:.1} GB are free, {:.1} GB will be left",
            gb(free),
            gb(free.saturating_sub(plan.n_bytes_on_disk()))
        );
    }
    ctrlc::set_handler(|| STOPPED.store(true, Ordering::SeqCst)).context("cannot listen to Ctrl-C")?;
    let (start, mut written, mut said) = (Instant::now(), 0u64, 0);
    plan.write(&dir, args.seed, &mut |bytes| {
        ensure!(!STOPPED.load(Ordering::SeqCst), "stopped; nothing was left behind");
        written += bytes;
        let seconds = start.elapsed().as_secs();
        if seconds >= said + 5 {
            said = seconds;
            let rate = written as f64 / 1e6 / start.elapsed().as_secs_f64();
            eprintln!("{:.1} of {:.1} GB, {rate:.0} MB/s", gb(written), gb(total));
        }
        Ok(())
    })?;
    eprintln!("{}: {:.2} GB in {:.1} s", dir.display(), gb(written), start.elapsed().as_secs_f64());
    Ok(())
}
