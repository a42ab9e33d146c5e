//! `cargo xtask bench models`: models of published shapes with random weights, turn about with transformers and llama.cpp.

use crate::bench::{turn, verdict};
use crate::model_jobs::{Goal, JOBS, Job, Must, Part, Peer};
use crate::record::{Record, build};
use crate::shell::{benchmark, built, command, root, run};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scale {
    Full,
    Tiny,
}

#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    /// Parts of the table; all if absent.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// `tiny` runs everything on small variants of the models, to try the command out.
    #[arg(long, value_enum, default_value = "full")]
    scale: Scale,
    /// Timed runs of each row in each process.
    #[arg(long, default_value_t = 3)]
    iters: usize,
    /// Processes of each program.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A Python with torch and transformers (and llama-cpp-python): it runs in turn with ours.
    #[arg(long, value_name = "PYTHON")]
    torch: Option<PathBuf>,
    /// Folder for the checkpoint of the part that runs, up to 9 GB; it is deleted after the part.
    #[arg(long, default_value = "target/bench-models")]
    folder: PathBuf,
    /// Keep the figures of all processes in this file; a command that was stopped goes on from it.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Names of rows, and how the table calls them.
const ROWS: [(&str, &str); 11] = [
    ("open", "opened, ms"),
    ("first_layer", "first layer computed, ms"),
    ("first_token", "first answer token, ms"),
    ("touched_mib", "weights that an answer needs, MiB"),
    ("resident_mib", "resident afterwards, MiB"),
    ("resident_own_mib", "of these its own, MiB"),
    ("resident_mapped_mib", "of these mapped files, MiB"),
    ("step", "prompt-tuning step, ms"),
    ("prefill", "prefill, ms"),
    ("generate", "32 tokens greedy, ms"),
    ("peak", "peak memory, MiB"),
];

#[allow(clippy::print_stdout)]
pub(crate) fn models(args: &ModelsArgs) -> Result<()> {
    ensure!(args.rounds > 0 && args.iters > 0, "--rounds and --iters must be at least 1");
    build(&["models", "random_checkpoint"])?;
    let scale = format!("{:?}", args.scale).to_lowercase();
    let settings = json!({ "command": "models", "iters": args.iters, "scale": scale });
    let mut record = Record::open(args.json.as_deref(), settings)?;
    let parts = Part::value_variants().iter().filter(|part| args.only.is_empty() || args.only.contains(part));
    for part in parts {
        let jobs: Vec<&Job> = JOBS.iter().filter(|job| job.part == *part).collect();
        if jobs.iter().all(|job| is_done(&record, job, args)) {
            continue;
        }
        let dir = root().join(&args.folder).join(format!("{part:?}").to_lowercase());
        checkpoint(*part, args.scale, &dir)?;
        let measured = jobs.into_iter().try_for_each(|job| measure(&mut record, job, &dir, args));
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot delete {}", dir.display()))?;
        measured?;
    }
    record.derive(shares(&record))?;
    let mut table = String::from(
        "| work | row | ours | peers | compared | ratio | aimed at |\n|---|---|---|---|---|---|---|\n",
    );
    for job in &JOBS {
        lines(&mut table, job, &record)?;
    }
    println!("{}\n\n{table}", record.describe());
    Ok(())
}

/// Whether no process of a job is missing.
fn is_done(record: &Record, job: &Job, args: &ModelsArgs) -> bool {
    let rows: Vec<&str> = job.rows.split(',').collect();
    let peers = job.peers.iter().filter(|_| args.torch.is_some()).map(|peer| job.peer(*peer));
    job.computes
        .iter()
        .map(|compute| job.ours(compute))
        .chain(peers)
        .all(|name| record.count(&name, &rows) >= args.rounds)
}

/// Writes the checkpoint of a part.
fn checkpoint(part: Part, scale: Scale, dir: &Path) -> Result<()> {
    if dir.exists() {
        // Left by a run that was stopped.
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot delete {}", dir.display()))?;
    }
    let (kind, dtype) = part.checkpoint();
    let scale = if scale == Scale::Full { "full" } else { "tiny" };
    let program = built("random_checkpoint").to_string_lossy().into_owned();
    run(&mut command(&program, &[kind, &dir.to_string_lossy(), "--dtype", dtype, "--scale", scale]))
}

