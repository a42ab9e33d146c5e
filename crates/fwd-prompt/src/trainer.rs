//! The continual loop: subspace, training, evaluation, task after task, in steps that can stop and go on anywhere.
//!
//! ```text
//! V_0 <- subspace of the pre-training samples;   score row 0
//! for t in 1..=T:
//!     one pass over D_t: Gram matrix C_t, queries
//!     V_t <- residual decomposition of C_t
//!     train prompts and keys on D_t with Π_t
//!     score row t
//! ```
//! What a method of [`MethodConfig`](crate::MethodConfig) adds comes through one trait with a default for each place.
//!
//! A run is a chain of small units (a subspace, a step, a score). Each ends in a [`RunState`] that is all that the next one needs:
//! the order of samples and every initial value come from [named streams](crate::stream), not from a generator that moves.

use crate::config::{Allocation, Config, KeyInit, Rejection, TrainingConfig};
use crate::error::{PromptError, Result, linalg_error, model_error};
use crate::event::Event;
use crate::ledger::SubspaceLedger;
use crate::method::{Memory, fisher};
use crate::model::{FrozenModel, LossGradient, PromptBatch, Queries};
use crate::pool::{PromptPool, Selection, initial_values, slot};
use crate::scores::ScoreMatrix;
use crate::state::{Cursor, Phase, RunState, TaskInfo, Training};
use crate::streams::{normal, permutation, stream};
use fwd_linalg::{AdamW, AdamWState, Gram, LinalgError, ProjectedAdamW, Projection, clip_factor};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::time::{Duration, Instant};

/// The training samples of one task.
#[derive(Debug)]
pub struct Task<'a, F> {
    /// Its name, in events, errors and files.
    pub name: String,
    /// Its samples after the frozen pass.
    pub train: &'a [F],
}

/// The tasks of a run, in order.
#[derive(Debug)]
pub struct Curriculum<'a, F> {
    /// Samples of the pre-training tasks, of which V_0 is made; may be empty, then there is no pre-trained subspace.
    pub pretraining: &'a [F],
    /// What is learnt, one after another.
    pub tasks: Vec<Task<'a, F>>,
}

impl<'a, F> Curriculum<'a, F> {
    fn train(&self, t: usize) -> &'a [F] {
        if t == 0 { self.pretraining } else { self.tasks[t - 1].train }
    }

    fn infos(&self) -> Vec<TaskInfo> {
        let pretraining = TaskInfo { name: "pre-training".to_owned(), n_samples: self.pretraining.len() };
        let tasks = self.tasks.iter().map(|t| TaskInfo { name: t.name.clone(), n_samples: t.train.len() });
        std::iter::once(pretraining).chain(tasks).collect()
    }

    /// Columns of the score matrix: the tasks, and the pre-training data if there are any.
    fn n_columns(&self) -> usize {
        self.tasks.len() + usize::from(!self.pretraining.is_empty())
    }
}

/// How a call of [`Trainer::run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All tasks are learnt and scored.
    Finished,
    /// The observer asked to stop; running again goes on.
    Interrupted,
}

/// Gives the score (0–100) of a column with the prompts as they are: column t − 1 is task t, the last one pre-training.
pub type Evaluate<'e, M> =
    &'e mut dyn FnMut(&M, &PromptPool, usize) -> std::result::Result<f64, <M as FrozenModel>::Error>;

/// Sees every [`Event`]; `Break` stops the run.
pub type Observe<'o> = &'o mut dyn FnMut(&Event) -> ControlFlow<()>;

/// Runs a curriculum.
pub struct Trainer<'a, M: FrozenModel> {
    model: &'a M,
    curriculum: Curriculum<'a, M::Features>,
    state: RunState,
    prepared: Option<Prepared>,
    step_time: Duration,
    optimiser_time: Duration,
}

/// What the steps of one task share, all of it computed from state and data.
struct Prepared {
    task: usize,
    queries: Vec<Queries>,
    projection: Projection,
    epoch: usize,
    order: Vec<usize>,
}

