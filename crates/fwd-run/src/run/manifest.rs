//! What a run is: everything that decides its result, and where it began.

use super::paths::RunPaths;
use crate::assets;
use crate::config::RunConfig;
use crate::files::read_json;
use crate::limits::CutTexts;
use crate::session::Session;
use anyhow::{Context, Result, ensure};
use fwd_data::task::Skipped;
use fwd_prompt::Library;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The version of the file's layout that this crate writes and reads.
const VERSION: u32 = 1;

/// What a run is: `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this file's layout.
    pub version: u32,
    /// What decides the result: the same in every session.
    pub run: Identity,
    /// The model's folder when the run began.
    pub backbone_dir: PathBuf,
    /// The benchmark's folder when the run began.
    pub bench_dir: PathBuf,
    /// The program that began the run, with version and build.
    pub program: String,
    /// When it began, UTC.
    pub started: String,
    /// The machine it began on.
    pub machine: Machine,
    /// Records that were left out of the benchmark; its hash knows them too.
    #[serde(default)]
    pub skipped: Skipped,
    /// Texts of the benchmark that were cut to the limits.
    #[serde(default)]
    pub cut: CutTexts,
}

/// What decides the result of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The configuration, tasks spelt out in order.
    pub config: RunConfig,
    /// Of the benchmark, without the records that were left out.
    pub data_hash: String,
    /// Of the model's files.
    pub backbone_hash: String,
    /// b_j by task, for the plasticity form of forward transfer.
    pub alone: Option<BTreeMap<String, f64>>,
    /// Of the library that new prompts may begin with ([`Library::digest`](fwd_prompt::Library::digest)), in 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library: Option<String>,
}

/// What a run takes from other runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// The scores of tasks learnt alone.
    pub(crate) alone: Option<BTreeMap<String, f64>>,
    /// Prompts that new ones may begin with.
    pub(crate) library: Option<Arc<Library>>,
}

/// The machine that a run began on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its operating system, as Rust names it.
    pub os: String,
    /// Its processor architecture, as Rust names it.
    pub arch: String,
    /// Threads of the pool: results agree to the last bit for one number of them.
    pub threads: usize,
    /// The levels of vector instructions ([`fwd_simd::Level`]) that the run computed at, in the order in which they came: that of the
    /// beginning, and each at which it was continued. Empty for runs from before they were written down.
    #[serde(default)]
    pub levels: Vec<String>,
}

impl Manifest {
    /// That of a run that begins now.
    pub(crate) fn new(session: &Session, config: RunConfig, known: &Known) -> Self {
        Self {
            version: VERSION,
            run: Identity {
                config,
                data_hash: session.bench.hash().to_string(),
                backbone_hash: session.backbone.hash.clone(),
                alone: known.alone.clone(),
                library: known.library.as_ref().map(|library| format!("{:016x}", library.digest())),
            },
            backbone_dir: session.backbone.dir.clone(),
            bench_dir: session.bench_dir.clone(),
            program: session.program.clone(),
            // A clock before 1970 is wrong, and no reason to stop.
            started: humantime::format_rfc3339_seconds(SystemTime::now().max(UNIX_EPOCH)).to_string(),
            machine: Machine {
                os: std::env::consts::OS.to_owned(),
                arch: std::env::consts::ARCH.to_owned(),
                threads: rayon::current_num_threads(),
                levels: vec![fwd_simd::Cpu::current().level().to_string()],
            },
            skipped: session.skipped.clone(),
            cut: session.cut,
        }
    }

    /// Whether another manifest is of the same run: everything that decides its result is the same.
    pub fn is_same_run(&self, other: &Self) -> bool {
        let [a, b] = [&self.run, &other.run].map(serde_json::to_value);
        matches!((a, b), (Ok(a), Ok(b)) if fwd_continual::differences(&a, &b).is_empty())
    }

    /// The model's folder, or the embedded model where that folder is gone; the hash tells whether it is the same.
    ///
    /// # Errors
    /// If both are gone.
    pub fn backbone_dir(&self) -> Result<PathBuf> {
        assets::or_embedded(&self.backbone_dir, assets::backbone)
    }

    /// The benchmark's folder, or the embedded benchmark where that folder is gone; the hash tells whether it is the same.
    ///
    /// # Errors
    /// If both are gone.
    pub fn bench_dir(&self) -> Result<PathBuf> {
        assets::or_embedded(&self.bench_dir, assets::benchmark)
    }

    /// Refuses another benchmark than the run's, which has this hash and lies in `dir`.
    ///
    /// # Errors
    /// That names both.
    pub fn check_benchmark(&self, hash: &str, dir: &Path) -> Result<()> {
        ensure!(
            hash == self.run.data_hash,
            "{} is not the benchmark of this run ({hash}, not {}); name that one with --bench",
            dir.display(),
            self.run.data_hash
        );
        Ok(())
    }

    /// Reads that of a run directory.
    ///
    /// # Errors
    /// If the directory is no run, or of another version of this program.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = RunPaths::new(dir).manifest();
        let name = path.file_name().unwrap_or_default().display();
        ensure!(path.is_file(), "{} is no run directory: it has no {name}", dir.display());
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
