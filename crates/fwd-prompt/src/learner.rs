//! Prompts as a learner of the continual loop.
//!
//! ```text
//! begin_pretraining   V_0 from the embeddings of the pre-training samples
//! begin_task          one pass over D_t: Gram matrix C_t; V_t by residual decomposition; new prompts and keys
//! gradients, step     select, run the model, project, update prompts and keys with Π_t
//! end_task            P ← P + ΔP; interference; rejection thresholds
//! ```

use crate::config::{Allocation, Config, KeyInit, LrUnit};
use crate::error::PromptError;
use crate::gradient::{BatchGradient, Rehearsed, queries_of, scatter};
use crate::ledger::Interference;
use crate::library::Library;
use crate::map::MapTraining;
use crate::model::{FrozenModel, Queries};
use crate::pool::{PromptPool, slot};
use crate::prompts::{KIND, Prompts, TrainingInfo, initial_values};
use fwd_continual::{
    Batch, Change, ContinualError, Curriculum, Event, Failure, Gradients, Learner, NotFinite, Place,
    Reporter, Section, SectionError, StepReport, TaskAt, Trainer, normal, permutation, stream,
};
use fwd_linalg::{AdamW, AdamWState, Gram, LinalgError, ProjectedAdamW, Projection, clip_factor};
use serde::Serialize;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Prompts in front of a frozen model, and everything that was learnt with them.
#[derive(Debug, Clone)]
pub struct PromptLearner<M> {
    pub(crate) model: M,
    pub(crate) prompts: Prompts,
    pub(crate) library: Option<Arc<Library>>,
}

/// The training of prompts with the model `M` on samples that `D` lends.
pub type PromptTrainer<M, D> = Trainer<PromptLearner<M>, D>;

/// What exists while a task is being learnt. The prompts themselves move at its end.
#[derive(Debug, Clone)]
pub struct PromptTraining {
    /// The first prompt that is trained; all after it are.
    first: usize,
    /// `P − P_start`. Kept apart, so that its rounding error is relative to the change, not to the prompts.
    change: Vec<f32>,
    prompts: AdamWState,
    image_keys: AdamWState,
    text_keys: AdamWState,
    projection: Projection,
    map: Option<MapTraining>,
}

/// What prompts tell beside the loop's own events.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "note", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PromptNote {
    /// A task has its subspace.
    Subspace {
        /// Rows of embeddings that it is made of.
        n_rows: u64,
        /// Number of its directions.
        rank: usize,
        /// The share of its energy that older subspaces held.
        captured_before: f64,
        /// The share that they hold with the new directions.
        captured: f64,
        /// Directions that are still free.
        capacity_left: usize,
    },
    /// All directions belong to tasks now: later ones get no subspace of their own.
    CapacityExhausted,
    /// A library was looked at for what the new prompts of a task begin with.
    Started {
        /// The task of the library whose prompts were taken; none if normal numbers had a lower loss.
        block: Option<String>,
        /// For each task of the library its loss, or how near its keys are ([`Started::scores`](crate::Started::scores)).
        scores: Vec<(String, f64)>,
    },
    /// The rule leaves nothing to change (neither V_0 nor V_t under `fwd-strict`, or a full space under `residual`): the prompts
    /// stay as they are, only their keys learn.
    NothingAllowed,
    /// How much of the change of a learnt task lies in each older subspace.
    Interference(Vec<Interference>),
}

/// A run that has not begun.
///
/// # Errors
/// [`ContinualError::Config`].
pub fn trainer<M: FrozenModel, D: AsRef<[M::Features]>>(
    model: M,
    curriculum: Curriculum<D>,
    config: &Config,
) -> Result<PromptTrainer<M, D>, ContinualError> {
    let learner = PromptLearner::new(model, config.clone())?;
    Trainer::new(learner, config.method.build(), curriculum, config.plan())
}

/// A run that goes on from a folder where it was saved.
///
/// # Errors
/// As [`Trainer::resume`].
pub fn resume<M: FrozenModel, D: AsRef<[M::Features]>>(
    model: M,
    curriculum: Curriculum<D>,
    config: &Config,
    dir: &Path,
) -> Result<PromptTrainer<M, D>, ContinualError> {
    let learner = PromptLearner::new(model, config.clone())?;
    Trainer::resume(learner, config.method.build(), curriculum, config.plan(), dir)
}

