//! `cargo xtask bench scaling`: how time, memory and bytes grow with tasks, prompts, widths, samples and prompt tokens.
//!
//! Each size of each piece of work is a process of `fwd-benches`' program `scaling`, because the most memory that was used is known of a
//! whole process only. The exponent p of `time ~ n^p` is fitted to the three largest sizes, where constant costs weigh least, and stands
//! beside the one that the work must have.

use crate::record::{machine, write};
use crate::shell::{benchmark, built, command, output, run};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct ScalingArgs {
    /// Smaller sizes only: about a minute.
    #[arg(long)]
    quick: bool,
    /// Processes of each size; the least time of all counts.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Only the rows of this piece of work.
    #[arg(long)]
    work: Option<String>,
    /// A file for all figures, as JSON; a command that was stopped goes on from it.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One piece of work along one axis.
struct Row {
    work: &'static str,
    axis: &'static str,
    sizes: &'static [usize],
    /// Options that are not the program's defaults.
    fixed: &'static str,
    /// The exponent that the time must have at most, and why.
    expected: f64,
    why: &'static str,
}

const TASKS: &[usize] = &[5, 20, 50, 100, 200];
const PROMPTS: &[usize] = &[10, 100, 1000, 10_000];
const DIMS: &[usize] = &[192, 768, 2048, 4096];
const SAMPLES: &[usize] = &[100, 1000, 10_000, 100_000, 1_000_000];
const TOKENS: &[usize] = &[1, 4, 16, 64, 256];
/// An exponent above the expected one by more than this stands out: caches make the last factor of a size dearer.
const SLACK: f64 = 0.3;

const ROWS: [Row; 21] = [
    row("selection", "prompts", PROMPTS, "", 1.0, "one product of queries and keys"),
    row("selection", "dim", DIMS, "--prompts 1000", 1.0, "the same product"),
    row("subspace", "samples", SAMPLES, "--dim 192", 1.0, "rows pass once"),
    row("subspace", "dim", DIMS, "", 3.0, "eigenvectors of a d × d matrix"),
    row("ledger", "tasks", TASKS, "--dim 1024", 0.0, "d directions at most, however many tasks"),
    row("projection", "tasks", TASKS, "", 1.0, "4·n·d·r, r ≤ d directions"),
    row("projection", "dim", DIMS, "", 1.0, "r is the same"),
    row("projection", "tokens", TOKENS, "", 1.0, "rows"),
    row(
        "saving",
        "tasks",
        TASKS,
        "--dim 192 --samples 64",
        1.0,
        "names in the manifest; tensors of the new task alone",
    ),
    row("saving", "prompts", PROMPTS, "--dim 192 --samples 64", 1.0, "the new task's prompts"),
    row("saving", "dim", DIMS, "--samples 64", 1.0, "the new task's prompts and directions"),
    row("saving", "tokens", TOKENS, "--dim 192 --samples 64", 1.0, "the new task's prompts"),
    row("task", "samples", SAMPLES, "--dim 192 --prompts 10 --tokens 4", 1.0, "each sample once"),
    row("task", "prompts", PROMPTS, "--dim 192 --tokens 1", 1.0, "a step moves all of the task's prompts"),
    row("task", "dim", DIMS, "--prompts 10 --tokens 4", 3.0, "eigenvectors"),
    row("task", "tokens", TOKENS, "--dim 192 --prompts 10", 1.0, "a step moves all of the task's prompts"),
    row("scoring", "samples", SAMPLES, "", 1.0, "each answer once"),
    row("captions", "samples", SAMPLES, "", 1.0, "each caption once"),
    row("measures", "tasks", TASKS, "", 2.0, "a score for each task at each moment"),
    row(
        "report",
        "tasks",
        TASKS,
        "--samples 10",
        2.0,
        "answers of each task at each moment are scored again",
    ),
    row("report", "samples", SAMPLES, "--tasks 2", 1.0, "each answer once"),
];

const fn row(
    work: &'static str,
    axis: &'static str,
    sizes: &'static [usize],
    fixed: &'static str,
    expected: f64,
    why: &'static str,
) -> Row {
    Row { work, axis, sizes, fixed, expected, why }
}

/// What one size has cost: the least of all processes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    size: usize,
    seconds: f64,
    bytes: Option<f64>,
    peak_mib: Option<f64>,
}

