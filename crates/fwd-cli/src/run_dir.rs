//! A run directory: who may write into it, and whether what lies there belongs to this run.
//!
//! ```text
//! manifest.json       what the run is: configuration, hashes of data and model, program, machine, start, records left out
//! state/              the trainer's checkpoint
//! predictions/        after-T/TASK.jsonl
//! ranks/              after-T.json: directions of the input embeddings
//! metrics.json, .csv  the result; a run that has it is finished
//! timing.json         seconds
//! log.txt             the log
//! lock                held by the process that works here
//! ```

use crate::config::RunConfig;
use crate::files::{read_json, write_json};
use crate::logging;
use crate::metrics;
use crate::session::Session;
use anyhow::{Context, Result, bail, ensure};
use fwd_data::task::Skipped;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const MANIFEST: &str = "manifest.json";
const LOCK: &str = "lock";
const LOG: &str = "log.txt";
const VERSION: u32 = 1;

/// What a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Of this file's layout.
    pub(crate) version: u32,
    /// What decides the result: the same in every session.
    pub(crate) run: Identity,
    /// Where the model was.
    pub(crate) backbone_dir: PathBuf,
    /// Where the benchmark was.
    pub(crate) bench_dir: PathBuf,
    /// The program that began the run.
    pub(crate) program: String,
    /// When it began, UTC.
    pub(crate) started: String,
    /// The machine it began on.
    pub(crate) machine: Machine,
    /// Records that were left out of the benchmark; its hash knows them too.
    #[serde(default)]
    pub(crate) skipped: Skipped,
}

/// What decides the result of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// The configuration, tasks spelt out in order.
    pub(crate) config: RunConfig,
    /// Of the benchmark.
    pub(crate) data_hash: String,
    /// Of the model.
    pub(crate) backbone_hash: String,
    /// b_j by task, for the plasticity form of forward transfer.
    pub(crate) alone: Option<BTreeMap<String, f64>>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Machine {
    /// Operating system.
    pub(crate) os: String,
    /// Processor architecture.
    pub(crate) arch: String,
    /// Threads of the pool: results agree to the last bit for one number of them.
    pub(crate) threads: usize,
}

impl Manifest {
    /// That of a run that begins now.
    pub(crate) fn new(session: &Session, config: RunConfig, alone: Option<BTreeMap<String, f64>>) -> Self {
        Self {
            version: VERSION,
            run: Identity {
                config,
                data_hash: session.bench.hash().to_string(),
                backbone_hash: session.backbone.hash.clone(),
                alone,
            },
            backbone_dir: session.backbone.dir.clone(),
            bench_dir: session.bench_dir.clone(),
            program: format!("fwd-prompt {} ({})", env!("CARGO_PKG_VERSION"), env!("FWD_BUILD")),
            started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            machine: Machine {
                os: std::env::consts::OS.to_owned(),
                arch: std::env::consts::ARCH.to_owned(),
                threads: rayon::current_num_threads(),
            },
            skipped: session.skipped.clone(),
        }
    }

    /// Reads that of a run directory.
    ///
    /// # Errors
    /// If the directory is no run, or of another version of this program.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(MANIFEST);
        ensure!(path.is_file(), "{} is no run directory: it has no {MANIFEST}", dir.display());
        let value: Value = read_json(&path)?;
        let version = value.get("version").and_then(Value::as_u64);
        ensure!(
            version == Some(u64::from(VERSION)),
            "{} has version {version:?}, this program reads {VERSION}",
            path.display()
        );
        serde_json::from_value(value).with_context(|| format!("{} is damaged", path.display()))
    }
}

/// A run directory that this process holds.
#[derive(Debug)]
pub(crate) struct RunDir {
    dir: PathBuf,
    lock: File,
}

/// Refuses a directory that holds a finished run, before anything is loaded.
///
/// # Errors
/// That says what to do instead.
pub(crate) fn refuse_finished(dir: &Path) -> Result<()> {
    let is_finished = dir.join(metrics::JSON).exists();
    ensure!(
        !is_finished,
        "{0} holds a finished run, which is never overwritten; choose another --out, or score it again with `fwd-prompt eval {0}`",
        dir.display()
    );
    Ok(())
}