impl<M: FrozenModel> PromptLearner<M> {
    /// No prompts yet.
    ///
    /// # Errors
    /// [`ContinualError::Config`] that names the key, its value and what it may be.
    pub fn new(model: M, config: Config) -> Result<Self, ContinualError> {
        let refused = |error| match error {
            PromptError::Config(what) => ContinualError::Config(what),
            other => ContinualError::Config(other.to_string()),
        };
        config.check().map_err(refused)?;
        let dims = model.dims();
        if dims.model == 0 {
            return Err(ContinualError::Config("the model's embeddings have no elements".to_owned()));
        }
        Ok(Self { model, prompts: Prompts::new(config, dims), library: None })
    }

    /// With prompts of other tasks. They are only used if [`PoolConfig::start`](crate::PoolConfig::start) or
    /// [`PoolConfig::fallback`](crate::PoolConfig::fallback) says so.
    ///
    /// # Errors
    /// [`ContinualError::Config`] if they were learnt with a model of other widths.
    pub fn with_library(self, library: Arc<Library>) -> Result<Self, ContinualError> {
        let (of_library, dims) = (library.dims(), self.model.dims());
        if of_library != dims {
            let what =
                format!("the library's prompts are for a model of {of_library:?}, this one has {dims:?}");
            return Err(ContinualError::Config(what));
        }
        Ok(Self { library: Some(library), ..self })
    }

    /// The model behind the prompts.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// What was learnt so far.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    pub(crate) fn config(&self) -> &Config {
        &self.prompts.config
    }

    /// The Gram matrix of some samples' embeddings; none if the observer wants to stop.
    fn gram(
        &self,
        samples: &[M::Features],
        task: &TaskAt<'_>,
        report: &mut Reporter<'_, PromptNote>,
    ) -> Result<Option<Gram>, Failure> {
        let mut gram = Gram::new(self.model.dims().model);
        for (i, features) in samples.iter().enumerate() {
            let place = Place::Sample(i);
            let rows = self.model.embeddings(features).map_err(|e| Failure::at(place, e))?;
            for rows in [&rows.image, &rows.text] {
                gram.push(rows).map_err(|e| Failure::at(place, e))?;
            }
            report.tell(Event::Examined { task: task.name.to_owned(), done: i + 1, of: samples.len() });
            if report.is_stopped() {
                return Ok(None);
            }
        }
        Ok(Some(gram))
    }

    /// Adds the subspace of a task to the ledger.
    fn add_subspace(
        &mut self,
        gram: &Gram,
        task: &TaskAt<'_>,
        report: &mut Reporter<'_, PromptNote>,
    ) -> Result<(), Failure> {
        let options = self.config().subspace.of_task(task.number());
        let entry = self.prompts.ledger.add(task.name, gram, &options)?;
        let (n_rows, rank) = (entry.n_rows, entry.basis.len());
        let (captured_before, captured) = (entry.captured_before, entry.captured);
        let capacity_left = self.prompts.ledger.capacity_left();
        let mut tell = |note| report.tell(Event::Note { task: task.name.to_owned(), note });
        tell(PromptNote::Subspace { n_rows, rank, captured_before, captured, capacity_left });
        if capacity_left == 0 {
            tell(PromptNote::CapacityExhausted);
        }
        Ok(())
    }

    /// The new prompts of a task. `length` is the root mean square length of the task's embeddings.
    fn open_prompts(
        &self,
        samples: &[M::Features],
        task: &TaskAt<'_>,
        length: f64,
    ) -> Result<PromptPool, Failure> {
        let (config, dims) = (self.config(), self.model.dims());
        let mut opened = PromptPool::new(dims, config.pool.prompt_len, config.pool.top_k);
        let n_opened = config.pool.allocation.n_opened(self.prompts.pool.len());
        let indices = [task.number() as u64, 0];
        let order = permutation(&mut stream(config.seed, "key samples", indices), samples.len());
        let values = initial_values(config, dims.model, task.number(), n_opened, length);
        let mut keys = stream(config.seed, "keys", indices);
        for i in 0..n_opened {
            let key = match config.pool.key_init {
                KeyInit::Normal => Queries {
                    image: normal(&mut keys, dims.image_query, 1.0).into(),
                    text: normal(&mut keys, dims.text_query, 1.0).into(),
                },
                KeyInit::Queries => {
                    let sample = order[i % order.len()];
                    queries_of(&self.model, &samples[sample], sample)?
                }
            };
            opened.push(&key.image, &key.text, slot(&values, i, opened.prompt_size()))?;
        }
        Ok(opened)
    }
}

