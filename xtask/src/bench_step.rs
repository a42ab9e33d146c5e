//! `cargo xtask bench step`: prompt-tuning steps, frozen features and generation of ours in f32 and bf16, turn about with PyTorch in f32 and
//! bf16, with its fused attention (SDPA) and with plain one (eager).

use crate::bench::{turn, verdict};
use crate::record::{Record, build, settle};
use crate::shell::{benchmark, command, output};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Size {
    Small,
    Base,
}

/// What frozen products are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compute {
    F32,
    Bf16,
}

impl Compute {
    fn name(self) -> &'static str {
        if self == Self::F32 { "f32" } else { "bf16" }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    TrainCached,
    TrainFull,
    Vision,
    Generate,
}

impl Row {
    /// Our name of the row, that of the PyTorch benchmark, and the table's.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::TrainCached => {
                ("train_cached", "train_cached", "prompt-tuning step, frozen features cached")
            }
            Self::TrainFull => ("train_full", "train_full", "prompt-tuning step from pixels"),
            Self::Vision => ("vision", "vision", "vision tower + Q-Former"),
            Self::Generate => ("generate", "gen_hf", "greedy generation, 8 tokens"),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    /// Size of the model; both if absent.
    #[arg(long, value_enum)]
    config: Option<Size>,
    /// What the products are computed in, by ours and by PyTorch.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["f32", "bf16"])]
    compute: Vec<Compute>,
    /// Rows to measure; all if absent.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Row>,
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
    /// Keep the figures of all processes in this file; a command that was stopped goes on from it.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const ATTENTION: [&str; 2] = ["sdpa", "eager"];
const SIZES: [&str; 2] = ["small", "base"];

fn ours(size: &str, compute: &str) -> String {
    format!("{size}, ours {compute}")
}

fn torch(size: &str, dtype: &str, attention: &str) -> String {
    format!("{size}, PyTorch {dtype} {attention}")
}

#[allow(clippy::print_stdout)]
pub(crate) fn step(args: &StepArgs) -> Result<()> {
    ensure!(args.rounds > 0 && args.iters > 0, "--rounds and --iters must be at least 1");
    build(&["step"])?;
    let settings = json!({ "command": "step", "kind": args.kind, "iters": args.iters });
    let mut record = Record::open(args.json.as_deref(), settings)?;
    for size in SIZES {
        let is_wanted =
            args.config.is_none_or(|config| config == if size == "small" { Size::Small } else { Size::Base });
        // Turn about: what slows the machine down for a while slows all.
        for round in (0..args.rounds).filter(|_| is_wanted) {
            eprintln!("{size}: round {} of {}", round + 1, args.rounds);
            for compute in &args.compute {
                run_round(&mut record, args, size, compute.name(), round)?;
            }
        }
    }
    record.derive(shares(&record))?;
    println!("{}\n\n{}", record.describe(), table(&record)?);
    Ok(())
}

/// A process of ours and one of each kind of PyTorch's attention, where the record lacks them.
fn run_round(record: &mut Record, args: &StepArgs, size: &str, compute: &str, round: usize) -> Result<()> {
    let all = Row::value_variants().iter().filter(|row| args.only.is_empty() || args.only.contains(row));
    let (mine, theirs): (Vec<&str>, Vec<&str>) = all.map(|row| (row.names().0, row.names().1)).unzip();
    let iters = args.iters.to_string();
    let rows = mine.join(",");
    let program = benchmark(
        "step",
        &[
            "--config",
            size,
            "--kind",
            &args.kind,
            "--iters",
            &iters,
            "--compute",
            compute,
            "--json",
            "--rows",
            &rows,
        ],
    );
    turn(record, &ours(size, compute), &mine, round, program)?;
    let Some(python) = &args.torch else { return Ok(()) };
    for attention in ATTENTION {
        let name = torch(size, compute, attention);
        if record.count(&name, &theirs) <= round {
            settle();
            let report = run_torch(python, args, (size, compute, attention), &theirs.join(","))?;
            record.add(&name, &report)?;
        }
    }
    Ok(())
}

