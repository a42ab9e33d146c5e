//! The model and the benchmark, opened once for any number of runs.

use crate::assets;
use crate::config::{Order, RunConfig};
use crate::device::DeviceKind;
use crate::limits::{CutTexts, TextLimits};
use crate::model::{Backbone, FeatureStore, ModelOptions, Template};
use crate::observer::Observer;
use anyhow::{Result, ensure};
use fwd_data::bench::{BenchTask, Benchmark};
use fwd_data::task::{self, Loaded, OnBad, Skipped};
use fwd_models::WeightDtype;
use fwd_ops::Compute;
use rand::seq::SliceRandom;
use std::path::PathBuf;

/// What a session is opened with; the default is the embedded model and benchmark, on the CPU.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// The model's folder; none: the embedded model.
    pub backbone: Option<PathBuf>,
    /// The benchmark's folder; none: the embedded benchmark.
    pub bench: Option<PathBuf>,
    /// Where the model computes.
    pub device: DeviceKind,
    /// How the model's matrices are kept in memory.
    pub dtype: WeightDtype,
    /// How the model's frozen products are computed.
    pub compute: Compute,
    /// How prompts are written; none: as it suits the model ([`ModelOptions`]).
    pub template: Option<Template>,
    /// What is asked of every record instead of its own instruction; none: its own.
    pub instruction: Option<String>,
    /// What becomes of records that cannot be used.
    pub on_bad: OnBad,
    /// How long texts may be, and what becomes of longer ones.
    pub limits: TextLimits,
    /// The program that runs, with version and build, for the manifests of the runs that it begins.
    pub program: String,
}

/// A model and a benchmark, and the program that uses them.
#[derive(Debug)]
pub struct Session {
    /// The frozen model.
    pub backbone: Backbone,
    /// The tasks that it learns and is scored on.
    pub bench: Benchmark,
    /// Where the benchmark was read from.
    pub bench_dir: PathBuf,
    /// Records that were left out of it.
    pub skipped: Skipped,
    /// Where the model computes.
    pub device: DeviceKind,
    /// What is asked of every record of it instead of its own instruction.
    pub instruction: Option<String>,
    /// What became of records that cannot be used.
    pub on_bad: OnBad,
    /// How long texts may be.
    pub limits: TextLimits,
    /// Texts that were cut to these limits.
    pub cut: CutTexts,
    /// The program that runs, with version and build.
    pub program: String,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            backbone: None,
            bench: None,
            device: DeviceKind::Cpu,
            dtype: WeightDtype::F32,
            compute: Compute::F32,
            template: None,
            instruction: None,
            on_bad: OnBad::Refuse,
            limits: TextLimits::default(),
            program: concat!("fwd-run ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl Session {
    /// Opens both; the observer is told which records are left out, if they may be.
    ///
    /// # Errors
    /// That names the directory or file, what the device is missing, or a record that may not be left out.
    pub fn open(options: &SessionOptions, observer: &dyn Observer) -> Result<Self> {
        let device = options.device.open()?;
        let bench_dir = options.bench.clone().map_or_else(assets::benchmark, Ok)?;
        let bench_dir = bench_dir.canonicalize().unwrap_or(bench_dir);
        let Loaded { mut bench, mut skipped } = task::open(&bench_dir, options.on_bad)?;
        if let Some(text) = &options.instruction {
            let records = bench.tasks.iter_mut().flat_map(|task| &mut task.records);
            records.for_each(|record| record.instruction.clone_from(text));
        }
        let backbone = options.backbone.clone().map_or_else(assets::backbone, Ok)?;
        let &SessionOptions { dtype, compute, template, .. } = options;
        let how = ModelOptions { dtype, compute, template };
        let backbone = Backbone::open(&backbone, how, &device)?;
        for remark in &backbone.remarks {
            observer.note(remark);
        }
        if !backbone.reader().reads_images() {
            skipped.remarks.iter_mut().for_each(|remarks| remarks.without_image = 0);
            skipped.remarks.retain(|remarks| !remarks.is_empty());
        }
        let cut = options.limits.apply(&mut bench, backbone.reader(), options.on_bad, &mut skipped)?;
        tracing::info!("model {} ({})", backbone.dir.display(), backbone.hash);
        tracing::info!("benchmark {} ({})", bench_dir.display(), bench.hash());
        let &SessionOptions { device, on_bad, limits, .. } = options;
        let (program, instruction) = (options.program.clone(), options.instruction.clone());
        let session =
            Self { backbone, bench, bench_dir, skipped, device, instruction, on_bad, limits, cut, program };
        const FEW: usize = 10;
        for reason in session.skipped.reasons.iter().take(FEW) {
            observer.note(&format!("left out: {reason}"));
        }
        session.note_losses(observer);
        Ok(session)
    }

    /// Tells how many records are left out and how many texts are cut, if there are any; the manifest of a run lists them.
    pub fn note_losses(&self, observer: &dyn Observer) {
        if self.skipped.n_records > 0 {
            observer.note(&format!("{} records left out", self.skipped.n_records));
        }
        self.skipped.remarks.iter().for_each(|remarks| observer.note(&remarks.to_string()));
        if self.cut != CutTexts::default() {
            let CutTexts { instructions, answers, bridge_instructions } = self.cut;
            if instructions + answers > 0 {
                observer.note(&format!(
                    "{instructions} instructions and {answers} answers cut to the limits of length"
                ));
            }
            if bridge_instructions > 0 {
                observer.note(&format!(
                    "{bridge_instructions} instructions are longer than the Q-Former's positions: it reads their beginning, the language \
                     model all of them"
                ));
            }
        }
    }

    /// What the model computes of the benchmark's samples before prompts are involved, kept in `dir`.
    pub fn features<'a>(&'a self, dir: PathBuf, observer: &'a dyn Observer) -> FeatureStore<'a> {
        FeatureStore::new(&self.backbone, &self.bench, dir, observer)
    }

    /// The tasks of a run, in the order in which they are learnt.
    ///
    /// # Errors
    /// An unknown task (with a suggestion), one that stands twice, or none at all.
    pub fn tasks(&self, config: &RunConfig) -> Result<Vec<&BenchTask>> {
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
            Order::Shuffled => tasks.shuffle(&mut fwd_continual::stream(config.seed, "task order", [0, 0])),
        }
        Ok(tasks)
    }
}
