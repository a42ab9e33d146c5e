//! What both examples share: a small attention network that is pre-trained on the spot and then frozen, and the run that compares
//! projection rules on it.
//!
//! ```text
//! x = [prompts ; embeddings]     x ← x + softmax(τ x xᵀ / √d) x W_v W_o     x ← x + relu(rms(x) W_1) W_2
//! logits = mean(rms(x)) W_c
//! ```
//! Tokens attend to what is like them, prompts included; the mean is over the embeddings alone.

use candle_core::{D, DType, Device, Tensor, Var};
use fwd_ops::{AttentionBias, OpError, attention, backward, cross_entropy, in_pool};
use fwd_prompt::continual::{Column, Curriculum, Moment, ScoreMatrix, Task, stream};
use fwd_prompt::linalg::{AdamW, AdamWState};
use fwd_prompt::{
    Config, Dims, Embeddings, FrozenModel, LossGradient, PromptBatch, PromptLearner, PromptPool, Prompts,
    Queries, Rule, trainer,
};
use rand::Rng;
use std::error::Error;
use std::ops::ControlFlow;

pub(crate) type AnyResult<T> = Result<T, Box<dyn Error>>;

/// Sizes of a network.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) tokens: usize,
    pub(crate) width: usize,
    pub(crate) hidden: usize,
    /// τ: how much more a token attends to what is like it.
    pub(crate) sharpness: f64,
    pub(crate) n_classes: usize,
    /// Whether the network is for images (their query is the image query of the pool) or for texts.
    pub(crate) is_image: bool,
}

/// The parameters behind the embeddings.
pub(crate) struct Network {
    pub(crate) sizes: Sizes,
    parameters: Vec<(&'static str, Var)>,
}

/// A sample after its embedding.
#[derive(Clone)]
pub(crate) struct Sample {
    /// `(tokens, width)` row-major.
    pub(crate) embeddings: Vec<f32>,
    pub(crate) label: usize,
}

fn weights(rng: &mut impl Rng, rows: usize, columns: usize, scale: f64) -> candle_core::Result<Var> {
    let mut normal = || rng.sample::<f32, _>(rand_distr::StandardNormal) * scale as f32;
    Var::from_vec((0..rows * columns).map(|_| normal()).collect(), (rows, columns), &Device::Cpu)
}

/// `x / rms(x)`, in operations that record a gradient.
fn rms_norm(x: &Tensor) -> candle_core::Result<Tensor> {
    x.broadcast_div(&(x.sqr()?.mean_keepdim(D::Minus1)? + 1e-6)?.sqrt()?)
}

/// `x·W` for `(batch, tokens, n)`.
fn linear(x: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
    let (batch, tokens, n) = x.dims3()?;
    x.reshape((batch * tokens, n))?.matmul(weight)?.reshape((batch, tokens, weight.dim(1)?))
}

impl Network {
    /// Random parameters.
    pub(crate) fn new(sizes: Sizes, seed: u64) -> AnyResult<Self> {
        let mut rng = stream(seed, "network", [0, 0]);
        let (d, h) = (sizes.width, sizes.hidden);
        let scale = |n: usize| (n as f64).powf(-0.5);
        let mut parameters = Vec::new();
        for (name, rows, columns) in
            [("value", d, d), ("output", d, d), ("up", d, h), ("down", h, d), ("classes", d, sizes.n_classes)]
        {
            parameters.push((name, weights(&mut rng, rows, columns, scale(rows))?));
        }
        Ok(Self { sizes, parameters })
    }

    fn get(&self, name: &str) -> &Tensor {
        match self.parameters.iter().find(|(n, _)| *n == name) {
            Some((_, var)) => var,
            None => unreachable!("the network has no `{name}`"),
        }
    }

    /// Logits `(batch, classes)` of `x (batch, n_prompt + tokens, width)`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, OpError> {
        in_pool(|| self.logits(x))
    }

    fn logits(&self, x: &Tensor) -> Result<Tensor, OpError> {
        let scale = self.sizes.sharpness * (self.sizes.width as f64).powf(-0.5);
        let value = linear(x, self.get("value"))?;
        let mixed = attention(x, x, &value, 1, scale, &AttentionBias::none())?;
        let x = (x + linear(&mixed, self.get("output"))?)?;
        let up = linear(&rms_norm(&x)?, self.get("up"))?.relu()?;
        let x = rms_norm(&(x + linear(&up, self.get("down"))?)?)?;
        let n_prompt = x.dim(1)? - self.sizes.tokens;
        let pooled = x.narrow(1, n_prompt, self.sizes.tokens)?.mean(1)?;
        Ok(pooled.matmul(self.get("classes"))?)
    }