impl RunDir {
    /// Takes a directory for a run: a new one, or one where an unfinished run of the same identity lies.
    ///
    /// # Errors
    /// If the directory cannot be written, is in use, holds a finished run, another run, or something else.
    pub(crate) fn open(dir: &Path, manifest: &Manifest) -> Result<Self> {
        refuse_finished(dir)?;
        let path = dir.join(MANIFEST);
        if dir.is_dir() && !path.exists() {
            let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
            // A process that was killed before it wrote the manifest leaves these.
            let is_ours = |name: &str| name == LOCK || name == LOG || is_leftover(name);
            let foreign = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
            if let Some(name) = foreign.into_iter().find(|name| !is_ours(name)) {
                bail!("{} is not empty (`{name}`) and no run directory; choose another --out", dir.display());
            }
        }
        fs::create_dir_all(dir)
            .with_context(|| format!("cannot make the run directory {}", dir.display()))?;
        let lock = take_lock(dir)?;
        // The process that held the lock until now may have finished the run.
        refuse_finished(dir)?;
        remove_leftovers(dir);
        if path.exists() {
            let found = Manifest::read(dir)?;
            let differences = differences(&found.run, &manifest.run)?;
            ensure!(
                differences.is_empty(),
                "{} holds another run: {}; choose another --out",
                dir.display(),
                differences.join("; ")
            );
            let threads = (found.machine.threads, manifest.machine.threads);
            if threads.0 != threads.1 {
                tracing::warn!(
                    "the run began with {} threads and goes on with {}: its last digits will not be those of an unbroken run (RAYON_NUM_THREADS sets them)",
                    threads.0,
                    threads.1
                );
            }
        } else {
            write_json(&path, manifest)?;
        }
        let log = OpenOptions::new().create(true).append(true).open(dir.join(LOG));
        logging::log_to(Some(log.with_context(|| format!("cannot write {}", dir.join(LOG).display()))?));
        Ok(Self { dir: dir.to_path_buf(), lock })
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// The file of a task's answers.
    pub(crate) fn predictions(&self, moment: &str, task: &str) -> PathBuf {
        self.dir.join("predictions").join(moment).join(format!("{task}.jsonl"))
    }

    /// The seconds.
    pub(crate) fn timing(&self) -> PathBuf {
        self.dir.join("timing.json")
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        logging::log_to(None);
        // An empty file says that its process left in order.
        let _ = self.lock.set_len(0);
    }
}

/// The trainer's checkpoint in a run directory; each task has its own under the method `independent`.
pub(crate) fn state_dir(run: &Path, task: Option<&str>) -> PathBuf {
    let state = run.join("state");
    task.map_or(state.clone(), |task| state.join(task))
}

/// Locks a directory through its file `lock`, which names the process. The system frees a lock when its process ends, however
/// it ends, so a lock that can be taken is free, whatever the file says.
fn take_lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let failed = || format!("cannot write {}", path.display());
    let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = open.with_context(failed)?;
    let mut holder = String::new();
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let _ = file.read_to_string(&mut holder);
            bail!(
                "{} is in use by another process (id {}); wait for it, or choose another --out",
                dir.display(),
                holder.trim()
            );
        }
        Err(TryLockError::Error(error)) => {
            tracing::warn!("{}: {error}; this folder cannot be guarded against a second run", path.display());
        }
    }
    let _ = file.read_to_string(&mut holder);
    if !holder.trim().is_empty() {
        tracing::info!("process {} has left {} without finishing; going on", holder.trim(), dir.display());
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).with_context(failed)?;
    Ok(file)
}

/// Removes the temporary files of a process that was killed while it wrote one. What cannot be removed only takes space.
fn remove_leftovers(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir {
            remove_leftovers(&entry.path());
        } else if is_leftover(&entry.file_name().to_string_lossy()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a file is a temporary one, by the name that its maker gives it.
fn is_leftover(name: &str) -> bool {
    name.starts_with(".tmp")
}

/// Where two identities differ, as `key is a there, b here`.
fn differences(there: &Identity, here: &Identity) -> Result<Vec<String>> {
    fn walk(key: &str, there: &Value, here: &Value, out: &mut Vec<String>) {
        match (there, here) {
            (Value::Object(a), Value::Object(b)) => {
                let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
                for name in keys {
                    let get =
                        |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    walk(&key, &get(a), &get(b), out);
                }
            }
            _ if there != here => out.push(format!("{key} is {there} there, {here} here")),
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk("", &serde_json::to_value(there)?, &serde_json::to_value(here)?, &mut out);
    Ok(out)
}