/// What a step is made of: losses, and gradients of what is trained.
struct Gradients {
    loss: f64,
    key_loss: f64,
    penalty: f64,
    /// Of the prompts, the penalty's included.
    prompts: Vec<f32>,
    image_keys: Vec<f32>,
    text_keys: Vec<f32>,
}

/// Passes events on and remembers a wish to stop.
struct Reporter<'o> {
    observe: Observe<'o>,
    stop: bool,
}

impl Reporter<'_> {
    fn tell(&mut self, event: Event) {
        self.stop |= (self.observe)(&event).is_break();
    }
}

impl<'a, M: FrozenModel> Trainer<'a, M> {
    /// A run that has not begun.
    ///
    /// # Errors
    /// [`PromptError::Config`].
    pub fn new(model: &'a M, curriculum: Curriculum<'a, M::Features>, config: Config) -> Result<Self> {
        config.check()?;
        let dims = model.dims();
        if dims.model == 0 {
            return Err(PromptError::Config("the model's embeddings have no elements".to_owned()));
        }
        let state = RunState {
            tasks: curriculum.infos(),
            cursor: Cursor { task: 0, phase: Phase::Subspace },
            pool: PromptPool::new(dims, config.pool.prompt_len, config.pool.top_k),
            ledger: SubspaceLedger::new(dims.model),
            training: None,
            scores: ScoreMatrix { n_tasks: curriculum.tasks.len(), rows: Vec::new() },
            interference: Vec::new(),
            memory: Memory::default(),
            config,
        };
        Ok(Self::with_state(model, curriculum, state))
    }

    /// A run that goes on from a folder where [`Self::run`] saved it.
    ///
    /// # Errors
    /// Those of [`RunState::load`]; [`PromptError::State`] if the configuration, the widths of the model, or the names or
    /// sizes of the tasks are not those of the saved run; what the samples hold is not compared.
    pub fn resume(
        model: &'a M,
        curriculum: Curriculum<'a, M::Features>,
        config: &Config,
        dir: &Path,
    ) -> Result<Self> {
        let state = RunState::load(dir)?;
        let other = |what: String| {
            Err(PromptError::State {
                path: dir.to_path_buf(),
                what: format!("{what}; use another folder for another run"),
            })
        };
        // How often a run is saved changes nothing that it computes.
        let saved = Config { save_every: config.save_every, ..state.config.clone() };
        if saved != *config {
            return other(format!("the saved run has another configuration: {saved:?}, not {config:?}"));
        }
        if state.pool.dims() != model.dims() {
            return other(format!(
                "the saved run has {:?}, the model has {:?}",
                state.pool.dims(),
                model.dims()
            ));
        }
        if state.tasks != curriculum.infos() {
            let found = curriculum.infos();
            return other(format!("the saved run has the tasks {:?}, the data are {found:?}", state.tasks));
        }
        Ok(Self::with_state(model, curriculum, RunState { config: config.clone(), ..state }))
    }

    fn with_state(model: &'a M, curriculum: Curriculum<'a, M::Features>, state: RunState) -> Self {
        let (step_time, optimiser_time) = Default::default();
        Self { model, curriculum, state, prepared: None, step_time, optimiser_time }
    }

    /// Everything computed so far.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// Goes on until all tasks are learnt and scored, or the observer says stop. With a folder, the state is saved there after
    /// each phase, every [`Config::save_every`] steps, and on stopping.
    ///
    /// # Errors
    /// [`PromptError`] that names the task and the sample, step or file. The state is that before the failed unit.
    pub fn run(
        &mut self,
        dir: Option<&Path>,
        evaluate: Evaluate<'_, M>,
        observe: Observe<'_>,
    ) -> Result<Status> {
        let mut report = Reporter { observe, stop: false };
        while self.state.cursor.phase != Phase::Done && !report.stop {
            let is_unit_saved = match self.state.cursor.phase {
                Phase::Subspace => self.find_subspace(&mut report)?,
                Phase::Train(step) => self.train_step(step, &mut report)?,
                Phase::Evaluate(column) => self.evaluate(column, &mut *evaluate, &mut report)?,
                Phase::Done => true,
            };
            if let Some(dir) = dir
                && (is_unit_saved || report.stop)
            {
                self.state.save(dir)?;
                report.tell(Event::Saved { path: dir.join("state.json") });
            }
        }
        Ok(if self.state.cursor.phase == Phase::Done { Status::Finished } else { Status::Interrupted })
    }

