//! `cargo xtask bench algebra` and `bench data`: the timings of `fwd-benches`' programs, alone or turn about with PyTorch.

use crate::record::{Record, build, settle};
use crate::shell::{benchmark, command, output, root};
use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

/// The parts of `bench algebra`, which take from seconds to a minute each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Algebra {
    Subspace,
    Step,
}

impl Algebra {
    fn name(self) -> &'static str {
        if self == Self::Subspace { "subspace" } else { "step" }
    }
}

#[derive(Debug, Args)]
pub(crate) struct AlgebraArgs {
    /// Rows to measure; all if absent.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Algebra>,
    /// Timed runs of each row in each process.
    #[arg(long, default_value_t = 5)]
    iters: usize,
    /// Processes of each program.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A Python with torch and numpy: its benchmark runs in turn with ours.
    #[arg(long, value_name = "PYTHON")]
    torch: Option<PathBuf>,
    /// Keep the figures of all processes in this file; a command that was stopped goes on from it.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
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
    /// Keep the figures of all processes in this file; a command that was stopped goes on from it.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const OURS: &str = "ours";
const PYTHON: &str = "PyTorch";
const GPM: &str = "GPM";

#[allow(clippy::print_stdout)]
pub(crate) fn algebra(args: &AlgebraArgs) -> Result<()> {
    ensure!(args.rounds > 0 && args.iters > 0, "--rounds and --iters must be at least 1");
    build(&["algebra"])?;
    let mut record =
        Record::open(args.json.as_deref(), json!({ "command": "algebra", "iters": args.iters }))?;
    let parts =
        Algebra::value_variants().iter().filter(|part| args.only.is_empty() || args.only.contains(part));
    let parts: Vec<&str> = parts.map(|part| part.name()).collect();
    let (only, iters) = (parts.join(","), args.iters.to_string());
    let list = ["--only", &only, "--iters", &iters];
    let python = args.torch.as_ref().map(|python| python.to_string_lossy().into_owned());
    for round in 0..args.rounds {
        eprintln!("round {} of {}", round + 1, args.rounds);
        turn(&mut record, OURS, &parts, round, benchmark("algebra", &list))?;
        let Some(python) = &python else { continue };
        turn(&mut record, PYTHON, &parts, round, command(python, &["benches/algebra_torch.py"]).args(list))?;
        if round == 0 && parts.contains(&"subspace") {
            // A minute: once is enough.
            let gpm = ["benches/algebra_torch.py", "--only", "gpm"];
            turn(&mut record, GPM, &["gpm"], round, command(python, &gpm))?;
        }
    }
    println!("{}\n\n{}", record.describe(), algebra_table(&record)?);
    Ok(())
}

/// Runs a process of a program, unless the record has that of this round.
pub(crate) fn turn(
    record: &mut Record,
    program: &str,
    rows: &[&str],
    round: usize,
    mut command: impl std::borrow::BorrowMut<Command>,
) -> Result<()> {
    if record.count(program, rows) > round {
        return Ok(());
    }
    settle();
    record.add(program, &output(command.borrow_mut())?)
}

#[allow(clippy::print_stdout)]
pub(crate) fn data(args: &DataArgs) -> Result<()> {
    ensure!(args.rounds > 0 && args.iters > 0, "--rounds and --iters must be at least 1");
    build(&["data"])?;
    let mut record = Record::open(args.json.as_deref(), json!({ "command": "data", "iters": args.iters }))?;
    let folder = root().join("target/bench-data").to_string_lossy().into_owned();
    let iters = args.iters.to_string();
    let list = ["--data", &folder, "--iters", &iters];
    for round in 0..args.rounds {
        eprintln!("round {} of {}", round + 1, args.rounds);
        turn(&mut record, OURS, &[], round, benchmark("data", &list))?;
        if let Some(python) = &args.torch {
            let mut script = command(&python.to_string_lossy(), &["benches/data_torch.py"]);
            turn(&mut record, PYTHON, &[], round, script.args(list))?;
        }
    }
    let mut table = String::from("| work | ours, ms | Python, ms | Python / ours |\n|---|---|---|---|\n");
    for name in record.rows(OURS) {
        let (mine, theirs) = (record.median(OURS, name), record.median(PYTHON, name));
        writeln!(table, "| {name} | {mine:.1} | {theirs:.1} | {:.2} |", theirs / mine)?;
    }
    println!("{}\n\n{table}", record.describe());
    Ok(())
}

/// Ours beside every peer, with what was aimed at.
fn algebra_table(record: &Record) -> Result<String> {
    let mut table = String::from(
        "| work | ours, ms | peer | peer, ms | ours / peer | aimed at |\n|---|---|---|---|---|---|\n",
    );
    let is_ours = |name: &&str| !name.starts_with("products") && !name.starts_with("separate");
    for name in record.rows(OURS).into_iter().filter(is_ours) {
        let size = name.rsplit_once(' ').map_or("", |(_, size)| size);
        let row = |of: &str, what: &str| record.median(of, &format!("{what} {size}"));
        let peers = if name.starts_with("sub") {
            vec![
                ("PyTorch, Gram + eigh", row(PYTHON, "subspace"), Some(0.6)),
                ("GPM's routine, numpy", row(GPM, "gpm"), None),
            ]
        } else if name.starts_with("step, update only") {
            vec![("faer, its matrix products alone", row(OURS, "products") / 2.0, None)]
        } else {
            vec![
                ("faer, its matrix products alone", row(OURS, "products"), None),
                ("faer, separate calls", row(OURS, "separate calls"), Some(0.8)),
                ("PyTorch, separate calls", row(PYTHON, "step"), Some(0.8)),
                ("PyTorch, dense d×d projection", row(PYTHON, "dense step"), None),
            ]
        };
        let mine = record.median(OURS, name);
        for (peer, ms, target) in peers.into_iter().filter(|(_, ms, _)| !ms.is_nan()) {
            let ratio = mine / ms;
            let aim = target.map_or_else(String::new, |target| verdict(ratio, target));
            writeln!(table, "| {name} | {mine:.1} | {peer} | {ms:.1} | {ratio:.2} | {aim} |")?;
        }
    }
    Ok(table)
}

/// What was aimed at, and whether a ratio is as small.
pub(crate) fn verdict(ratio: f64, target: f64) -> String {
    match ratio {
        ratio if ratio.is_nan() => format!("≤ {target}"),
        ratio if ratio <= target => format!("≤ {target}: met"),
        _ => format!("≤ {target}: missed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::without_file;

    #[test]
    fn a_row_has_its_peers_and_what_was_aimed_at() {
        let mut record = without_file();
        let ours = r#"{ "ms": { "subspace 9x3": { "median": 5.0 }, "step 1x2x1": { "median": 9.0 }, "products 1x2x1": { "median": 8.0 } } }"#;
        record.add(OURS, ours).unwrap();
        record
            .add(
                PYTHON,
                r#"{ "ms": { "subspace 9x3": { "median": 10.0 }, "step 1x2x1": { "median": 10.0 } } }"#,
            )
            .unwrap();
        let table = algebra_table(&record).unwrap();
        assert!(
            table.contains("| subspace 9x3 | 5.0 | PyTorch, Gram + eigh | 10.0 | 0.50 | ≤ 0.6: met |"),
            "{table}"
        );
        assert!(
            table.contains("| step 1x2x1 | 9.0 | PyTorch, separate calls | 10.0 | 0.90 | ≤ 0.8: missed |"),
            "{table}"
        );
        assert!(!table.contains("GPM"), "{table}");
    }
}
