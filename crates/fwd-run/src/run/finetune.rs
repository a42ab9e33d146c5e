//! Weights as a learner of the continual loop: the bridge between vision tower and language model is trained in sequence, the usual
//! way to tune such a model, and the one that prompts are compared with. Vision tower and language model stay frozen; one AdamW goes
//! through all tasks.

use super::outputs::{Distributions, distributions};
use crate::device::DeviceKind;
use crate::memory;
use crate::model::{Backbone, Model};
use crate::observer::{Observer, check};
use crate::predictions;
use crate::samples::Exam;
use crate::weight_training::{
    Batch, ImageFeatures, Network, View, gradient, halves, load_weights, save_weights, weights_of,
};
use anyhow::{Result, ensure};
use fwd_continual::{
    Change, Failure, Gradients, Learner, Reporter, Section, SectionError, StepReport, TaskAt, permutation,
    stream,
};
use fwd_data::bench::{Benchmark, Record, Split};
use fwd_models::{StepConfig, Trainable};
use fwd_prompt::linalg::AdamW;
use std::path::Path;
use std::time::Instant;

/// The weights of the bridge, and the frozen model around them.
pub(super) struct BridgeLearner<'a> {
    backbone: &'a Backbone,
    images: &'a ImageFeatures,
    trainable: Trainable,
    optimiser: AdamW,
    max_norm: f64,
}

impl<'a> BridgeLearner<'a> {
    /// The weights as the model has them.
    ///
    /// # Errors
    /// An unreadable checkpoint; weights that cannot be trained in the memory there is.
    pub(super) fn new(
        backbone: &'a Backbone,
        images: &'a ImageFeatures,
        optimiser: AdamW,
        max_norm: Option<f64>,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let parts = backbone.model.bridge_parameters();
        let trainable = weights_of(backbone, Some(parts), memory::available())?;
        ensure!(
            trainable.n_parameters() > 0,
            "{} has no bridge between images and text, which is what `finetune` trains",
            backbone.dir.display()
        );
        let (n, bytes) = (trainable.n_parameters(), memory::of_training(trainable.n_parameters()));
        let gib = bytes as f64 / f64::from(1 << 30);
        observer.note(&format!(
            "{n} weights are trained in f32; with gradients and moments they take {gib:.1} GiB"
        ));
        let max_norm = max_norm.unwrap_or(f64::INFINITY);
        Ok(Self { backbone, images, trainable, optimiser, max_norm })
    }

    /// How many numbers are trained.
    pub(super) fn n_parameters(&self) -> u64 {
        self.trainable.n_parameters() as u64
    }

    /// The model with the weights as they are.
    ///
    /// # Errors
    /// Those of the model.
    pub(super) fn model(&self) -> Result<Box<Model>> {
        let base = &self.backbone.model;
        Ok(base.with_parameters(&mut self.trainable.frozen(base.device())?)?)
    }

    /// The answers of a model to all samples of a task.
    ///
    /// # Errors
    /// Those of the model; an interrupt between two batches.
    pub(super) fn answer<'e>(
        &self,
        model: &Model,
        exam: &'e Exam<'_>,
        generation: predictions::Generation,
        observer: &dyn Observer,
    ) -> Result<Vec<predictions::Prediction<'e>>> {
        let progress = observer.begin(&format!("scoring {}", exam.task.name), exam.cases.len());
        let mut texts = Vec::with_capacity(exam.cases.len());
        for cases in exam.cases.chunks(generation.batch) {
            check(observer)?;
            let records: Vec<&Record> = cases.iter().map(|case| case.record).collect();
            let batch = Batch::new(self.backbone.reader(), self.images, None, &records)?;
            texts.extend(batch.answers(model, &self.backbone.processor, generation.max_new_tokens)?);
            progress.set(texts.len());
        }
        predictions::scored(exam, texts)
    }

    /// What a model says of the answers to some samples of a task.
    ///
    /// # Errors
    /// Those of the model and the tokenizer.
    pub(super) fn outputs(&self, model: &Model, exam: &Exam<'_>, max_tokens: usize) -> Result<Distributions> {
        distributions(model, exam, max_tokens, |cases, max_tokens| {
            let records: Vec<&Record> = cases.iter().map(|case| case.record).collect();
            let mut batch = Batch::new(self.backbone.reader(), self.images, None, &records)?;
            batch.labels = batch.labels.narrow(1, 0, batch.labels.dim(1)?.min(max_tokens))?;
            let is_label = |id: &&i64| **id != fwd_ops::IGNORE_INDEX;
            let labels = batch.labels.to_vec2::<i64>()?;
            let n_labels: Vec<usize> = labels.iter().map(|row| row.iter().filter(is_label).count()).collect();
            let (_, scored) = batch.score(model, None)?;
            Ok(scored.log_probs(&n_labels)?)
        })
    }
}