impl<M: FrozenModel> Learner for PromptLearner<M> {
    type Sample = M::Features;
    type Training = PromptTraining;
    type Note = PromptNote;

    fn kind(&self) -> &'static str {
        KIND
    }

    fn identity(&self) -> serde_json::Value {
        // The rest of the configuration is the loop's and the method's.
        let Config { seed, pool, subspace, rule, project_at, training, .. } = self.config();
        let mut identity = serde_json::json!({
            "seed": seed, "pool": pool, "subspace": subspace, "rule": rule, "project_at": project_at,
            "prompts": training.prompts, "keys": training.keys, "key_weight": training.key_weight,
            "max_grad_norm": training.max_grad_norm, "dims": self.model.dims(),
        });
        if !self.config().map.is_none() {
            identity["map"] = serde_json::json!(self.config().map);
        }
        if !training.lr_unit.is_default() {
            identity["lr_unit"] = serde_json::json!(training.lr_unit);
        }
        let is_library_used = !pool.start.is_default() || !pool.fallback.is_default();
        if let Some(library) = self.library.as_ref().filter(|_| is_library_used) {
            identity["library"] = format!("{:016x}", library.digest()).into();
        }
        identity
    }

    fn shares_parameters(&self) -> bool {
        matches!(self.config().pool.allocation, Allocation::Shared(_)) || !self.config().map.is_none()
    }

    fn begin_pretraining(
        &mut self,
        samples: &[M::Features],
        task: &TaskAt<'_>,
        report: &mut Reporter<'_, PromptNote>,
    ) -> Result<Option<()>, Failure> {
        let Some(gram) = self.gram(samples, task, report)? else { return Ok(None) };
        let anchors = self.anchors(samples)?;
        self.add_subspace(&gram, task, report)?;
        self.prompts.pool.set_anchors(anchors);
        Ok(Some(()))
    }

    fn begin_task(
        &mut self,
        samples: &[M::Features],
        task: &TaskAt<'_>,
        report: &mut Reporter<'_, PromptNote>,
    ) -> Result<Option<PromptTraining>, Failure> {
        let Some(gram) = self.gram(samples, task, report)? else { return Ok(None) };
        // An unusable query is found before hours of training, not after them.
        for (i, sample) in samples.iter().enumerate() {
            queries_of(&self.model, sample, i)?;
        }
        let length = (gram.trace() / gram.n_rows().max(1) as f64).sqrt();
        let mut opened = self.open_prompts(samples, task, length)?;
        let started = self.started(samples, task, &opened)?;
        let guests = self.guests()?;
        self.add_subspace(&gram, task, report)?;
        if self.prompts.pool.guests().is_none() {
            self.prompts.pool.set_guests(guests);
        }
        if let Some(started) = started {
            opened.prompts.copy_from_slice(&started.tokens);
            let (block, scores) = (started.block.clone(), started.scores.clone());
            report.tell(Event::Note {
                task: task.name.to_owned(),
                note: PromptNote::Started { block, scores },
            });
            self.prompts.started.insert(task.number(), started);
        }
        let is_shared = matches!(self.config().pool.allocation, Allocation::Shared(_));
        let first = if is_shared { 0 } else { self.prompts.pool.len() };
        self.prompts.pool.append(opened);
        let mut owners = self.prompts.owners().to_vec();
        owners.resize(self.prompts.pool.len(), task.number());
        self.prompts.own(owners);
        let training = self.training(first, task.number());
        if training.projection.is_zero() {
            report.tell(Event::Note { task: task.name.to_owned(), note: PromptNote::NothingAllowed });
        }
        Ok(Some(training))
    }

    fn skip_task(&mut self, task: &TaskAt<'_>, report: &mut Reporter<'_, PromptNote>) -> Result<(), Failure> {
        self.add_subspace(&Gram::new(self.model.dims().model), task, report)?;
        self.prompts.interference.push(Vec::new());
        Ok(())
    }

    fn gradients(
        &self,
        training: &PromptTraining,
        _task: &TaskAt<'_>,
        batch: &Batch<'_, M::Features>,
    ) -> Result<Gradients, Failure> {
        let (config, pool) = (self.config(), &self.prompts.pool);
        let trained = training.first..pool.len();
        let mut queries = Vec::with_capacity(batch.len());
        for &(i, sample) in &batch.new {
            queries.push(queries_of(&self.model, sample, i)?);
        }
        let mut selections = config.pool.selection.select(pool, &queries, &trained)?;
        // An old sample selects its prompts as at inference, however far it is; of these, the trained ones learn from it.
        for &(stored, sample) in &batch.old {
            // The place of a failure is one of the task that is learnt, so an older sample is named in the text.
            let named = |e: Failure| {
                let what = format!("sample {} of task {}, which is rehearsed", stored.sample, stored.task);
                Failure::from(Rehearsed { what, source: e.source })
            };
            queries.push(queries_of(&self.model, sample, stored.sample).map_err(named)?);
        }
        selections.extend(pool.select_all_however_far(&queries[batch.new.len()..])?);
        let samples: Vec<&M::Features> = batch.samples().collect();
        let prompts = pool.gather_with(&selections, &training.change, training.first)?;
        let BatchGradient { loss, prompts, map } =
            self.gradient(&samples, &prompts, training.map.as_ref())?;
        let of_prompts = scatter(&prompts, &selections, &trained, pool.prompt_size());
        let parameters = self.flat(training.first, map, &of_prompts).into_owned();
        let keyed = config.pool.selection.keyed(&selections, &trained);
        let weight = config.training.key_weight;
        let (key_loss, image_keys, text_keys) = pool.key_loss(&queries, &keyed, weight, trained);
        if !image_keys.iter().chain(&text_keys).all(|x| x.is_finite()) {
            return Err(NotFinite("the gradient of the keys").into());
        }
        let auxiliary = vec![image_keys, text_keys];
        Ok(Gradients { loss, auxiliary_loss: key_loss, parameters, auxiliary })
    }

    fn step(
        &mut self,
        training: &mut PromptTraining,
        gradients: &Gradients,
        factor: f64,
    ) -> Result<StepReport, Failure> {
        let Prompts { config, pool, ledger, .. } = &mut self.prompts;
        let dims = pool.dims();
        let n = pool.len() - training.first;
        let due = [n * dims.image_query, n * dims.text_query];
        if !gradients.auxiliary.iter().map(Vec::len).eq(due) {
            let what = format!("gradients of keys of other sizes than {due:?}");
            return Err(PromptError::Shape { op: "PromptLearner::step", what }.into());
        }
        let max_norm = config.training.max_grad_norm.unwrap_or(f64::INFINITY);
        let n_of_map = training.map.as_ref().map_or(0, MapTraining::len);
        let size = training.change.len();
        let expected = n_of_map + if n_of_map > 0 { pool.prompts.len() } else { size };
        if gradients.parameters.len() != expected {
            let what = format!("a gradient of {} elements, expected {expected}", gradients.parameters.len());
            return Err(PromptError::Shape { op: "PromptLearner::step", what }.into());
        }
        let (of_map, of_pool) = gradients.parameters.split_at(n_of_map);
        let of_prompts = &of_pool[of_pool.len() - size..];
        let (gradient_scale, grad_norm) = clip_factor(of_prompts, max_norm);
        let unit = match config.training.lr_unit {
            LrUnit::One => 1.0,
            // The task's own subspace is recorded before its first step.
            LrUnit::Embedding => {
                let of_task = ledger.entries().last().ok_or_else(|| PromptError::Shape {
                    op: "PromptLearner::step",
                    what: "a ledger without the subspace of a task, whose embeddings are the unit".to_owned(),
                })?;
                of_task.rms_length() / (dims.model as f64).sqrt()
            }
        };
        let lr = config.training.prompts.lr * factor * unit;
        let began = Instant::now();
        // Nothing of the rest is changed if the map cannot take its step.
        let norm_of_map = match &mut training.map {
            None => 0.0,
            Some(map) => {
                let lr = config.map.optimiser.lr * factor;
                let optimiser = AdamW { lr, ..config.map.optimiser };
                map.step(of_map, optimiser, max_norm, (&training.projection, config.project_at))?
            }
        };
        let projected = ProjectedAdamW {
            optimiser: AdamW { lr, ..config.training.prompts },
            projection: &training.projection,
            at: config.project_at,
            gradient_scale,
        };
        let stepped = projected.step(&mut training.prompts, &mut training.change, of_prompts);
        stepped.map_err(|error| match error {
            LinalgError::NotFinite { .. } | LinalgError::Overflow { .. } => {
                NotFinite("the step of the prompts").into()
            }
            other => Failure::from(other),
        })?;
        let optimiser_seconds = began.elapsed().as_secs_f64();
        let optimiser = AdamW { lr: config.training.keys.lr * factor, ..config.training.keys };
        let keys = [
            (&mut training.image_keys, &mut pool.image_keys, dims.image_query),
            (&mut training.text_keys, &mut pool.text_keys, dims.text_query),
        ];
        for ((state, keys, width), gradient) in keys.into_iter().zip(&gradients.auxiliary) {
            optimiser.step(state, &mut keys[training.first * width..], gradient)?;
        }
        let changed = [
            &training.change[..],
            &pool.image_keys[training.first * dims.image_query..],
            &pool.text_keys[training.first * dims.text_query..],
        ];
        // Similarities and subspaces are made of their squares.
        if !changed.iter().copied().flatten().all(|x| (x * x).is_finite()) {
            return Err(NotFinite("the square of an updated prompt or key").into());
        }
        Ok(StepReport { grad_norm: grad_norm.hypot(norm_of_map), lr, optimiser_seconds })
    }

    fn change<'t>(&'t self, training: &'t PromptTraining) -> Change<'t> {
        let of_map = training.map.as_ref().map(|map| map.change.clone());
        let first = if of_map.is_some() { 0 } else { training.first * self.prompts.pool.prompt_size() };
        Change { first, values: self.flat(training.first, of_map, &training.change) }
    }

    fn end_task(
        &mut self,
        training: &PromptTraining,
        samples: &[M::Features],
        task: &TaskAt<'_>,
    ) -> Result<PromptNote, Failure> {
        let Prompts { config, pool, ledger, .. } = &self.prompts;
        let start = training.first * pool.prompt_size();
        let before = &pool.prompts[start..];
        let after: Vec<f32> = before.iter().zip(&training.change).map(|(p, change)| p + change).collect();
        // What is reported is what the stored prompts did, their rounding included.
        let change: Vec<f32> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        let map = training.map.as_ref().and_then(|training| Some(pool.map.as_ref()?.moved(training)));
        let rows_of_map = pool.map.as_ref().zip(map.as_ref());
        let rows_of_map = rows_of_map.map_or_else(Vec::new, |(before, after)| before.rows_changed(after));
        let changed = [change, rows_of_map].concat();
        let interference = ledger.interference(config.rule, task.number(), &changed)?;
        let threshold = self.threshold(samples, training.first..pool.len())?;
        let pool = &mut self.prompts.pool;
        for old in &mut pool.thresholds[training.first..] {
            *old = if *old == f32::NEG_INFINITY { threshold } else { old.min(threshold) };
        }
        pool.prompts[start..].copy_from_slice(&after);
        pool.map = map;
        self.prompts.interference.push(interference.clone());
        Ok(PromptNote::Interference(interference))
    }

    fn gradient_of(&self, sample: &M::Features) -> Result<Vec<f32>, Failure> {
        let pool = &self.prompts.pool;
        let queries = self.model.queries(sample)?;
        let selection = pool.select_all_however_far(&[queries])?;
        // What a full map has learnt no longer matters to its gradient; factors have none once their task is over.
        let map = self.map_training(0, &Projection::identity(pool.dims().model));
        let gradient = self.gradient(&[sample], &pool.gather(&selection)?, map.as_ref())?;
        let of_prompts = scatter(&gradient.prompts, &selection, &(0..pool.len()), pool.prompt_size());
        Ok(self.flat(0, gradient.map, &of_prompts).into_owned())
    }

    fn save(&self, training: Option<&PromptTraining>, section: &mut Section) {
        let info = training.map(|t| TrainingInfo { first: t.first, n_steps: t.prompts.n_steps() });
        self.prompts.write(section, info);
        let Some(training) = training else { return };
        let (dims, len) = (self.prompts.pool.dims(), self.prompts.pool.prompt_len());
        let n = self.prompts.pool.len() - training.first;
        section.put_f32("training.change", &[n, len, dims.model], &training.change);
        for (name, shape, state) in [
            ("prompts", vec![n, len, dims.model], &training.prompts),
            ("image_keys", vec![n, dims.image_query], &training.image_keys),
            ("text_keys", vec![n, dims.text_query], &training.text_keys),
        ] {
            let (first, second) = state.moments();
            section.put_f32(&format!("training.{name}.first"), &shape, first);
            section.put_f32(&format!("training.{name}.second"), &shape, second);
        }
        if let Some(map) = &training.map {
            map.write(section);
        }
    }

    fn load(&mut self, section: &Section) -> Result<Option<PromptTraining>, SectionError> {
        let prompts = Prompts::read(section)?;
        // The loop has compared the identities; how often this run is saved is its own affair.
        self.prompts = Prompts { config: self.prompts.config.clone(), ..prompts };
        let Some(info) = Prompts::training_info(section)? else { return Ok(None) };
        let pool = &self.prompts.pool;
        let (dims, len) = (pool.dims(), pool.prompt_len());
        let too_many = || SectionError("more prompts are trained than there are".to_owned());
        let n = pool.len().checked_sub(info.first).ok_or_else(too_many)?;
        let moments = |name: &str, shape: &[usize]| {
            let [first, second] =
                ["first", "second"].map(|part| section.f32(&format!("training.{name}.{part}"), shape));
            AdamWState::from_moments(first?, second?, info.n_steps).map_err(|e| SectionError(e.to_string()))
        };
        let now = self.prompts.ledger.entries().len().saturating_sub(1);
        let fresh = self.training(info.first, now);
        let map = fresh.map.as_ref().map(|map| map.read(section, info.n_steps)).transpose()?;
        Ok(Some(PromptTraining {
            change: section.f32("training.change", &[n, len, dims.model])?,
            prompts: moments("prompts", &[n, len, dims.model])?,
            image_keys: moments("image_keys", &[n, dims.image_query])?,
            text_keys: moments("text_keys", &[n, dims.text_query])?,
            map,
            ..fresh
        }))
    }
}