    /// The pass over a task's embeddings.
    fn find_subspace(&mut self, report: &mut Reporter<'_>) -> Result<bool> {
        let t = self.state.cursor.task;
        let name = self.state.tasks[t].name.clone();
        let samples = self.curriculum.train(t);
        let Some(gram) = gram_of(self.model, &name, samples, report)? else { return Ok(false) };
        let opened = if t > 0 && !samples.is_empty() {
            Some(self.open_prompts(t, (gram.trace() / gram.n_rows().max(1) as f64).sqrt())?)
        } else {
            None
        };
        let options = self.state.config.subspace.of_task(t);
        let entry = self
            .state
            .ledger
            .add(&name, &gram, &options)
            .map_err(|e| linalg_error(&name, "subspace", e))?
            .clone();
        let capacity_left = self.state.ledger.capacity_left();
        let n_rows = entry.n_rows;
        match opened {
            Some((pool, training)) => (self.state.pool, self.state.training) = (pool, Some(training)),
            None if t > 0 => {
                self.state.interference.push(Vec::new());
                report.tell(Event::NoSamples { task: name.clone() });
            }
            None => {}
        }
        let (rank, captured_before, captured) = (entry.basis.len(), entry.captured_before, entry.captured);
        let task = name.clone();
        report.tell(Event::Subspace { task, n_rows, rank, captured_before, captured, capacity_left });
        if capacity_left == 0 {
            report.tell(Event::CapacityExhausted { task: name });
        }
        let trains = self.state.training.is_some();
        self.state.cursor.phase = if trains { Phase::Train(0) } else { Phase::Evaluate(0) };
        self.finish_training_if_over(0, report)?;
        self.skip_missing_column();
        Ok(true)
    }

    /// The pool with the prompts of a task, ready to be trained. `length` is the root mean square length of its embeddings.
    fn open_prompts(&self, t: usize, length: f64) -> Result<(PromptPool, Training)> {
        let config = &self.state.config;
        let dims = self.model.dims();
        let mut pool = self.state.pool.clone();
        let n_new = config.pool.allocation.n_new(pool.len());
        let first = if matches!(config.pool.allocation, Allocation::Shared(_)) { 0 } else { pool.len() };
        let samples = self.curriculum.train(t);
        let indices = [t as u64, 0];
        let order = permutation(&mut stream(config.seed, "key samples", indices), samples.len());
        let values = initial_values(config, dims.model, t, n_new, length);
        let mut keys = stream(config.seed, "keys", indices);
        for i in 0..n_new {
            let key = match config.pool.key_init {
                KeyInit::Normal => Queries {
                    image: normal(&mut keys, dims.image_query, 1.0),
                    text: normal(&mut keys, dims.text_query, 1.0),
                },
                KeyInit::Queries => {
                    let sample = order[i % order.len()];
                    queries_of(self.model, &self.state.tasks[t].name, sample, &samples[sample])?
                }
            };
            pool.push(&key.image, &key.text, slot(&values, i, pool.prompt_size()))?;
        }
        let n = pool.len() - first;
        let size = n * pool.prompt_size();
        let training = Training {
            first,
            change: vec![0.0; size],
            prompts: AdamWState::new(size),
            image_keys: AdamWState::new(n * dims.image_query),
            text_keys: AdamWState::new(n * dims.text_query),
        };
        Ok((pool, training))
    }

