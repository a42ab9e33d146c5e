//! What a run with prompts has computed: the pool, the subspaces of its tasks, and how far tasks interfered.

use crate::config::{Allocation, Config, Inference};
use crate::ledger::{Entry, Interference, Rule, SubspaceLedger};
use crate::map::InputMap;
use crate::model::Dims;
use crate::pool::{Guests, PromptPool, slot};
use fwd_continual::{ContinualError, SavedState, Section, SectionError, normal, stream};
use fwd_linalg::Basis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

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
    /// By the number of the task (from 1), what its prompts began with, if not with normal numbers alone.
    pub(crate) started: BTreeMap<usize, Started>,
}

/// What the prompts of a task began with ([`Start`](crate::Start)).
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    /// The task of the library whose prompts were taken; none if normal numbers had a lower loss than all of them.
    pub block: Option<String>,
    /// For each task of the library, the mean loss with its prompts on some samples of the new task, or how near their keys are to the
    /// queries of these samples; which of the two, [`Start`](crate::Start) says.
    pub scores: Vec<(String, f64)>,
    /// The tokens of all new prompts of the task, `(n, d)` row-major.
    pub tokens: Vec<f32>,
}

impl Prompts {
    /// Before the first task: no prompts, no subspaces.
    pub fn new(config: Config, dims: Dims) -> Self {
        let mut pool = PromptPool::new(dims, config.pool.prompt_len, config.pool.top_k);
        (pool.place, pool.map) = (config.pool.place, InputMap::new(dims.model, &config.map));
        let ledger = SubspaceLedger::new(dims.model);
        let (owners, interference, started) = Default::default();
        Self { config, pool, ledger, owners, interference, started }
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

    /// Takes note of the tasks that opened prompts.
    pub(crate) fn own(&mut self, owners: Vec<usize>) {
        self.owners = owners;
        if self.config.pool.inference == Inference::Task {
            self.pool.select_by_task(&self.owners);
        }
    }

    /// What the prompts of task `t` (from 1) began with; none if with normal numbers and without a look at a library.
    pub fn started(&self, t: usize) -> Option<&Started> {
        self.started.get(&t)
    }

    /// The prompts as they were before any training, `(M·L_p, d)` row-major: those of a library, or drawn anew from their random streams.
    pub fn initial_prompts(&self) -> Vec<f32> {
        let draw = |of_task: &[usize]| {
            let entry = of_task.first().and_then(|&t| Some((t, self.ledger.entries().get(t)?)));
            entry.map(|(t, entry)| {
                if let Some(started) = self.started.get(&t) {
                    return started.tokens.clone();
                }
                initial_values(&self.config, self.ledger.dim(), t, of_task.len(), entry.rms_length())
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

    /// Writes everything. Each task has tensors `task.T.…` of its own, which are sealed when it is learnt: what it leaves behind never
    /// changes again, but for prompts that all tasks share.
    pub(crate) fn write(&self, section: &mut Section, training: Option<TrainingInfo>) {
        let d = self.pool.dims().model;
        let owners = runs(&self.owners);
        let shares_prompts = matches!(self.config.pool.allocation, Allocation::Shared(_));
        let n_learnt = self.ledger.entries().len().saturating_sub(usize::from(training.is_some()));
        for (t, entry) in self.ledger.entries().iter().enumerate() {
            let of = owners.get(&t).filter(|_| !shares_prompts);
            let put = |section: &mut Section| {
                put_entry(section, t, entry, self.interference_of(t));
                if let Some(started) = self.started.get(&t) {
                    section.put_f32(
                        &format!("task.{t}.start"),
                        &[started.tokens.len() / d, d],
                        &started.tokens,
                    );
                }
                of.into_iter().for_each(|of| put_pool(section, &format!("task.{t}"), &self.pool, of));
            };
            if t < n_learnt { section.seal(&format!("task.{t}"), put) } else { put(section) }
        }
        if shares_prompts {
            owners.iter().for_each(|(t, of)| put_pool(section, &format!("task.{t}"), &self.pool, of));
        }
        // These never change.
        let of_library = self.pool.guests().map(|guests| ("library", &guests.pool));
        let of_pretraining = self.pool.anchors().map(|anchors| ("anchors", anchors));
        for (name, pool) in of_library.into_iter().chain(of_pretraining) {
            section.seal(name, |section| put_pool(section, name, pool, &(0..pool.len())));
        }
        if let Some(map) = self.pool.map() {
            map.write(section);
        }
        section.set_info(&Info {
            config: self.config.clone(),
            dims: self.pool.dims(),
            owners: owners.into_iter().map(|(t, of)| (t, of.len())).collect(),
            ledger: self.ledger.entries().iter().map(EntryInfo::of).collect(),
            n_learnt: self.interference.len(),
            started: self.started.iter().map(|(&t, started)| (t, StartedInfo::of(started))).collect(),
            library: self.pool.guests().map(GuestsInfo::of),
            anchors: self.pool.anchors().map(PromptPool::len),
            training,
        });
    }

    /// What the change of task `t` (from 1) did, once it is learnt.
    fn interference_of(&self, t: usize) -> Option<&[Interference]> {
        self.interference.get(t.checked_sub(1)?).map(Vec::as_slice)
    }

    /// What is told of a training in a section that [`Self::write`] wrote.
    pub(crate) fn training_info(section: &Section) -> Result<Option<TrainingInfo>, SectionError> {
        Ok(section.info::<Info>()?.training)
    }

    /// What [`Self::write`] wrote.
    pub(crate) fn read(section: &Section) -> Result<Self, SectionError> {
        let Info { config, dims, owners: of_tasks, ledger, n_learnt, started, library, anchors, .. } =
            section.info()?;
        let text = |error: &dyn std::fmt::Display| SectionError(error.to_string());
        let (d, len) = (dims.model, config.pool.prompt_len);
        let mut pool = PromptPool::new(dims, len, config.pool.top_k);
        pool.place = config.pool.place;
        let mut owners = Vec::new();
        for (t, m) in of_tasks {
            read_pool(section, &format!("task.{t}"), m, &mut pool)?;
            owners.resize(pool.len(), t);
        }
        if let Some(GuestsInfo { tasks, top_k, takes_all }) = library {
            let mut of_library = PromptPool::new(dims, len, top_k);
            let mut end = 0usize;
            let range = |(task, m): (String, usize)| {
                let of = end..end.saturating_add(m);
                end = of.end;
                (task, of)
            };
            let tasks: Vec<_> = tasks.into_iter().map(range).collect();
            read_pool(section, "library", end, &mut of_library)?;
            pool.set_guests(Some(Arc::new(Guests::new(of_library, tasks, takes_all))));
        }
        if let Some(m) = anchors {
            let mut anchors = PromptPool::new(dims, 0, 1);
            read_pool(section, "anchors", m, &mut anchors)?;
            pool.set_anchors(Some(anchors));
        }
        pool.map = InputMap::new(d, &config.map).map(|map| map.read(section)).transpose()?;
        let started = started.into_iter().map(|(t, StartedInfo { block, scores })| {
            let n_tokens = owners.iter().filter(|&&owner| owner == t).count() * len;
            let tokens = section.f32(&format!("task.{t}.start"), &[n_tokens, d])?;
            Ok((t, Started { block, scores, tokens }))
        });
        let started = started.collect::<Result<_, SectionError>>()?;
        let entries = ledger.into_iter().enumerate().map(|(t, info)| read_entry(section, t, d, info));
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let interference = (1..=n_learnt).map(|t| read_interference(section, t, config.rule, &entries));
        let interference = interference.collect::<Result<_, _>>()?;
        let ledger = SubspaceLedger::from_entries(d, entries).map_err(|e| text(&e))?;
        let mut prompts = Self { config, pool, ledger, owners: Vec::new(), interference, started };
        prompts.own(owners);
        Ok(prompts)
    }
}

/// The prompts of each task: where they stand in the pool, by the task that opened them.
pub(crate) fn runs(owners: &[usize]) -> BTreeMap<usize, Range<usize>> {
    let mut start = 0;
    let run = |of: &[usize]| {
        let range = start..start + of.len();
        start = range.end;
        (of[0], range)
    };
    owners.chunk_by(|a, b| a == b).map(run).collect()
}

/// Writes a part of a pool.
fn put_pool(section: &mut Section, name: &str, pool: &PromptPool, of: &Range<usize>) {
    let Dims { model: d, image_query: dv, text_query: dt } = pool.dims();
    let len = pool.prompt_len();
    let mut put = |what: &str, values: &[f32], shape: &[usize]| {
        let width: usize = shape.iter().product();
        let shape = [&[of.len()], shape].concat();
        section.put_f32(&format!("{name}.{what}"), &shape, &values[of.start * width..of.end * width]);
    };
    put("image_keys", &pool.image_keys, &[dv]);
    put("text_keys", &pool.text_keys, &[dt]);
    put("thresholds", &pool.thresholds, &[]);
    if len > 0 {
        put("prompts", &pool.prompts, &[len, d]);
    }
}

/// Appends to a pool the `m` prompts that [`put_pool`] wrote.
fn read_pool(section: &Section, name: &str, m: usize, pool: &mut PromptPool) -> Result<(), SectionError> {
    let Dims { model: d, image_query: dv, text_query: dt } = pool.dims();
    let (len, first) = (pool.prompt_len(), pool.len());
    let read = |what: &str, shape: &[usize]| section.f32(&format!("{name}.{what}"), &[&[m], shape].concat());
    let (image_keys, text_keys) = (read("image_keys", &[dv])?, read("text_keys", &[dt])?);
    let prompts = if len > 0 { read("prompts", &[len, d])? } else { Vec::new() };
    for j in 0..m {
        pool.push(slot(&image_keys, j, dv), slot(&text_keys, j, dt), slot(&prompts, j, len * d))
            .map_err(|e| SectionError(e.to_string()))?;
    }
    pool.thresholds[first..].copy_from_slice(&read("thresholds", &[])?);
    Ok(())
}

/// Writes what the ledger has of task `t`, and of the interference the numbers alone: names and rule are known.
fn put_entry(section: &mut Section, t: usize, entry: &Entry, interference: Option<&[Interference]>) {
    let name = |what: &str| format!("task.{t}.{what}");
    section.put_f32(&name("basis"), &[entry.basis.len(), entry.basis.dim()], entry.basis.vectors());
    // Directions that older tasks hold have the eigenvalue 0, and so have those without energy.
    let n = entry.eigenvalues.iter().rposition(|x| *x != 0.0).map_or(0, |last| last + 1);
    section.put_f64(&name("eigenvalues"), &[n], &entry.eigenvalues[..n]);
    if let Some(interference) = interference {
        let leakage: Vec<f64> = interference.iter().map(|with| with.leakage).collect();
        section.put_f64(&name("leakage"), &[leakage.len()], &leakage);
    }
}

fn read_entry(section: &Section, t: usize, dim: usize, info: EntryInfo) -> Result<Entry, SectionError> {
    let name = |what: &str| format!("task.{t}.{what}");
    let basis = section.f32(&name("basis"), &[info.rank, dim])?;
    let mut eigenvalues = section.f64(&name("eigenvalues"), &[section.length(&name("eigenvalues"), dim)?])?;
    eigenvalues.resize(dim, 0.0);
    Ok(Entry {
        basis: Basis::from_orthonormal(dim, basis).map_err(|e| SectionError(e.to_string()))?,
        eigenvalues,
        task: info.task,
        n_rows: info.n_rows,
        energy: info.energy,
        captured_before: info.captured_before,
        captured: info.captured,
    })
}

/// What the change of the learnt task `t` did; nothing for a task without samples.
fn read_interference(
    section: &Section,
    t: usize,
    rule: Rule,
    entries: &[Entry],
) -> Result<Vec<Interference>, SectionError> {
    let name = format!("task.{t}.leakage");
    let leakage = section.f64(&name, &[section.length(&name, t.min(entries.len()))?])?;
    let with = leakage.into_iter().zip(entries).enumerate();
    let with = with.map(|(of, (leakage, entry))| Interference {
        task: entry.task.clone(),
        leakage,
        forbidden: rule.forbids(of, t),
    });
    Ok(with.collect())
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
    /// Tasks with prompts, and how many.
    owners: Vec<(usize, usize)>,
    ledger: Vec<EntryInfo>,
    /// How many tasks are learnt.
    n_learnt: usize,
    /// Tasks whose prompts a library was looked at for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    started: BTreeMap<usize, StartedInfo>,
    /// The prompts for samples that no learnt task is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    library: Option<GuestsInfo>,
    /// How many samples of pre-training have left their queries as keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    anchors: Option<usize>,
    training: Option<TrainingInfo>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GuestsInfo {
    /// The tasks of the library, and how many prompts each has.
    tasks: Vec<(String, usize)>,
    top_k: usize,
    takes_all: bool,
}

impl GuestsInfo {
    fn of(Guests { pool, tasks, takes_all }: &Guests) -> Self {
        let tasks = tasks.iter().map(|(task, of)| (task.clone(), of.len())).collect();
        Self { tasks, top_k: pool.top_k(), takes_all: *takes_all }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StartedInfo {
    block: Option<String>,
    scores: Vec<(String, f64)>,
}

impl StartedInfo {
    fn of(started: &Started) -> Self {
        Self { block: started.block.clone(), scores: started.scores.clone() }
    }
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