    /// Trains all parameters, and those of the embedding, from scratch: `embed` gives `(batch, tokens, width)` for some samples.
    pub(crate) fn pretrain(
        &self,
        embedding: &[(&'static str, Var)],
        labels: &[usize],
        (n_steps, batch_size, lr): (usize, usize, f64),
        embed: &dyn Fn(&[usize]) -> candle_core::Result<Tensor>,
    ) -> AnyResult<()> {
        let all: Vec<(&str, &Var)> = embedding.iter().chain(&self.parameters).map(|(n, v)| (*n, v)).collect();
        let mut states: Vec<AdamWState> = all.iter().map(|(_, v)| AdamWState::new(v.elem_count())).collect();
        let mut rng = stream(0, "pre-training", [0, 0]);
        for step in 0..n_steps {
            let batch: Vec<usize> = (0..batch_size).map(|_| rng.random_range(0..labels.len())).collect();
            let targets: Vec<i64> = batch.iter().map(|&i| labels[i] as i64).collect();
            let targets = Tensor::from_vec(targets, batch_size, &Device::Cpu)?;
            let loss = cross_entropy(&self.forward(&embed(&batch)?)?, &targets)?;
            let gradients = backward(&loss, &all)?;
            let decay = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / n_steps as f64).cos());
            let optimiser = AdamW { lr: lr * decay, ..AdamW::default() };
            for (((_, var), gradient), state) in all.iter().zip(gradients).zip(&mut states) {
                let mut values: Vec<f32> = var.flatten_all()?.to_vec1()?;
                optimiser.step(state, &mut values, &gradient.flatten_all()?.to_vec1::<f32>()?)?;
                var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu)?)?;
            }
        }
        Ok(())
    }

    /// Samples with their embeddings, which do not change any more.
    pub(crate) fn samples(&self, embedded: &Tensor, labels: &[usize]) -> AnyResult<Vec<Sample>> {
        let rows: Vec<Vec<f32>> = embedded.flatten_from(1)?.to_vec2()?;
        Ok(rows.into_iter().zip(labels).map(|(embeddings, &label)| Sample { embeddings, label }).collect())
    }

    /// `[prompts ; embeddings]` of a batch.
    fn input(&self, batch: &[&Sample], prompt: &Tensor) -> candle_core::Result<Tensor> {
        let Sizes { tokens, width, .. } = self.sizes;
        let values: Vec<f32> = batch.iter().flat_map(|s| &s.embeddings).copied().collect();
        let embeddings = Tensor::from_vec(values, (batch.len(), tokens, width), &Device::Cpu)?;
        if prompt.dim(1)? == 0 { Ok(embeddings) } else { Tensor::cat(&[prompt, &embeddings], 1) }
    }

    /// Percent of samples whose class is found with the prompts they select.
    pub(crate) fn accuracy(&self, samples: &[Sample], pool: &PromptPool) -> Result<f64, OpError> {
        let mut right = 0;
        for batch in samples.chunks(250) {
            let batch: Vec<&Sample> = batch.iter().collect();
            let selections: Vec<_> = batch
                .iter()
                .map(|s| pool.select(&self.queries(s)?).map_err(unfit))
                .collect::<Result<_, _>>()?;
            let prompts = pool.gather(&selections).map_err(unfit)?;
            let prompts = tensor(&prompts)?;
            let input = self.input(&batch, &prompts)?;
            let classes: Vec<u32> =
                self.forward(&input)?.argmax(D::Minus1)?.to_dtype(DType::U32)?.to_vec1()?;
            right += classes.iter().zip(&batch).filter(|(class, s)| **class as usize == s.label).count();
        }
        Ok(100.0 * right as f64 / samples.len() as f64)
    }
}

/// The prompts of a batch as `(batch, tokens, width)`; every sample here has as many.
fn tensor(prompts: &PromptBatch) -> Result<Tensor, OpError> {
    let what = || "prompts of several lengths".to_owned();
    let n = prompts.uniform_length().ok_or_else(|| OpError::Shape { op: "prompts", what: what() })?;
    Ok(Tensor::from_slice(&prompts.values, (prompts.lengths.len(), n, prompts.dim), &Device::Cpu)?)
}

/// The pool was made for this network, so this does not happen; an example need not have an error type of its own.
fn unfit(error: fwd_prompt::PromptError) -> OpError {
    OpError::Shape { op: "prompt pool", what: error.to_string() }
}

impl FrozenModel for Network {
    type Features = Sample;
    type Error = OpError;

    fn dims(&self) -> Dims {
        let d = self.sizes.width;
        let (image_query, text_query) = if self.sizes.is_image { (d, 0) } else { (0, d) };
        Dims { model: d, image_query, text_query }
    }

    fn embeddings<'s>(&'s self, sample: &'s Sample) -> Result<Embeddings<'s>, OpError> {
        let (rows, none) = (sample.embeddings[..].into(), (&[][..]).into());
        Ok(if self.sizes.is_image {
            Embeddings { image: rows, text: none }
        } else {
            Embeddings { image: none, text: rows }
        })
    }