impl Point {
    fn read(figures: &Value) -> Option<Self> {
        Some(Self {
            size: usize::try_from(figures["size"].as_u64()?).ok()?,
            seconds: figures["seconds"].as_f64()?,
            bytes: figures["bytes"].as_f64(),
            peak_mib: figures["peak_mib"].as_f64(),
        })
    }
}

impl Row {
    /// The sizes that are measured; a quick run leaves the two largest out.
    fn sizes(&self, is_quick: bool) -> &'static [usize] {
        if is_quick { &self.sizes[..self.sizes.len() - 2] } else { self.sizes }
    }

    /// Whether figures are of this row.
    fn is(&self, figures: &Value) -> bool {
        [("work", self.work), ("axis", self.axis), ("fixed", self.fixed)]
            .into_iter()
            .all(|(key, own)| figures[key] == own)
    }

    /// The points of figures that are of this row and these sizes.
    fn known(&self, figures: &Value, sizes: &[usize]) -> Option<Vec<Point>> {
        let points: Vec<Point> = figures["points"].as_array()?.iter().filter_map(Point::read).collect();
        (self.is(figures) && points.iter().map(|p| p.size).eq(sizes.iter().copied())).then_some(points)
    }

    fn figures(&self, points: &[Point]) -> Value {
        let figures = points.iter().map(
            |p| json!({ "size": p.size, "seconds": p.seconds, "bytes": p.bytes, "peak_mib": p.peak_mib }),
        );
        json!({
            "work": self.work, "axis": self.axis, "fixed": self.fixed, "expected": self.expected,
            "exponent": exponent(points), "points": figures.collect::<Vec<_>>(),
        })
    }

    fn point(&self, size: usize, rounds: usize) -> Result<Point> {
        let (axis, text) = (format!("--{}", self.axis), size.to_string());
        let program = built("fwd-prompt").to_string_lossy().into_owned();
        let mut list = vec![self.work, &axis, &text, "--program", &program];
        list.extend(self.fixed.split_whitespace());
        // Every task brings ten prompts of its own.
        let prompts = (10 * size).to_string();
        if self.axis == "tasks" && self.work != "projection" {
            list.extend(["--prompts", &prompts]);
        }
        let mut best: Option<Point> = None;
        for _ in 0..rounds {
            let report: Value = serde_json::from_str(&output(&mut benchmark("scaling", &list))?)?;
            let seconds = report["seconds"].as_f64().context("the benchmark printed no time")?;
            let (bytes, peak_mib) = (report["bytes"].as_f64(), report["peak_mib"].as_f64());
            if best.is_none_or(|best| seconds < best.seconds) {
                best = Some(Point { size, seconds, bytes, peak_mib });
            }
        }
        best.context("no process has run")
    }

    fn line(&self, points: &[Point]) -> Result<String> {
        let (first, last) = (points.first().context("no sizes")?, points.last().context("no sizes")?);
        let exponent = exponent(points);
        let mark = if exponent > self.expected + SLACK { " **faster**" } else { "" };
        let pair = |of: &dyn Fn(&Point) -> Option<String>| match (of(first), of(last)) {
            (Some(a), Some(b)) => format!("{a} … {b}"),
            _ => String::new(),
        };
        let mut line = String::new();
        writeln!(
            line,
            "| {} | {} {} … {} | {} | {exponent:.2}{mark} | {} | {} | {} | {} |",
            self.work,
            self.axis,
            first.size,
            last.size,
            pair(&|p| Some(time(p.seconds))),
            self.expected,
            pair(&|p| p.bytes.map(|bytes| format!("{:.0}", bytes / 1024.0))),
            pair(&|p| p.peak_mib.map(|mib| format!("{mib:.0}"))),
            self.why,
        )?;
        Ok(line)
    }
}

/// A time for people to read.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} µs", 1e6 * s),
        s if s < 1.0 => format!("{:.1} ms", 1e3 * s),
        s => format!("{s:.1} s"),
    }
}

