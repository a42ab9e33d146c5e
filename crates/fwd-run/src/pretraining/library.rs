//! The library of prompts that comes with a model: prompts tuned on each pre-training task alone, with which new prompts may begin
//! (`pool.start`). It lies in the model directory, in `library/prompts.safetensors`, which is no part of the model's identity.

use super::paths::ModelPaths;
use crate::config::{Paths, RunConfig};
use crate::device::DeviceKind;
use crate::method::Method;
use crate::model::ModelTokenizers;
use crate::observer::Observer;
use crate::run::{Manifest, RunPaths, library_of, train};
use crate::session::{Session, SessionOptions};
use anyhow::{Result, ensure};
use fwd_data::bench::Split;
use std::path::PathBuf;

/// What is asked of every image. A task's own instruction would tell a model that was pre-trained on the task what to do, and its prompts
/// would learn nothing that another task could use. A model that reads no images is asked each task's own questions.
pub const INSTRUCTION: &str = "What is the answer?";
/// Training samples of each task, at most, unless the settings say how many.
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
    /// How the prompts are tuned. Method, tasks, split and paths are those of a library, whatever it says.
    pub settings: RunConfig,
}

/// Tunes prompts on each task alone, an ordinary run of the method `independent` in `library/run` of the model directory that goes on where
/// it was interrupted, and writes them into one file, whose path is returned.
///
/// # Errors
/// No task, one without training or validation samples, those of [`train`]; a file that cannot be written.
pub fn library(options: &LibraryOptions, observer: &dyn Observer) -> Result<PathBuf> {
    let LibraryOptions { model, bench, tasks, cache, device, settings } = options;
    let reads_images = ModelTokenizers::open(model, None)?.reader().reads_images();
    let session = SessionOptions {
        backbone: Some(model.clone()),
        bench: Some(bench.clone()),
        device: *device,
        dtype: settings.dtype,
        compute: settings.compute,
        template: settings.template,
        limits: settings.limits,
        instruction: settings.instruction.clone().or_else(|| reads_images.then(|| INSTRUCTION.to_owned())),
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
        training_samples: settings.training_samples.or(Some(SAMPLES)),
        split: Split::Val,
        ..settings.clone()
    };
    config.paths = Paths { cache: Some(paths.cache(cache.as_deref())), ..Paths::default() };
    let run = paths.library_run();
    if RunPaths::new(&run).is_finished() {
        session.tasks(&config)?;
        let manifest = Manifest::read(&run)?;
        manifest.check_benchmark(&session.bench.hash().to_string(), bench)?;
        let there = manifest.run.config;
        let there = RunConfig { template: Some(there.template.unwrap_or_default()), ..there };
        // As a run writes down what it takes from its session; where it computes and lies is no matter.
        let same = RunConfig {
            device: there.device,
            instruction: session.instruction.clone(),
            template: Some(session.backbone.template()),
            skip_bad: there.skip_bad,
            order: there.order,
            save_every: there.save_every,
            paths: there.paths.clone(),
            ..config
        };
        ensure!(
            there == same,
            "{} holds the prompts of {}, of other tasks or settings than are asked for, as its manifest.json says; delete it to tune others",
            run.display(),
            there.tasks.join(", ")
        );
    } else {
        train(&session, config, &run, observer)?;
    }
    let path = paths.library();
    library_of(&session, &run)?.write(&path, &session.backbone.hash)?;
    Ok(path)
}
