//! Is a backbone fit to be built on? Three gates, measured on validation data.
//!
//! 1. Its input embeddings are alive: queries differ, visual and text tokens are of one length, the spectrum is broad.
//! 2. It can do what it was pre-trained on: every task beats the answer that is most frequent for its instruction, and the
//!    pictures' contents come through as well as a linear probe reads them from the vision network.
//! 3. Each downstream task is new to it and in its reach: zero-shot is low, full fine-tuning learns it, prompts learn a part.

mod embeddings;
mod report;
mod rivals;
mod vectors;

pub use report::{Downstream, Embeddings, Pretrained, Report};

use super::paths::ModelPaths;
use super::vision::features;
use crate::config::RunConfig;
use crate::method::Method;
use crate::model::{Backbone, FeatureStore, Model, ModelOptions, Sample};
use crate::observer::{Observer, check};
use crate::plan::Plan;
use crate::predictions::{self, Generation};
use crate::samples::{self, Exam};
use crate::weight_training::{Batch, View, halves, step, weights_of};
use anyhow::{Result, ensure};
use candle_core::Device;
use embeddings::Accumulator;
use fwd_continual::{Column, Curriculum, Event, Moment, Task};
use fwd_data::bench::{BenchTask, Benchmark, Record, Split, Stage};
use fwd_models::{ModelError, StepConfig, gguf_file};
use fwd_prompt::linalg::AdamW;
use fwd_prompt::{PromptLearner, PromptPool, Rejection, trainer};
use rand::seq::SliceRandom;
use rivals::{Majority, evenly, nearest_answers, percent, ridge_answers};
use std::ops::ControlFlow;
use std::path::Path;

/// Validation samples of a task that are looked at.
const SAMPLES: usize = 200;
/// Training samples of a task that a linear probe or a retrieval sees.
const PROBE_SAMPLES: usize = 4000;
/// Full fine-tuning of a downstream task.
const TUNING_STEPS: usize = 200;
const TUNING_BATCH: usize = 32;

/// Measures all gates of the model in a directory, on a benchmark; frozen features are kept in `cache`, or in the model directory. Of the
/// tasks that are not of pre-training those of `tasks` are looked at, or all if it names none.
///
/// # Errors
/// A task that there is not; those of model and data; an interrupt.
pub fn measure(
    model: &Path,
    bench: &Path,
    tasks: &[String],
    cache: Option<&Path>,
    device: &Device,
    observer: &dyn Observer,
) -> Result<Report> {
    let backbone = Backbone::open(model, ModelOptions::default(), device)?;
    let bench = Benchmark::open(bench)?;
    ensure!(
        backbone.model.reads_images(),
        "{}: gates are those of a model that reads images",
        model.display()
    );
    for name in tasks {
        let is_learnt = bench.task(name)?.stage == Stage::Downstream;
        ensure!(is_learnt, "`{name}` is a pre-training task; those are looked at in any case");
    }
    let cache = ModelPaths::new(model).cache(cache);
    let gauge = Gauge {
        backbone: &backbone,
        bench: &bench,
        store: FeatureStore::new(&backbone, &bench, cache.clone(), observer),
        observer,
    };
    let mut sums = Accumulator::new(backbone.model.prompt_dims().model);
    let mut pretraining = Vec::new();
    for task in bench.pretraining() {
        let exam = samples::exam(&gauge.store, task, Split::Val, SAMPLES)?;
        sums.add(&*backbone.model, &exam)?;
        pretraining.push(gauge.pretrained(task, &exam)?);
    }
    let embeddings = sums.finish()?;
    let mut downstream = Vec::new();
    let is_asked = |task: &&BenchTask| tasks.is_empty() || tasks.contains(&task.name);
    for task in bench.tasks.iter().filter(|task| task.stage == Stage::Downstream).filter(is_asked) {
        downstream.push(gauge.downstream(task, &cache)?);
    }
    let failures = report::failures(&embeddings, &pretraining, &downstream);
    Ok(Report {
        backbone: backbone.hash.clone(),
        benchmark: bench.hash().to_string(),
        embeddings,
        pretraining,
        downstream,
        failures,
    })
}

struct Gauge<'a> {
    backbone: &'a Backbone,
    bench: &'a Benchmark,
    store: FeatureStore<'a>,
    observer: &'a dyn Observer,
}

const GENERATION: Generation = Generation { max_new_tokens: 16, batch: 32 };

