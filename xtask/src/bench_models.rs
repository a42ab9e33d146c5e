//! `cargo xtask bench models`: models of published shapes with random weights, turn about with transformers and llama.cpp.

use crate::bench::{Runs, median, settle};
use crate::shell::{built, command, output, root, run};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scale {
    Full,
    Tiny,
}

/// A part of the table, with one checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// instructblip-flan-t5-xl in bf16: opening and a step.
    FlanT5Xl,
    /// llava-1.5-7b in q4: a step.
    Llava,
    /// SmolLM2-135M in f32: step, prefill, generation.
    Smollm2,
    /// SmolLM2-135M in q4: generation beside llama.cpp.
    Smollm2Q4,
    /// SmolLM2-135M in q8: generation beside llama.cpp.
    Smollm2Q8,
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
    /// Write the figures of all processes to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Another program that does the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// transformers, on the checkpoint or with random weights made in place.
    Torch {
        dtype: &'static str,
        is_random: bool,
    },
    /// transformers with PyTorch's dynamically quantised linear maps, which have no backward.
    TorchInt8,
    LlamaCpp,
}

impl Peer {
    fn name(self) -> String {
        match self {
            Self::Torch { dtype, .. } => format!("transformers {dtype}"),
            Self::TorchInt8 => "transformers int8".into(),
            Self::LlamaCpp => "llama.cpp".into(),
        }
    }
}

/// What a figure of ours must not exceed.
#[derive(Debug, Clone, Copy)]
enum Must {
    AtMost(f64),
    /// So many times the figure of the row of ours with this name.
    Row(f64, &'static str),
    /// So many times the peer's.
    Peer(f64, Peer),
}

/// A process of each program on one batch.
#[derive(Debug)]
struct Job {
    part: Part,
    what: &'static str,
    dtype: &'static str,
    rows: &'static str,
    batch: usize,
    input_len: usize,
    label_len: usize,
    peers: &'static [Peer],
    /// By the name of the row, `peak` for the most memory.
    musts: &'static [(&'static str, Must)],
}

const BF16: Peer = Peer::Torch { dtype: "bfloat16", is_random: false };
const F32: Peer = Peer::Torch { dtype: "float32", is_random: false };
const GIB: f64 = 1024.0;

const JOBS: [Job; 8] = [
    Job {
        part: Part::FlanT5Xl,
        what: "instructblip-flan-t5-xl bf16, opened",
        dtype: "bf16",
        rows: "open",
        batch: 1,
        input_len: 80,
        label_len: 8,
        peers: &[BF16],
        musts: &[("first_layer", Must::AtMost(3000.0)), ("resident_mib", Must::Row(1.1, "touched_mib"))],
    },
    Job {
        part: Part::FlanT5Xl,
        what: "instructblip-flan-t5-xl bf16, batch 2, 16 + 80 and 8 tokens",
        dtype: "bf16",
        rows: "step",
        batch: 2,
        input_len: 96,
        label_len: 8,
        peers: &[BF16],
        musts: &[("peak", Must::AtMost(10.0 * GIB))],
    },
    Job {
        part: Part::Llava,
        what: "llava-1.5-7b q4, batch 2, 16 + 80 and 8 tokens",
        dtype: "q4",
        rows: "step",
        batch: 2,
        input_len: 96,
        label_len: 8,
        peers: &[Peer::Torch { dtype: "bfloat16", is_random: true }],
        musts: &[("peak", Must::AtMost(6.5 * GIB))],
    },
    Job {
        part: Part::Smollm2,
        what: "SmolLM2-135M f32, batch 16, 52 and 6 tokens",
        dtype: "f32",
        rows: "step,prefill,generate",
        batch: 16,
        input_len: 52,
        label_len: 6,
        peers: &[F32],
        musts: &[
            ("step", Must::Peer(0.8, F32)),
            ("prefill", Must::Peer(0.8, F32)),
            ("generate", Must::Peer(0.8, F32)),
        ],
    },
    Job {
        part: Part::Smollm2,
        what: "SmolLM2-135M f32, one sequence of 52 tokens",
        dtype: "f32",
        rows: "prefill,generate",
        batch: 1,
        input_len: 52,
        label_len: 6,
        peers: &[F32],
        musts: &[("prefill", Must::Peer(0.8, F32)), ("generate", Must::Peer(0.8, F32))],
    },
    Job {
        part: Part::Smollm2,
        what: "SmolLM2-135M f32 made q8 on loading, one sequence of 52 tokens",
        dtype: "q8",
        rows: "prefill,generate",
        batch: 1,
        input_len: 52,
        label_len: 6,
        peers: &[Peer::TorchInt8],
        musts: &[],
    },
    Job {
        part: Part::Smollm2Q4,
        what: "SmolLM2-135M q4, one sequence of 52 tokens",
        dtype: "q4",
        rows: "prefill,generate",
        batch: 1,
        input_len: 52,
        label_len: 6,
        peers: &[Peer::LlamaCpp],
        musts: &[("generate", Must::Peer(1.2, Peer::LlamaCpp))],
    },
    Job {
        part: Part::Smollm2Q8,
        what: "SmolLM2-135M q8, one sequence of 52 tokens",
        dtype: "q8",
        rows: "prefill,generate",
        batch: 1,
        input_len: 52,
        label_len: 6,
        peers: &[Peer::LlamaCpp],
        musts: &[("generate", Must::Peer(1.2, Peer::LlamaCpp))],
    },
];

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

