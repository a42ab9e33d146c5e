//! One method on a sequence of tasks, into a run directory.
//!
//! Take the run directory, run the frozen pass, train and score as the method's [`Plan`] says, write the metrics. Every stage can be
//! killed and goes on from what it saved. A further method is a variant of [`Method`](crate::method::Method), and at most an arm of
//! [`Runner::carry_out`].

use super::directory::RunDir;
use super::finetune::Finetune;
use super::manifest::Manifest;
use super::metrics::{Measures, RunMetrics, TaskInfo};
use super::paths::RunPaths;
use super::ranks::Prompted;
use super::timing::Timing;
use super::watch::Watch;
use crate::config::{Order, RunConfig};
use crate::error::Failure;
use crate::model::{Frozen, Sample};
use crate::observer::{Interrupted, Observer};
use crate::plan::Plan;
use crate::predictions::{self, Generation};
use crate::samples::{Exam, Samples};
use crate::session::Session;
use anyhow::{Context, Result};
use fwd_prompt::{
    Config, Curriculum, Cursor, FrozenModel, Interference, Phase, PromptPool, RunState, Status, Task, Trainer,
};
use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// Runs one method into one directory, or goes on with an unfinished run there.
///
/// # Errors
/// A directory that cannot be used, unknown tasks, damaged data, an error of the model; [`Interrupted`] if the observer asks it to stop.
/// What was finished is kept in all cases.
pub fn train(
    session: &Session,
    mut config: RunConfig,
    out: &Path,
    observer: &dyn Observer,
) -> Result<RunMetrics> {
    let began = Instant::now();
    let tasks = session.tasks(&config)?;
    config.tasks = tasks.iter().map(|task| task.name.clone()).collect();
    config.order = Order::Given; // The list above has it.
    let alone =
        config.paths.alone.as_ref().map(|dir| RunMetrics::read_alone(dir, config.split)).transpose()?;
    let alone_scores = match &alone {
        Some(all) => {
            let score = |name| {
                all.get(name).copied().with_context(|| format!("--alone has no score of task `{name}`"))
            };
            Some(config.tasks.iter().map(score).collect::<Result<Vec<_>>>()?)
        }
        None => None,
    };
    let directory = RunDir::open(out, &Manifest::new(session, config.clone(), alone), observer)?;
    let run = directory.paths();
    tracing::info!(
        "{} {}, seed {}: {}",
        run.dir().display(),
        config.method,
        config.seed,
        config.tasks.join(", ")
    );
    let before = Timing::read(&run.timing());
    let cache = run.cache(config.paths.cache.as_deref());
    let store = session.features(cache, observer);
    let samples = Samples::prepare(&store, &tasks, &session.bench.pretraining(), &config)?;
    let timing = RefCell::new(Timing { frozen: began.elapsed().as_secs_f64(), ..Timing::default() });
    let plan = config.method.plan(&config, tasks.len());
    let runner = Runner { session, config: &config, run, samples: &samples, timing: &timing, observer };
    let outcome = runner.carry_out(&plan, alone_scores.as_deref());
    let timing = Timing { total: began.elapsed().as_secs_f64(), ..*timing.borrow() };
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            // The error is what the user must hear of; seconds that cannot be written are not.
            let _ = timing.write_sum(&before, &run.timing());
            return Err(error);
        }
    };
    let (trainable, total) = (outcome.n_parameters, session.backbone.n_parameters);
    let metrics = RunMetrics {
        method: config.method,
        seed: config.seed,
        split: config.split.name().to_owned(),
        tasks: tasks.iter().map(|task| TaskInfo::new(task, config.split)).collect(),
        scores: outcome.scores,
        measures: outcome.measures,
        interference: outcome.interference,
        ranks: outcome.ranks,
        trainable_parameters: trainable,
        backbone_parameters: total,
        trainable_percent: 100.0 * trainable as f64 / total.max(1) as f64,
        stored_samples: outcome.n_stored,
    };
    timing.write_sum(&before, &run.timing())?;
    metrics.write(run.dir())?;
    tracing::info!("finished: average {:.2}", metrics.measures.average.unwrap_or_default());
    Ok(metrics)
}

/// What a plan ends in: the parts of [`RunMetrics`] that depend on it.
#[derive(Debug, Default)]
struct Outcome {
    scores: Vec<Vec<f64>>,
    measures: Measures,
    interference: Vec<Vec<Interference>>,
    ranks: Vec<usize>,
    n_parameters: u64,
    n_stored: u64,
}

/// Whatever a plan does, it does it with these.
struct Runner<'a> {
    session: &'a Session,
    config: &'a RunConfig,
    run: &'a RunPaths,
    samples: &'a Samples<'a>,
    timing: &'a RefCell<Timing>,
    observer: &'a dyn Observer,
}

