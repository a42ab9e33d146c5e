//! `cargo xtask bench step`, `bench algebra` and `bench data`: the timings of `fwd-benches`' programs, alone or turn about with PyTorch.

use crate::shell::{built, command, output, root, run};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Size {
    Small,
    Base,
}

#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    /// Size of the model; both if absent.
    #[arg(long, value_enum)]
    config: Option<Size>,
    /// `blip2` or `instructblip`.
    #[arg(long, default_value = "blip2")]
    kind: String,
    /// Timed runs of each row in each process.
    #[arg(long, default_value_t = 20)]
    iters: usize,
    /// Processes of each program.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A Python with torch and transformers: its benchmark runs in turn with ours.
    #[arg(long, value_name = "PYTHON")]
    torch: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AlgebraArgs {
    /// Timed runs of each row in each process.
    #[arg(long, default_value_t = 5)]
    iters: usize,
    /// Processes of each program.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A Python with torch and numpy: its benchmark runs in turn with ours.
    #[arg(long, value_name = "PYTHON")]
    torch: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// Timed runs of each row in each process.
    #[arg(long, default_value_t = 3)]
    iters: usize,
    /// Processes of each program.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A Python with torch, Pillow and pycocoevalcap: its benchmark runs in turn with ours.
    #[arg(long, value_name = "PYTHON")]
    torch: Option<PathBuf>,
}

/// Our row and the row of the PyTorch benchmark that does the same work.
const ROWS: [(&str, &str, &str); 4] = [
    ("train_cached", "train_cached", "prompt-tuning step, frozen features cached"),
    ("train_full", "train_full", "prompt-tuning step from pixels"),
    ("vision", "vision", "vision tower + Q-Former"),
    ("generate", "gen_hf", "greedy generation, 8 tokens"),
];

/// Medians of all processes and peak memory, of one program.
#[derive(Default)]
pub(crate) struct Runs {
    pub(crate) ms: BTreeMap<String, Vec<f64>>,
    pub(crate) peak_mib: Vec<f64>,
}

impl Runs {
    pub(crate) fn add(&mut self, report: &Value) -> Result<()> {
        let rows = report["ms"].as_object().context("the benchmark printed no timings")?;
        for (name, row) in rows {
            self.ms
                .entry(name.clone())
                .or_default()
                .push(row["median"].as_f64().context("a row without a median")?);
        }
        self.peak_mib.extend(report["peak_rss_mib"].as_f64());
        Ok(())
    }

    pub(crate) fn median(&self, name: &str) -> f64 {
        self.ms.get(name).map_or(f64::NAN, |v| median(v))
    }
}

pub(crate) fn algebra(args: &AlgebraArgs) -> Result<()> {
    ensure!(args.rounds > 0 && args.iters > 0, "--rounds and --iters must be at least 1");
    run(&mut command(
        "cargo",
        &["build", "--release", "--quiet", "--package", "fwd-benches", "--bin", "algebra"],
    ))?;
    let program = built("algebra").to_string_lossy().into_owned();
    let iters = args.iters.to_string();
    let (mut ours, mut torch) = (Runs::default(), Runs::default());
    for round in 0..args.rounds {
        eprintln!("round {} of {}", round + 1, args.rounds);
        settle();
        ours.add(&serde_json::from_str(&output(&mut command(&program, &["--iters", &iters]))?)?)?;
        if let Some(python) = &args.torch {
            settle();
            let mut list = vec!["benches/algebra_torch.py", "--iters", &iters];
            if round == 0 {
                list.push("--gpm"); // a minute: once is enough
            }
            torch.add(&serde_json::from_str(&output(&mut command(&python.to_string_lossy(), &list))?)?)?;
        }
    }
    print_algebra(args, &ours, &torch)
}

#[allow(clippy::print_stdout)]
pub(crate) fn data(args: &DataArgs) -> Result<()> {
    ensure!(args.rounds > 0 && args.iters > 0, "--rounds and --iters must be at least 1");
    run(&mut command(
        "cargo",
        &["build", "--release", "--quiet", "--package", "fwd-benches", "--bin", "data"],
    ))?;
    let program = built("data").to_string_lossy().into_owned();
    let folder = root().join("target/bench-data").to_string_lossy().into_owned();
    let iters = args.iters.to_string();
    let (mut ours, mut torch) = (Runs::default(), Runs::default());
    for round in 0..args.rounds {
        eprintln!("round {} of {}", round + 1, args.rounds);
        settle();
        let list = ["--data", &folder, "--iters", &iters];
        ours.add(&serde_json::from_str(&output(&mut command(&program, &list))?)?)?;
        if let Some(python) = &args.torch {
            settle();
            let list = ["benches/data_torch.py", "--data", &folder, "--iters", &iters];
            torch.add(&serde_json::from_str(&output(&mut command(&python.to_string_lossy(), &list))?)?)?;
        }
    }
    let mut table = String::from("| work | ours, ms | Python, ms | Python / ours |\n|---|---|---|---|\n");
    for name in ours.ms.keys() {
        let (mine, theirs) = (ours.median(name), torch.median(name));
        writeln!(table, "| {name} | {mine:.1} | {theirs:.1} | {:.2} |", theirs / mine)?;
    }
    print!("{table}");
    Ok(())
}