/// The parameters as they were when a task began.
pub(super) struct BridgeTraining {
    before: Vec<f32>,
}

impl<'a> Learner for BridgeLearner<'a> {
    type Sample = &'a Record;
    type Training = BridgeTraining;
    type Note = ();

    fn kind(&self) -> &'static str {
        "bridge"
    }

    fn identity(&self) -> serde_json::Value {
        serde_json::json!({ "backbone": self.backbone.hash, "optimiser": self.optimiser, "max_norm": self.max_norm })
    }

    fn order(&self, task: &TaskAt<'_>, epoch: usize, n: usize) -> Vec<usize> {
        permutation(&mut stream(task.seed, task.name, [epoch as u64, 0]), n)
    }

    fn begin_task(
        &mut self,
        _samples: &[&'a Record],
        _task: &TaskAt<'_>,
        _report: &mut Reporter<'_, ()>,
    ) -> Result<Option<BridgeTraining>, Failure> {
        Ok(Some(BridgeTraining { before: self.trainable.flat_values() }))
    }

    fn gradients(
        &self,
        _training: &BridgeTraining,
        _task: &TaskAt<'_>,
        batch: &fwd_continual::Batch<'_, &'a Record>,
    ) -> Result<Gradients, Failure> {
        let records: Vec<&Record> = batch.samples().copied().collect();
        let batches = halves(self.backbone.reader(), self.images, &records)?;
        let model = &*self.backbone.model;
        let gradient = gradient(model, &self.trainable, &batches, |_, loss| Ok(loss.clone()))?;
        Ok(Gradients { loss: gradient.loss(), parameters: gradient.into_flat(), ..Gradients::default() })
    }

    fn step(
        &mut self,
        _training: &mut BridgeTraining,
        gradients: &Gradients,
        factor: f64,
    ) -> Result<StepReport, Failure> {
        let lr = self.optimiser.lr * factor;
        let config = StepConfig { optimiser: AdamW { lr, ..self.optimiser }, max_norm: self.max_norm };
        let began = Instant::now();
        let gradient = self.trainable.gradient_of_flat(gradients.loss, &gradients.parameters)?;
        let report = self.trainable.step(gradient, &config)?;
        let optimiser_seconds = began.elapsed().as_secs_f64();
        Ok(StepReport { grad_norm: report.grad_norm, lr, optimiser_seconds })
    }

    fn change<'t>(&'t self, training: &'t BridgeTraining) -> Change<'t> {
        let now = self.trainable.flat_values();
        let change: Vec<f32> = now.iter().zip(&training.before).map(|(now, before)| now - before).collect();
        Change { first: 0, values: change.into() }
    }

    fn end_task(
        &mut self,
        _training: &BridgeTraining,
        _samples: &[&'a Record],
        _task: &TaskAt<'_>,
    ) -> Result<(), Failure> {
        Ok(())
    }

    fn gradient_of(&self, sample: &&'a Record) -> Result<Vec<f32>, Failure> {
        let batch = [Batch::new(self.backbone.reader(), self.images, None, &[sample])?];
        let model = &*self.backbone.model;
        Ok(gradient(model, &self.trainable, &batch, |_, loss| Ok(loss.clone()))?.into_flat())
    }

    fn save(&self, training: Option<&BridgeTraining>, section: &mut Section) {
        save_weights(&self.trainable, section);
        if let Some(training) = training {
            section.put_f32("before", &[training.before.len()], &training.before);
        }
    }

    fn load(&mut self, section: &Section) -> Result<Option<BridgeTraining>, SectionError> {
        load_weights(&mut self.trainable, section)?;
        if section.shape("before").is_none() {
            return Ok(None);
        }
        let before = section.f32("before", &[self.trainable.n_parameters()])?;
        Ok(Some(BridgeTraining { before }))
    }
}

/// What the vision network of a backbone computes of all images that some tasks learn from or are scored on.
///
/// # Errors
/// Those of the images and of the network; an interrupt between two batches.
pub(super) fn image_features(
    backbone: &Backbone,
    bench: &Benchmark,
    exams: &[Exam<'_>],
    cache: &Path,
    observer: &dyn Observer,
) -> Result<ImageFeatures> {
    let train = exams.iter().flat_map(|exam| exam.task.split(Split::Train));
    let scored = exams.iter().flat_map(|exam| exam.cases.iter().map(|case| case.record));
    let mut keys: Vec<&str> = train.chain(scored).map(|record| record.image.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    let views: Vec<View<'_>> = keys.into_iter().map(View::plain).collect();
    let hash = format!("{}{}{}", backbone.hash, DeviceKind::tag(backbone.model.device()), backbone.variant());
    let network = Network { model: &*backbone.model, hash: &hash, processor: &backbone.processor.image };
    ImageFeatures::compute(&network, bench, &views, cache, observer)
}
