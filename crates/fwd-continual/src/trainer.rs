//! The continual loop: task after task, in units of work that can stop and go on anywhere.
//!
//! Each unit (a step, a score, the end of a task) ends in a state that is all that the next one needs: the order of samples and every
//! first value come from [named streams](crate::stream), not from a generator that moves.

use crate::curriculum::{Column, Curriculum, Moment, PRETRAINING, StoredSample, TaskId};
use crate::error::{ContinualError, Failure, NotFinite, Place, Result};
use crate::event::{Event, Observe, Reporter};
use crate::learner::{Batch, Gradients, Learner, TaskAt};
use crate::loop_state::{LEARNER, LOOP, LoopState, METHOD};
use crate::method::{Method, StepAt, StepView, TaskView};
use crate::plan::Plan;
use crate::saved::{Kept, SavedState, SectionError, misfit};
use crate::scores::ScoreMatrix;
use crate::stage::{Route, Stage};
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

/// How a call of [`Trainer::run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All tasks are learnt and scored.
    Finished,
    /// The observer asked to stop; running again goes on.
    Interrupted,
}

/// Gives the score (0–100) of a column at a moment, with the learner as it is.
pub type Evaluate<'e, L, E> = &'e mut dyn FnMut(&L, Moment, Column) -> std::result::Result<f64, E>;

/// Whether the state should be saved after a unit of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checkpoint {
    Due,
    NotYet,
}

/// What a unit of work came to.
enum Unit<T> {
    /// It was stopped before it was done: nothing has changed.
    Stopped,
    /// A training step was taken.
    Stepped,
    /// The stage is over, another one follows.
    Ended(Stage<T>),
}

/// Runs a curriculum with a learner and a method.
pub struct Trainer<L: Learner, D> {
    learner: L,
    method: Box<dyn Method>,
    curriculum: Curriculum<D>,
    plan: Plan,
    route: Route,
    stage: Stage<L::Training>,
    scores: ScoreMatrix,
    epoch: Option<Epoch>,
    time: StepTime,
    /// What the folder that was saved to last holds.
    kept: Option<Kept>,
    /// Whether the sections of learner and method there are those of now: scores do not change them.
    is_learning_kept: bool,
}

impl<L: Learner, D> std::fmt::Debug for Trainer<L, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer")
            .field("learner", &self.learner.kind())
            .field("method", &self.method.name())
            .field("stage", &self.stage.position())
            .field("scores", &self.scores)
            .finish_non_exhaustive()
    }
}

/// The order of the samples in one pass over a task.
struct Epoch {
    task: TaskId,
    number: usize,
    order: Vec<usize>,
}

/// Time of the steps since the start or the resume.
#[derive(Default)]
struct StepTime {
    all: Duration,
    optimiser_seconds: f64,
}

impl<L: Learner, D: AsRef<[L::Sample]>> Trainer<L, D> {
    /// A run that has not begun.
    ///
    /// # Errors
    /// [`ContinualError::Config`].
    pub fn new(learner: L, method: Box<dyn Method>, curriculum: Curriculum<D>, plan: Plan) -> Result<Self> {
        plan.check()?;
        method.check(&plan).map_err(ContinualError::Config)?;
        let scores = ScoreMatrix { n_tasks: curriculum.tasks.len(), rows: Vec::new() };
        let route = Route::new(curriculum.columns());
        let (stage, epoch, time) = (Stage::Pretraining, None, StepTime::default());
        let (kept, is_learning_kept) = (None, false);
        Ok(Self {
            learner,
            method,
            curriculum,
            plan,
            route,
            stage,
            scores,
            epoch,
            time,
            kept,
            is_learning_kept,
        })
    }