    /// The score from which on a sample is near enough to the prompts of the task just learnt.
    fn floor(&self, t: usize, trained: Range<usize>) -> Result<f32> {
        let Rejection::BelowQuantile(q) = self.state.config.pool.rejection else {
            return Ok(f32::NEG_INFINITY);
        };
        let pool = &self.state.pool;
        let best = |queries: &Queries| {
            let scores = pool.select_among(queries, trained.clone())?.scores;
            Ok(scores.first().copied().unwrap_or(f32::NEG_INFINITY))
        };
        let mut best = self.all_queries(t)?.iter().map(best).collect::<Result<Vec<f32>>>()?;
        best.sort_by(f32::total_cmp);
        let at = (best.len().saturating_sub(1) as f64 * q) as usize;
        Ok(best.get(at).copied().unwrap_or(f32::NEG_INFINITY))
    }

    /// The queries of a task's samples.
    fn all_queries(&self, t: usize) -> Result<Vec<Queries>> {
        let name = &self.state.tasks[t].name;
        let samples = self.curriculum.train(t).iter().enumerate();
        samples.map(|(i, sample)| queries_of(self.model, name, i, sample)).collect()
    }

    /// Samples of the current task in a batch; the method may fill the rest with old ones.
    fn n_new(&self) -> usize {
        let config = &self.state.config;
        config.training.batch_size - config.method.hook().n_rehearsed(&self.state)
    }

    fn steps_per_epoch(&self) -> usize {
        self.curriculum.train(self.state.cursor.task).len().div_ceil(self.n_new())
    }

    fn n_steps(&self) -> usize {
        let training = &self.state.config.training;
        training.steps.unwrap_or_else(|| self.steps_per_epoch() * training.epochs)
    }

    /// Queries, projection and order of samples for a step of the current task.
    fn prepare(&mut self, step: usize) -> Result<()> {
        let t = self.state.cursor.task;
        let (epoch, seed) = (step / self.steps_per_epoch(), self.state.config.seed);
        let n = self.curriculum.train(t).len();
        let order = || permutation(&mut stream(seed, "order", [t as u64, epoch as u64]), n);
        let ready = match self.prepared.take().filter(|ready| ready.task == t) {
            Some(ready) if ready.epoch == epoch => ready,
            Some(ready) => Prepared { epoch, order: order(), ..ready },
            None => Prepared {
                task: t,
                queries: self.all_queries(t)?,
                projection: self.state.ledger.projection(self.state.config.rule, t),
                epoch,
                order: order(),
            },
        };
        self.prepared = Some(ready);
        Ok(())
    }

    /// One training step: select, run, project, update prompts and keys.
    fn train_step(&mut self, step: usize, report: &mut Reporter<'_>) -> Result<bool> {
        let of = self.n_steps();
        if step >= of {
            // The steps are done, what follows them was stopped or failed.
            return self.finish_training_if_over(step, report);
        }
        let start = Instant::now();
        let task = self.state.tasks[self.state.cursor.task].name.clone();
        let at = format!("step {}", step + 1);
        self.prepare(step)?;
        let Some(ready) = &self.prepared else { unreachable!("`prepare` has just run") };
        if step == 0 && ready.projection.is_zero() {
            report.tell(Event::NothingAllowed { task: task.clone() });
        }
        let found = self.gradients(ready, step, &task, &at)?;
        let Some(training) = &mut self.state.training else {
            unreachable!("the phase `Train` has a training");
        };
        let config = &self.state.config.training;
        let (gradient_scale, grad_norm) =
            clip_factor(&found.prompts, config.max_grad_norm.unwrap_or(f64::INFINITY));
        let factor = config.schedule.factor(step, of);
        let lr = config.prompts.lr * factor;
        let began = Instant::now();
        let projected = ProjectedAdamW {
            optimiser: AdamW { lr, ..config.prompts },
            projection: &ready.projection,
            at: self.state.config.project_at,
            gradient_scale,
        };
        projected
            .step(&mut training.prompts, &mut training.change, &found.prompts)
            .map_err(|e| linalg_error(&task, &at, e))?;
        let optimiser_time = began.elapsed();
        let keys = [&found.image_keys[..], &found.text_keys];
        train_keys(&mut self.state.pool, training, config, factor, keys)
            .map_err(|e| linalg_error(&task, &at, e))?;
        self.state.cursor.phase = Phase::Train(step + 1);
        let time = start.elapsed();
        self.step_time += time;
        self.optimiser_time += optimiser_time;
        let (seconds, optimiser_seconds) = (time.as_secs_f64(), optimiser_time.as_secs_f64());
        let Gradients { loss, key_loss, penalty, .. } = found;
        let step = step + 1;
        report.tell(Event::Step {
            task,
            step,
            of,
            loss,
            key_loss,
            penalty,
            grad_norm,
            lr,
            seconds,
            optimiser_seconds,
        });
        let is_over = self.finish_training_if_over(step, report)?;
        let every = self.state.config.save_every;
        Ok(is_over || (every > 0 && step.is_multiple_of(every)))
    }

