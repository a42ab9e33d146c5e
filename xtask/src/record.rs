//! The figures of a benchmark's processes. They are written to a file after each process, so that a command that was stopped goes on
//! where it was, and that its table can be made again.

use crate::shell::{built, command, output, run};
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What processes have printed, by the program that ran.
#[derive(Debug)]
pub(crate) struct Record {
    path: Option<PathBuf>,
    machine: Value,
    /// What all processes were told; another command line needs another file.
    settings: Value,
    processes: BTreeMap<String, Vec<Value>>,
    /// What follows from the figures, beside them in the file.
    derived: Vec<Value>,
}

impl Record {
    /// Starts a record, or takes up the one in the file.
    ///
    /// # Errors
    /// If the file is no record, or was begun on another machine, at another level of instructions or with other settings.
    pub(crate) fn open(path: Option<&Path>, settings: Value) -> Result<Self> {
        let path = path.map(Path::to_path_buf);
        let mut settings = settings;
        // Figures of two builds must not be mixed.
        settings["build"] =
            output(&mut command("git", &["describe", "--always", "--dirty", "--abbrev=12"]))?.trim().into();
        let text = match &path {
            Some(path) if path.exists() => Some(
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
            ),
            _ => None,
        };
        let Some(text) = text else {
            return Ok(Self {
                path,
                machine: machine(true)?,
                settings,
                processes: BTreeMap::new(),
                derived: Vec::new(),
            });
        };
        let shown = path.as_deref().unwrap_or(Path::new("")).display();
        let file: Value = serde_json::from_str(&text).with_context(|| format!("{shown} is no record"))?;
        let now = machine(false)?;
        for key in ["cpu", "level"] {
            ensure!(
                file["machine"][key] == now[key],
                "{shown} was begun with {key} {} and this is {}; name another file for --json",
                file["machine"][key],
                now[key]
            );
        }
        ensure!(
            file["settings"] == settings,
            "{shown} was begun with the settings {}, and these are {settings}; name another file for --json",
            file["settings"]
        );
        let processes = serde_json::from_value(file["processes"].clone())
            .with_context(|| format!("{shown}: `processes`"))?;
        Ok(Self { path, machine: file["machine"].clone(), settings, processes, derived: Vec::new() })
    }

    /// How many processes of a program have printed all of these rows, which are named by how they begin.
    pub(crate) fn count(&self, program: &str, rows: &[&str]) -> usize {
        let has = |report: &&Value| {
            let mut names = rows.iter();
            names.all(|row| {
                report["ms"].as_object().is_some_and(|ms| ms.keys().any(|key| key.starts_with(row)))
            })
        };
        self.processes.get(program).map_or(0, |reports| reports.iter().filter(has).count())
    }

    /// Keeps what a process printed: an object whose `ms` holds rows with a `median`, and `peak_rss_mib`.
    ///
    /// # Errors
    /// If it is something else, or the file cannot be written.
    pub(crate) fn add(&mut self, program: &str, report: &str) -> Result<()> {
        let report: Value = serde_json::from_str(report.trim())
            .with_context(|| format!("{program}: a report that is no JSON"))?;
        let rows =
            report["ms"].as_object().with_context(|| format!("{program}: a report without timings"))?;
        for (name, row) in rows {
            ensure!(row["median"].is_number(), "{program}: the row {name} has no median");
        }
        self.processes.entry(program.into()).or_default().push(report);
        self.save()
    }

