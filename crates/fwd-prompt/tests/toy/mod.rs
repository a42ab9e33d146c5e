//! A small model whose gradient is written out by hand, tasks for it, and runs of the trainer.

use fwd_prompt::continual::*;
use fwd_prompt::*;
use rand::Rng;
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::result::Result;

pub(crate) const DIM: usize = 24;

/// Reads `tanh(mean over all tokens · W)` and wants it near the sample's target: loss `½‖y − target‖²`.
pub(crate) struct Toy {
    weights: Vec<f32>,
}

#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) image: Vec<f32>,
    pub(crate) text: Vec<f32>,
    pub(crate) target: Vec<f32>,
}

#[derive(Debug, thiserror::Error)]
#[error("the toy broke on purpose")]
pub(crate) struct Broken;

impl Toy {
    pub(crate) fn new() -> Self {
        let mut rng = stream(0, "toy", [0, 0]);
        Self { weights: (0..DIM * DIM).map(|_| rng.random_range(-0.4..0.4)).collect() }
    }

    pub(crate) fn output(&self, sample: &Sample, prompt: &[f32]) -> Vec<f64> {
        let tokens = || [prompt, &sample.image, &sample.text].into_iter().flat_map(|x| x.chunks_exact(DIM));
        let n = tokens().count() as f64;
        let mut mean = [0.0; DIM];
        tokens().for_each(|t| mean.iter_mut().zip(t).for_each(|(m, &x)| *m += f64::from(x) / n));
        let column = |j: usize| (0..DIM).map(|i| mean[i] * f64::from(self.weights[i * DIM + j])).sum::<f64>();
        (0..DIM).map(|j| column(j).tanh()).collect()
    }
}

impl FrozenModel for Toy {
    type Features = Sample;
    type Error = Broken;

    fn dims(&self) -> Dims {
        Dims { model: DIM, image_query: DIM, text_query: DIM }
    }

    fn embeddings<'s>(&'s self, sample: &'s Sample) -> Result<Embeddings<'s>, Broken> {
        Ok(Embeddings { image: sample.image[..].into(), text: sample.text[..].into() })
    }

    fn queries<'s>(&'s self, sample: &'s Sample) -> Result<Queries<'s>, Broken> {
        Ok(Queries { image: sample.image[..DIM].into(), text: sample.text[..DIM].into() })
    }

    fn loss_gradient(&self, batch: &[&Sample], prompts: &PromptBatch) -> Result<LossGradient, Broken> {
        Ok(self.input_gradient(batch, prompts)?.unwrap().prompts)
    }

    fn with_embeddings(&self, sample: &Sample, rows: &Embeddings<'_>) -> Result<Option<Sample>, Broken> {
        Ok(Some(Sample { image: rows.image.to_vec(), text: rows.text.to_vec(), ..sample.clone() }))
    }

    fn input_gradient(
        &self,
        batch: &[&Sample],
        prompts: &PromptBatch,
    ) -> Result<Option<InputGradient>, Broken> {
        let (mut loss, mut gradient, mut embeddings, mut start) = (0.0, Vec::new(), Vec::new(), 0);
        for (sample, &length) in batch.iter().zip(&prompts.lengths) {
            let prompt = &prompts.values[start * DIM..(start + length) * DIM];
            start += length;
            let y = self.output(sample, prompt);
            let n_tokens = length + (sample.image.len() + sample.text.len()) / DIM;
            let error: Vec<f64> = y.iter().zip(&sample.target).map(|(y, &t)| y - f64::from(t)).collect();
            loss += 0.5 * error.iter().map(|e| e * e).sum::<f64>() / batch.len() as f64;
            let scale = 1.0 / (n_tokens * batch.len()) as f64;
            let row: Vec<f32> = (0..DIM)
                .map(|i| {
                    let sum: f64 = (0..DIM)
                        .map(|j| f64::from(self.weights[i * DIM + j]) * (1.0 - y[j] * y[j]) * error[j])
                        .sum();
                    (scale * sum) as f32
                })
                .collect();
            gradient.extend(row.repeat(length));
            // The mean is over all tokens alike.
            let [image, text] = [&sample.image, &sample.text].map(|rows| row.repeat(rows.len() / DIM).into());
            embeddings.push(Embeddings { image, text });
        }
        Ok(Some(InputGradient { prompts: LossGradient { loss, gradient }, embeddings }))
    }
}

