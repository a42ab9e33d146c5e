//! Is a backbone fit to be built on? Three gates, measured on validation data.
//!
//! 1. Its input embeddings are alive: queries differ, visual and text tokens are of one length, the spectrum is broad.
//! 2. It can do what it was pre-trained on: every task beats the answer that is most frequent for its instruction, and the
//!    pictures' contents come through as well as a linear probe reads them from the vision network.
//! 3. Each downstream task is new to it and in its reach: zero-shot is low, full fine-tuning learns it, prompts learn a part.

use super::{VISION, cache_of, features};
use crate::backbone::Backbone;
use crate::config::RunConfig;
use crate::features::FeatureStore;
use crate::frozen::Frozen;
use crate::images::{Images, View};
use crate::method::{Method, Plan};
use crate::predict::{self, Generation};
use crate::samples::{self, Exam};
use crate::weights::{self, Batch, weights_of};
use crate::{interrupt, progress};
use anyhow::{Context, Result};
use candle_core::Device;
use fwd_data::bench::{BenchTask, Benchmark, Metric, Record, Split};
use fwd_models::{BlipSample, StepConfig};
use fwd_prompt::linalg::{AdamW, Gram, energy_curve, symmetric_eigen};
use fwd_prompt::{Curriculum, FrozenModel, PromptPool, Rejection, Task, Trainer};
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;

/// Validation samples of a task that are looked at.
const SAMPLES: usize = 200;
/// Training samples of a task that a linear probe or a retrieval sees.
const PROBE_SAMPLES: usize = 4000;
/// Full fine-tuning of a downstream task.
const TUNING_STEPS: usize = 200;
const TUNING_BATCH: usize = 32;

/// All gates of a backbone.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// SHA-256 of the model's files.
    pub(crate) backbone: String,
    /// SHA-256 of the benchmark.
    pub(crate) benchmark: String,
    pub(crate) embeddings: Embeddings,
    pub(crate) pretraining: Vec<Pretrained>,
    pub(crate) downstream: Vec<Downstream>,
    /// What is not met.
    pub(crate) failures: Vec<String>,
}

/// Gate 1.
#[derive(Debug, Serialize)]
pub(crate) struct Embeddings {
    /// Variance of the visual tokens of a sample around their mean, as a share of all their variance.
    pub(crate) between_queries: f64,
    /// Mean length of a visual token.
    pub(crate) visual_norm: f64,
    /// Mean length of a text token.
    pub(crate) text_norm: f64,
    /// Directions that carry 95 % of the energy of all embeddings.
    pub(crate) rank: usize,
    pub(crate) d_model: usize,
}

/// Gate 2, one task; all scores in percent of the task's metric.
#[derive(Debug, Serialize)]
pub(crate) struct Pretrained {
    pub(crate) task: String,
    pub(crate) metric: Metric,
    pub(crate) samples: usize,
    pub(crate) score: f64,
    pub(crate) global_majority: f64,
    pub(crate) instruction_majority: f64,
    /// Ridge regression on the pooled features of the vision network, for tasks with a closed set of answers; for captions the
    /// answer of the nearest training image.
    pub(crate) probe: f64,
}

/// Gate 3, one task.
#[derive(Debug, Serialize)]
pub(crate) struct Downstream {
    pub(crate) task: String,
    pub(crate) metric: Metric,
    pub(crate) samples: usize,
    pub(crate) instruction_majority: f64,
    pub(crate) zero_shot: f64,
    pub(crate) prompt_tuned: f64,
    pub(crate) fine_tuned: f64,
    /// Whether it is part of the default sequence.
    pub(crate) in_sequence: bool,
}

/// Measures all gates.
///
/// # Errors
/// Those of model and data; an interrupt.
pub(crate) fn measure(model: &Path, bench: &Path, cache: Option<&Path>, device: &Device) -> Result<Report> {
    let backbone = Backbone::open(model, device)?;
    let bench = Benchmark::open(bench)?;
    let cache = cache_of(model, cache);
    let gauge = Gauge {
        backbone: &backbone,
        bench: &bench,
        store: FeatureStore::new(&backbone, &bench, cache.clone()),
    };
    let mut gram = gauge.embeddings_accumulator();
    let mut pretraining = Vec::new();
    for task in bench.pretraining() {
        let exam = samples::exam(&gauge.store, task, Split::Val, SAMPLES)?;
        gram.add(&gauge, &exam)?;
        pretraining.push(gauge.pretrained(task, &exam)?);
    }
    let embeddings = gram.finish()?;
    let mut downstream = Vec::new();
    for task in bench.tasks.iter().filter(|task| task.stage == fwd_data::bench::Stage::Downstream) {
        downstream.push(gauge.downstream(task, &cache)?);
    }
    let failures = failures(&embeddings, &pretraining, &downstream);
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
}