    /// A run that goes on from a folder where [`Self::run`] saved it. `learner` and `method` are as they were before the run began.
    ///
    /// # Errors
    /// Those of [`Self::new`] and [`SavedState::load`]; [`ContinualError::State`] if plan, method, learner, or names or sizes of the
    /// tasks are not those of the saved run. What the samples hold is not compared.
    pub fn resume(
        learner: L,
        method: Box<dyn Method>,
        curriculum: Curriculum<D>,
        plan: Plan,
        dir: &Path,
    ) -> Result<Self> {
        let mut trainer = Self::new(learner, method, curriculum, plan)?;
        let (state, kept) = SavedState::load_kept(dir)?;
        let saved = LoopState::of(&state).map_err(|e| misfit(dir, LOOP, &e))?;
        let own = trainer.loop_state();
        let other = |what: String| {
            let what = format!("{what}; use another folder for another run");
            Err(ContinualError::State { path: dir.to_path_buf(), what })
        };
        let differences = crate::differences::differences(&saved.identity(), &own.identity());
        if !differences.is_empty() {
            return other(format!("the saved run has another configuration: {}", differences.join("; ")));
        }
        if (&saved.tasks, saved.n_pretraining) != (&own.tasks, own.n_pretraining) {
            let (there, here) = ((&saved.tasks, saved.n_pretraining), (&own.tasks, own.n_pretraining));
            return other(format!(
                "the saved run has the tasks and pre-training samples {there:?}, the data are {here:?}"
            ));
        }
        let section = |name| state.section(name);
        let training = section(LEARNER)
            .and_then(|section| trainer.learner.load(section))
            .map_err(|e| misfit(dir, LEARNER, &e))?;
        section(METHOD)
            .and_then(|section| trainer.method.load(section, &own.tasks))
            .map_err(|e| misfit(dir, METHOD, &e))?;
        let stage = if trainer.route.has(&saved.stage) { saved.stage.with_training(training) } else { None };
        let unfit = || misfit(dir, LOOP, &SectionError(format!("{:?} does not fit the rest", saved.stage)));
        trainer.stage = stage.ok_or_else(unfit)?;
        trainer.scores = saved.scores;
        trainer.kept = Some(kept);
        Ok(trainer)
    }

    /// The learner as it is.
    pub fn learner(&self) -> &L {
        &self.learner
    }

    /// The method as it is.
    pub fn method(&self) -> &dyn Method {
        &*self.method
    }

    /// The scores so far.
    pub fn scores(&self) -> &ScoreMatrix {
        &self.scores
    }

    /// What is done next.
    pub fn stage(&self) -> Stage {
        self.stage.position()
    }

    /// What the loop saves of itself.
    pub fn loop_state(&self) -> LoopState {
        self.loop_state_with(self.scores.rows.clone())
    }

    fn loop_state_with(&self, rows: Vec<Vec<f64>>) -> LoopState {
        LoopState {
            stage: self.stage.position(),
            tasks: self.curriculum.infos(),
            n_pretraining: self.curriculum.pretraining.as_ref().len(),
            scores: ScoreMatrix { n_tasks: self.scores.n_tasks, rows },
            plan: self.plan.clone(),
            method: (self.method.name().to_owned(), self.method.options()),
            learner: (self.learner.kind().to_owned(), self.learner.identity()),
        }
    }

    /// Everything that a run needs to go on.
    pub fn saved_state(&self) -> SavedState {
        let mut state = SavedState::default();
        self.write_loop(&mut state);
        self.write_learning(&mut state);
        state
    }

    fn write_loop(&self, state: &mut SavedState) {
        let section = state.section_mut(LOOP);
        let rows = LoopState::seal_rows(&self.scores.rows, self.route.n_columns(), section);
        section.set_info(&self.loop_state_with(rows));
    }

    fn write_learning(&self, state: &mut SavedState) {
        self.learner.save(self.stage.training(), state.section_mut(LEARNER));
        self.method.save(state.section_mut(METHOD));
    }

    /// Saves what a folder does not hold yet.
    fn save(&mut self, dir: &Path) -> Result<()> {
        let kept = Kept::of(self.kept.as_ref(), dir);
        let same: &[&str] = if kept.is_some() && self.is_learning_kept { &[LEARNER, METHOD] } else { &[] };
        let mut state = SavedState::after(kept);
        self.write_loop(&mut state);
        if same.is_empty() {
            self.write_learning(&mut state);
        } else {
            for name in same {
                state.section_mut(name);
            }
        }
        let saved = state.save_after(dir, kept, same);
        // After a failure nobody knows what the folder holds.
        (self.kept, self.is_learning_kept) = (None, true);
        self.kept = Some(saved?);
        Ok(())
    }