pub(crate) fn models(args: &ModelsArgs) -> Result<()> {
    ensure!(args.rounds > 0 && args.iters > 0, "--rounds and --iters must be at least 1");
    let bins = ["--bin", "models", "--bin", "random_checkpoint"];
    run(command("cargo", &["build", "--release", "--quiet", "--package", "fwd-benches"]).args(bins))?;
    let folder = root().join(&args.folder);
    let parts: Vec<Part> = Part::value_variants()
        .iter()
        .copied()
        .filter(|p| args.only.is_empty() || args.only.contains(p))
        .collect();
    let mut table = String::from(
        "| work | row | ours | peer | its | ours / peer | must |\n|---|---|---|---|---|---|---|\n",
    );
    let mut figures = Vec::new();
    for part in parts {
        let dir = folder.join(format!("{part:?}").to_lowercase());
        checkpoint(part, args.scale, &dir)?;
        let measured = JOBS.iter().filter(|job| job.part == part).try_for_each(|job| {
            let (ours, peers) = measure(job, &dir, args)?;
            let value = |runs: &Runs| json!({ "figures": runs.ms, "peak_mib": runs.peak_mib });
            let of_peers: serde_json::Map<String, Value> =
                peers.iter().map(|(peer, runs)| (peer.name(), value(runs))).collect();
            figures.push(json!({ "work": job.what, "ours": value(&ours), "peers": of_peers }));
            lines(&mut table, job, &ours, &peers)
        });
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot delete {}", dir.display()))?;
        measured?;
    }
    print(args, &table, &figures)
}