const GENERATION: Generation = Generation { max_new_tokens: 16, batch: 32 };

impl Gauge<'_> {
    fn embeddings_accumulator(&self) -> Accumulator {
        let d = self.backbone.model.dims().model;
        Accumulator { gram: Gram::new(d), d, tokens: Vec::new(), text_norm: (0.0, 0) }
    }

    fn pretrained(&self, task: &BenchTask, exam: &Exam<'_>) -> Result<Pretrained> {
        let records: Vec<&Record> = exam.cases.iter().map(|case| case.record).collect();
        let train: Vec<&Record> = task.split(Split::Train).collect();
        let predictions = predict::answer(self.backbone, &self.no_prompts(), exam, GENERATION)?;
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
            score: predict::percent(exam.task.metric, &predictions)?,
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
            predict::percent(task.metric, &predict::answer(self.backbone, pool, &exam, GENERATION)?)
        };
        let zero_shot = score(&self.no_prompts())?;
        let prompt_tuned = score(&self.tune_prompts(task, &train)?)?;
        Ok(Downstream {
            task: task.name.clone(),
            metric: task.metric,
            samples: records.len(),
            instruction_majority: percent(task.metric, &records, |_, r| majority.of_instruction(r))?,
            zero_shot,
            prompt_tuned,
            fine_tuned: self.fine_tune(task, &train, &records, cache)?,
            in_sequence: task.order.is_some(),
        })
    }

    fn no_prompts(&self) -> PromptPool {
        PromptPool::new(self.backbone.model.dims(), 1, 1)
    }

    fn queries(&self, records: &[&Record]) -> Result<Vec<Vec<f32>>> {
        let bar = progress::bar("frozen features", records.len());
        Ok(self.store.samples(records, &bar)?.into_iter().map(|s| s.image_query).collect())
    }

    /// A pool of the default configuration, tuned on this task alone without any projection.
    fn tune_prompts(&self, task: &BenchTask, train: &[&Record]) -> Result<PromptPool> {
        let bar = progress::bar("frozen features", train.len());
        let train: Vec<BlipSample> = self.store.samples(train, &bar)?;
        drop(bar);
        let Plan::Alone(mut config) = Method::Independent.plan(&RunConfig::default(), 1) else {
            anyhow::bail!("the method `independent` has no plan of its own");
        };
        // What prompts can teach is asked, not who takes them.
        config.pool.rejection = Rejection::Never;
        let model = Frozen(&self.backbone.model);
        let tasks = vec![Task { name: task.name.clone(), train: &train }];
        let mut trainer = Trainer::new(&model, Curriculum { pretraining: &[], tasks }, config)?;
        let bar = progress::bar(format!("prompts: {}", task.name), train.len());
        trainer.run(None, &mut |_, _, _| Ok(0.0), &mut |event| {
            if let fwd_prompt::Event::Step { step, of, loss, .. } = event {
                bar.set(step * train.len() / of);
                bar.say(format!("prompts: {} {loss:.2}", task.name));
            }
            if interrupt::is_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        interrupt::check()?;
        Ok(trainer.state().pool().clone())
    }

    /// The score after all weights but the vision tower's were tuned on the task: what the model could learn at all.
    fn fine_tune(&self, task: &BenchTask, train: &[&Record], val: &[&Record], cache: &Path) -> Result<f64> {
        let (base, processor) = (&self.backbone.model, &self.backbone.processor);
        let mut keys: Vec<&str> = train.iter().chain(val).map(|r| r.image.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        let views: Vec<View<'_>> = keys.into_iter().map(View::plain).collect();
        let vision = self.backbone.dir.join(VISION);
        let images: Images = features(base, &vision, &processor.image, self.bench, &views, cache)?;
        let mut trainable = weights_of(self.backbone)?;
        let bar = progress::bar(format!("fine-tuning: {}", task.name), TUNING_STEPS);
        let mut order: Vec<&Record> = Vec::new();
        for step in 0..TUNING_STEPS {
            interrupt::check()?;
            if order.len() < TUNING_BATCH {
                let mut more = train.to_vec();
                more.shuffle(&mut fwd_prompt::stream(
                    0,
                    &format!("fine-tuning {}", task.name),
                    [step as u64, 0],
                ));
                order.extend(more);
            }
            let records: Vec<&Record> = order.drain(..TUNING_BATCH.min(order.len())).collect();
            let batches = weights::halves((processor, base.kind()), &images, &records)?;
            let lr = 5e-4 * (1.0 - step as f64 / TUNING_STEPS as f64);
            let config =
                StepConfig { optimiser: AdamW { lr, beta2: 0.98, ..AdamW::default() }, max_norm: 1.0 };
            let report = weights::step(base, &mut trainable, &batches, &config, |_, loss| Ok(loss.clone()))?;
            bar.set(step + 1);
            bar.say(format!("fine-tuning: {} {:.2}", task.name, report.loss));
        }
        let model = base.with_parameters(&mut trainable.frozen(base.device())?)?;
        let mut answers = Vec::new();
        for records in val.chunks(GENERATION.batch) {
            let batch = Batch::new((processor, base.kind()), &images, None, records)?;
            answers.extend(batch.answers(&model, processor, GENERATION.max_new_tokens)?);
        }
        percent(task.metric, val, |i, _| answers[i].clone())
    }
}

/// Adds up what gate 1 looks at.
struct Accumulator {
    gram: Gram,
    d: usize,
    /// The visual tokens of each sample.
    tokens: Vec<Vec<f32>>,
    text_norm: (f64, usize),
}

impl Accumulator {
    fn add(&mut self, gauge: &Gauge<'_>, exam: &Exam<'_>) -> Result<()> {
        for case in &exam.cases {
            let embeddings = gauge.backbone.model.embeddings(&case.sample)?;
            self.gram.push(&embeddings.image)?;
            self.gram.push(&embeddings.text)?;
            for token in embeddings.text.chunks_exact(self.d) {
                self.text_norm.0 += norm(token);
                self.text_norm.1 += 1;
            }
            self.tokens.push(embeddings.image);
        }
        Ok(())
    }

    fn finish(self) -> Result<Embeddings> {
        let all = || self.tokens.iter().flat_map(|t| t.chunks_exact(self.d));
        let n = all().count().max(1) as f64;
        let mean = mean_of(all(), self.d);
        let total: f64 = all().map(|t| square_distance(t, &mean)).sum();
        let around = |sample: &Vec<f32>| -> f64 {
            let mean = mean_of(sample.chunks_exact(self.d), self.d);
            sample.chunks_exact(self.d).map(|t| square_distance(t, &mean)).sum()
        };
        let eigen = symmetric_eigen(&self.gram.matrix(), self.d)?;
        let curve = energy_curve(&eigen.values);
        Ok(Embeddings {
            between_queries: self.tokens.iter().map(around).sum::<f64>() / total.max(f64::MIN_POSITIVE),
            visual_norm: all().map(norm).sum::<f64>() / n,
            text_norm: self.text_norm.0 / self.text_norm.1.max(1) as f64,
            rank: curve.iter().take_while(|&&share| share < 0.95).count() + 1,
            d_model: self.d,
        })
    }
}

fn norm(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

fn mean_of<'t>(rows: impl Iterator<Item = &'t [f32]>, d: usize) -> Vec<f64> {
    let (mut sum, mut n) = (vec![0f64; d], 0f64);
    for row in rows {
        sum.iter_mut().zip(row).for_each(|(s, &x)| *s += f64::from(x));
        n += 1.0;
    }
    sum.iter_mut().for_each(|s| *s /= n.max(1.0));
    sum
}

fn square_distance(row: &[f32], mean: &[f64]) -> f64 {
    row.iter().zip(mean).map(|(&x, m)| (f64::from(x) - m).powi(2)).sum()
}

/// The most frequent answers of a training set.
struct Majority {
    overall: String,
    by_instruction: BTreeMap<String, String>,
}

impl Majority {
    fn of(train: &[&Record]) -> Self {
        let most = |counts: BTreeMap<&str, usize>| {
            // The first in the alphabet among equals.
            let best = counts.into_iter().rev().max_by_key(|(_, n)| *n);
            best.map_or_else(String::new, |(answer, _)| answer.to_owned())
        };
        let mut overall: BTreeMap<&str, usize> = BTreeMap::new();
        let mut by: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for record in train {
            let answer = target(record);
            *overall.entry(answer).or_default() += 1;
            *by.entry(&record.instruction).or_default().entry(answer).or_default() += 1;
        }
        let by_instruction =
            by.into_iter().map(|(instruction, counts)| (instruction.to_owned(), most(counts)));
        Self { overall: most(overall), by_instruction: by_instruction.collect() }
    }

    fn of_instruction(&self, record: &Record) -> String {
        self.by_instruction.get(&record.instruction).unwrap_or(&self.overall).clone()
    }
}

fn target(record: &Record) -> &str {
    record.answers.first().map_or("", String::as_str)
}

/// The score of answers in percent.
fn percent(metric: Metric, records: &[&Record], answer: impl Fn(usize, &Record) -> String) -> Result<f64> {
    let texts: Vec<String> = records.iter().enumerate().map(|(i, record)| answer(i, record)).collect();
    let answers: Vec<Vec<&str>> =
        records.iter().map(|record| record.answers.iter().map(String::as_str).collect()).collect();
    predict::corpus_percent(metric, &texts.iter().map(String::as_str).collect::<Vec<_>>(), &answers)
}

/// At most `n` of some things, spread evenly.
fn evenly<'r>(all: &[&'r Record], n: usize) -> Vec<&'r Record> {
    let n = all.len().min(n);
    (0..n).map(|i| all[i * all.len() / n]).collect()
}

