//! `cargo xtask comparison`: the methods of results/ on the embedded benchmark, over seeds and two orders of the tasks, and its table.
//!
//! Even seeds learn the tasks in the benchmark's order, odd ones in the reverse, so that an interval is over both. Every run has the
//! same budget: the program's defaults, which were chosen by the validation scores of single tasks. Runs are ordinary run
//! directories: what is finished is not run again, and what was interrupted goes on.

use crate::shell::{built, command, root, run};
use anyhow::{Result, ensure};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

/// All but `independent`, whose scores the others are compared with.
const METHODS: [&str; 12] = [
    "zero-shot",
    "sequential",
    "l2p",
    "residual",
    "fwd",
    "fwd-strict",
    "fwd-weighted",
    "replay",
    "ewc",
    "modal-prompt",
    "joint",
    "finetune",
];

/// The methods with adapters, and four to hold them against. `independent` is none of them: adapters have no counterpart of prompts learnt alone.
const ADAPTERS: [&str; 18] = [
    "zero-shot",
    "sequential",
    "fwd",
    "reuse",
    "lora",
    "lora-replay",
    "lora-ewc",
    "lora-agem",
    "lora-gem",
    "lora-per-task",
    "moe-lora",
    "hide",
    "o-lora",
    "reg-lora",
    "keep-lora",
    "lora-residual",
    "lora-fwd",
    "lora-fwd-weighted",
];

/// The learning rate of all adapters: the best of 0.0002, 0.0005, 0.001, 0.002, 0.004 and 0.008 by the mean validation score of `lora` on the five tasks,
/// each learnt alone (seed 0).
const ADAPTERS_LR: &str = "lora.optimiser.lr=0.001";

#[derive(Debug, Args)]
pub(crate) struct ComparisonArgs {
    /// Folder of the runs.
    #[arg(long, default_value = "runs/comparison")]
    out: PathBuf,
    /// Number of seeds: 0, 1, …
    #[arg(long, default_value_t = 6)]
    seeds: u64,
    /// Runs at a time, each on one thread.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Only these methods.
    #[arg(long, value_delimiter = ',')]
    methods: Option<Vec<String>>,
    /// Instead of the tables of results/: the five rules with each of these computes, and what the others are less the first one.
    #[arg(long, value_delimiter = ',', conflicts_with = "methods")]
    computes: Option<Vec<String>>,
    /// Instead of the tables of results/: the methods with adapters, `results/adapters.*`.
    #[arg(long, conflicts_with_all = ["methods", "computes"])]
    adapters: bool,
}

/// The rules for the updates of a task's own prompts.
const RULES: [&str; 5] = ["sequential", "residual", "fwd", "fwd-strict", "fwd-weighted"];

pub(crate) fn comparison(args: &ComparisonArgs) -> Result<()> {
    ensure!(args.seeds > 0 && args.jobs > 0, "--seeds and --jobs must be at least 1");
    run(&mut command("cargo", &["build", "--release", "--locked", "--quiet", "--package", "fwd-cli"]))?;
    let program = built("fwd-prompt");
    let out = root().join(&args.out);
    if let Some(computes) = &args.computes {
        return of_computes(args, &program, &out, computes);
    }
    if args.adapters {
        return of_adapters(args, &program, &out);
    }
    let methods = args.methods.clone().unwrap_or_else(|| METHODS.map(str::to_owned).to_vec());
    let name = |method: &str, seed: u64| format!("{method}-{seed}");
    let one = |method: &str, seed: u64| {
        let mut command = train_into(&program, &out, &name(method, seed), method, seed);
        if method != "independent" {
            command.arg("--alone").arg(out.join(name("independent", seed)));
        }
        (out.join(name(method, seed)), command)
    };
    work_off(args.jobs, (0..args.seeds).map(|seed| one("independent", seed)).collect())?;
    // Seed by seed, so that a part of the work is a comparison too.
    let rest = (0..args.seeds).flat_map(|seed| methods.iter().map(move |method| (method, seed)));
    work_off(args.jobs, rest.map(|(method, seed)| one(method, seed)).collect())?;
    let runs = methods.iter().flat_map(|method| (0..args.seeds).map(move |seed| name(method, seed)));
    let runs: Vec<String> = runs.collect();
    let folder = root().join("results");
    let tables: [(&str, &[&str]); 5] = [
        ("comparison.json", &["--pool-orders", "--format", "json"]),
        ("comparison.csv", &["--pool-orders", "--format", "csv"]),
        ("comparison.txt", &["--pool-orders"]),
        ("by-order.txt", &[]),
        ("less-fwd.txt", &["--pool-orders", "--against", "fwd"]),
    ];
    let has_fwd = methods.iter().any(|method| method == "fwd");
    for (file, args) in tables.into_iter().filter(|(_, args)| has_fwd || !args.contains(&"--against")) {
        compare(&program, &out, &runs, args, &folder.join(file))?;
    }
    Ok(())
}