#[allow(clippy::print_stdout)]
fn print_algebra(args: &AlgebraArgs, ours: &Runs, torch: &Runs) -> Result<()> {
    if args.json {
        println!("{}", serde_json::to_string_pretty(&json!({ "ours_ms": ours.ms, "peers_ms": torch.ms }))?);
        return Ok(());
    }
    let mut table =
        String::from("| work | ours, ms | peer | peer, ms | ours / peer |\n|---|---|---|---|---|\n");
    for name in ours.ms.keys().filter(|name| !name.starts_with("products") && !name.starts_with("separate")) {
        let size = name.rsplit_once(' ').map_or("", |(_, size)| size);
        let row = |of: &Runs, what: &str| of.median(&format!("{what} {size}"));
        let peers = if name.starts_with("sub") {
            [("PyTorch, Gram + eigh", row(torch, "subspace")), ("GPM's routine, numpy", row(torch, "gpm"))]
                .to_vec()
        } else if name.starts_with("step, update only") {
            vec![("faer, its matrix products alone", row(ours, "products") / 2.0)]
        } else {
            vec![
                ("faer, its matrix products alone", row(ours, "products")),
                ("faer, separate calls", row(ours, "separate calls")),
                ("PyTorch, separate calls", row(torch, "step")),
                ("PyTorch, dense d×d projection", row(torch, "dense step")),
            ]
        };
        let mine = ours.median(name);
        for (peer, ms) in peers.into_iter().filter(|(_, ms)| !ms.is_nan()) {
            writeln!(table, "| {name} | {mine:.1} | {peer} | {ms:.1} | {:.2} |", mine / ms)?;
        }
    }
    print!("{table}");
    Ok(())
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mid = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[mid],
        _ => (sorted[mid - 1] + sorted[mid]) / 2.0,
    }
}

pub(crate) fn step(args: &StepArgs) -> Result<()> {
    ensure!(args.rounds > 0 && args.iters > 0, "--rounds and --iters must be at least 1");
    run(&mut command(
        "cargo",
        &["build", "--release", "--quiet", "--package", "fwd-benches", "--bin", "step"],
    ))?;
    let sizes = args.config.map_or(vec![Size::Small, Size::Base], |size| vec![size]);
    let mut reports = Vec::new();
    for size in sizes {
        let name = if size == Size::Small { "small" } else { "base" };
        let (mut ours, mut torch) = (Runs::default(), Runs::default());
        // Turn about: what slows the machine down for a while slows both.
        for round in 0..args.rounds {
            eprintln!("{name}: round {} of {}", round + 1, args.rounds);
            settle();
            ours.add(&run_ours(name, args)?)?;
            if let Some(python) = &args.torch {
                settle();
                torch.add(&run_torch(python, name, args)?)?;
            }
        }
        reports.push((name, ours, torch));
    }
    print(args, &reports)
}

/// Lets the machine free the memory of the process before, which would slow the first row of the next one.
pub(crate) fn settle() {
    std::thread::sleep(Duration::from_secs(3));
}

fn run_ours(size: &str, args: &StepArgs) -> Result<Value> {
    let program = built("step");
    let iters = args.iters.to_string();
    let mut step = command(
        &program.to_string_lossy(),
        &["--config", size, "--kind", &args.kind, "--iters", &iters, "--json"],
    );
    // candle keeps a thread pool of its own beside rayon's, and it spins: on few cores both then wait for each other.
    step.env("CANDLE_NUM_THREADS", "1");
    Ok(serde_json::from_str(&output(&mut step)?)?)
}

fn run_torch(python: &Path, size: &str, args: &StepArgs) -> Result<Value> {
    let scratch = std::env::temp_dir().join(format!("fwd-bench-{}.jsonl", std::process::id()));
    let script = "crates/fwd-models/tests/fixtures/scripts/bench_torch.py";
    let (iters, out) = (args.iters.to_string(), scratch.to_string_lossy().into_owned());
    let modes = "vision,train_cached,train_full,gen_hf";
    let list =
        [script, "--config", size, "--kind", &args.kind, "--iters", &iters, "--modes", modes, "--json", &out];
    let ran = output(&mut command(&python.to_string_lossy(), &list));
    let text = std::fs::read_to_string(&scratch);
    let _ = std::fs::remove_file(&scratch);
    ran?;
    Ok(serde_json::from_str(text?.trim())?)
}

#[allow(clippy::print_stdout)]
fn print(args: &StepArgs, reports: &[(&str, Runs, Runs)]) -> Result<()> {
    if args.json {
        let value =
            |name: &str, runs: &Runs| json!({ "config": name, "ms": runs.ms, "peak_mib": runs.peak_mib });
        let all: Vec<Value> = reports
            .iter()
            .map(|(name, ours, torch)| json!({ "ours": value(name, ours), "torch": args.torch.as_ref().map(|_| value(name, torch)) }))
            .collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    let mut table =
        String::from("| work | config | ours, ms | PyTorch, ms | ours / PyTorch |\n|---|---|---|---|---|\n");
    for (name, ours, torch) in reports {
        for (row, torch_row, what) in ROWS {
            line(&mut table, what, name, ours.median(row), torch.median(torch_row), 1)?;
        }
        line(&mut table, "peak memory, MiB", name, median(&ours.peak_mib), median(&torch.peak_mib), 0)?;
    }
    print!("{table}");
    Ok(())
}

fn line(table: &mut String, what: &str, size: &str, ours: f64, torch: f64, digits: usize) -> Result<()> {
    if torch.is_nan() {
        writeln!(table, "| {what} | {size} | {ours:.digits$} | | |")?;
    } else {
        writeln!(table, "| {what} | {size} | {ours:.digits$} | {torch:.digits$} | {:.2} |", ours / torch)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Runs, median};
    use serde_json::json;

    #[test]
    fn medians_of_odd_even_and_no_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_report_without_timings_is_an_error() {
        let mut runs = Runs::default();
        assert!(runs.add(&json!({ "peak_rss_mib": 5 })).is_err());
        runs.add(&json!({ "ms": { "vision": { "median": 2.5 } }, "peak_rss_mib": 7 })).unwrap();
        assert_eq!((runs.median("vision"), runs.peak_mib), (2.5, vec![7.0]));
    }
}