fn run_torch(
    python: &Path,
    args: &StepArgs,
    (size, dtype, attention): (&str, &str, &str),
    modes: &str,
) -> Result<String> {
    let scratch = std::env::temp_dir().join(format!("fwd-bench-{}.jsonl", std::process::id()));
    let script = "crates/fwd-models/tests/fixtures/scripts/bench_torch.py";
    let iters = args.iters.to_string();
    let list = [
        script, "--config", size, "--kind", &args.kind, "--iters", &iters, "--modes", modes, "--attn",
        attention,
    ];
    let mut python = command(&python.to_string_lossy(), &list);
    python.args((dtype == "bf16").then_some("--bf16")).arg("--json").arg(&scratch);
    let ran = output(&mut python);
    let text = std::fs::read_to_string(&scratch);
    let _ = std::fs::remove_file(&scratch);
    ran?;
    text.context("the PyTorch benchmark left no figures")
}

/// How much of the machine's products per second the cached step reaches.
fn shares(record: &Record) -> Vec<Value> {
    let mut shares = Vec::new();
    for size in SIZES {
        for compute in ["f32", "bf16"] {
            let name = ours(size, compute);
            let peak = record.of_machine(&format!("gflop_s_{compute}"));
            let (Some(gflop), Some(peak)) = (record.fact(&name, "train_cached_gflop"), peak) else {
                continue;
            };
            let gflop_s = gflop / record.median(&name, "train_cached") * 1e3;
            shares.push(json!({
                "program": name, "row": "train_cached", "gflop": gflop, "gflop_s": gflop_s, "share_of_peak": gflop_s / peak
            }));
        }
    }
    shares
}

/// A line a row and size: ours and PyTorch's in f32 and bf16, the ratio in f32, and that of the faster ones.
fn table(record: &Record) -> Result<String> {
    let mut table = String::from(
        "| work | config | ours f32 | ours bf16 | PyTorch f32 sdpa | f32 eager | bf16 sdpa | bf16 eager | f32 / f32 | aimed at | faster / faster | aimed at |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let rows = Row::value_variants().iter().map(|row| row.names());
    let rows: Vec<_> = rows.chain([("peak", "peak", "peak memory, MiB")]).collect();
    for size in SIZES {
        for (mine, theirs, what) in &rows {
            let our_figures = ["f32", "bf16"].map(|compute| record.median(&ours(size, compute), mine));
            let its = ["f32", "bf16"].map(|dtype| {
                ATTENTION.map(|attention| record.median(&torch(size, dtype, attention), theirs))
            });
            if our_figures.iter().all(|figure| figure.is_nan()) {
                continue;
            }
            let digits = if *mine == "peak" { 0 } else { 1 };
            write!(table, "| {what} | {size} |")?;
            for figure in our_figures.iter().chain(its.iter().flatten()) {
                if figure.is_nan() { write!(table, " |")? } else { write!(table, " {figure:.digits$} |")? }
            }
            let targets = if *mine == "peak" { [0.3, 0.5] } else { [0.6, 0.6] };
            // NaN, which stands for what was not measured, is never the least.
            let least = |figures: &[f64]| figures.iter().copied().fold(f64::NAN, f64::min);
            let all: Vec<f64> = its.iter().flatten().copied().collect();
            let ratios = [our_figures[0] / least(&its[0]), least(&our_figures) / least(&all)];
            for (ratio, target) in ratios.into_iter().zip(targets) {
                if ratio.is_nan() {
                    write!(table, " | |")?
                } else {
                    write!(table, " {ratio:.2} | {} |", verdict(ratio, target))?
                }
            }
            writeln!(table)?;
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::without_file;

    #[test]
    fn the_faster_of_each_is_compared() {
        let mut record = without_file();
        for (program, ms) in [
            ("ours f32", 6.0),
            ("ours bf16", 7.0),
            ("PyTorch f32 sdpa", 12.0),
            ("PyTorch f32 eager", 10.0),
            ("PyTorch bf16 sdpa", 8.0),
        ] {
            let report = json!({ "ms": { "vision": { "median": ms } }, "peak_rss_mib": 100.0 * ms });
            record.add(&format!("base, {program}"), &report.to_string()).unwrap();
        }
        let table = table(&record).unwrap();
        let expected = "| vision tower + Q-Former | base | 6.0 | 7.0 | 12.0 | 10.0 | 8.0 | | 0.60 | ≤ 0.6: met | 0.75 | ≤ 0.6: missed |";
        assert!(table.contains(expected), "{table}");
        assert!(table.contains("| peak memory, MiB | base | 600 | 700 | 1200 | 1000 | 800 | | 0.60 | ≤ 0.3: missed | 0.75 | ≤ 0.5: missed |"), "{table}");
        assert!(!table.contains("small") && !table.contains("pixels"), "{table}");
    }
}
