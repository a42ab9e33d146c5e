//! The model and the benchmark, opened once for any number of runs.

use crate::assets;
use crate::backbone::Backbone;
use crate::config::{Order, RunConfig};
use crate::device::DeviceKind;
use crate::features::FeatureStore;
use crate::progress;
use anyhow::{Result, ensure};
use fwd_data::bench::{BenchTask, Benchmark};
use fwd_data::task::{self, Loaded, OnBad, Skipped};
use rand::seq::SliceRandom;
use std::path::{Path, PathBuf};

/// A model and a benchmark.
pub(crate) struct Session {
    /// The model.
    pub(crate) backbone: Backbone,
    /// The benchmark.
    pub(crate) bench: Benchmark,
    /// Where the benchmark was read from.
    pub(crate) bench_dir: PathBuf,
    /// Records that were left out of it.
    pub(crate) skipped: Skipped,
}

impl Session {
    /// Opens both; none stands for the embedded one.
    ///
    /// # Errors
    /// That names the directory or file, or what the device is missing.
    pub(crate) fn open(backbone: Option<&Path>, bench: Option<&Path>, device: DeviceKind) -> Result<Self> {
        Self::open_with(backbone, bench, device, OnBad::Refuse)
    }

    /// As [`Self::open`]; says which records are left out, if they may be.
    ///
    /// # Errors
    /// As [`Self::open`], and a record that may not be left out.
    pub(crate) fn open_with(
        backbone: Option<&Path>,
        bench: Option<&Path>,
        device: DeviceKind,
        on_bad: OnBad,
    ) -> Result<Self> {
        let device = device.open()?;
        let bench_dir = bench.map_or_else(assets::benchmark, |dir| Ok(dir.to_path_buf()))?;
        let bench_dir = bench_dir.canonicalize().unwrap_or(bench_dir);
        let Loaded { bench, skipped } = task::open(&bench_dir, on_bad)?;
        report(&skipped);
        let backbone = backbone.map_or_else(assets::backbone, |dir| Ok(dir.to_path_buf()))?;
        let backbone = Backbone::open(&backbone, &device)?;
        tracing::info!("model {} ({})", backbone.dir.display(), backbone.hash);
        tracing::info!("benchmark {} ({})", bench_dir.display(), bench.hash());
        Ok(Self { backbone, bench, bench_dir, skipped })
    }

    /// Frozen features, kept in a folder.
    pub(crate) fn features(&self, dir: PathBuf) -> FeatureStore<'_> {
        FeatureStore::new(&self.backbone, &self.bench, dir)
    }

    /// The tasks of a run, in the order in which they are learnt.
    ///
    /// # Errors
    /// An unknown task (with a suggestion), one that stands twice, or none at all.
    pub(crate) fn tasks(&self, config: &RunConfig) -> Result<Vec<&BenchTask>> {
        let mut tasks = if config.tasks.is_empty() {
            self.bench.sequence()
        } else {
            config.tasks.iter().map(|name| Ok(self.bench.task(name)?)).collect::<Result<_>>()?
        };
        ensure!(
            !tasks.is_empty(),
            "{} has no sequence of tasks; name some with --tasks",
            self.bench_dir.display()
        );
        for (i, task) in tasks.iter().enumerate() {
            let is_twice = tasks[..i].iter().any(|other| other.name == task.name);
            ensure!(!is_twice, "task `{}` stands twice in the sequence", task.name);
        }
        match config.order {
            Order::Given => {}
            Order::Reversed => tasks.reverse(),
            Order::Shuffled => tasks.shuffle(&mut fwd_prompt::stream(config.seed, "task order", [0, 0])),
        }
        Ok(tasks)
    }
}

/// Says what was left out: the first few records, and how many there are; the manifest lists more.
fn report(skipped: &Skipped) {
    const FEW: usize = 10;
    for reason in skipped.reasons.iter().take(FEW) {
        progress::note(&format!("left out: {reason}"));
    }
    if skipped.n_records > 0 {
        progress::note(&format!("{} records left out", skipped.n_records));
    }
}