    /// Losses and gradients of a step.
    fn gradients(&self, ready: &Prepared, step: usize, task: &str, at: &str) -> Result<Gradients> {
        let Some(training) = &self.state.training else {
            unreachable!("the phase `Train` has a training");
        };
        let (config, hook) = (&self.state.config.training, self.state.config.method.hook());
        let pool = &self.state.pool;
        let trained = training.first..pool.len();
        let n_new = self.n_new();
        let from = step % self.steps_per_epoch() * n_new;
        let batch = &ready.order[from..(from + n_new).min(ready.order.len())];
        let (old_features, old_queries) = self.rehearsed(step)?;
        let new_queries = batch.iter().map(|&i| &ready.queries[i]);
        let mut selections: Vec<Selection> =
            new_queries.clone().map(|q| hook.select(pool, q, &trained)).collect::<Result<_>>()?;
        for queries in &old_queries {
            selections.push(pool.select_among(queries, 0..pool.len())?);
        }
        let queries: Vec<&Queries> = new_queries.chain(&old_queries).collect();
        let samples = self.curriculum.train(self.state.cursor.task);
        let features: Vec<&M::Features> = batch.iter().map(|&i| &samples[i]).chain(old_features).collect();
        let prompts = pool.gather_with(&selections, &training.change, training.first)?;
        let found = self.model.loss_gradient(&features, &prompts).map_err(|e| model_error(task, at, e))?;
        check_loss(&found, &prompts, task, at)?;
        let mut gradient = scatter(&found.gradient, &selections, &trained, pool.prompt_size());
        let start = training.first * pool.prompt_size();
        let penalty = hook.penalise(&self.state.memory, start, &training.change, &mut gradient);
        let keyed = hook.keyed(&selections, &trained);
        let (key_loss, image_keys, text_keys) =
            pool.key_loss(&queries, &keyed, config.key_weight, trained.clone());
        if !image_keys.iter().chain(&text_keys).all(|x| x.is_finite()) {
            let (task, at) = (task.to_owned(), at.to_owned());
            return Err(PromptError::NotFinite { task, at, what: "the gradient of the keys" });
        }
        Ok(Gradients { loss: found.loss, key_loss, penalty, prompts: gradient, image_keys, text_keys })
    }

    /// The old samples of a step, with their queries.
    fn rehearsed(&self, step: usize) -> Result<(Vec<&'a M::Features>, Vec<Queries>)> {
        let chosen = self.state.config.method.hook().rehearsed(&self.state, step);
        let found = chosen.iter().map(|old| {
            let features = &self.curriculum.train(old.task)[old.sample];
            let name = &self.state.tasks[old.task].name;
            Ok((features, queries_of(self.model, name, old.sample, features)?))
        });
        Ok(found.collect::<Result<Vec<_>>>()?.into_iter().unzip())
    }

