//! One method on a sequence of tasks, into a run directory.
//!
//! Take the run directory, run the frozen pass, train and score as the method's [`Plan`] says, write the metrics. Every stage can be
//! killed and goes on from what it saved. A method of [`fwd_continual`] needs nothing here; another one is a variant of
//! [`Method`](crate::method::Method), and at most an arm of [`Runner::carry_out`].

use super::directory::RunDir;
use super::finetune::{BridgeLearner, image_features};
use super::library::library_for;
use super::lora::{AdaptedModels, Adapters, check_config, check_memory, write_adapters};
use super::losses::LossLog;
use super::manifest::{Known, Manifest};
use super::metrics::{Measures, RunMetrics, TaskInfo};
use super::outputs::{Outputs, of_prompts};
use super::paths::RunPaths;
use super::ranks::{Bridged, Prompted};
use super::timing::Timing;
use super::watch::{Ahead, Remark, Watch};
use crate::config::{Order, RunConfig};
use crate::error::boxed;
use crate::memory;
use crate::model::{Model, Sample};
use crate::observer::{Interrupted, Observer};
use crate::plan::Plan;
use crate::predictions::{self, AnswerCache, Generation, Prediction};
use crate::samples::{Exam, Samples, spread};
use crate::session::Session;
use anyhow::{Context, Result, bail};
use fwd_adapters::{LoraLearner, Sharing};
use fwd_continual::{
    Column, Curriculum, Event, Learner, Method, MethodConfig, Moment, PRETRAINING, SavedState, Schedule,
    Stage, Status, Task, TaskId, Trainer,
};
use fwd_data::bench::{BenchTask, Record, Split};
use fwd_data::task::OnBad;
use fwd_prompt::{Config, Interference, Library, PromptLearner, PromptPool, Rule};
use std::cell::RefCell;
use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Runs one method into one directory, or goes on with an unfinished run there.
///
/// # Errors
/// A directory that cannot be used, unknown tasks, damaged data, an error of the model; [`Interrupted`] if the observer asks it to stop.
/// What was finished is kept in all cases.
pub fn train(
    session: &Session,
    config: RunConfig,
    out: &Path,
    observer: &dyn Observer,
) -> Result<RunMetrics> {
    let began = Instant::now();
    let Resolved { config, tasks, known } = resolve(session, config)?;
    let alone_scores = match &known.alone {
        Some(all) => {
            let score = |name| {
                all.get(name).copied().with_context(|| format!("--alone has no score of task `{name}`"))
            };
            Some(config.tasks.iter().map(score).collect::<Result<Vec<_>>>()?)
        }
        None => None,
    };
    let directory = RunDir::open(out, &Manifest::new(session, config.clone(), &known), observer)?;
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
    let (asked, n_pretraining) = (config.pool.anchors.count, samples.pretraining.len());
    if asked > n_pretraining / 2 {
        observer.note(&format!(
            "pool.anchors.count is {asked}, and the run reads {n_pretraining} samples of pre-training (pretraining_samples): {} anchors are kept",
            n_pretraining / 2
        ));
    }
    let timing = RefCell::new(Timing { frozen: began.elapsed().as_secs_f64(), ..Timing::default() });
    let plan = config.method.plan(&config, tasks.len());
    let (library, answers) = (known.library, RefCell::default());
    let runner = Runner {
        session,
        config: &config,
        run,
        samples: &samples,
        library,
        timing: &timing,
        answers,
        observer,
    };
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
        compute: config.compute,
        levels: directory.levels().to_vec(),
    };
    timing.write_sum(&before, &run.timing())?;
    metrics.write(run.dir())?;
    tracing::info!("finished: average {:.2}", metrics.measures.average.unwrap_or_default());
    Ok(metrics)
}