    /// The mean embedding.
    fn queries<'s>(&'s self, sample: &'s Sample) -> Result<Queries<'s>, OpError> {
        let mut mean = vec![0.0; self.sizes.width];
        for row in sample.embeddings.chunks_exact(self.sizes.width) {
            mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += x / self.sizes.tokens as f32);
        }
        let (mean, none) = (mean.into(), vec![].into());
        Ok(if self.sizes.is_image {
            Queries { image: mean, text: none }
        } else {
            Queries { image: none, text: mean }
        })
    }

    fn loss_gradient(&self, batch: &[&Sample], prompts: &PromptBatch) -> Result<LossGradient, OpError> {
        let prompt = Var::from_tensor(&tensor(prompts)?)?;
        let labels: Vec<i64> = batch.iter().map(|s| s.label as i64).collect();
        let labels = Tensor::from_vec(labels, batch.len(), &Device::Cpu)?;
        let loss = cross_entropy(&self.forward(&self.input(batch, &prompt)?)?, &labels)?;
        let gradient = backward(&loss, &[("prompt", &prompt)])?;
        Ok(LossGradient {
            loss: f64::from(loss.to_scalar::<f32>()?),
            gradient: gradient[0].flatten_all()?.to_vec1()?,
        })
    }
}

/// A task with what it is scored on.
pub(crate) struct Split {
    pub(crate) name: &'static str,
    pub(crate) train: Vec<Sample>,
    pub(crate) test: Vec<Sample>,
}

/// What a run ends in.
pub(crate) struct Outcome {
    pub(crate) prompts: Prompts,
    pub(crate) scores: ScoreMatrix,
}

/// Learns the tasks one after another under a rule; the last split is that of pre-training.
pub(crate) fn learn(network: &Network, splits: &[Split], config: &Config) -> AnyResult<Outcome> {
    let (pretraining, tasks) = splits.split_last().ok_or("no data")?;
    let curriculum = Curriculum {
        pretraining: &pretraining.train[..],
        tasks: tasks.iter().map(|s| Task { name: s.name.to_owned(), train: &s.train[..] }).collect(),
    };
    let mut run = trainer(network, curriculum, config)?;
    let mut evaluate = |learner: &PromptLearner<&Network>, _: Moment, column: Column| {
        let split = match column {
            Column::Task(task) => &tasks[task.index()],
            Column::Pretraining => pretraining,
        };
        network.accuracy(&split.test, learner.prompts().pool())
    };
    run.run(None, &mut evaluate, &mut |_| ControlFlow::Continue(()))?;
    Ok(Outcome { prompts: run.learner().prompts().clone(), scores: run.scores().clone() })
}

/// Runs the rules on several seeds and prints, for each, the mean score matrix and its measures. Returns the mean forgetting.
pub(crate) fn compare(
    rules: &[(&str, Rule)],
    config: &Config,
    seeds: std::ops::Range<u64>,
    build: &dyn Fn(u64) -> AnyResult<(Network, Vec<Split>)>,
) -> AnyResult<Vec<f64>> {
    let data = seeds.clone().map(build).collect::<AnyResult<Vec<_>>>()?;
    let names: Vec<&str> = data[0].1.iter().map(|s| s.name).collect();
    let n_tasks = names.len() - 1;
    let mut forgetting = Vec::new();
    for (name, rule) in rules {
        let mut states = Vec::new();
        for ((network, splits), seed) in data.iter().zip(seeds.clone()) {
            states.push(learn(network, splits, &Config { rule: *rule, seed, ..config.clone() })?);
        }
        let mean = |measure: &dyn Fn(&Outcome) -> Option<f64>| {
            states.iter().filter_map(measure).sum::<f64>() / states.len() as f64
        };
        println!("\nrule {name}: accuracy in percent, mean of {} seeds", states.len());
        println!("  {:18}{}", "", names.iter().map(|n| format!("{n:>14}")).collect::<String>());
        for row in 0..=n_tasks {
            let after = if row == 0 { "before".to_owned() } else { format!("after {}", names[row - 1]) };
            let scores = (1..=names.len()).map(|j| format!("{:14.1}", mean(&|s| s.scores.get(row, j))));
            println!("  {after:18}{}", scores.collect::<String>());
        }
        let leakage = |s: &Outcome| {
            let forbidden = s.prompts.interference().iter().flatten().filter(|x| x.forbidden);
            Some(forbidden.map(|x| x.leakage).fold(0.0, f64::max))
        };
        let lost = mean(&|s| s.scores.forgetting(n_tasks));
        println!(
            "  forgetting {lost:.1}   average {:.1}   pre-training {:+.1}   leakage {:.0e}   subspaces {:?}",
            mean(&|s| s.scores.average(n_tasks)),
            mean(&|s| s.scores.retention(n_tasks)),
            mean(&leakage),
            states[0].prompts.ledger().entries().iter().map(|e| e.basis.len()).collect::<Vec<_>>(),
        );
        forgetting.push(lost);
    }
    Ok(forgetting)
}
