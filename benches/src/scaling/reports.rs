//! Answers on disk, and runs made of them.

use super::size::{Cost, Size, least};
use anyhow::{Context, Result, bail};
use fwd_continual::ScoreMatrix;
use fwd_eval::Metric;
use fwd_run::files::write_json;
use fwd_run::predictions::read_percent;
use fwd_run::run::{
    Identity, LossPoint, Machine, Manifest, Measures, RunMetrics, RunPaths, TaskInfo, Timing,
};
use fwd_run::{Method, RunConfig};
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Training steps of a task whose losses a run has kept.
const STEPS: usize = 50;
const COLOURS: [&str; 5] = ["red", "green", "dark blue", "pale grey", "white"];

/// Writes the answers to `n` samples, of which about `percent` are right; captions have five words of many.
fn write_answers(path: &Path, n: usize, percent: usize, metric: Metric) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for i in 0..n {
        let right = match metric {
            Metric::CiderD => format!("a {} bus {} stops here", COLOURS[i % 5], i * 7919 % 10_007),
            _ => COLOURS[i % 5].to_owned(),
        };
        let is_right = i * 37 % 100 < percent;
        let text = if is_right { right.clone() } else { COLOURS[(i + 1) % 5].to_owned() };
        writeln!(
            file,
            r#"{{"question_id":"{i}","prompt":"What is sample {i}?","text":"{text}","answer_id":"","model_id":"x","metadata":{{}},"answers":["{right}"],"score":{}}}"#,
            if is_right { "1.0" } else { "0.0" }
        )?;
    }
    Ok(file.flush()?)
}

pub(super) fn scoring(size: &Size, metric: Metric) -> Result<Cost> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("answers.jsonl");
    write_answers(&path, size.samples, 60, metric)?;
    let seconds = least(|| {
        black_box(read_percent(metric, &path)?);
        Ok(())
    })?;
    Ok(Cost { seconds, ..Cost::default() })
}

/// A finished run of the method `sequential`, as far as reports read it.
fn write_run(dir: &Path, size: &Size) -> Result<()> {
    let paths = RunPaths::new(dir);
    let names: Vec<String> = (1..=size.tasks).map(|t| format!("task-{t}")).collect();
    let mut rows = Vec::new();
    for after in 0..=size.tasks {
        let mut row = Vec::new();
        for (j, name) in names.iter().enumerate() {
            let path = paths.answers(after, name);
            fs::create_dir_all(path.parent().context("a folder")?)?;
            let learnt = if after > j { 90 - 30 * (after - j - 1) / size.tasks } else { 20 };
            write_answers(&path, size.samples, learnt, Metric::Exact)?;
            row.push(read_percent(Metric::Exact, &path)?);
        }
        rows.push(row);
    }
    let mut losses = BufWriter::new(File::create(paths.losses())?);
    for name in &names {
        for step in 1..=STEPS {
            let loss = 3.0 / step as f64;
            let point = LossPoint { task: name.clone(), step, of: STEPS, loss, grad_norm: 1.0 };
            writeln!(losses, "{}", serde_json::to_string(&point)?)?;
        }
    }
    losses.flush()?;
    let mut config = RunConfig::default();
    (config.tasks, config.method) = (names.clone(), Method::Sequential);
    let (method, seed, split) = (config.method, config.seed, config.split.name().to_owned());
    let run = Identity {
        config,
        data_hash: "0".to_owned(),
        backbone_hash: "0".to_owned(),
        alone: None,
        library: None,
    };
    let manifest = Manifest {
        version: 1,
        run,
        backbone_dir: "nowhere".into(),
        bench_dir: "nowhere".into(),
        program: "fwd-benches".to_owned(),
        started: "2026-01-01T00:00:00Z".to_owned(),
        machine: Machine {
            levels: vec!["avx2".to_owned()],
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            threads: 2,
        },
        skipped: Default::default(),
        cut: Default::default(),
    };
    write_json(&paths.manifest(), &manifest)?;
    write_json(&paths.timing(), &Timing { sessions: 1, total: 1.0, training: 0.5, ..Timing::default() })?;
    let task = |name: &String| TaskInfo {
        name: name.clone(),
        metric: Metric::Exact,
        synthetic: true,
        n_train: size.samples,
        n_scored: size.samples,
    };
    let matrix = ScoreMatrix { n_tasks: size.tasks, rows: rows.clone() };
    let metrics = RunMetrics {
        compute: Default::default(),
        levels: vec!["avx2".to_owned()],
        method,
        seed,
        split,
        tasks: names.iter().map(task).collect(),
        measures: Measures::of_sequence(&matrix, &[], None),
        scores: rows,
        interference: Vec::new(),
        ranks: vec![4; size.tasks + 1],
        trainable_parameters: 1000,
        backbone_parameters: 1_000_000,
        trainable_percent: 0.1,
        stored_samples: 0,
    };
    metrics.write(dir)
}

pub(super) fn report(size: &Size, program: Option<&Path>) -> Result<Cost> {
    let program = program.context("--program names the built fwd-prompt")?;
    let dir = tempfile::tempdir()?;
    let (run, out) = (dir.path().join("run"), dir.path().join("report"));
    fs::create_dir(&run)?;
    write_run(&run, size)?;
    let began = Instant::now();
    let mut child = Command::new(program)
        .args(["-q", "report"])
        .arg(&run)
        .arg("--out")
        .arg(&out)
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak_mib = None;
    let ended = loop {
        // The last look before the process ends is all that the system tells without more ado.
        peak_mib = peak_mib.max(crate::memory_of(&status, "VmHWM"));
        match child.try_wait()? {
            Some(ended) => break ended,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    if !ended.success() {
        bail!("{} report ended with {ended}", program.display());
    }
    let bytes = size_of(&out)?;
    Ok(Cost { seconds, bytes: Some(bytes as f64), peak_mib })
}

/// Bytes of all files below a folder.
fn size_of(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.metadata()?;
        sum += if kind.is_dir() { size_of(&entry.path())? } else { kind.len() };
    }
    Ok(sum)
}
