//! The library of prompts that comes with a model: prompts tuned on each pre-training task alone, with which new prompts may begin
//! (`pool.start`). It lies in the model directory, in `library/prompts.safetensors`, which is no part of the model's identity.

use super::paths::ModelPaths;
use crate::config::RunConfig;
use crate::device::DeviceKind;
use crate::method::Method;
use crate::observer::Observer;
use crate::run::{Manifest, RunPaths, library_of, train};
use crate::session::{Session, SessionOptions};
use anyhow::{Result, ensure};
use fwd_data::bench::Split;
use fwd_ops::Compute;
use std::path::PathBuf;

/// What is asked of every sample. A task's own instruction would tell a model that was pre-trained on the task what to do, and its prompts
/// would learn nothing that another task could use.
pub const INSTRUCTION: &str = "What is the answer?";
/// Training samples of each task, at most.
const SAMPLES: usize = 400;

/// What a library is made of.
#[derive(Debug, Clone)]
pub struct LibraryOptions {
    /// The model directory, in which the library is written.
    pub model: PathBuf,
    /// The benchmark that has the pre-training tasks.
    pub bench: PathBuf,
    /// The tasks; none: all that the benchmark calls pre-training tasks.
    pub tasks: Vec<String>,
    /// Where frozen features are kept; none: in the model directory.
    pub cache: Option<PathBuf>,
    /// Where the model computes.
    pub device: DeviceKind,
    /// How its frozen products are computed.
    pub compute: Compute,
}

/// Tunes prompts on each task alone, an ordinary run of the method `independent` in `library/run` of the model directory that goes on where
/// it was interrupted, and writes them into one file, whose path is returned.
///
/// # Errors
/// No task, one without training or validation samples, those of [`train`]; a file that cannot be written.
pub fn library(options: &LibraryOptions, observer: &dyn Observer) -> Result<PathBuf> {
    let LibraryOptions { model, bench, tasks, cache, device, compute } = options;
    let session = SessionOptions {
        backbone: Some(model.clone()),
        bench: Some(bench.clone()),
        device: *device,
        compute: *compute,
        instruction: Some(INSTRUCTION.to_owned()),
        ..SessionOptions::default()
    };
    let session = Session::open(&session, observer)?;
    let tasks = if tasks.is_empty() {
        session.bench.pretraining().iter().map(|task| task.name.clone()).collect()
    } else {
        tasks.clone()
    };
    ensure!(
        !tasks.is_empty(),
        "{} has no pre-training tasks; name some with --pretraining-tasks",
        bench.display()
    );
    let paths = ModelPaths::new(model);
    let mut config = RunConfig {
        method: Method::Independent,
        tasks,
        training_samples: Some(SAMPLES),
        split: Split::Val,
        ..RunConfig::default()
    };
    config.paths.cache = Some(paths.cache(cache.as_deref()));
    let run = paths.library_run();
    if RunPaths::new(&run).is_finished() {
        session.tasks(&config)?;
        let manifest = Manifest::read(&run)?;
        manifest.check_benchmark(&session.bench.hash().to_string(), bench)?;
        let there = &manifest.run.config;
        ensure!(
            there.tasks == config.tasks && there.compute == *compute,
            "{} holds the prompts of {} in {}; delete it to tune others",
            run.display(),
            there.tasks.join(", "),
            there.compute
        );
    } else {
        train(&session, config, &run, observer)?;
    }
    let path = paths.library();
    library_of(&session, &run)?.write(&path, &session.backbone.hash)?;
    Ok(path)
}