/// The score of a column of the trainer's matrix, with these prompts, at this row.
type Score<'s> = &'s mut dyn FnMut(&PromptPool, usize, usize) -> Result<f64>;

impl Runner<'_> {
    fn carry_out(&self, plan: &Plan, alone: Option<&[f64]>) -> Result<Outcome> {
        match plan {
            Plan::ZeroShot => self.zero_shot(),
            Plan::Sequence(config) => self.sequence(config, alone),
            Plan::Alone(config) => self.alone(config),
            Plan::Joint(config) => self.joint(config),
            Plan::Finetune => self.finetune(alone),
        }
    }

    /// Scores without any prompt.
    fn zero_shot(&self) -> Result<Outcome> {
        let (dims, pool) = (Frozen(&self.session.backbone.model).dims(), &self.config.pool);
        let pool = PromptPool::new(dims, pool.prompt_len, pool.top_k);
        let row = self.samples.exams.iter().map(|exam| {
            let path = self.run.answers(0, &exam.task.name);
            if path.exists() {
                predictions::read_percent(exam.task.metric, &path)
            } else {
                self.score(&path, exam, &pool)
            }
        });
        let row = row.collect::<Result<Vec<_>>>()?;
        Ok(Outcome { measures: Measures::of_row(&row), scores: vec![row], ..Outcome::default() })
    }

    /// One task after another.
    fn sequence(&self, config: &Config, alone: Option<&[f64]>) -> Result<Outcome> {
        let names = &self.config.tasks;
        let tasks = names.iter().zip(&self.samples.train);
        let tasks = tasks.map(|(name, train)| Task { name: name.clone(), train }).collect();
        let curriculum = Curriculum { pretraining: &self.samples.pretraining, tasks };
        let rows = names.iter().zip(&self.samples.train).map(|(name, train)| (name.as_str(), &train[..]));
        let mut ranks = Prompted::new(self.run, &self.session.backbone.model, self.observer, rows);
        let mut score = |pool: &PromptPool, row: usize, column: usize| {
            if column == 0 {
                ranks.record(row, pool)?;
            }
            match self.samples.exams.get(column) {
                Some(exam) => self.score(&self.run.answers(row, &exam.task.name), exam, pool),
                None => self.score_pretraining(row, pool),
            }
        };
        let state = self.learn(curriculum, config, None, &mut score)?;
        Ok(Outcome {
            measures: Measures::of_sequence(state.scores(), state.interference(), alone),
            ..Outcome::of(&state, state.scores().rows.clone())
        })
    }

    /// Each task from an empty pool; row 1 is b_j.
    fn alone(&self, config: &Config) -> Result<Outcome> {
        let (mut scores, mut n_parameters) = (vec![Vec::new(), Vec::new()], 0);
        for (exam, train) in self.samples.exams.iter().zip(&self.samples.train) {
            let name = &exam.task.name;
            let curriculum = Curriculum { pretraining: &[], tasks: vec![Task { name: name.clone(), train }] };
            let mut score = |pool: &PromptPool, row: usize, _: usize| {
                self.score(&self.run.answers(row, name), exam, pool)
            };
            let state = self.learn(curriculum, config, Some(name), &mut score)?;
            n_parameters += state.pool().n_parameters() as u64;
            for (row, of_task) in scores.iter_mut().zip(&state.scores().rows) {
                row.extend(of_task);
            }
        }
        Ok(Outcome { measures: Measures::of_row(&scores[1]), scores, n_parameters, ..Outcome::default() })
    }

    /// The union of all tasks as one.
    fn joint(&self, config: &Config) -> Result<Outcome> {
        let train: Vec<Sample> = self.samples.train.concat();
        let tasks = vec![Task { name: "all tasks".to_owned(), train: &train }];
        let file = |row: usize, exam: &Exam<'_>| self.run.answers(row, &exam.task.name);
        let mut score = |pool: &PromptPool, row: usize, _: usize| {
            let scores = self.samples.exams.iter().map(|exam| self.score(&file(row, exam), exam, pool));
            Ok(mean(&scores.collect::<Result<Vec<_>>>()?))
        };
        let state = self.learn(Curriculum { pretraining: &[], tasks }, config, None, &mut score)?;
        // The trainer knows one column; the scores of each task are those of its answers.
        let row = |row: usize| -> Result<Vec<f64>> {
            self.samples
                .exams
                .iter()
                .map(|exam| predictions::read_percent(exam.task.metric, &file(row, exam)))
                .collect()
        };
        let scores = vec![row(0)?, row(1)?];
        Ok(Outcome { measures: Measures::of_row(&scores[1]), ..Outcome::of(&state, scores) })
    }

    /// Weights instead of prompts, one task after another.
    fn finetune(&self, alone: Option<&[f64]>) -> Result<Outcome> {
        let Self { session, config, run, samples, observer, .. } = *self;
        let cache = run.cache(config.paths.cache.as_deref());
        let (scores, n_parameters) =
            Finetune { session, config, run, exams: &samples.exams, cache: &cache, observer }.run()?;
        let measures = Measures::of_sequence(&scores, &[], alone);
        Ok(Outcome { measures, scores: scores.rows, n_parameters, ..Outcome::default() })
    }

    /// One run of the trainer, begun or taken up again.
    fn learn(
        &self,
        curriculum: Curriculum<'_, Sample>,
        config: &Config,
        task: Option<&str>,
        score: Score<'_>,
    ) -> Result<RunState> {
        let model = Frozen(&self.session.backbone.model);
        let dir = self.run.state(task);
        let n_columns = curriculum.tasks.len() + usize::from(!curriculum.pretraining.is_empty());
        let mut trainer = if RunState::exists(&dir) {
            let trainer = Trainer::resume(&model, curriculum, config, &dir).with_context(|| {
                format!("cannot go on; to begin this run again, delete {}", self.run.dir().display())
            })?;
            if trainer.state().cursor().phase != Phase::Done {
                self.observer.note(&format!("going on with {}", place(trainer.state())));
            }
            trainer
        } else {
            Trainer::new(&model, curriculum, config.clone())?
        };
        let row = Cell::new(first_row(trainer.state().cursor()));
        let mut evaluate = |_: &Frozen<'_>, pool: &PromptPool, column: usize| {
            score(pool, row.get(), column).map_err(Failure)
        };
        let n_scored = if let Phase::Evaluate(n) = trainer.state().cursor().phase { n } else { 0 };
        let mut watch = Watch::new(n_columns, n_scored, self.observer);
        let mut observe = |event: &fwd_prompt::Event| {
            watch.see(event, &mut self.timing.borrow_mut());
            if let fwd_prompt::Event::Learnt { .. } | fwd_prompt::Event::NoSamples { .. } = event {
                row.set(row.get() + 1);
            }
            if self.observer.is_stop_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match trainer.run(Some(&dir), &mut evaluate, &mut observe)? {
            Status::Finished => Ok(trainer.state().clone()),
            Status::Interrupted => Err(Interrupted.into()),
        }
    }

    /// Scores a task and writes its answers.
    fn score(&self, path: &Path, exam: &Exam<'_>, pool: &PromptPool) -> Result<f64> {
        let began = Instant::now();
        let generation =
            Generation { max_new_tokens: self.config.max_new_tokens, batch: self.config.eval_batch };
        let answers = predictions::answer(&self.session.backbone, pool, exam, generation, self.observer)?;
        predictions::write(path, &answers)?;
        self.timing.borrow_mut().scoring += began.elapsed().as_secs_f64();
        predictions::percent(exam.task.metric, &answers)
    }

    /// The mean over the pre-training tasks.
    fn score_pretraining(&self, row: usize, pool: &PromptPool) -> Result<f64> {
        let scores = self
            .samples
            .retention
            .iter()
            .map(|exam| self.score(&self.run.pretraining_answers(row, &exam.task.name), exam, pool));
        Ok(mean(&scores.collect::<Result<Vec<_>>>()?))
    }
}