/// The training answer of the image with the highest cosine.
fn nearest_answers(train: &[&Record], of_train: &[Vec<f32>], of_val: &[Vec<f32>]) -> Vec<String> {
    let unit = |x: &Vec<f32>| -> Vec<f64> {
        let n = norm(x).max(f64::MIN_POSITIVE);
        x.iter().map(|&x| f64::from(x) / n).collect()
    };
    let known: Vec<Vec<f64>> = of_train.iter().map(unit).collect();
    let nearest = |x: &Vec<f32>| -> String {
        let x = unit(x);
        let cosine = |k: &Vec<f64>| k.iter().zip(&x).map(|(a, b)| a * b).sum::<f64>();
        let best = known.iter().enumerate().max_by(|a, b| cosine(a.1).total_cmp(&cosine(b.1)));
        best.map_or_else(String::new, |(i, _)| target(train[i]).to_owned())
    };
    of_val.par_iter().map(nearest).collect()
}

/// Answers of a linear classifier on standardised features, among those that training has for the instruction:
/// `W = (XᵀX + αI)⁻¹ XᵀY` with one column of `Y` for each answer.
fn ridge_answers(
    train: &[&Record],
    of_train: &[Vec<f32>],
    val: &[&Record],
    of_val: &[Vec<f32>],
) -> Result<Vec<String>> {
    let d = of_train.first().context("no training samples")?.len();
    let mean = mean_of(of_train.iter().map(Vec::as_slice), d);
    let mut scale = vec![0f64; d];
    for x in of_train {
        scale.iter_mut().zip(x).zip(&mean).for_each(|((s, &x), m)| *s += (f64::from(x) - m).powi(2));
    }
    scale.iter_mut().for_each(|s| *s = (*s / of_train.len() as f64).sqrt() + 1e-3);
    let standard = |x: &Vec<f32>| -> Vec<f64> {
        let scaled = x.iter().zip(&mean).zip(&scale).map(|((&x, m), s)| (f64::from(x) - m) / s);
        scaled.chain([1.0]).collect()
    };
    let rows: Vec<Vec<f64>> = of_train.iter().map(standard).collect();
    let mut gram = Gram::new(d + 1);
    for row in &rows {
        gram.push(&row.iter().map(|&x| x as f32).collect::<Vec<_>>())?;
    }
    let eigen = symmetric_eigen(&gram.matrix(), d + 1)?;
    let classes: Vec<&str> = train.iter().map(|r| target(r)).collect::<BTreeSet<_>>().into_iter().collect();
    // Of every class: XᵀY, then V·(VᵀXᵀY / (λ + α)). Eigenvectors lie one after another.
    let alpha = 0.05 * rows.len() as f64;
    let map = |class: &&str| -> Vec<f64> {
        let mut sum = vec![0f64; d + 1];
        for (row, record) in rows.iter().zip(train) {
            if target(record) == *class {
                sum.iter_mut().zip(row).for_each(|(s, x)| *s += x);
            }
        }
        let mut weights = vec![0f64; d + 1];
        for (vector, value) in eigen.vectors.chunks_exact(d + 1).zip(&eigen.values) {
            let share = vector.iter().zip(&sum).map(|(v, s)| v * s).sum::<f64>() / (value.max(0.0) + alpha);
            weights.iter_mut().zip(vector).for_each(|(w, v)| *w += share * v);
        }
        weights
    };
    let maps: Vec<Vec<f64>> = classes.par_iter().map(map).collect();
    let mut allowed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for record in train {
        allowed.entry(&record.instruction).or_default().insert(target(record));
    }
    let answer = |(record, x): (&&Record, &Vec<f32>)| -> String {
        let x = standard(x);
        let score = |w: &Vec<f64>| w.iter().zip(&x).map(|(a, b)| a * b).sum::<f64>();
        let is_allowed =
            |class: &str| allowed.get(record.instruction.as_str()).is_none_or(|set| set.contains(class));
        let open = classes.iter().zip(&maps).filter(|(class, _)| is_allowed(class));
        let best = open.max_by(|a, b| score(a.1).total_cmp(&score(b.1)));
        best.map_or_else(String::new, |(class, _)| (*class).to_owned())
    };
    Ok(val.par_iter().zip(of_val).map(answer).collect())
}