/// A run directory below `root` that nobody has named: `METHOD-seed-SEED`, or that name with a number behind it. It is the first that
/// does not exist or where an unfinished run of the same identity lies, so that the same command goes on.
///
/// # Errors
/// As [`train`] for a configuration that cannot be.
pub fn directory_below(root: &Path, session: &Session, config: &RunConfig) -> Result<PathBuf> {
    let Resolved { config, known, .. } = resolve(session, config.clone())?;
    let name = format!("{}-seed-{}", config.method, config.seed);
    let manifest = Manifest::new(session, config, &known);
    let numbered = (2..).map(|n| root.join(format!("{name}-{n}")));
    let mut candidates = std::iter::once(root.join(&name)).chain(numbered);
    let is_ours = |dir: &PathBuf| {
        !dir.exists()
            || !RunPaths::new(dir).is_finished()
                && Manifest::read(dir).is_ok_and(|there| there.is_same_run(&manifest))
    };
    candidates.find(is_ours).context("all names of run directories are taken")
}

/// A configuration as the session carries it out.
struct Resolved<'s> {
    config: RunConfig,
    tasks: Vec<&'s BenchTask>,
    known: Known,
}

fn resolve(session: &Session, mut config: RunConfig) -> Result<Resolved<'_>> {
    config.check()?;
    // The manifest says what was done, whatever the configuration asks for.
    (config.device, config.skip_bad) = (session.device, session.on_bad == OnBad::Skip);
    config.limits = session.limits;
    config.instruction.clone_from(&session.instruction);
    let backbone = &session.backbone;
    (config.dtype, config.compute) = (backbone.dtype, backbone.compute);
    config.template = Some(backbone.template());
    let tasks = session.tasks(&config)?;
    config.tasks = tasks.iter().map(|task| task.name.clone()).collect();
    config.order = Order::Given; // The list above has it.
    if let Plan::Lora(sharing) = config.method.plan(&config, tasks.len()) {
        check_config(sharing, &config.lora, &*session.backbone.model)?;
    } else {
        config.check_memory(session.backbone.model.prompt_dims(), memory::available())?;
    }
    let alone = config.paths.alone.as_ref();
    let alone = alone.map(|dir| RunMetrics::read_alone(dir, config.split, config.compute)).transpose()?;
    let library = library_for(session, &config)?;
    Ok(Resolved { config, tasks, known: Known { alone, library } })
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
    library: Option<Arc<Library>>,
    timing: &'a RefCell<Timing>,
    answers: RefCell<AnswerCache>,
    observer: &'a dyn Observer,
}

/// The score of a column at a moment, with the learner as it is.
type Score<'s, L> = &'s mut dyn FnMut(&L, Moment, Column) -> Result<f64>;

/// Prompts in front of the session's model.
type Prompter<'a> = PromptLearner<&'a Model>;

/// How the continual loop is told to learn: with what, against forgetting how, and how often.
struct Course<L> {
    learner: L,
    method: Box<dyn Method>,
    plan: fwd_continual::Plan,
    /// The task whose own state this is, under the method `independent`.
    task: Option<String>,
}

impl<'a> Runner<'a> {
    fn carry_out(&self, plan: &Plan, alone: Option<&[f64]>) -> Result<Outcome> {
        match plan {
            Plan::ZeroShot => self.zero_shot(),
            Plan::Sequence(config) => self.sequence(config, alone),
            Plan::Alone(config) => self.alone(config),
            Plan::Joint(config) => self.joint(config),
            Plan::Finetune => self.finetune(alone),
            Plan::Lora(sharing) => self.lora(*sharing, alone),
        }
    }

