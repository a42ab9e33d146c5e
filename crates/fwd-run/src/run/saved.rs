//! A run directory that is read again, by evaluation, inspection and questions.

use super::manifest::Manifest;
use super::paths::RunPaths;
use crate::choice::Choice;
use crate::device::DeviceKind;
use crate::method::Method;
use crate::model::{Model, ModelOptions, Template};
use crate::observer::Observer;
use crate::plan::Plan;
use crate::session::{Session, SessionOptions};
use anyhow::{Context, Result, bail, ensure};
use fwd_adapters::LoraLearner;
use fwd_continual::{Learner, SavedState};
use fwd_data::task::OnBad;
use fwd_models::WeightDtype;
use fwd_ops::Compute;
use fwd_prompt::{PromptPool, Prompts};
use std::path::{Path, PathBuf};

/// A run, finished or not, whose manifest was read.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedRun {
    paths: RunPaths,
    manifest: Manifest,
}

/// What a run's model and benchmark are opened with, where that is not what its manifest says.
#[derive(Debug, Clone, Default)]
pub struct Reopening {
    /// The model's folder, if it is no longer where the run found it.
    pub backbone: Option<PathBuf>,
    /// The benchmark's folder, if it is no longer where the run found it.
    pub bench: Option<PathBuf>,
    /// Where the model computes.
    pub device: DeviceKind,
    /// How the model is opened, where it is not as in the run.
    pub model: ModelChanges,
}

/// What of a run's [`ModelOptions`] is replaced when its model is opened again; what is none stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelChanges {
    /// How the matrices are kept in memory.
    pub dtype: Option<WeightDtype>,
    /// How frozen products are computed.
    pub compute: Option<Compute>,
    /// How prompts are written.
    pub template: Option<Template>,
}

impl SavedRun {
    /// Reads the manifest of a run directory.
    ///
    /// # Errors
    /// If the directory is no run, or of another version of this crate.
    pub fn read(dir: &Path) -> Result<Self> {
        Ok(Self { paths: RunPaths::new(dir), manifest: Manifest::read(dir)? })
    }

    /// The run directory, as it was named.
    pub fn dir(&self) -> &Path {
        self.paths.dir()
    }

    /// Where its files lie.
    pub fn paths(&self) -> &RunPaths {
        &self.paths
    }

    /// What the run is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The model and the benchmark of the run, where it found them or where they are now.
    ///
    /// # Errors
    /// Another model or benchmark than the run's.
    pub fn session(&self, places: &Reopening, observer: &dyn Observer) -> Result<Session> {
        let manifest = &self.manifest;
        let backbone = places.backbone.clone().map_or_else(|| manifest.backbone_dir(), Ok)?;
        let bench = places.bench.clone().map_or_else(|| manifest.bench_dir(), Ok)?;
        let how = self.model_options(places.model, observer);
        let options = SessionOptions {
            backbone: Some(backbone.clone()),
            bench: Some(bench.clone()),
            device: places.device,
            dtype: how.dtype,
            compute: how.compute,
            template: how.template,
            instruction: manifest.run.config.instruction.clone(),
            limits: manifest.run.config.limits,
            on_bad: if manifest.run.config.skip_bad { OnBad::Skip } else { OnBad::Refuse },
            ..SessionOptions::default()
        };
        let session = Session::open(&options, observer)?;
        self.check_backbone(&session.backbone.hash, &backbone)?;
        manifest.check_benchmark(&session.bench.hash().to_string(), &bench)?;
        Ok(session)
    }