/// The gates, in words.
fn failures(embeddings: &Embeddings, pretraining: &[Pretrained], downstream: &[Downstream]) -> Vec<String> {
    let mut found = Vec::new();
    let mut need = |holds: bool, what: String| {
        if !holds {
            found.push(what);
        }
    };
    let e = embeddings;
    need(
        e.between_queries > 0.2,
        format!("between-query variance share {:.2}, above 0.2 needed", e.between_queries),
    );
    let ratio = e.visual_norm / e.text_norm;
    need(
        (0.5..=2.0).contains(&ratio),
        format!("visual tokens are {ratio:.2} times as long as text tokens, 0.5 to 2 needed"),
    );
    need(5 * e.rank >= e.d_model, format!("rank {} of {}, a fifth needed", e.rank, e.d_model));
    for p in pretraining {
        let margin = p.score - p.instruction_majority;
        need(margin >= 10.0, format!("{}: {margin:.1} points above the majority, 10 needed", p.task));
        let bound = match p.task.as_str() {
            "attributes" => Some(90.0),
            "counting" => Some(80.0),
            "yes-no" => Some(95.0),
            "group" | "color" => Some(p.probe - 10.0),
            _ if p.metric.is_of_captions() => Some(p.probe - 10.0),
            _ => None,
        };
        if let Some(bound) = bound {
            need(p.score > bound, format!("{}: {:.1}, more than {bound:.1} needed", p.task, p.score));
        }
    }
    for t in downstream.iter().filter(|t| t.in_sequence) {
        need(t.is_in_reach(), format!("{}: not in reach, see the table", t.task));
    }
    found
}