    /// Puts what follows from the figures beside them.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn derive(&mut self, derived: Vec<Value>) -> Result<()> {
        self.derived = derived;
        self.save()
    }

    fn save(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let file = json!({
            "machine": self.machine, "settings": self.settings, "processes": self.processes, "derived": self.derived
        });
        write(path, &file)
    }

    /// The median over the processes of a program, NaN if none has the row. `peak` is the most memory that it had, in MiB, of those processes
    /// that ran all of its rows.
    pub(crate) fn median(&self, program: &str, row: &str) -> f64 {
        let n_rows = |report: &Value| report["ms"].as_object().map_or(0, Map::len);
        let reports = self.processes.get(program).into_iter().flatten();
        let most = reports.clone().map(n_rows).max().unwrap_or(0);
        let figure = |report: &Value| match row {
            "peak" => report["peak_rss_mib"].as_f64().filter(|_| n_rows(report) == most),
            _ => report["ms"][row]["median"].as_f64(),
        };
        median(&reports.filter_map(figure).collect::<Vec<_>>())
    }

    /// The rows of a program.
    pub(crate) fn rows(&self, program: &str) -> Vec<&str> {
        let reports = self.processes.get(program).into_iter().flatten();
        let names = reports
            .filter_map(|report| report["ms"].as_object())
            .flat_map(|ms| ms.keys().map(String::as_str));
        names.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    /// A figure that each process of the program tells about itself, from the first that does.
    pub(crate) fn fact(&self, program: &str, key: &str) -> Option<f64> {
        self.processes.get(program)?.iter().find_map(|report| report[key].as_f64())
    }

    /// A figure of the machine, such as `copy_gb_s`.
    pub(crate) fn of_machine(&self, key: &str) -> Option<f64> {
        self.machine[key].as_f64()
    }

    /// The machine in a line.
    pub(crate) fn describe(&self) -> String {
        let text = |key: &str| self.machine[key].as_str().unwrap_or("unknown").to_owned();
        let number = |key: &str| self.machine[key].as_f64().unwrap_or(f64::NAN);
        format!(
            "{}, {} cores, {} of memory ({}); level {}; with two threads: copies {:.1} GB/s, reads {:.1} GB/s, products {:.0} GFLOP/s in f32 and \
             {:.0} in bf16",
            text("cpu"),
            self.machine["cores"],
            text("memory"),
            text("flags"),
            text("level"),
            number("copy_gb_s"),
            number("read_gb_s"),
            number("gflop_s_f32"),
            number("gflop_s_bf16"),
        )
    }
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

/// Lets the machine free the memory of the process before, which would slow the first row of the next one.
pub(crate) fn settle() {
    std::thread::sleep(Duration::from_secs(3));
}

/// Builds programs of `fwd-benches` with optimisation, and the one that measures the machine with them.
pub(crate) fn build(programs: &[&str]) -> Result<()> {
    let mut cargo = command("cargo", &["build", "--release", "--quiet", "--package", "fwd-benches"]);
    for program in programs.iter().chain(&["machine"]) {
        cargo.args(["--bin", program]);
    }
    run(&mut cargo)
}

/// Writes figures. They are complete under another name first: a stopped command leaves the old file or the new one.
pub(crate) fn write(path: &Path, figures: &Value) -> Result<()> {
    let beside = path.with_extension("json.part");
    std::fs::write(&beside, serde_json::to_string_pretty(figures)? + "\n")
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What is known of the machine; with `measured`, also what it can do at most.
pub(crate) fn machine(measured: bool) -> Result<Value> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let flags = field(&cpu, "flags");
    let is_vector = |flag: &&str| {
        *flag == "fma" || ["avx2", "avx512", "avx_vnni", "amx"].iter().any(|start| flag.starts_with(start))
    };
    let flags: Vec<&str> = flags.split_whitespace().filter(is_vector).collect();
    let program = built("machine").to_string_lossy().into_owned();
    let list: &[&str] = if measured { &["--measure"] } else { &[] };
    let told: Map<String, Value> = serde_json::from_str(&output(&mut command(&program, list))?)?;
    let mut machine = json!({
        "cpu": field(&cpu, "model name"),
        "flags": flags.join(" "),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field(&memory, "MemTotal"),
    });
    told.into_iter().for_each(|(key, value)| machine[key] = value);
    Ok(machine)
}

#[cfg(test)]
pub(crate) fn without_file() -> Record {
    Record {
        path: None,
        machine: Value::Null,
        settings: Value::Null,
        processes: BTreeMap::new(),
        derived: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_no_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_report_without_timings_is_an_error() {
        let mut record = without_file();
        assert!(record.add("ours", r#"{ "peak_rss_mib": 5 }"#).is_err());
        assert!(record.add("ours", r#"{ "ms": { "vision": {} } }"#).is_err());
        record.add("ours", r#"{ "ms": { "vision": { "median": 2.5 } }, "peak_rss_mib": 7 }"#).unwrap();
        assert_eq!((record.median("ours", "vision"), record.median("ours", "peak")), (2.5, 7.0));
        assert!(record.median("ours", "step").is_nan() && record.median("theirs", "vision").is_nan());
    }

    #[test]
    fn a_process_counts_for_the_rows_that_it_has() {
        let mut record = without_file();
        record.add("ours", r#"{ "ms": { "vision": { "median": 2.5 }, "step": { "median": 1 } } }"#).unwrap();
        record.add("ours", r#"{ "ms": { "vision": { "median": 3.5 } } }"#).unwrap();
        assert_eq!((record.count("ours", &["vision"]), record.count("ours", &["vision", "step"])), (2, 1));
        assert_eq!(record.count("theirs", &[]), 0);
    }
}