    /// The Fisher information of the task just learnt, if the method wants it; none if the observer wants to stop.
    fn fisher(&self, task: &str, report: &mut Reporter<'_>) -> Result<Option<Vec<f64>>> {
        let samples = self.state.config.method.hook().fisher_samples(&self.state);
        let mut done = 0;
        fisher(&samples, |sample| {
            let gradient = self.gradient_of(task, sample)?;
            done += 1;
            report.tell(Event::Fisher { task: task.to_owned(), done, of: samples.len() });
            Ok((!report.stop).then_some(gradient))
        })
    }

    /// The gradient of the loss of one sample of the current task with respect to all prompts.
    fn gradient_of(&self, task: &str, sample: usize) -> Result<Vec<f32>> {
        let (pool, at) = (&self.state.pool, format!("sample {sample}"));
        let features = &self.curriculum.train(self.state.cursor.task)[sample];
        let queries = queries_of(self.model, task, sample, features)?;
        let selection = [pool.select_among(&queries, 0..pool.len())?];
        let (change, first) = match &self.state.training {
            Some(training) => (&training.change[..], training.first),
            None => (&[][..], 0),
        };
        let prompts = pool.gather_with(&selection, change, first)?;
        let found = self.model.loss_gradient(&[features], &prompts).map_err(|e| model_error(task, &at, e))?;
        check_loss(&found, &prompts, task, &at)?;
        Ok(scatter(&found.gradient, &selection, &(0..pool.len()), pool.prompt_size()))
    }

    /// After the last step of a task: the prompts take up their change.
    fn finish_training_if_over(&mut self, step: usize, report: &mut Reporter<'_>) -> Result<bool> {
        if self.state.training.is_none() || step < self.n_steps() {
            return Ok(false);
        }
        let t = self.state.cursor.task;
        let task = self.state.tasks[t].name.clone();
        let Some(training) = &self.state.training else { return Ok(false) };
        let Some(fisher) = self.fisher(&task, report)? else { return Ok(false) };
        let memory = self.state.config.method.hook().remember(&self.state, &fisher);
        let start = training.first * self.state.pool.prompt_size();
        let before = &self.state.pool.prompts[start..];
        let after: Vec<f32> = before.iter().zip(&training.change).map(|(p, change)| p + change).collect();
        // What is reported is what the stored prompts did, their rounding included.
        let change: Vec<f32> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        let interference = self
            .state
            .ledger
            .interference(self.state.config.rule, t, &change)
            .map_err(|e| linalg_error(&task, "interference", e))?;
        let floor = self.floor(t, training.first..self.state.pool.len())?;
        for old in &mut self.state.pool.floors[training.first..] {
            *old = if *old == f32::NEG_INFINITY { floor } else { old.min(floor) };
        }
        self.state.pool.prompts[start..].copy_from_slice(&after);
        self.state.memory = memory;
        self.state.training = None;
        self.state.interference.push(interference.clone());
        self.state.cursor.phase = Phase::Evaluate(0);
        self.prepared = None;
        let optimiser_share =
            self.optimiser_time.as_secs_f64() / self.step_time.as_secs_f64().max(f64::MIN_POSITIVE);
        report.tell(Event::Learnt { task, interference, optimiser_share });
        self.skip_missing_column();
        Ok(true)
    }

    /// One entry of the score matrix.
    fn evaluate(
        &mut self,
        column: usize,
        evaluate: Evaluate<'_, M>,
        report: &mut Reporter<'_>,
    ) -> Result<bool> {
        let t = self.state.cursor.task;
        let is_pretraining = column == self.curriculum.tasks.len();
        let task = self.state.tasks[if is_pretraining { 0 } else { column + 1 }].name.clone();
        let at = format!("evaluation after {t} tasks");
        let score = evaluate(self.model, &self.state.pool, column).map_err(|e| model_error(&task, &at, e))?;
        if !score.is_finite() {
            return Err(PromptError::NotFinite { task, at, what: "the score" });
        }
        let rows = &mut self.state.scores.rows;
        rows.resize_with((t + 1).max(rows.len()), Vec::new);
        rows[t].push(score);
        self.state.cursor.phase = Phase::Evaluate(column + 1);
        report.tell(Event::Scored { after: t, task, score });
        self.skip_missing_column();
        Ok(true)
    }

