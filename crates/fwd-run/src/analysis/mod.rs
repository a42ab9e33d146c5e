//! The input embeddings of any tasks under any model, as spectra, ranks and subspaces, and how their rank grows along runs.
//!
//! Overlaps are read beside two others: that of two halves of one task, which should be the same subspace, and that of random
//! subspaces of the same sizes.

mod findings;

pub use findings::{ANALYSIS, EmbeddingAnalysis, FromPretrained, Growth, Pretrained, TaskSamples};

use crate::config::RunConfig;
use crate::model::FeatureStore;
use crate::observer::check;
use crate::run::{Manifest, read_ranks};
use crate::samples::{self, PRETRAINING};
use crate::session::Session;
use anyhow::{Context, Result, ensure};
use fwd_data::bench::BenchTask;
use fwd_prompt::analysis::{TaskGram, analyze};
use fwd_prompt::linalg::{Precision, SubspaceConfig, overlap, principal_angles, residual_subspace, subspace};
use std::path::Path;

/// What an analysis looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnalysisOptions {
    /// The share of the energy that a subspace carries, above 0 and at most 1.
    pub energy: f64,
    /// Training samples of each task, at most.
    pub n_samples: usize,
}

impl Default for AnalysisOptions {
    fn default() -> Self {
        Self { energy: 0.95, n_samples: 256 }
    }
}

/// The ranks that a run recorded along its sequence.
///
/// # Errors
/// A directory that is no run, or a run that recorded none.
pub fn growth(run: &Path) -> Result<Growth> {
    let config = Manifest::read(run)?.run.config;
    let stages = read_ranks(run)?;
    ensure!(
        !stages.is_empty(),
        "{} keeps no ranks: it is a run of `{}`, which learns no sequence, or of an older version of this program, or has just begun",
        run.display(),
        config.method
    );
    let (method, seed, tasks) = (config.method, config.seed, config.tasks);
    Ok(Growth { run: run.display().to_string(), method, seed, tasks, stages })
}

/// Analyses the input embeddings of some tasks; the growth along runs is left empty, see [`growth`].
///
/// # Errors
/// A task without training samples, an error of the model or of the decompositions.
pub fn examine(
    session: &Session,
    store: &FeatureStore<'_>,
    tasks: &[&BenchTask],
    options: &AnalysisOptions,
) -> Result<EmbeddingAnalysis> {
    let model = &*session.backbone.model;
    let (mut grams, mut halves, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for task in tasks {
        check(store.observer())?;
        let name = &task.name;
        let samples = samples::training(store, task, options.n_samples)?;
        let even = TaskGram::accumulate(model, name, samples.iter().step_by(2))?;
        let odd = TaskGram::accumulate(model, name, samples.iter().skip(1).step_by(2))?;
        let mut all = even.clone();
        all.image.merge(&odd.image)?;
        all.text.merge(&odd.text)?;
        grams.push(all);
        halves.extend(analyze(&[even, odd], options.energy)?.pairs);
        sizes.push(TaskSamples { name: name.clone(), n_samples: samples.len() });
    }
    let embeddings = analyze(&grams, options.energy)?;
    let pretrained = pretrained(session, store, &grams, options.energy)?;
    Ok(EmbeddingAnalysis {
        backbone: session.backbone.dir.display().to_string(),
        backbone_hash: session.backbone.hash.clone(),
        dtype: session.backbone.dtype,
        compute: session.backbone.compute,
        template: session.backbone.template(),
        data_hash: session.bench.hash().to_string(),
        dim: model.prompt_dims().model,
        tasks: sizes,
        embeddings,
        halves,
        pretrained,
        growth: Vec::new(),
    })
}

/// V_0 of as many samples as a run takes by default, and where the tasks lie to it.
fn pretrained(
    session: &Session,
    store: &FeatureStore<'_>,
    tasks: &[TaskGram],
    energy: f64,
) -> Result<Option<Pretrained>> {
    let all = session.bench.pretraining();
    if all.is_empty() {
        return Ok(None);
    }
    let share = RunConfig::default().pretraining_samples.div_ceil(all.len());
    let mut samples = Vec::new();
    for task in all {
        check(store.observer())?;
        samples.extend(samples::training(store, task, share)?);
    }
    let base = TaskGram::accumulate(&*session.backbone.model, PRETRAINING, &samples)?;
    let config = SubspaceConfig { energy, precision: Precision::Double, ..SubspaceConfig::default() };
    let v0 = subspace(&base.both()?, &config).context(PRETRAINING)?.basis;
    let mut from_pretrained = Vec::new();
    for task in tasks {
        for (modality, gram) in task.by_modality()? {
            let own = subspace(&gram, &config).with_context(|| task.task.clone())?.basis;
            let beyond = residual_subspace(&gram, &v0, &config).with_context(|| task.task.clone())?;
            from_pretrained.push(FromPretrained {
                task: task.task.clone(),
                modality,
                rank: own.len(),
                captured: beyond.captured_before,
                beyond: beyond.basis.len(),
                overlap: overlap(&own, &v0)?,
                angles: principal_angles(&own, &v0)?.into_iter().map(f64::to_degrees).collect(),
            });
        }
    }
    let spectra = analyze(std::slice::from_ref(&base), energy)?.spectra;
    Ok(Some(Pretrained { n_samples: samples.len(), rank: v0.len(), spectra, tasks: from_pretrained }))
}