/// All processes of a job, turn about: what slows the machine down for a while slows all.
fn measure(record: &mut Record, job: &Job, dir: &Path, args: &ModelsArgs) -> Result<()> {
    let rows: Vec<&str> = job.rows.split(',').collect();
    for round in 0..args.rounds {
        eprintln!("{}: round {} of {}", job.what, round + 1, args.rounds);
        for compute in job.computes {
            turn(record, &job.ours(compute), &rows, round, run_ours(job, compute, dir, args))?;
        }
        for peer in job.peers {
            let Some(python) = &args.torch else { break };
            turn(record, &job.peer(*peer), &rows, round, run_peer(*peer, python, job, dir, args))?;
        }
    }
    Ok(())
}

/// The flags that our program and the script for transformers share.
fn shape(job: &Job, args: &ModelsArgs) -> Vec<String> {
    let flags = [
        ("--rows", job.rows.to_owned()),
        ("--batch", job.batch.to_string()),
        ("--input-len", job.input_len.to_string()),
        ("--label-len", job.label_len.to_string()),
        ("--iters", args.iters.to_string()),
    ];
    flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

fn run_ours(job: &Job, compute: &str, dir: &Path, args: &ModelsArgs) -> Command {
    let mut program = benchmark("models", &["--dtype", job.dtype, "--compute", compute]);
    program.arg("--model").arg(dir).args(shape(job, args));
    program
}

fn run_peer(peer: Peer, python: &Path, job: &Job, dir: &Path, args: &ModelsArgs) -> Command {
    let python = python.to_string_lossy().into_owned();
    match peer {
        Peer::LlamaCpp => {
            let mut script = command(&python, &["benches/models_llama_cpp.py", "--gguf"]);
            script.arg(dir.join("model.gguf")).args(["--input-len", &job.input_len.to_string()]);
            script.args(["--iters", &args.iters.to_string()]);
            script
        }
        Peer::Torch { dtype, attention, is_random } => {
            let dtype = if dtype == "f32" { "float32" } else { "bfloat16" };
            let list = ["benches/models_torch.py", "--dtype", dtype, "--attn", attention, "--model"];
            let mut script = command(&python, &list);
            script.arg(dir).args(shape(job, args)).args(is_random.then_some("--random"));
            script
        }
        Peer::TorchInt8 => {
            let mut script = command(&python, &["benches/models_torch.py", "--int8", "--model"]);
            script.arg(dir).args(shape(job, args));
            script
        }
    }
}

/// How much of the machine's products per second a step reaches, and how much of its copy bandwidth the weights that are read for every
/// new token do.
fn shares(record: &Record) -> Vec<Value> {
    let mut shares = Vec::new();
    for (job, compute) in JOBS.iter().flat_map(|job| job.computes.iter().map(move |compute| (job, compute))) {
        let name = job.ours(compute);
        let ms = |row: &str| record.median(&name, row);
        let peak = record.of_machine(if *compute == "f32" { "gflop_s_f32" } else { "gflop_s_bf16" });
        if let (Some(gflop), Some(peak)) = (record.fact(&name, "step_gflop"), peak)
            && ms("step").is_finite()
        {
            let gflop_s = gflop / ms("step") * 1e3;
            shares.push(json!({
                "program": name, "row": "step", "gflop": gflop, "gflop_s": gflop_s, "share_of_peak": gflop_s / peak
            }));
        }
        let tokens = record.fact(&name, "new_tokens").unwrap_or(f64::NAN) - 1.0;
        let token_ms = (ms("generate") - ms("prefill")) / tokens;
        if let (Some(mb), Some(copy)) = (record.fact(&name, "token_mb"), record.of_machine("copy_gb_s"))
            && job.batch == 1
            && token_ms.is_finite()
        {
            let gb_s = mb / token_ms;
            shares.push(json!({
                "program": name, "row": "generate", "token_ms": token_ms, "token_mb": mb, "gb_s": gb_s, "share_of_copy_bandwidth": gb_s / copy
            }));
        }
    }
    shares
}

/// The rows of the table for a job: a line for each goal of a row, or one without a goal.
fn lines(table: &mut String, job: &Job, record: &Record) -> Result<()> {
    for (row, title) in ROWS {
        let mine: Vec<(&str, f64)> =
            job.computes.iter().map(|compute| (*compute, record.median(&job.ours(compute), row))).collect();
        let its: Vec<(Peer, f64)> =
            job.peers.iter().map(|peer| (*peer, record.median(&job.peer(*peer), row))).collect();
        if mine.iter().all(|(_, figure)| figure.is_nan()) {
            continue;
        }
        let cell = |figures: Vec<(String, f64)>| {
            let known = figures.into_iter().filter(|(_, figure)| !figure.is_nan());
            known.map(|(name, figure)| format!("{name} {figure:.1}")).collect::<Vec<_>>().join(", ")
        };
        let (ours, peers) = (
            cell(mine.iter().map(|(name, figure)| ((*name).to_owned(), *figure)).collect()),
            cell(its.iter().map(|(peer, figure)| (peer.name(), *figure)).collect()),
        );
        let goals: Vec<&Goal> = job.goals.iter().filter(|goal| goal.row == row).collect();
        let compared: Vec<(String, String, String)> = if goals.is_empty() {
            let ratio = least(mine.iter().map(|(_, f)| *f)) / least(its.iter().map(|(_, f)| *f));
            vec![(String::new(), shown(ratio), String::new())]
        } else {
            goals
                .into_iter()
                .map(|goal| judge(goal, &mine, &its, |row| record.median(&job.ours(job.computes[0]), row)))
                .collect()
        };
        for (what, ratio, aim) in compared {
            writeln!(table, "| {} | {title} | {ours} | {peers} | {what} | {ratio} | {aim} |", job.what)?;
        }
    }
    Ok(())
}

/// What is compared, the ratio, and whether it is as small as was aimed at.
fn judge(
    goal: &Goal,
    mine: &[(&str, f64)],
    its: &[(Peer, f64)],
    other_row: impl Fn(&str) -> f64,
) -> (String, String, String) {
    let of = |is_f32: bool| {
        least(mine.iter().filter(|(compute, _)| !is_f32 || *compute == "f32").map(|(_, f)| *f))
    };
    match goal.must {
        Must::AtMost(limit) => {
            let met = if of(false) <= limit { "met" } else { "missed" };
            (String::new(), String::new(), format!("≤ {limit:.0}: {met}"))
        }
        Must::Row(factor, other) => {
            let ratio = of(false) / other_row(other);
            ("beside the weights that an answer needs".into(), shown(ratio), verdict(ratio, factor))
        }
        Must::F32(factor) => {
            let ratio = of(true) / least(its.iter().filter(|(peer, _)| peer.is_f32()).map(|(_, f)| *f));
            ("f32 / f32".into(), shown(ratio), verdict(ratio, factor))
        }
        Must::Fastest(factor) => {
            let ratio = of(false) / least(its.iter().map(|(_, f)| *f));
            ("least / least".into(), shown(ratio), verdict(ratio, factor))
        }
    }
}

/// The least that is known; NaN if nothing is.
fn least(figures: impl Iterator<Item = f64>) -> f64 {
    figures.fold(f64::NAN, f64::min)
}

fn shown(ratio: f64) -> String {
    if ratio.is_nan() { String::new() } else { format!("{ratio:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::without_file;

    #[test]
    fn a_table_says_what_was_met_and_what_was_missed() {
        let job = JOBS.iter().find(|job| job.part == Part::Smollm2 && job.rows.starts_with("step,")).unwrap();
        let mut record = without_file();
        let report = |ms: f64, peak: f64| {
            json!({ "ms": { "step": { "median": ms } }, "peak_rss_mib": peak, "step_gflop": 1.0 }).to_string()
        };
        record.add(&job.ours("f32"), &report(7.0, 30.0)).unwrap();
        record.add(&job.ours("bf16"), &report(5.0, 20.0)).unwrap();
        for (peer, ms) in job.peers.iter().zip([10.0, 11.0, 6.0, 8.0]) {
            record.add(&job.peer(*peer), &report(ms, 50.0)).unwrap();
        }
        let mut table = String::new();
        lines(&mut table, job, &record).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        let figures = "f32 7.0, bf16 5.0 | transformers f32 sdpa 10.0, transformers f32 eager 11.0, transformers bf16 sdpa 6.0, transformers bf16 eager 8.0";
        assert!(lines[0].ends_with(&format!("{figures} | f32 / f32 | 0.70 | ≤ 0.7: met |")), "{table}");
        assert!(
            lines[1].ends_with(&format!("{figures} | least / least | 0.83 | ≤ 0.8: missed |")),
            "{table}"
        );
        assert!(lines[2].ends_with("| f32 / f32 | 0.60 | ≤ 0.3: missed |"), "{table}");
        assert!(lines[3].ends_with("| least / least | 0.40 | ≤ 0.5: met |"), "{table}");
        assert_eq!(lines.len(), 4, "{table}");
    }
}