impl Downstream {
    /// Fine-tuning beats the majority by 15 points, zero-shot is below that, and prompts learn a part: a quarter of the way from
    /// zero-shot to fine-tuning, or 15 points.
    fn is_in_reach(&self) -> bool {
        let bar = self.instruction_majority + 15.0;
        let gain = self.prompt_tuned - self.zero_shot;
        let closed = gain / (self.fine_tuned - self.zero_shot).max(1.0);
        self.fine_tuned >= bar && self.zero_shot < bar && (closed >= 0.25 || gain >= 15.0)
    }
}

impl Report {
    /// Whether all gates are met.
    pub(crate) fn is_met(&self) -> bool {
        self.failures.is_empty()
    }

    /// Three Markdown tables and what is not met.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let e = &self.embeddings;
        let _ = writeln!(out, "| input embeddings | measured | gate |\n|---|---|---|");
        let _ = writeln!(out, "| between-query share of the variance | {:.2} | > 0.2 |", e.between_queries);
        let _ = writeln!(
            out,
            "| length of visual and text tokens | {:.1}, {:.1} | within 2× |",
            e.visual_norm, e.text_norm
        );
        let _ = writeln!(
            out,
            "| rank at 95 % energy | {} of {} | ≥ {} |\n",
            e.rank,
            e.d_model,
            e.d_model.div_ceil(5)
        );
        let _ = writeln!(
            out,
            "| pre-training task | metric | samples | model | majority: global | per instruction | linear probe or retrieval |\n|---|---|---|---|---|---|---|"
        );
        for p in &self.pretraining {
            let metric = p.metric;
            let _ = writeln!(
                out,
                "| {} | {metric} | {} | {:.1} | {:.1} | {:.1} | {:.1} |",
                p.task, p.samples, p.score, p.global_majority, p.instruction_majority, p.probe
            );
        }
        let _ = writeln!(
            out,
            "\n| downstream task | metric | samples | majority per instruction | zero-shot | prompts tuned | all tuned | in reach | in the sequence |\n|---|---|---|---|---|---|---|---|---|"
        );
        let yes = |b: bool| if b { "yes" } else { "no" };
        for t in &self.downstream {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {} |",
                t.task,
                t.metric,
                t.samples,
                t.instruction_majority,
                t.zero_shot,
                t.prompt_tuned,
                t.fine_tuned,
                yes(t.is_in_reach()),
                yes(t.in_sequence)
            );
        }
        if self.is_met() {
            out.push_str("\nAll gates are met.\n");
        } else {
            let _ = writeln!(out, "\nNot met:\n- {}", self.failures.join("\n- "));
        }
        out
    }
}