/// The methods with adapters, seeds and orders as in the comparison; the tables are `results/adapters.*`.
fn of_adapters(args: &ComparisonArgs, program: &Path, out: &Path) -> Result<()> {
    let name = |method: &str, seed: u64| format!("{method}-{seed}");
    let one = |method: &str, seed: u64| {
        let mut train = train_into(program, out, &name(method, seed), method, seed);
        train.args(["--set", ADAPTERS_LR]);
        (out.join(name(method, seed)), train)
    };
    let all = (0..args.seeds).flat_map(|seed| ADAPTERS.map(|method| (method, seed)));
    work_off(args.jobs, all.map(|(method, seed)| one(method, seed)).collect())?;
    let runs = ADAPTERS.iter().flat_map(|method| (0..args.seeds).map(move |seed| name(method, seed)));
    let runs: Vec<String> = runs.collect();
    let tables: [(&str, &[&str]); 4] = [
        ("adapters.json", &["--pool-orders", "--format", "json"]),
        ("adapters.txt", &["--pool-orders"]),
        ("adapters-by-order.txt", &[]),
        ("adapters-less-lora.txt", &["--pool-orders", "--against", "lora"]),
    ];
    for (file, args) in tables {
        compare(program, out, &runs, args, &root().join("results").join(file))?;
    }
    Ok(())
}

/// The five rules under each compute, seeds and orders as in the comparison; the tables are `results/compute.*`.
fn of_computes(args: &ComparisonArgs, program: &Path, out: &Path, computes: &[String]) -> Result<()> {
    ensure!(computes.len() > 1, "--computes takes at least two, as f32,bf16");
    let mut runs = Vec::new();
    let mut commands = Vec::new();
    for seed in 0..args.seeds {
        for (method, compute) in RULES.iter().flat_map(|method| computes.iter().map(move |c| (method, c))) {
            let name = format!("{method}-{seed}-{compute}");
            let mut train = train_into(program, out, &name, method, seed);
            train.args(["--compute", compute]);
            commands.push((out.join(&name), train));
            runs.push(name);
        }
    }
    work_off(args.jobs, commands)?;
    let folder = root().join("results");
    let against = format!("compute={}", computes[0]);
    compare(program, out, &runs, &["--pool-orders"], &folder.join("compute.txt"))?;
    compare(
        program,
        out,
        &runs,
        &["--pool-orders", "--against", &against],
        &folder.join("compute-less.txt"),
    )?;
    let json = ["--pool-orders", "--format", "json"];
    compare(program, out, &runs, &json, &folder.join("compute.json"))
}

/// The command of one run. It has one thread: two threads that wait for each other do less than two runs.
pub(crate) fn train(program: &Path, method: &str, seed: u64) -> Command {
    let mut train = Command::new(program);
    train.args(["train", "--quiet", "--method", method, "--seed", &seed.to_string()]);
    train.env("RAYON_NUM_THREADS", "1");
    train
}

/// [`train`] into a folder of the comparison, in the order of its seed.
fn train_into(program: &Path, out: &Path, name: &str, method: &str, seed: u64) -> Command {
    let mut train = train(program, method, seed);
    train.args(["--order", if seed.is_multiple_of(2) { "given" } else { "reversed" }]);
    train.arg("--out").arg(out.join(name)).arg("--cache").arg(out.join("cache"));
    train
}

/// A table of runs, which are names and not paths: where they lie is nothing to publish.
pub(crate) fn compare(program: &Path, out: &Path, runs: &[String], args: &[&str], file: &Path) -> Result<()> {
    let mut compare = Command::new(program);
    compare.current_dir(out).arg("compare").args(runs).args(args);
    run(compare.arg("--out").arg(file))
}

/// Runs commands in order, so many at a time; the first failure ends it after those that are under way.
pub(crate) fn work_off(jobs: usize, commands: Vec<(PathBuf, Command)>) -> Result<()> {
    let total = commands.len();
    let queue = Mutex::new(commands.into_iter().enumerate());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    std::thread::scope(|scope| {
        let worker = || -> Result<()> {
            while let Some((i, (dir, mut command))) = next() {
                let began = Instant::now();
                if !is_finished(&dir) {
                    run(&mut command)?;
                }
                eprintln!("[{}/{total}] {} {:.0} s", i + 1, dir.display(), began.elapsed().as_secs_f64());
            }
            Ok(())
        };
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

/// Whether a run has its result: the program refuses to start it again.
fn is_finished(dir: &Path) -> bool {
    dir.join("metrics.json").exists()
}
