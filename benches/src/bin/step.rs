//! Times the four things a researcher waits for, and the projected optimiser step beside them, in one process: medians over
//! `--iters` runs after `--warmup`.

#![forbid(unsafe_code)]

use anyhow::{Result, ensure};
use clap::Parser;
use fwd_benches::algebra::StepBench;
use fwd_benches::{BATCH, Bench, Kind, NEW_TOKENS, Size, memory_mib};
use fwd_linalg::ProjectAt;
use fwd_ops::Compute;
use serde_json::{Map, Value, json};
use std::hint::black_box;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: [&str; 5] = ["vision", "train_cached", "train_full", "generate", "projected_adamw"];

#[derive(Parser)]
#[command(about)]
struct Args {
    /// Size of the model.
    #[arg(long, value_enum, default_value = "small")]
    config: Size,
    /// Model whose step is timed.
    #[arg(long, value_enum, default_value = "blip2")]
    kind: Kind,
    /// What frozen products are computed in.
    #[arg(long, default_value_t = Compute::F32)]
    compute: Compute,
    /// Timed runs of each row.
    #[arg(long, default_value_t = 20)]
    iters: usize,
    /// Runs before the clock starts.
    #[arg(long, default_value_t = 5)]
    warmup: usize,
    /// Threads of the pool that does the arithmetic.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Seed of weights and data.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Time these rows only (for profilers).
    #[arg(long, value_delimiter = ',', value_parser = ROWS)]
    rows: Vec<String>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.iters > 0, "--iters must be at least 1");
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    let mut bench = Bench::new(args.config, args.kind, args.compute, args.seed)?;
    ensure!(bench.generate()? == BATCH * NEW_TOKENS, "every sequence must have {NEW_TOKENS} tokens");
    let mut rows = Map::new();
    let mut time = |name: &str, run: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        if !args.rows.is_empty() && !args.rows.iter().any(|row| row == name) {
            return Ok(());
        }
        for _ in 0..args.warmup {
            run()?;
        }
        let mut ms = Vec::with_capacity(args.iters);
        for _ in 0..args.iters {
            let start = Instant::now();
            run()?;
            ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
        ms.sort_by(f64::total_cmp);
        rows.insert(
            name.into(),
            json!({ "median": ms[ms.len() / 2], "min": ms[0], "p90": ms[(ms.len() - 1) * 9 / 10] }),
        );
        Ok(())
    };
    time("vision", &mut || {
        black_box(bench.features()?);
        Ok(())
    })?;
    time("train_cached", &mut || {
        black_box(bench.step_cached()?);
        Ok(())
    })?;
    time("train_full", &mut || {
        black_box(bench.step_full()?);
        Ok(())
    })?;
    time("generate", &mut || {
        black_box(bench.generate()?);
        Ok(())
    })?;
    // What a step spends on a pool of 20 prompts of 8 tokens, half of whose space belongs to older tasks.
    let dim = fwd_benches::config(args.config, args.kind).text.d_model();
    let mut pool = StepBench::new(160, dim, dim / 2)?;
    time("projected_adamw", &mut || Ok(pool.step(ProjectAt::Both)?))?;
    let report = json!({
        "config": format!("{:?}", args.config).to_lowercase(),
        "kind": format!("{:?}", args.kind).to_lowercase(),
        "compute": args.compute.to_string(),
        "threads": args.threads,
        "iters": args.iters,
        "ms": Value::Object(rows),
        "train_cached_gflop": bench.step_gflop(),
        "peak_rss_mib": memory_mib("VmHWM"),
    });
    print_report(&report, args.json)
}

#[allow(clippy::print_stdout)]
fn print_report(report: &Value, as_json: bool) -> Result<()> {
    if as_json {
        println!("{report}");
        return Ok(());
    }
    println!("{} {} ({} threads), ms", report["kind"], report["config"], report["threads"]);
    for (name, row) in report["ms"].as_object().into_iter().flatten() {
        println!("{name:13} median {:9.2}   min {:9.2}   p90 {:9.2}", row["median"], row["min"], row["p90"]);
    }
    println!("peak memory {} MiB", report["peak_rss_mib"]);
    Ok(())
}