    /// Goes on until all tasks are learnt and scored, or the observer says stop. With a folder, the state is saved there after each
    /// stage, every [`Plan::save_every`] steps, and on stopping.
    ///
    /// # Errors
    /// [`ContinualError`] that names the task and the sample, step or file. The state in memory is that before the failed unit of work,
    /// or, if it could not be saved, that after it. The folder is the caller's: a state of another run in it is replaced.
    pub fn run<E: Into<Box<dyn Error + Send + Sync>>>(
        &mut self,
        dir: Option<&Path>,
        evaluate: Evaluate<'_, L, E>,
        observe: Observe<'_, L::Note>,
    ) -> Result<Status> {
        let mut report = Reporter::new(observe);
        while !matches!(self.stage, Stage::Done) && !report.is_stopped() {
            let checkpoint = self.advance(&mut *evaluate, &mut report)?;
            if let Some(dir) = dir
                && (checkpoint == Checkpoint::Due || report.is_stopped())
            {
                self.save(dir)?;
                report.tell(Event::Saved { path: SavedState::manifest(dir) });
            }
        }
        Ok(if matches!(self.stage, Stage::Done) { Status::Finished } else { Status::Interrupted })
    }

    /// One unit of work.
    fn advance<E: Into<Box<dyn Error + Send + Sync>>>(
        &mut self,
        evaluate: Evaluate<'_, L, E>,
        report: &mut Reporter<'_, L::Note>,
    ) -> Result<Checkpoint> {
        self.is_learning_kept &= matches!(self.stage, Stage::Evaluate { .. });
        let Self { learner, method, curriculum, plan, route, stage, scores, epoch, time, .. } = self;
        let mut work = Work { learner, method: &mut **method, curriculum, plan, route, epoch, time };
        let unit = match stage {
            Stage::Pretraining => work.pretraining(report)?,
            Stage::Begin(task) => work.begin(*task, report)?,
            Stage::Train { task, step, training } => work.train(*task, step, training, report)?,
            Stage::Remember(task) => work.remember(*task, report)?,
            Stage::Evaluate { moment, column } => {
                let (score, next) = work.evaluate(*moment, *column, evaluate, report)?;
                let row = moment.n_learnt();
                scores.rows.resize_with((row + 1).max(scores.rows.len()), Vec::new);
                scores.rows[row].push(score);
                Unit::Ended(next)
            }
            Stage::Done => return Ok(Checkpoint::NotYet),
        };
        Ok(match unit {
            Unit::Stopped => {
                // Whoever stopped a unit of work wants the run to stop, not the same unit again.
                report.stop();
                Checkpoint::NotYet
            }
            Unit::Stepped => match stage {
                Stage::Train { step, .. } if plan.save_every > 0 && step.is_multiple_of(plan.save_every) => {
                    Checkpoint::Due
                }
                _ => Checkpoint::NotYet,
            },
            Unit::Ended(next) => {
                *stage = next;
                Checkpoint::Due
            }
        })
    }
}

/// What the units of work share.
struct Work<'a, L: Learner, D> {
    learner: &'a mut L,
    method: &'a mut dyn Method,
    curriculum: &'a Curriculum<D>,
    plan: &'a Plan,
    route: &'a Route,
    epoch: &'a mut Option<Epoch>,
    time: &'a mut StepTime,
}