impl<M> PromptLearner<M> {
    /// A training of the prompts from `first` on that has taken no step, while the ledger's entry `now` is learnt.
    fn training(&self, first: usize, now: usize) -> PromptTraining {
        let Prompts { config, pool, ledger, .. } = &self.prompts;
        let n = pool.len() - first;
        let size = n * pool.prompt_size();
        let projection = ledger.projection(config.rule, now);
        PromptTraining {
            first,
            change: vec![0.0; size],
            prompts: AdamWState::new(size),
            image_keys: AdamWState::new(n * pool.dims().image_query),
            text_keys: AdamWState::new(n * pool.dims().text_query),
            map: self.map_training(now, &projection),
            projection,
        }
    }

    /// What the map, if there is one, has learnt of task `now` before its first step.
    fn map_training(&self, now: usize, projection: &Projection) -> Option<MapTraining> {
        let Prompts { config, pool, .. } = &self.prompts;
        Some(MapTraining::new(pool.map.as_ref()?, &config.map, config.seed, now, projection))
    }

    /// Numbers of the parameters that a task trains, one after another: without a map those of its prompts; with one those of the map and
    /// then of all prompts, 0 for older ones, so that each has the same place in every task.
    fn flat<'t>(&self, first: usize, of_map: Option<Vec<f32>>, of_prompts: &'t [f32]) -> Cow<'t, [f32]> {
        let Some(mut all) = of_map else { return of_prompts.into() };
        all.resize(all.len() + first * self.prompts.pool.prompt_size(), 0.0);
        all.extend_from_slice(of_prompts);
        all.into()
    }
}
