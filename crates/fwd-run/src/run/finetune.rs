//! The method `finetune`: Q-Former and projection are trained in sequence, the usual way to tune such a model, and the one that
//! prompts are compared with. Vision tower and language model stay frozen; one AdamW goes through all tasks.
//!
//! A checkpoint holds the parameters with their moments, and the number of steps in them says where the run stands; answers that
//! are on disk are not given again.

use super::paths::RunPaths;
use super::ranks::{self, TaskRows};
use crate::config::RunConfig;
use crate::device::DeviceKind;
use crate::files::{write_atomically, write_json};
use crate::model::{Frozen, Model};
use crate::observer::{Interrupted, Observer, check};
use crate::predictions;
use crate::samples::{Exam, spread};
use crate::session::Session;
use crate::weight_training::{Batch, ImageFeatures, Network, View, halves, step, weights_of};
use anyhow::{Context, Result};
use fwd_data::Processor;
use fwd_data::bench::{BenchTask, Record, Split};
use fwd_models::{ModelKind, StepConfig, Trainable};
use fwd_prompt::ScoreMatrix;
use fwd_prompt::analysis::TaskGram;
use rand::seq::SliceRandom;
use std::fs;
use std::path::Path;

/// What the method needs of a run.
pub(super) struct Finetune<'a> {
    pub(super) session: &'a Session,
    pub(super) config: &'a RunConfig,
    pub(super) run: &'a RunPaths,
    /// What is scored of each task, in the order in which they are learnt.
    pub(super) exams: &'a [Exam<'a>],
    /// Where features of images are kept.
    pub(super) cache: &'a Path,
    pub(super) observer: &'a dyn Observer,
}

/// The names, or their beginnings, of the parameters that are trained.
const TRAINED: [&str; 3] = ["query_tokens", "qformer.", "language_projection"];