impl<'a, L: Learner, D: AsRef<[L::Sample]>> Work<'a, L, D> {
    fn at(&self, task: TaskId) -> TaskAt<'a> {
        let name = self.curriculum.name(Column::Task(task));
        TaskAt { id: Some(task), name, seed: self.plan.seed }
    }

    fn pretraining(&mut self, report: &mut Reporter<'_, L::Note>) -> Result<Unit<L::Training>> {
        let at = TaskAt { id: None, name: PRETRAINING, seed: self.plan.seed };
        let samples = self.curriculum.pretraining.as_ref();
        let done = self.learner.begin_pretraining(samples, &at, report);
        let done = done.map_err(|e| ContinualError::of(PRETRAINING, Place::Begin, e))?;
        Ok(match done {
            Some(()) => Unit::Ended(self.route.scores(Moment::START)),
            None => Unit::Stopped,
        })
    }

    fn begin(&mut self, task: TaskId, report: &mut Reporter<'_, L::Note>) -> Result<Unit<L::Training>> {
        let at = self.at(task);
        let samples = self.curriculum.train(task);
        let failed = |e| ContinualError::of(at.name, Place::Begin, e);
        if samples.is_empty() {
            self.learner.skip_task(&at, report).map_err(failed)?;
            report.tell(Event::NoSamples { task: at.name.to_owned() });
            return Ok(Unit::Ended(self.route.scores(Moment::after(task))));
        }
        Ok(match self.learner.begin_task(samples, &at, report).map_err(failed)? {
            Some(training) => Unit::Ended(Stage::Train { task, step: 0, training }),
            None => Unit::Stopped,
        })
    }

    /// Samples of the current task in a batch; old ones fill the rest.
    fn n_new(&self) -> usize {
        self.plan.batch_size.saturating_sub(self.method.n_rehearsed(self.plan)).max(1)
    }

    fn train(
        &mut self,
        task: TaskId,
        step: &mut usize,
        training: &mut L::Training,
        report: &mut Reporter<'_, L::Note>,
    ) -> Result<Unit<L::Training>> {
        let (at, samples) = (self.at(task), self.curriculum.train(task));
        let n_new = self.n_new();
        let per_epoch = samples.len().div_ceil(n_new);
        let of = self.plan.steps.unwrap_or(per_epoch * self.plan.epochs);
        if *step >= of {
            return self.end(task, training, report);
        }
        let began = Instant::now();
        let number = *step + 1;
        let failed = |e| ContinualError::of_step(at.name, number, e);
        let from = *step % per_epoch * n_new;
        let order = self.order(&at, task, *step / per_epoch, samples.len()).map_err(failed)?;
        let chosen = &order[from..(from + n_new).min(order.len())];
        let new: Vec<(usize, &L::Sample)> = chosen.iter().map(|&i| (i, &samples[i])).collect();
        let now = StepAt { plan: self.plan, task, step: *step };
        let old = self.method.rehearsed(&now);
        if old.len() != self.method.n_rehearsed(self.plan) {
            let due = self.method.n_rehearsed(self.plan);
            return Err(failed(format!("the method brings {} old samples, not {due}", old.len()).into()));
        }
        let old = self.stored(&old).map_err(failed)?;
        let batch = Batch { new, old };
        let mut gradients = self.learner.gradients(training, &at, &batch).map_err(failed)?;
        check(&gradients).map_err(failed)?;
        let (learner, this) = (&*self.learner, &*self);
        let mut gradient_of = |chosen: &[StoredSample]| {
            let batch = Batch { new: Vec::new(), old: this.stored(chosen)? };
            let gradients = learner.gradients(training, &at, &batch)?;
            check(&gradients)?;
            Ok(gradients.parameters)
        };
        let penalty = self.method.adjust(&mut StepView {
            at: now,
            change: &|| learner.change(training),
            gradient: &mut gradients.parameters,
            gradient_of: &mut gradient_of,
        });
        let penalty = penalty.map_err(failed)?;
        check(&gradients).map_err(failed)?;
        if !penalty.is_finite() {
            return Err(failed(NotFinite("the penalty of the method").into()));
        }
        let factor = self.plan.schedule.factor(*step, of);
        let done = self.learner.step(training, &gradients, factor).map_err(failed)?;
        *step += 1;
        let time = began.elapsed();
        self.time.all += time;
        self.time.optimiser_seconds += done.optimiser_seconds;
        report.tell(Event::Step {
            task: at.name.to_owned(),
            step: *step,
            of,
            loss: gradients.loss,
            auxiliary_loss: gradients.auxiliary_loss,
            penalty,
            grad_norm: done.grad_norm,
            lr: done.lr,
            seconds: time.as_secs_f64(),
            optimiser_seconds: done.optimiser_seconds,
        });
        Ok(Unit::Stepped)
    }

    /// The order of a task's samples in a pass, which is found once a pass and lent to each step.
    fn order(
        &mut self,
        at: &TaskAt<'_>,
        task: TaskId,
        number: usize,
        n: usize,
    ) -> std::result::Result<&[usize], Failure> {
        let is_now = |epoch: &Epoch| (epoch.task, epoch.number) == (task, number);
        if !self.epoch.as_ref().is_some_and(is_now) {
            let order = self.learner.order(at, number, n);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            if !sorted.iter().copied().eq(0..n) {
                let what = format!("the learner's order of {n} samples does not have each of them once");
                return Err(what.into());
            }
            *self.epoch = Some(Epoch { task, number, order });
        }
        Ok(self.epoch.as_ref().map_or(&[], |epoch| &epoch.order))
    }

    /// Samples of learnt tasks by their places.
    fn stored(
        &self,
        chosen: &[StoredSample],
    ) -> std::result::Result<Vec<(StoredSample, &'a L::Sample)>, Failure> {
        let curriculum = self.curriculum;
        let find = |&old: &StoredSample| {
            let task = curriculum.tasks.get(old.task.index());
            let sample = task.and_then(|task| task.train.as_ref().get(old.sample));
            let lost = || format!("the method asks for sample {} of task {}", old.sample, old.task);
            Ok((old, sample.ok_or_else(|| Failure::from(format!("{}, which does not exist", lost())))?))
        };
        chosen.iter().map(find).collect()
    }

    /// After the last step: the learner takes up what it learnt.
    fn end(
        &mut self,
        task: TaskId,
        training: &L::Training,
        report: &mut Reporter<'_, L::Note>,
    ) -> Result<Unit<L::Training>> {
        let at = self.at(task);
        let note = self.learner.end_task(training, self.curriculum.train(task), &at);
        let note = note.map_err(|e| ContinualError::of(at.name, Place::End, e))?;
        let optimiser_share =
            self.time.optimiser_seconds / self.time.all.as_secs_f64().max(f64::MIN_POSITIVE);
        report.tell(Event::Learnt { task: at.name.to_owned(), optimiser_share, note });
        Ok(Unit::Ended(Stage::Remember(task)))
    }

    /// The method takes what it wants to remember.
    fn remember(&mut self, task: TaskId, report: &mut Reporter<'_, L::Note>) -> Result<Unit<L::Training>> {
        let (at, samples) = (self.at(task), self.curriculum.train(task));
        let learner = &*self.learner;
        let mut gradients = |chosen: &[usize], see: &mut dyn FnMut(&[f32])| {
            for (i, &sample) in chosen.iter().enumerate() {
                let gradient = learner.gradient_of(&samples[sample]).and_then(|gradient| {
                    finite(&gradient)?;
                    Ok(gradient)
                });
                // A learner that sees one sample does not know which it is.
                see(&gradient.map_err(|e| Failure { at: e.at.or(Some(Place::Sample(sample))), ..e })?);
                let task = at.name.to_owned();
                report.tell(Event::Remembered { task, done: i + 1, of: chosen.len() });
                if report.is_stopped() {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        };
        let tasks = self.curriculum.infos();
        let mut view = TaskView {
            plan: self.plan,
            task,
            tasks: &tasks,
            shares_parameters: learner.shares_parameters(),
            gradients: &mut gradients,
        };
        let done = self.method.remember(&mut view);
        let done = done.map_err(|e| ContinualError::of(at.name, Place::End, e))?;
        Ok(match done {
            Some(()) => Unit::Ended(self.route.scores(Moment::after(task))),
            None => Unit::Stopped,
        })
    }

    fn evaluate<E: Into<Box<dyn Error + Send + Sync>>>(
        &mut self,
        moment: Moment,
        column: Column,
        evaluate: Evaluate<'_, L, E>,
        report: &mut Reporter<'_, L::Note>,
    ) -> Result<(f64, Stage<L::Training>)> {
        let name = self.curriculum.name(column);
        let failed =
            |source| ContinualError::Task { task: name.to_owned(), at: Place::Evaluation(moment), source };
        let score = evaluate(self.learner, moment, column).map_err(|e| failed(e.into()))?;
        if !score.is_finite() {
            return Err(failed(NotFinite("the score").into()));
        }
        report.tell(Event::Scored { moment, task: name.to_owned(), score });
        Ok((score, self.route.after_score(moment, column)))
    }
}

fn finite(gradient: &[f32]) -> std::result::Result<(), NotFinite> {
    if gradient.iter().all(|x| x.is_finite()) { Ok(()) } else { Err(NotFinite("the gradient")) }
}

fn check(gradients: &Gradients) -> std::result::Result<(), Failure> {
    if !gradients.loss.is_finite() {
        return Err(NotFinite("the loss").into());
    }
    Ok(finite(&gradients.parameters)?)
}