#[allow(clippy::print_stdout)]
fn print(args: &ModelsArgs, table: &str, figures: &[Value]) -> Result<()> {
    println!("{}\n\n{table}", machine());
    if let Some(path) = &args.json {
        let all = json!({ "machine": machine(), "scale": format!("{:?}", args.scale).to_lowercase(), "work": figures });
        std::fs::write(path, serde_json::to_string_pretty(&all)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The processor, its cores and the memory, where the system tells.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {cores} cores, {} of memory", field(&cpu, "model name"), field(&memory, "MemTotal"))
}

/// Writes the checkpoint of a part.
fn checkpoint(part: Part, scale: Scale, dir: &Path) -> Result<()> {
    let (kind, dtype) = match part {
        Part::FlanT5Xl => ("instructblip-flan-t5-xl", "bf16"),
        Part::Llava => ("llava-1.5-7b", "q4"),
        Part::Smollm2 => ("smollm2-135m", "f32"),
        Part::Smollm2Q4 => ("smollm2-135m", "q4"),
        Part::Smollm2Q8 => ("smollm2-135m", "q8"),
    };
    if dir.exists() {
        // Left by a run that was stopped.
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot delete {}", dir.display()))?;
    }
    let scale = if scale == Scale::Full { "full" } else { "tiny" };
    let program = built("random_checkpoint").to_string_lossy().into_owned();
    run(&mut command(&program, &[kind, &dir.to_string_lossy(), "--dtype", dtype, "--scale", scale]))
}

/// All processes of a job, turn about: what slows the machine down for a while slows all.
fn measure(job: &Job, dir: &Path, args: &ModelsArgs) -> Result<(Runs, Vec<(Peer, Runs)>)> {
    let mut ours = Runs::default();
    let peers = job.peers.iter().filter(|_| args.torch.is_some());
    let mut peers: Vec<(Peer, Runs)> = peers.map(|peer| (*peer, Runs::default())).collect();
    for round in 0..args.rounds {
        eprintln!("{}: round {} of {}", job.what, round + 1, args.rounds);
        settle();
        ours.add(&run_ours(job, dir, args)?)?;
        for (peer, runs) in &mut peers {
            settle();
            runs.add(&run_peer(*peer, job, dir, args)?)?;
        }
    }
    Ok((ours, peers))
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

fn run_ours(job: &Job, dir: &Path, args: &ModelsArgs) -> Result<Value> {
    let mut program = command(&built("models").to_string_lossy(), &["--dtype", job.dtype, "--model"]);
    program.arg(dir).args(shape(job, args));
    // candle keeps a thread pool of its own beside rayon's, and it spins: on few cores both then wait for each other.
    program.env("CANDLE_NUM_THREADS", "1").env("RUST_MIN_STACK", "33554432");
    Ok(serde_json::from_str(&output(&mut program)?)?)
}

fn run_peer(peer: Peer, job: &Job, dir: &Path, args: &ModelsArgs) -> Result<Value> {
    let python = args.torch.as_ref().context("no Python")?.to_string_lossy().into_owned();
    let mut script = match peer {
        Peer::LlamaCpp => {
            let mut script = command(&python, &["benches/models_llama_cpp.py", "--gguf"]);
            script.arg(dir.join("model.gguf")).args(["--input-len", &job.input_len.to_string()]);
            script.args(["--iters", &args.iters.to_string()]);
            script
        }
        Peer::Torch { dtype, is_random } => {
            let mut script = command(&python, &["benches/models_torch.py", "--dtype", dtype, "--model"]);
            script.arg(dir).args(shape(job, args)).args(is_random.then_some("--random"));
            script
        }
        Peer::TorchInt8 => {
            let mut script = command(&python, &["benches/models_torch.py", "--int8", "--model"]);
            script.arg(dir).args(shape(job, args));
            script
        }
    };
    Ok(serde_json::from_str(&output(&mut script)?)?)
}

/// The rows of the table for a job.
fn lines(table: &mut String, job: &Job, ours: &Runs, peers: &[(Peer, Runs)]) -> Result<()> {
    let figure =
        |runs: &Runs, row: &str| if row == "peak" { median(&runs.peak_mib) } else { runs.median(row) };
    for (row, title) in ROWS {
        let mine = figure(ours, row);
        if mine.is_nan() {
            continue;
        }
        let must = job.musts.iter().find(|(of, _)| *of == row).map(|(_, must)| *must);
        let of_peer =
            |peer: Peer| peers.iter().find(|(p, _)| *p == peer).map_or(f64::NAN, |(_, r)| figure(r, row));
        let must = must.map_or_else(String::new, |must| {
            let (limit, said) = match must {
                Must::AtMost(limit) => (limit, format!("≤ {limit:.0}")),
                Must::Row(factor, other) => (factor * figure(ours, other), format!("≤ {factor} × needed")),
                Must::Peer(factor, peer) => (factor * of_peer(peer), format!("≤ {factor} × {}", peer.name())),
            };
            match limit {
                limit if limit.is_nan() => said,
                limit if mine <= limit => format!("{said}: met"),
                _ => format!("{said}: missed"),
            }
        });
        let known: Vec<&(Peer, Runs)> =
            peers.iter().filter(|(_, runs)| !figure(runs, row).is_nan()).collect();
        if known.is_empty() {
            writeln!(table, "| {} | {title} | {mine:.1} | | | | {must} |", job.what)?;
        }
        for (peer, runs) in known {
            let its = figure(runs, row);
            let (name, ratio) = (peer.name(), mine / its);
            writeln!(
                table,
                "| {} | {title} | {mine:.1} | {name} | {its:.1} | {ratio:.2} | {must} |",
                job.what
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_was_met_and_what_was_missed() {
        let (mut ours, mut torch) = (Runs::default(), Runs::default());
        ours.add(
            &json!({ "ms": { "step": { "median": 7.0 }, "prefill": { "median": 9.0 } }, "peak_rss_mib": 11 }),
        )
        .unwrap();
        torch.add(&json!({ "ms": { "step": { "median": 10.0 }, "prefill": { "median": 10.0 } } })).unwrap();
        let mut table = String::new();
        let job = JOBS.iter().find(|job| job.rows.starts_with("step,")).unwrap();
        lines(&mut table, job, &ours, &[(F32, torch)]).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert!(
            lines[0].ends_with(
                "| 7.0 | transformers float32 | 10.0 | 0.70 | ≤ 0.8 × transformers float32: met |"
            ),
            "{table}"
        );
        assert!(lines[1].ends_with("| 0.90 | ≤ 0.8 × transformers float32: missed |"), "{table}");
        assert!(lines[2].contains("peak memory, MiB | 11.0 | | | |"), "{table}");
    }
}