    /// What the model of the run is opened with: as the run did, but for the changes. Of what then differs from the run the observer is
    /// told what that means.
    pub fn model_options(&self, changes: ModelChanges, observer: &dyn Observer) -> ModelOptions {
        let config = &self.manifest.run.config;
        let of_run = (config.dtype, config.compute, config.template.unwrap_or_default());
        let dtype = changes.dtype.unwrap_or(of_run.0);
        let compute = changes.compute.unwrap_or(of_run.1);
        let template = changes.template.unwrap_or(of_run.2);
        let differs = |what: &str, of_run: &str, now: &str| {
            if of_run != now {
                observer.note(&format!(
                    "{}: the run learnt with {what} `{of_run}`, the model is opened with `{now}`: its features and answers differ from those of the run",
                    self.dir().display()
                ));
            }
        };
        differs("dtype", of_run.0.name(), dtype.name());
        differs("compute", of_run.1.name(), compute.name());
        differs("template", of_run.2.name(), template.name());
        ModelOptions { dtype, compute, template: Some(template) }
    }

    /// Refuses to use prompts that were learnt for another model than the one of this hash in `dir`.
    ///
    /// # Errors
    /// That names both.
    pub fn check_backbone(&self, hash: &str, dir: &Path) -> Result<()> {
        let manifest = &self.manifest;
        ensure!(
            hash == manifest.run.backbone_hash,
            "the run was made with another model: {} has the hash {hash}, the run's {} had {}; name that one with --backbone",
            dir.display(),
            manifest.backbone_dir.display(),
            manifest.run.backbone_hash
        );
        Ok(())
    }

    /// The prompts of the run, as they were when its last task was finished; under the method `independent`, those of `task`. None under a
    /// method with adapters ([`Self::adapters`]) and under `zero-shot`.
    ///
    /// # Errors
    /// A damaged or missing state, or one whose widths are not the model's.
    pub fn pool(&self, model: &Model, task: Option<&str>) -> Result<PromptPool> {
        let config = &self.manifest.run.config;
        if config.method == Method::ZeroShot || config.method.has_adapters() {
            return Ok(PromptPool::new(model.prompt_dims(), config.pool.prompt_len, config.pool.top_k));
        }
        Ok(self.prompts(model, task)?.pool().clone())
    }

    /// The adapters of the run, as they were when its last task was finished.
    ///
    /// # Errors
    /// A run of a method without adapters; a damaged or missing state, or one of another model.
    pub fn adapters<'m>(&self, model: &'m Model) -> Result<LoraLearner<&'m Model>> {
        let config = &self.manifest.run.config;
        let Plan::Lora(sharing) = config.method.plan(config, config.tasks.len()) else {
            bail!("{} is a run of `{}`, which has no adapters", self.dir().display(), config.method)
        };
        let dir = self.paths.state(None);
        ensure!(SavedState::exists(&dir), "{} holds no adapters yet; let the run go on first", dir.display());
        let max_norm = config.training.max_grad_norm;
        let mut learner = LoraLearner::new(model, config.lora.clone(), sharing, max_norm, config.seed)?;
        let state = SavedState::load(&dir)?;
        let loaded = state.learner(learner.kind()).and_then(|section| learner.load(section));
        loaded.with_context(|| format!("{}: its adapters cannot be read", dir.display()))?;
        Ok(learner)
    }

    /// The prompts with everything that was computed for them; under the method `independent`, those of `task`.
    ///
    /// # Errors
    /// As [`Self::pool`].
    pub fn prompts(&self, model: &Model, task: Option<&str>) -> Result<Prompts> {
        let task = if self.manifest.run.config.method == Method::Independent {
            Some(task.context("each task of this run has prompts of its own; name one with --task")?)
        } else {
            None
        };
        let method = self.manifest.run.config.method;
        ensure!(
            method.has_prompts(),
            "{} is a run of `{method}`, which has no prompts",
            self.dir().display()
        );
        let dir = self.paths.state(task);
        ensure!(SavedState::exists(&dir), "{} holds no prompts yet; let the run go on first", dir.display());
        let prompts = Prompts::load(&dir)?;
        ensure!(
            prompts.pool().dims() == model.prompt_dims(),
            "{}: its prompts are for a model of {:?}, this one has {:?}",
            dir.display(),
            prompts.pool().dims(),
            model.prompt_dims()
        );
        Ok(prompts)
    }
}