    /// Scores without any prompt.
    fn zero_shot(&self) -> Result<Outcome> {
        let (dims, pool) = (self.session.backbone.model.prompt_dims(), &self.config.pool);
        let pool = PromptPool::new(dims, pool.prompt_len, pool.top_k);
        let row = self.samples.exams.iter().map(|exam| {
            let path = self.run.answers(Moment::START.n_learnt(), &exam.task.name);
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
        let tasks = tasks.map(|(name, train)| Task { name: name.clone(), train: &train[..] }).collect();
        let curriculum = Curriculum { pretraining: &self.samples.pretraining[..], tasks };
        let rows = names.iter().zip(&self.samples.train).map(|(name, train)| (name.as_str(), &train[..]));
        let outputs = Outputs { run: self.run };
        let mut ranks = Prompted::new(self.run, &*self.session.backbone.model, self.observer, rows);
        let mut score = |learner: &Prompter<'_>, moment: Moment, column: Column| {
            let (pool, row) = (learner.prompts().pool(), moment.n_learnt());
            // A row begins with the first task.
            if column == Column::Task(TaskId::from_index(0)) {
                ranks.record(row, pool)?;
            }
            match column {
                Column::Task(task) => {
                    let exam = &self.samples.exams[task.index()];
                    outputs.record((row, task.number()), &exam.task.name, || {
                        of_prompts(&self.session.backbone, pool, exam, self.config.max_new_tokens)
                    })?;
                    self.score(&self.run.answers(row, &exam.task.name), exam, pool)
                }
                Column::Pretraining => self.score_pretraining(row, pool),
            }
        };
        let trainer = self.learn(curriculum, self.prompts(config, None)?, &mut score)?;
        let interference = trainer.learner().prompts().interference();
        let of_scores = Measures::of_sequence(trainer.scores(), interference, alone);
        Ok(Outcome {
            measures: Measures { output_kl: outputs.mean(names.len())?, ..of_scores },
            ..Outcome::of(&trainer, trainer.scores().rows.clone())
        })
    }

    /// Each task from an empty pool; row 1 is b_j.
    fn alone(&self, config: &Config) -> Result<Outcome> {
        let (mut scores, mut n_parameters) = (vec![Vec::new(), Vec::new()], 0);
        for (exam, train) in self.samples.exams.iter().zip(&self.samples.train) {
            let name = &exam.task.name;
            let tasks = vec![Task { name: name.clone(), train: &train[..] }];
            let mut score = |learner: &Prompter<'_>, moment: Moment, _: Column| {
                let path = self.run.answers(moment.n_learnt(), name);
                self.score(&path, exam, learner.prompts().pool())
            };
            let course = self.prompts(config, Some(name))?;
            let trainer = self.learn(Curriculum { pretraining: &[][..], tasks }, course, &mut score)?;
            n_parameters += trainer.learner().prompts().pool().n_parameters() as u64;
            for (row, of_task) in scores.iter_mut().zip(&trainer.scores().rows) {
                row.extend(of_task);
            }
        }
        Ok(Outcome { measures: Measures::of_row(&scores[1]), scores, n_parameters, ..Outcome::default() })
    }