impl Gauge<'_> {
    fn pretrained(&self, task: &BenchTask, exam: &Exam<'_>) -> Result<Pretrained> {
        let records: Vec<&Record> = exam.cases.iter().map(|case| case.record).collect();
        let train: Vec<&Record> = task.split(Split::Train).collect();
        let given =
            predictions::answer(self.backbone, &self.no_prompts(), exam, GENERATION, None, self.observer)?;
        let majority = Majority::of(&train);
        let known = evenly(&train, PROBE_SAMPLES);
        let of_train: Vec<Vec<f32>> = self.queries(&known)?;
        let of_val: Vec<Vec<f32>> = exam.cases.iter().map(|case| case.sample.image_query.clone()).collect();
        let answers = if task.metric.is_of_captions() {
            nearest_answers(&known, &of_train, &of_val)
        } else {
            ridge_answers(&known, &of_train, &records, &of_val)?
        };
        Ok(Pretrained {
            task: task.name.clone(),
            metric: task.metric,
            samples: records.len(),
            score: predictions::percent(exam.task.metric, &given)?,
            global_majority: percent(task.metric, &records, |_, _| majority.overall.clone())?,
            instruction_majority: percent(task.metric, &records, |_, r| majority.of_instruction(r))?,
            probe: percent(task.metric, &records, |i, _| answers[i].clone())?,
        })
    }

    fn downstream(&self, task: &BenchTask, cache: &Path) -> Result<Downstream> {
        let train: Vec<&Record> = task.split(Split::Train).collect();
        let exam = samples::exam(&self.store, task, Split::Val, SAMPLES)?;
        let records: Vec<&Record> = exam.cases.iter().map(|case| case.record).collect();
        let majority = Majority::of(&train);
        let score = |pool: &PromptPool| {
            let given = predictions::answer(self.backbone, pool, &exam, GENERATION, None, self.observer)?;
            predictions::percent(task.metric, &given)
        };
        let zero_shot = score(&self.no_prompts())?;
        let prompt_tuned = score(&self.tune_prompts(task, &train)?)?;
        let is_in_blocks = gguf_file(&self.backbone.dir)?.is_some();
        let tuned = (!is_in_blocks).then(|| self.fine_tune(task, &train, &records, cache));
        Ok(Downstream {
            task: task.name.clone(),
            metric: task.metric,
            samples: records.len(),
            instruction_majority: percent(task.metric, &records, |_, r| majority.of_instruction(r))?,
            zero_shot,
            prompt_tuned,
            fine_tuned: tuned.transpose()?,
            in_sequence: task.order.is_some(),
        })
    }

    fn no_prompts(&self) -> PromptPool {
        PromptPool::new(self.backbone.model.prompt_dims(), 1, 1)
    }

    fn queries(&self, records: &[&Record]) -> Result<Vec<Vec<f32>>> {
        let progress = self.observer.begin("frozen features", records.len());
        Ok(self.store.samples(records, &*progress)?.into_iter().map(|s| s.image_query).collect())
    }

    /// A pool of the default configuration, tuned on this task alone without any projection.
    fn tune_prompts(&self, task: &BenchTask, train: &[&Record]) -> Result<PromptPool> {
        let progress = self.observer.begin("frozen features", train.len());
        let train: Vec<Sample> = self.store.samples(train, &*progress)?;
        drop(progress);
        let Plan::Alone(mut config) = Method::Independent.plan(&RunConfig::default(), 1) else {
            anyhow::bail!("the method `independent` has no plan of its own");
        };
        // What prompts can teach is asked, not who takes them.
        config.pool.rejection = Rejection::Never;
        let tasks = vec![Task { name: task.name.clone(), train: &train[..] }];
        let curriculum = Curriculum { pretraining: &[][..], tasks };
        let mut trainer = trainer(&*self.backbone.model, curriculum, &config)?;
        let mut unscored = |_: &PromptLearner<&Model>, _: Moment, _: Column| Ok::<_, ModelError>(0.0);
        let progress = self.observer.begin(&format!("prompts: {}", task.name), train.len());
        trainer.run(None, &mut unscored, &mut |event| {
            if let Event::Step { step, of, loss, .. } = event {
                progress.set(step * train.len() / of);
                progress.say(&format!("prompts: {} {loss:.2}", task.name));
            }
            if self.observer.is_stop_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        check(self.observer)?;
        Ok(trainer.learner().prompts().pool().clone())
    }

    /// The score after all weights but the vision tower's were tuned on the task: what the model could learn at all.
    fn fine_tune(&self, task: &BenchTask, train: &[&Record], val: &[&Record], cache: &Path) -> Result<f64> {
        let (base, processor) = (&*self.backbone.model, &self.backbone.processor);
        let mut keys: Vec<&str> = train.iter().chain(val).map(|r| r.image.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        let views: Vec<View<'_>> = keys.into_iter().map(View::plain).collect();
        let vision = ModelPaths::new(&self.backbone.dir).vision();
        let network = (base, vision.as_path());
        let images = features(
            network,
            self.backbone.compute,
            &processor.image,
            self.bench,
            &views,
            cache,
            self.observer,
        )?;
        let mut trainable = weights_of(self.backbone, None, None)?;
        let progress = self.observer.begin(&format!("fine-tuning: {}", task.name), TUNING_STEPS);
        let mut order: Vec<&Record> = Vec::new();
        for n in 0..TUNING_STEPS {
            check(self.observer)?;
            if order.len() < TUNING_BATCH {
                let mut more = train.to_vec();
                more.shuffle(&mut fwd_continual::stream(
                    0,
                    &format!("fine-tuning {}", task.name),
                    [n as u64, 0],
                ));
                order.extend(more);
            }
            let records: Vec<&Record> = order.drain(..TUNING_BATCH.min(order.len())).collect();
            let batches = halves(self.backbone.reader(), &images, &records)?;
            let lr = 5e-4 * (1.0 - n as f64 / TUNING_STEPS as f64);
            let config =
                StepConfig { optimiser: AdamW { lr, beta2: 0.98, ..AdamW::default() }, max_norm: 1.0 };
            let report = step(base, &mut trainable, &batches, &config, |_, loss| Ok(loss.clone()))?;
            progress.set(n + 1);
            progress.say(&format!("fine-tuning: {} {:.2}", task.name, report.loss));
        }
        let model = base.with_parameters(&mut trainable.frozen(base.device())?)?;
        let mut answers = Vec::new();
        for records in val.chunks(GENERATION.batch) {
            let batch = Batch::new(self.backbone.reader(), &images, None, records)?;
            answers.extend(batch.answers(&*model, processor, GENERATION.max_new_tokens)?);
        }
        percent(task.metric, val, |i, _| answers[i].clone())
    }
}