impl Finetune<'_> {
    /// The score matrix, and the number of trained parameters.
    ///
    /// # Errors
    /// Those of data and model; [`Interrupted`] if the user wants to stop.
    pub(super) fn run(&self) -> Result<(ScoreMatrix, u64)> {
        let images = self.images()?;
        let path = self.run.parameters();
        let mut trainable = self.start(&path)?;
        let mut scores = ScoreMatrix { n_tasks: self.exams.len(), rows: Vec::new() };
        self.record_ranks(0, &self.session.backbone.model, &images)?;
        scores.rows.push(self.score_row(0, &self.session.backbone.model, &images)?);
        let mut learnt = 0;
        for (t, exam) in self.exams.iter().enumerate() {
            let first = learnt;
            learnt += self.n_steps(exam.task);
            if trainable.n_steps() < learnt {
                self.learn(exam.task, first..learnt, &mut trainable, &images, &path)?;
            }
            // A row behind the checkpoint was scored before it was written.
            let row = if trainable.n_steps() == learnt {
                let weights = &mut trainable.frozen(self.session.backbone.model.device())?;
                let model = self.session.backbone.model.with_parameters(weights)?;
                self.record_ranks(t + 1, &model, &images)?;
                self.score_row(t + 1, &model, &images)?
            } else {
                self.read_row(t + 1)?
            };
            scores.rows.push(row);
        }
        Ok((scores, trainable.n_parameters() as u64))
    }

    fn start(&self, path: &Path) -> Result<Trainable> {
        if path.exists() {
            let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            return Trainable::from_bytes(&bytes).with_context(|| path.display().to_string());
        }
        let mut trainable = weights_of(&self.session.backbone)?;
        let is_trained = |name: &str| TRAINED.iter().any(|part| name.starts_with(part));
        let frozen: Vec<String> =
            trainable.names().filter(|name| !is_trained(name)).map(String::from).collect();
        frozen.iter().for_each(|name| trainable.remove(name));
        Ok(trainable)
    }

    /// Steps `steps` of the whole run, which are those of one task.
    fn learn(
        &self,
        task: &BenchTask,
        steps: std::ops::Range<usize>,
        trainable: &mut Trainable,
        images: &ImageFeatures,
        path: &Path,
    ) -> Result<()> {
        let records: Vec<&Record> = task.split(Split::Train).collect();
        let batch_size = self.config.training.batch_size;
        let per_epoch = records.len().div_ceil(batch_size);
        let progress = self.observer.begin(&format!("fine-tuning {}", task.name), steps.len());
        let (mut order, mut epoch) = (Vec::new(), usize::MAX);
        let config = StepConfig {
            optimiser: self.config.finetune,
            max_norm: self.config.training.max_grad_norm.unwrap_or(f64::INFINITY),
        };
        for n in trainable.n_steps().max(steps.start)..steps.end {
            let at = n - steps.start;
            if epoch != at / per_epoch {
                epoch = at / per_epoch;
                order = records.clone();
                order.shuffle(&mut fwd_prompt::stream(self.config.seed, &task.name, [epoch as u64, 0]));
            }
            let from = at % per_epoch * batch_size;
            let chosen = &order[from..order.len().min(from + batch_size)];
            let batches = halves(self.processor(), images, chosen)?;
            let report =
                step(&self.session.backbone.model, trainable, &batches, &config, |_, loss| Ok(loss.clone()))
                    .with_context(|| format!("task `{}`, step {}", task.name, at + 1))?;
            progress.set(at + 1);
            progress.say(&format!("fine-tuning {} {:.2}", task.name, report.loss));
            let is_due = self.config.save_every > 0 && (n + 1) % self.config.save_every == 0;
            let is_stopped = self.observer.is_stop_requested();
            if is_due || n + 1 == steps.end || is_stopped {
                write_atomically(path, &trainable.to_bytes()?)?;
            }
            if is_stopped {
                return Err(Interrupted.into());
            }
        }
        Ok(())
    }

    /// Writes the ranks of the embeddings as they are after so many tasks, unless they are there.
    fn record_ranks(&self, after: usize, model: &Model, images: &ImageFeatures) -> Result<()> {
        let path = self.run.ranks(after);
        if path.exists() {
            return Ok(());
        }
        let mut tasks = Vec::new();
        for Exam { task, .. } in self.exams {
            let records: Vec<&Record> = task.split(Split::Train).collect();
            let records: Vec<&Record> = spread(records.len(), ranks::SAMPLES).map(|i| records[i]).collect();
            let mut samples = Vec::with_capacity(records.len());
            for records in records.chunks(self.config.eval_batch) {
                check(self.observer)?;
                let batch = Batch::new(self.processor(), images, None, records)?;
                samples.extend(batch.features(model)?.samples(&batch.labels)?);
            }
            let grams = TaskGram::accumulate(&Frozen(model), &task.name, &samples)?;
            tasks.push(TaskRows { grams, prompted: None, n_samples: samples.len() });
        }
        let learnt = after.checked_sub(1).and_then(|t| self.exams.get(t)).map(|exam| &*exam.task.name);
        write_json(&path, &ranks::stage(after, learnt, &tasks, self.observer)?)
    }

    fn processor(&self) -> (&Processor, ModelKind) {
        (&self.session.backbone.processor, self.session.backbone.model.kind())
    }

    fn n_steps(&self, task: &BenchTask) -> usize {
        let training = &self.config.training;
        let n = task.split(Split::Train).count();
        training.steps.unwrap_or(training.epochs * n.div_ceil(training.batch_size))
    }

    fn images(&self) -> Result<ImageFeatures> {
        let train = self.exams.iter().flat_map(|exam| exam.task.split(Split::Train));
        let scored = self.exams.iter().flat_map(|exam| exam.cases.iter().map(|case| case.record));
        let mut keys: Vec<&str> = train.chain(scored).map(|record| record.image.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        let views: Vec<View<'_>> = keys.into_iter().map(View::plain).collect();
        let (backbone, bench) = (&self.session.backbone, &self.session.bench);
        let tower = backbone.model.vision();
        let hash = format!("{}{}", backbone.hash, DeviceKind::tag(backbone.model.device()));
        let network = Network { tower, hash: &hash, processor: &backbone.processor.image };
        ImageFeatures::compute(&network, bench, &views, self.cache, self.observer)
    }

    fn read_row(&self, row: usize) -> Result<Vec<f64>> {
        let percent = |exam: &Exam<'_>| {
            predictions::read_percent(exam.task.metric, &self.run.answers(row, &exam.task.name))
        };
        self.exams.iter().map(percent).collect()
    }

    fn score_row(&self, row: usize, model: &Model, images: &ImageFeatures) -> Result<Vec<f64>> {
        let score = |exam: &Exam<'_>| -> Result<f64> {
            let path = self.run.answers(row, &exam.task.name);
            if path.exists() {
                return predictions::read_percent(exam.task.metric, &path);
            }
            let progress = self.observer.begin(&format!("scoring {}", exam.task.name), exam.cases.len());
            let mut texts = Vec::with_capacity(exam.cases.len());
            for cases in exam.cases.chunks(self.config.eval_batch) {
                check(self.observer)?;
                let records: Vec<&Record> = cases.iter().map(|case| case.record).collect();
                let batch = Batch::new(self.processor(), images, None, &records)?;
                let processor = &self.session.backbone.processor;
                texts.extend(batch.answers(model, processor, self.config.max_new_tokens)?);
                progress.set(texts.len());
            }
            let answers = predictions::scored(exam, texts)?;
            predictions::write(&path, &answers)?;
            predictions::percent(exam.task.metric, &answers)
        };
        self.exams.iter().map(score).collect()
    }
}