/// Samples of a task whose embeddings live near a random subspace of six directions.
pub(crate) fn samples(task: u64, n: usize) -> Vec<Sample> {
    let mut rng = stream(1, "samples", [task, 0]);
    let directions: Vec<f32> = (0..6 * DIM).map(|_| rng.random_range(-1.0..1.0)).collect();
    let target: Vec<f32> = (0..DIM).map(|_| rng.random_range(-0.9..0.9)).collect();
    let mut row = || {
        let weights: [f32; 6] = std::array::from_fn(|_| rng.random_range(-1.0..1.0));
        let value = |i: usize| (0..6).map(|k| weights[k] * directions[k * DIM + i]).sum::<f32>();
        (0..DIM).map(value).collect::<Vec<f32>>()
    };
    (0..n).map(|_| Sample { image: [row(), row()].concat(), text: row(), target: target.clone() }).collect()
}

pub(crate) struct Data {
    pub(crate) pretraining: Vec<Sample>,
    pub(crate) tasks: Vec<Vec<Sample>>,
}

impl Data {
    pub(crate) fn new(n_tasks: u64) -> Self {
        Self { pretraining: samples(0, 30), tasks: (1..=n_tasks).map(|t| samples(t, 25)).collect() }
    }

    pub(crate) fn curriculum(&self) -> Curriculum<&[Sample]> {
        let tasks = self.tasks.iter().enumerate();
        let tasks = tasks.map(|(i, train)| Task { name: format!("task {}", i + 1), train: &train[..] });
        Curriculum { pretraining: &self.pretraining, tasks: tasks.collect() }
    }

    /// The score: 100 times how near the outputs are, on the training samples.
    pub(crate) fn score(&self, learner: &PromptLearner<&Toy>, column: Column) -> Result<f64, Broken> {
        let (model, pool) = (learner.model(), learner.prompts().pool());
        let samples = match column {
            Column::Task(task) => &self.tasks[task.index()],
            Column::Pretraining => &self.pretraining,
        };
        let mut total = 0.0;
        for sample in samples {
            let selection = pool.select(&model.queries(sample)?).unwrap();
            let prompt = pool.gather(&[selection]).unwrap();
            let y = model.output(&pool.read(*model, sample).unwrap(), &prompt.values);
            let error: f64 = y.iter().zip(&sample.target).map(|(y, &t)| (y - f64::from(t)).powi(2)).sum();
            total += 100.0 * (-error / DIM as f64).exp() / samples.len() as f64;
        }
        Ok(total)
    }
}

/// A small shared pool under a rule.
pub(crate) fn config(rule: Rule) -> Config {
    Config {
        rule,
        pool: PoolConfig {
            allocation: Allocation::Shared(6),
            prompt_len: 3,
            top_k: 2,
            ..PoolConfig::default()
        },
        subspace: SubspaceOptions { pretrained_energy: 0.6, task_energy: 0.8, ..SubspaceOptions::default() },
        training: TrainingConfig { epochs: 2, batch_size: 7, ..TrainingConfig::default() },
        ..Config::default()
    }
}

/// All that a run has computed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    pub(crate) saved: SavedState,
    pub(crate) stage: Stage,
    pub(crate) prompts: Prompts,
    pub(crate) scores: ScoreMatrix,
    pub(crate) stored: Vec<StoredSample>,
}

#[allow(dead_code)] // Not every test asks for everything.
impl State {
    pub(crate) fn of<M: FrozenModel<Features = Sample>>(trainer: &PromptTrainer<M, &[Sample]>) -> Self {
        Self {
            saved: trainer.saved_state(),
            stage: trainer.stage(),
            prompts: trainer.learner().prompts().clone(),
            scores: trainer.scores().clone(),
            stored: trainer.method().stored_samples().to_vec(),
        }
    }

    pub(crate) fn pool(&self) -> &PromptPool {
        self.prompts.pool()
    }

    pub(crate) fn ledger(&self) -> &SubspaceLedger {
        self.prompts.ledger()
    }

    pub(crate) fn interference(&self) -> &[Vec<Interference>] {
        self.prompts.interference()
    }
}

/// Runs to the end, or until the observer stops it; `dir` is where it saves.
pub(crate) fn run(
    data: &Data,
    config: &Config,
    dir: Option<&Path>,
    observe: Observe<'_, PromptNote>,
) -> (State, Status) {
    let model = Toy::new();
    let mut trainer = match dir {
        Some(dir) if SavedState::exists(dir) => resume(&model, data.curriculum(), config, dir).unwrap(),
        _ => trainer(&model, data.curriculum(), config).unwrap(),
    };
    let mut evaluate = |learner: &PromptLearner<&Toy>, _: Moment, column: Column| data.score(learner, column);
    let status = trainer.run(dir, &mut evaluate, observe).unwrap();
    (State::of(&trainer), status)
}

/// Runs to the end.
pub(crate) fn finish(data: &Data, config: &Config) -> State {
    let (state, status) = run(data, config, None, &mut |_| ControlFlow::Continue(()));
    assert_eq!((status, state.stage), (Status::Finished, Stage::Done));
    state
}

/// All files of a folder.
pub(crate) fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
}