    /// The union of all tasks as one.
    fn joint(&self, config: &Config) -> Result<Outcome> {
        let train: Vec<Sample> = self.samples.train.concat();
        let tasks = vec![Task { name: "all tasks".to_owned(), train: &train[..] }];
        let file = |row: usize, exam: &Exam<'_>| self.run.answers(row, &exam.task.name);
        let mut score = |learner: &Prompter<'_>, moment: Moment, _: Column| {
            let (pool, row) = (learner.prompts().pool(), moment.n_learnt());
            let scores = self.samples.exams.iter().map(|exam| self.score(&file(row, exam), exam, pool));
            Ok(mean(&scores.collect::<Result<Vec<_>>>()?))
        };
        let curriculum = Curriculum { pretraining: &[][..], tasks };
        let trainer = self.learn(curriculum, self.prompts(config, None)?, &mut score)?;
        // The loop knows one column; the scores of each task are those of its answers.
        let row = |row: usize| -> Result<Vec<f64>> {
            let percent = |exam: &Exam<'_>| predictions::read_percent(exam.task.metric, &file(row, exam));
            self.samples.exams.iter().map(percent).collect()
        };
        let scores = vec![row(0)?, row(1)?];
        Ok(Outcome { measures: Measures::of_row(&scores[1]), ..Outcome::of(&trainer, scores) })
    }

    /// Weights instead of prompts, one task after another.
    fn finetune(&self, alone: Option<&[f64]>) -> Result<Outcome> {
        let Self { session, config, samples, observer, .. } = *self;
        self.run.refuse_old_parameters()?;
        let cache = self.run.cache(config.paths.cache.as_deref());
        let (backbone, exams) = (&session.backbone, &samples.exams);
        let images = image_features(backbone, &session.bench, exams, &cache, observer)?;
        let learner =
            BridgeLearner::new(backbone, &images, config.finetune, config.training.max_grad_norm, observer)?;
        let train = exams.iter().map(|exam| {
            let all: Vec<&Record> = exam.task.split(Split::Train).collect();
            let chosen = spread(all.len(), config.training_samples.unwrap_or(usize::MAX));
            chosen.map(|i| all[i]).collect::<Vec<&Record>>()
        });
        let tasks = exams.iter().zip(train);
        let tasks = tasks.map(|(exam, train)| Task { name: exam.task.name.clone(), train }).collect();
        let (batch, outputs) = (config.eval_batch, Outputs { run: self.run });
        let ranks = Bridged { run: self.run, backbone, exams, images: &images, batch, observer };
        // The model of a row is made once, for all of its columns.
        let mut model: Option<(Moment, Box<Model>)> = None;
        let mut score = |learner: &BridgeLearner<'_>, moment: Moment, column: Column| {
            let Column::Task(task) = column else { bail!("fine-tuning scores no pre-training") };
            let (exam, row) = (&exams[task.index()], moment.n_learnt());
            let kept = model.take().filter(|(of, _)| *of == moment);
            let (_, current) = model.insert(kept.map_or_else(|| learner.model().map(|m| (moment, m)), Ok)?);
            if task.index() == 0 {
                ranks.record(row, &**current)?;
            }
            outputs.record((row, task.number()), &exam.task.name, || {
                learner.outputs(&**current, exam, config.max_new_tokens)
            })?;
            let path = self.run.answers(row, &exam.task.name);
            if path.exists() {
                return predictions::read_percent(exam.task.metric, &path);
            }
            let began = Instant::now();
            let answers = learner.answer(&**current, exam, self.generation(), observer)?;
            if task.index() + 1 == exams.len() {
                model = None; // Nobody needs it while the next task is learnt.
            }
            self.finish_score(began, &path, exam, &answers)
        };
        // Its learning rate does not follow the schedule of the prompts.
        let mut plan = config.trainer(Rule::None, config.pool.clone()).plan();
        plan.schedule = Schedule::default();
        let course = Course { learner, method: MethodConfig::Plain.build(), plan, task: None };
        let trainer = self.learn(Curriculum { pretraining: Vec::new(), tasks }, course, &mut score)?;
        let of_scores = Measures::of_sequence(trainer.scores(), &[], alone);
        Ok(Outcome {
            measures: Measures { output_kl: outputs.mean(exams.len())?, ..of_scores },
            scores: trainer.scores().rows.clone(),
            n_parameters: trainer.learner().n_parameters(),
            ..Outcome::default()
        })
    }

    /// Adapters of the language model instead of prompts, one task after another.
    fn lora(&self, sharing: Sharing, alone: Option<&[f64]>) -> Result<Outcome> {
        let Self { session, config, samples, observer, .. } = *self;
        let (backbone, names) = (&session.backbone, &config.tasks);
        let (max_norm, seed) = (config.training.max_grad_norm, config.seed);
        let learner = LoraLearner::new(&*backbone.model, config.lora.clone(), sharing, max_norm, seed)?;
        check_memory(&learner, names.len(), config.method.beside(), memory::available())?;
        let tasks = names.iter().zip(&samples.train);
        let tasks = tasks.map(|(name, train)| Task { name: name.clone(), train: &train[..] }).collect();
        let curriculum = Curriculum { pretraining: &samples.pretraining[..], tasks };
        let outputs = Outputs { run: self.run };
        // The models of a row are made once, for all of its columns.
        let mut kept: Option<(Moment, AdaptedModels<'_>)> = None;
        let mut score = |learner: &Adapters<'_>, moment: Moment, column: Column| {
            let row = moment.n_learnt();
            let models = match kept.take().filter(|(of, _)| *of == moment) {
                Some((_, models)) => models,
                None => AdaptedModels::new(backbone, learner)?,
            };
            let (_, models) = kept.insert((moment, models));
            let of_exam = |exam: &Exam<'_>, path: &Path| {
                if path.exists() {
                    return predictions::read_percent(exam.task.metric, path);
                }
                let began = Instant::now();
                let answers = models.answer(learner, exam, self.generation(), observer)?;
                self.finish_score(began, path, exam, &answers)
            };
            match column {
                Column::Task(task) => {
                    let exam = &samples.exams[task.index()];
                    outputs.record((row, task.number()), &exam.task.name, || {
                        models.outputs(learner, exam, config.max_new_tokens)
                    })?;
                    of_exam(exam, &self.run.answers(row, &exam.task.name))
                }
                Column::Pretraining => {
                    let path = |exam: &Exam<'_>| self.run.pretraining_answers(row, &exam.task.name);
                    let scores = samples.retention.iter().map(|exam| of_exam(exam, &path(exam)));
                    Ok(mean(&scores.collect::<Result<Vec<_>>>()?))
                }
            }
        };
        let beside = config.method.beside().and_then(|name| config.options.of(name));
        let plan = config.trainer(Rule::None, config.pool.clone()).plan();
        let course = Course { learner, method: beside.unwrap_or_default().build(), plan, task: None };
        let trainer = self.learn(curriculum, course, &mut score)?;
        write_adapters(trainer.learner(), &self.run.adapters())?;
        let interference = trainer.learner().interference();
        let of_scores = Measures::of_sequence(trainer.scores(), interference, alone);
        Ok(Outcome {
            measures: Measures { output_kl: outputs.mean(names.len())?, ..of_scores },
            scores: trainer.scores().rows.clone(),
            interference: interference.to_vec(),
            n_parameters: trainer.learner().n_trained() as u64,
            n_stored: trainer.method().stored_samples().len() as u64,
            ..Outcome::default()
        })
    }

    fn prompts(&self, config: &Config, task: Option<&str>) -> Result<Course<Prompter<'a>>> {
        let mut learner = PromptLearner::new(&*self.session.backbone.model, config.clone())?;
        if let Some(library) = &self.library {
            learner = learner.with_library(Arc::clone(library))?;
        }
        let (method, plan) = (config.method.build(), config.plan());
        Ok(Course { learner, method, plan, task: task.map(str::to_owned) })
    }

    /// One run of the loop, begun or taken up again.
    fn learn<L: Learner, D: AsRef<[L::Sample]>>(
        &self,
        curriculum: Curriculum<D>,
        course: Course<L>,
        score: Score<'_, L>,
    ) -> Result<Trainer<L, D>>
    where
        L::Note: Remark,
    {
        let Course { learner, method, plan, task } = course;
        let dir = self.run.state(task.as_deref());
        let columns = curriculum.columns();
        let names: Vec<String> = curriculum.tasks.iter().map(|task| task.name.clone()).collect();
        let ahead = Ahead {
            tasks: names.clone(),
            n_samples: curriculum.tasks.iter().map(|task| task.train.as_ref().len()).collect(),
            has_fixed_steps: plan.steps.is_some(),
            n_columns: columns.len(),
        };
        let mut trainer = if SavedState::exists(&dir) {
            let trainer = Trainer::resume(learner, method, curriculum, plan, &dir).with_context(|| {
                format!("cannot go on; to begin this run again, delete {}", self.run.dir().display())
            })?;
            if trainer.stage() != Stage::Done {
                let place = place_of(&trainer.stage(), &names);
                self.observer.note(&format!("going on with {place}"));
            }
            trainer
        } else {
            Trainer::new(learner, method, curriculum, plan)?
        };
        let mut evaluate = |learner: &L, moment, column| score(learner, moment, column).map_err(boxed);
        let n_scored = match trainer.stage() {
            Stage::Evaluate { column, .. } => columns.iter().position(|c| *c == column).unwrap_or(0),
            _ => 0,
        };
        let stage = trainer.stage();
        let is_kept = |task: &str, step: usize| {
            // Another task's steps are those of another run of the loop, under the method `independent`.
            names.iter().position(|name| name == task).is_none_or(|task| step <= steps_done(&stage, task))
        };
        let losses = LossLog::open(self.run, is_kept)?;
        let mut watch = Watch::new(ahead, n_scored, losses, self.observer);
        let mut observe = |event: &Event<L::Note>| {
            watch.see(event, &mut self.timing.borrow_mut());
            if self.observer.is_stop_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match trainer.run(Some(&dir), &mut evaluate, &mut observe)? {
            Status::Finished => Ok(trainer),
            Status::Interrupted => Err(Interrupted.into()),
        }
    }

    fn generation(&self) -> Generation {
        Generation { max_new_tokens: self.config.max_new_tokens, batch: self.config.eval_batch }
    }

    /// Scores a task and writes its answers.
    fn score(&self, path: &Path, exam: &Exam<'_>, pool: &PromptPool) -> Result<f64> {
        let began = Instant::now();
        let backbone = &self.session.backbone;
        let mut cache = self.answers.borrow_mut();
        let answers =
            predictions::answer(backbone, pool, exam, self.generation(), Some(&mut cache), self.observer)?;
        let mut timing = self.timing.borrow_mut();
        (timing.answers, timing.repeated) = (cache.n_answers, cache.n_repeated);
        drop(timing);
        self.finish_score(began, path, exam, &answers)
    }

    /// Writes the answers to a task's samples, and returns their figure.
    fn finish_score(
        &self,
        began: Instant,
        path: &Path,
        exam: &Exam<'_>,
        answers: &[Prediction<'_>],
    ) -> Result<f64> {
        predictions::write(path, answers)?;
        self.timing.borrow_mut().scoring += began.elapsed().as_secs_f64();
        predictions::percent(exam.task.metric, answers)
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
    /// What a finished run of prompts knows.
    fn of<D: AsRef<[Sample]>>(trainer: &Trainer<Prompter<'_>, D>, scores: Vec<Vec<f64>>) -> Self {
        let prompts = trainer.learner().prompts();
        Self {
            scores,
            interference: prompts.interference().to_vec(),
            ranks: prompts.ledger().entries().iter().map(|entry| entry.basis.len()).collect(),
            n_parameters: prompts.pool().n_parameters() as u64,
            n_stored: trainer.method().stored_samples().len() as u64,
            measures: Measures::default(),
        }
    }
}

fn mean(scores: &[f64]) -> f64 {
    scores.iter().sum::<f64>() / scores.len().max(1) as f64
}

/// How many steps of a task, given by its place in the sequence, a run that stands here does not train again.
fn steps_done(stage: &Stage, task: usize) -> usize {
    let (n_learnt, steps_of_next) = match *stage {
        Stage::Pretraining => (0, 0),
        Stage::Begin(now) => (now.index(), 0),
        Stage::Train { task: now, step, .. } => (now.index(), step),
        Stage::Remember(now) => (now.index() + 1, 0),
        Stage::Evaluate { moment, .. } => (moment.n_learnt(), 0),
        Stage::Done => (usize::MAX, 0),
    };
    match task.cmp(&n_learnt) {
        Ordering::Less => usize::MAX,
        Ordering::Equal => steps_of_next,
        Ordering::Greater => 0,
    }
}

/// Where a run stands, for the user.
pub(crate) fn place_of(stage: &Stage, tasks: &[String]) -> String {
    let name = |task: TaskId| tasks.get(task.index()).map_or("?", String::as_str);
    match *stage {
        Stage::Pretraining => format!("the subspace of {PRETRAINING}"),
        Stage::Begin(task) => format!("the beginning of {}", name(task)),
        Stage::Train { task, step, .. } => format!("{}, after step {step}", name(task)),
        Stage::Remember(task) => format!("what is remembered of {}", name(task)),
        Stage::Evaluate { moment, column } => {
            let column = match column {
                Column::Task(task) => name(task),
                Column::Pretraining => PRETRAINING,
            };
            match moment.last_task() {
                Some(task) => format!("the scores after {}, column {column}", name(task)),
                None => format!("the scores before the first task, column {column}"),
            }
        }
        Stage::Done => "the result".to_owned(),
    }
}