    /// Behind the last column comes the next task, or the end.
    fn skip_missing_column(&mut self) {
        let Cursor { task, phase } = self.state.cursor;
        if phase == Phase::Evaluate(self.curriculum.n_columns()) {
            let is_last = task == self.curriculum.tasks.len();
            let next = Cursor { task: task + 1, phase: Phase::Subspace };
            self.state.cursor = if is_last { Cursor { task, phase: Phase::Done } } else { next };
        }
    }
}

/// The Gram matrix of a task's embeddings; none if the observer wants to stop.
fn gram_of<M: FrozenModel>(
    model: &M,
    task: &str,
    samples: &[M::Features],
    report: &mut Reporter<'_>,
) -> Result<Option<Gram>> {
    let mut gram = Gram::new(model.dims().model);
    for (sample, features) in samples.iter().enumerate() {
        let rows =
            model.embeddings(features).map_err(|e| model_error(task, &format!("sample {sample}"), e))?;
        for rows in [&rows.image, &rows.text] {
            gram.push(rows).map_err(|source| PromptError::Sample {
                task: task.to_owned(),
                sample,
                source,
            })?;
        }
        report.tell(Event::Embedded { task: task.to_owned(), done: sample + 1, of: samples.len() });
        if report.stop {
            return Ok(None);
        }
    }
    Ok(Some(gram))
}

/// The queries of a sample, which must be finite: they become keys, and choose prompts.
fn queries_of<M: FrozenModel>(
    model: &M,
    task: &str,
    sample: usize,
    features: &M::Features,
) -> Result<Queries> {
    let queries = model.queries(features).map_err(|e| model_error(task, &format!("sample {sample}"), e))?;
    match queries.image.iter().chain(&queries.text).position(|x| !x.is_finite()) {
        Some(column) => {
            let source = LinalgError::NotFinite { op: "queries, image then text", row: 0, column };
            Err(PromptError::Sample { task: task.to_owned(), sample, source })
        }
        None => Ok(queries),
    }
}

/// The gradient of each trained prompt: the sum over the samples that selected it.
fn scatter(gradient: &[f32], selections: &[Selection], trained: &Range<usize>, size: usize) -> Vec<f32> {
    let mut out = vec![0.0; trained.len() * size];
    let chosen = selections.iter().flat_map(|s| &s.prompts);
    for (&j, gradient) in chosen.zip(gradient.chunks_exact(size)) {
        if !trained.contains(&j) {
            continue;
        }
        let at = (j - trained.start) * size;
        out[at..at + size].iter_mut().zip(gradient).for_each(|(out, g)| *out += g);
    }
    out
}

fn train_keys(
    pool: &mut PromptPool,
    training: &mut Training,
    config: &TrainingConfig,
    factor: f64,
    [image, text]: [&[f32]; 2],
) -> std::result::Result<(), LinalgError> {
    let optimiser = AdamW { lr: config.keys.lr * factor, ..config.keys };
    let dims = pool.dims();
    let image_keys = &mut pool.image_keys[training.first * dims.image_query..];
    optimiser.step(&mut training.image_keys, image_keys, image)?;
    let text_keys = &mut pool.text_keys[training.first * dims.text_query..];
    optimiser.step(&mut training.text_keys, text_keys, text)
}

fn check_loss(found: &LossGradient, prompts: &PromptBatch, task: &str, at: &str) -> Result<()> {
    if found.gradient.len() != prompts.values.len() {
        let what = format!(
            "task `{task}`: a gradient of {} elements for prompts of {}",
            found.gradient.len(),
            prompts.values.len()
        );
        return Err(PromptError::Shape { op: "loss_gradient", what });
    }
    let what = if !found.loss.is_finite() {
        "the loss"
    } else if !found.gradient.iter().all(|x| x.is_finite()) {
        "the gradient"
    } else {
        return Ok(());
    };
    Err(PromptError::NotFinite { task: task.to_owned(), at: at.to_owned(), what })
}
