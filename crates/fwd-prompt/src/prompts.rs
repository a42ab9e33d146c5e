//! What a run with prompts has computed: the pool, the subspaces of its tasks, and how far tasks interfered.

use crate::config::Config;
use crate::ledger::{Entry, Interference, SubspaceLedger};
use crate::model::Dims;
use crate::pool::{PromptPool, slot};
use fwd_continual::{ContinualError, SavedState, Section, SectionError, normal, stream};
use fwd_linalg::Basis;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The kind of learner that writes this state.
pub(crate) const KIND: &str = "prompts";

/// Everything that the tasks so far have left behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompts {
    pub(crate) config: Config,
    pub(crate) pool: PromptPool,
    pub(crate) ledger: SubspaceLedger,
    /// For each prompt of the pool, the task that opened it, from 1.
    pub(crate) owners: Vec<usize>,
    pub(crate) interference: Vec<Vec<Interference>>,
}

impl Prompts {
    /// Before the first task: no prompts, no subspaces.
    pub fn new(config: Config, dims: Dims) -> Self {
        let pool = PromptPool::new(dims, config.pool.prompt_len, config.pool.top_k);
        let ledger = SubspaceLedger::new(dims.model);
        Self { config, pool, ledger, owners: Vec::new(), interference: Vec::new() }
    }

    /// The configuration of the run.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The prompts, as they were when the last task was finished.
    pub fn pool(&self) -> &PromptPool {
        &self.pool
    }

    /// The subspaces of pre-training and of the tasks that were begun.
    pub fn ledger(&self) -> &SubspaceLedger {
        &self.ledger
    }

    /// For each learnt task, how much of its change lies in each older subspace; nothing for a task without samples.
    pub fn interference(&self) -> &[Vec<Interference>] {
        &self.interference
    }

    /// For each prompt of the pool, the task that opened it (from 1). Under a shared pool that is the first one with samples, and later
    /// ones train it as well.
    pub fn owners(&self) -> &[usize] {
        &self.owners
    }

    /// The prompts as they were before any training, `(M·L_p, d)` row-major, drawn anew from their random streams.
    pub fn initial_prompts(&self) -> Vec<f32> {
        let draw = |of_task: &[usize]| {
            let entry = of_task.first().and_then(|&t| Some((t, self.ledger.entries().get(t)?)));
            entry.map(|(t, entry)| {
                let length = (entry.energy / entry.n_rows.max(1) as f64).sqrt();
                initial_values(&self.config, self.ledger.dim(), t, of_task.len(), length)
            })
        };
        self.owners.chunk_by(|a, b| a == b).filter_map(draw).flatten().collect()
    }

    /// Reads the prompts of a run from the folder where it was saved.
    ///
    /// # Errors
    /// Those of [`SavedState::load`]; [`ContinualError::State`] for a run of another kind of learner or a damaged section.
    pub fn load(dir: &Path) -> Result<Self, ContinualError> {
        let state = SavedState::load(dir)?;
        let read = || Self::read(state.learner(KIND)?);
        read().map_err(|error| ContinualError::State {
            path: SavedState::manifest(dir),
            what: format!("its prompts cannot be read: {error}"),
        })
    }

    pub(crate) fn write(&self, section: &mut Section, training: Option<TrainingInfo>) {
        let Dims { model: d, image_query: dv, text_query: dt } = self.pool.dims();
        let (m, len) = (self.pool.len(), self.pool.prompt_len());
        section.put_f32("pool.image_keys", &[m, dv], &self.pool.image_keys);
        section.put_f32("pool.text_keys", &[m, dt], &self.pool.text_keys);
        section.put_f32("pool.prompts", &[m, len, d], &self.pool.prompts);
        section.put_f32("pool.thresholds", &[m], &self.pool.thresholds);
        for (t, entry) in self.ledger.entries().iter().enumerate() {
            section.put_f32(&format!("ledger.{t}.basis"), &[entry.basis.len(), d], entry.basis.vectors());
            let n = entry.eigenvalues.len();
            section.put_f64(&format!("ledger.{t}.eigenvalues"), &[n], &entry.eigenvalues);
        }
        section.set_info(&Info {
            config: self.config.clone(),
            dims: self.pool.dims(),
            n_prompts: m,
            owners: self.owners.clone(),
            ledger: self.ledger.entries().iter().map(EntryInfo::of).collect(),
            interference: self.interference.clone(),
            training,
        });
    }