/// The slope of a straight line through the logarithms of the three largest sizes, by least squares; NaN for fewer than two.
fn exponent(points: &[Point]) -> f64 {
    let last = &points[points.len().saturating_sub(3)..];
    let logs: Vec<(f64, f64)> = last.iter().map(|p| ((p.size as f64).ln(), p.seconds.ln())).collect();
    let n = logs.len() as f64;
    let (x, y) = logs.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let (above, below) = logs
        .iter()
        .fold((0.0, 0.0), |(above, below), p| (above + (p.0 - x) * (p.1 - y), below + (p.0 - x) * (p.0 - x)));
    above / below
}

#[allow(clippy::print_stdout)]
pub(crate) fn scaling(args: &ScalingArgs) -> Result<()> {
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    let rows: Vec<&Row> =
        ROWS.iter().filter(|row| args.work.as_deref().is_none_or(|work| work == row.work)).collect();
    ensure!(!rows.is_empty(), "no work is called so");
    for package in [["fwd-benches", "scaling"], ["fwd-cli", "fwd-prompt"]] {
        let [package, bin] = package;
        run(&mut command("cargo", &["build", "--release", "--quiet", "--package", package, "--bin", bin]))?;
    }
    let mut table = String::from(
        "| work | grows with | time | exponent | expected | KiB written | peak MiB | why |\n|---|---|---|---|---|---|---|---|\n",
    );
    let machine = machine(false)?;
    let mut all = match &args.json {
        Some(path) => known(path, &machine)?,
        None => Vec::new(),
    };
    for row in rows {
        let sizes = row.sizes(args.quick);
        let points = match all.iter().find_map(|known| row.known(known, sizes)) {
            Some(points) => points,
            None => {
                let mut points = Vec::new();
                for &size in sizes {
                    eprintln!("{} {} {size}", row.work, row.axis);
                    points.push(row.point(size, args.rounds)?);
                }
                all.retain(|known| !row.is(known));
                all.push(row.figures(&points));
                if let Some(path) = &args.json {
                    write(path, &json!({ "machine": machine, "rows": all }))?;
                }
                points
            }
        };
        table += &row.line(&points)?;
    }
    print!("{table}");
    Ok(())
}

/// The rows that a file already has.
fn known(path: &Path, machine: &Value) -> Result<Vec<Value>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut file: Value = serde_json::from_str(&std::fs::read_to_string(path)?)
        .with_context(|| format!("{} is damaged; delete it", path.display()))?;
    ensure!(
        file["machine"] == *machine,
        "{} has figures of another machine; name another file with --json",
        path.display()
    );
    Ok(file["rows"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(seconds: impl Fn(f64) -> f64) -> Vec<Point> {
        let point =
            |&size: &usize| Point { size, seconds: seconds(size as f64), bytes: None, peak_mib: Some(9.0) };
        TASKS.iter().map(point).collect()
    }

    #[test]
    fn the_exponent_is_that_of_the_largest_sizes() {
        assert!((exponent(&points(|n| 3.0 * n * n)) - 2.0).abs() < 1e-12);
        // A constant that only the small sizes feel.
        assert!((exponent(&points(|n| if n < 50.0 { 1e4 } else { n })) - 1.0).abs() < 1e-12);
        assert!(exponent(&points(|n| n)[..1]).is_nan());
    }

    #[test]
    fn what_grows_faster_than_it_must_stands_out() {
        let line = |power: f64| ROWS[0].line(&points(|n| 1e-6 * n.powf(power))).unwrap();
        assert!(!line(1.0).contains("faster") && !line(0.5).contains("faster"));
        assert!(line(2.0).contains("| 2.00 **faster** | 1 |"), "{}", line(2.0));
        assert!(line(1.0).contains("| 5.0 µs … 200.0 µs |") && line(1.0).contains("| 9 … 9 |"));
    }

    #[test]
    fn a_quick_run_still_has_a_slope() {
        assert!(ROWS.iter().all(|row| row.sizes(true).len() >= 2 && row.sizes(false).len() >= 4));
    }
}