impl Outcome {
    /// What a finished trainer knows.
    fn of(state: &RunState, scores: Vec<Vec<f64>>) -> Self {
        Self {
            scores,
            interference: state.interference().to_vec(),
            ranks: state.ledger().entries().iter().map(|entry| entry.basis.len()).collect(),
            n_parameters: state.pool().n_parameters() as u64,
            n_stored: state.stored_samples().len() as u64,
            measures: Measures::default(),
        }
    }
}

fn mean(scores: &[f64]) -> f64 {
    scores.iter().sum::<f64>() / scores.len().max(1) as f64
}

/// How many tasks are learnt where a run stands: the row of the matrix that is filled next, or was filled last.
fn first_row(cursor: Cursor) -> usize {
    match cursor.phase {
        Phase::Evaluate(_) | Phase::Done => cursor.task,
        Phase::Subspace | Phase::Train(_) => cursor.task.saturating_sub(1),
    }
}

/// Where a run stands, for the user.
fn place(state: &RunState) -> String {
    let Cursor { task, phase } = state.cursor();
    let name = state.tasks().get(task).map_or("?", |task| &task.name);
    match phase {
        Phase::Subspace => format!("the subspace of {name}"),
        Phase::Train(step) => format!("{name}, step {}", step + 1),
        Phase::Evaluate(column) => format!("the scores after {name}, column {}", column + 1),
        Phase::Done => "the result".to_owned(),
    }
}
