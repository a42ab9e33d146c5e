//! Says at which level of vector instructions products are computed (the best of the processor, or what `FWD_CPU` names), and with
//! `--measure` what the machine can do at most. Prints one JSON object.

#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;
use fwd_benches::machine::{copy_gb_s, gflop_s, read_gb_s};
use fwd_simd::Cpu;
use half::bf16;
use serde_json::json;

#[derive(Parser)]
#[command(about)]
struct Args {
    /// Measure bandwidth and products too; takes some seconds.
    #[arg(long)]
    measure: bool,
    /// Threads of the pool that does the arithmetic.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

#[allow(clippy::print_stdout)]
fn main() -> Result<()> {
    let args = Args::parse();
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    let level = Cpu::from_env()?.level().name();
    let mut report = json!({ "level": level });
    if args.measure {
        report["copy_gb_s"] = json!(copy_gb_s());
        report["read_gb_s"] = json!(read_gb_s());
        report["gflop_s_f32"] = json!(gflop_s::<f32>());
        report["gflop_s_bf16"] = json!(gflop_s::<bf16>());
    }
    println!("{report}");
    Ok(())
}
