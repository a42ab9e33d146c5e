//! Times the subspaces and projected steps of `fwd-linalg` in one process and prints JSON: medians in milliseconds.

#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;
use fwd_benches::algebra::{STEPS, SUBSPACES, StepBench, find_subspace, rows};
use fwd_linalg::ProjectAt;
use serde_json::{Map, Value, json};
use std::hint::black_box;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about)]
struct Args {
    /// What is timed: `subspace`, `step`.
    #[arg(long, value_delimiter = ',', value_parser = ["subspace", "step"], default_values = ["subspace", "step"])]
    only: Vec<String>,
    /// Timed runs of each row.
    #[arg(long, default_value_t = 5)]
    iters: usize,
    /// Threads of the pool that does the arithmetic.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

#[allow(clippy::print_stdout)]
fn main() -> Result<()> {
    let args = Args::parse();
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    let mut report = Map::new();
    let mut time = |name: String, n: usize, run: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        run()?;
        let mut ms = Vec::new();
        for _ in 0..n.max(1) {
            let start = Instant::now();
            run()?;
            ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
        ms.sort_by(f64::total_cmp);
        report.insert(name, json!({ "median": ms[ms.len() / 2] }));
        Ok(())
    };
    let has = |part: &str| args.only.iter().any(|only| only == part);
    for (n, dim) in SUBSPACES.into_iter().filter(|_| has("subspace")) {
        let z = rows(n, dim);
        time(format!("subspace {n}x{dim}"), args.iters, &mut || {
            black_box(find_subspace(&z, dim)?);
            Ok(())
        })?;
    }
    for (n, dim, rank) in STEPS.into_iter().filter(|_| has("step")) {
        let mut bench = StepBench::new(n, dim, rank)?;
        let name = |what: &str| format!("{what} {n}x{dim}x{rank}");
        // Steps take milliseconds.
        let iters = 4 * args.iters;
        time(name("step"), iters, &mut || Ok(bench.step(ProjectAt::Both)?))?;
        time(name("step, update only"), iters, &mut || Ok(bench.step(ProjectAt::Update)?))?;
        time(name("products"), iters, &mut || {
            black_box(bench.products(2));
            Ok(())
        })?;
        time(name("separate calls"), iters, &mut || Ok(bench.separate_calls()?))?;
    }
    println!("{}", json!({ "ms": Value::Object(report) }));
    Ok(())
}