    /// What is told of a training in a section that [`Self::write`] wrote.
    pub(crate) fn training_info(section: &Section) -> Result<Option<TrainingInfo>, SectionError> {
        Ok(section.info::<Info>()?.training)
    }

    /// What [`Self::write`] wrote.
    pub(crate) fn read(section: &Section) -> Result<Self, SectionError> {
        let Info { config, dims, n_prompts: m, owners, ledger, interference, .. } = section.info()?;
        let text = |error: &dyn std::fmt::Display| SectionError(error.to_string());
        let Dims { model: d, image_query: dv, text_query: dt } = dims;
        let len = config.pool.prompt_len;
        let mut pool = PromptPool::new(dims, len, config.pool.top_k);
        let image_keys = section.f32("pool.image_keys", &[m, dv])?;
        let text_keys = section.f32("pool.text_keys", &[m, dt])?;
        let prompts = section.f32("pool.prompts", &[m, len, d])?;
        for j in 0..m {
            pool.push(slot(&image_keys, j, dv), slot(&text_keys, j, dt), slot(&prompts, j, len * d))
                .map_err(|e| text(&e))?;
        }
        pool.thresholds = section.f32("pool.thresholds", &[m])?;
        if owners.len() != m {
            return Err(SectionError(format!("owners are {}, prompts {m}", owners.len())));
        }
        let mut entries = Vec::new();
        for (t, info) in ledger.into_iter().enumerate() {
            let basis = section.f32(&format!("ledger.{t}.basis"), &[info.rank, d])?;
            entries.push(Entry {
                basis: Basis::from_orthonormal(d, basis).map_err(|e| text(&e))?,
                eigenvalues: section.f64(&format!("ledger.{t}.eigenvalues"), &[d])?,
                task: info.task,
                n_rows: info.n_rows,
                energy: info.energy,
                captured_before: info.captured_before,
                captured: info.captured,
            });
        }
        let ledger = SubspaceLedger::from_entries(d, entries).map_err(|e| text(&e))?;
        Ok(Self { config, pool, ledger, owners, interference })
    }
}

/// The values of `n` new prompts of task `task` (from 1), whose embeddings have the root mean square length `length`.
pub(crate) fn initial_values(config: &Config, dim: usize, task: usize, n: usize, length: f64) -> Vec<f32> {
    let std = f64::from(config.pool.prompt_scale) * length / (dim.max(1) as f64).sqrt();
    let rng = &mut stream(config.seed, "prompts", [task as u64, 0]);
    normal(rng, n * config.pool.prompt_len * dim, std as f32)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    config: Config,
    dims: Dims,
    n_prompts: usize,
    owners: Vec<usize>,
    ledger: Vec<EntryInfo>,
    interference: Vec<Vec<Interference>>,
    training: Option<TrainingInfo>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryInfo {
    task: String,
    n_rows: u64,
    rank: usize,
    energy: f64,
    captured_before: f64,
    captured: f64,
}

impl EntryInfo {
    fn of(entry: &Entry) -> Self {
        Self {
            task: entry.task.clone(),
            n_rows: entry.n_rows,
            rank: entry.basis.len(),
            energy: entry.energy,
            captured_before: entry.captured_before,
            captured: entry.captured,
        }
    }
}

/// What is told of a training beside its tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainingInfo {
    /// The first prompt that is trained; all after it are.
    pub(crate) first: usize,
    /// Steps of the optimisers.
    pub(crate) n_steps: u32,
}
