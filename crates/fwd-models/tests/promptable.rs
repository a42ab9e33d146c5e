//! Both models under the continual algorithm: loss and gradient through the trait are those of
//! transformers, and a run on two tasks keeps its promise.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{BLIP_T5, Set, abs_max, fixtures, max_diff, sets_of};
use fwd_models::{
    Blip, FrozenFeatures, GenerationConfig, Instructions, ModelConfig, ModelError, MultimodalModel,
    QFormerText, Sample, SegmentKind, Tap, WeightDtype, answer, padded,
};
use fwd_prompt::continual::{Column, Curriculum, Event, Moment, Task};
use fwd_prompt::{
    Allocation, Config, FrozenModel, Place, PoolConfig, PromptBatch, PromptLearner, Rule, TrainingConfig,
    trainer,
};
use std::ops::ControlFlow;

fn open(set: &Set) -> (Blip, FrozenFeatures) {
    let model = set.model("config.json");
    // Decoder-only sets have the question under the name of generation.
    let io = |name: &str| if set.has(name) { set.io(name) } else { set.io(&format!("gen.{name}")) };
    let (ids, mask) = model.without_placeholders(&io("input_ids"), &io("attention_mask")).unwrap();
    let qformer = set
        .has("qformer_input_ids")
        .then(|| QFormerText { ids: set.io("qformer_input_ids"), mask: set.io("qformer_attention_mask") });
    let instructions = Instructions { ids, mask, qformer };
    let features = model.features(&set.io("pixel_values"), &instructions, &mut Tap::none()).unwrap();
    (model, features)
}

#[test]
fn loss_and_gradient_through_the_trait_are_those_of_transformers() {
    let mut n_checked = 0;
    for set in sets_of(&BLIP_T5).into_iter().filter(|set| set.has("soft.grad")) {
        let (model, features) = open(&set);
        let samples = features.samples(&set.io("labels")).unwrap();
        let prompt = set.io("soft.prompt");
        let (batch, n_tokens, dim) = prompt.dims3().unwrap();
        let values = prompt.flatten_all().unwrap().to_vec1().unwrap();
        let prompts = PromptBatch { values, lengths: vec![n_tokens; batch], dim, place: Place::Front };
        let found = model.loss_gradient(&samples.iter().collect::<Vec<_>>(), &prompts).unwrap();
        let want: f32 = set.io("soft.loss").get(0).unwrap().to_scalar().unwrap();
        assert!((found.loss - f64::from(want)).abs() < 1e-5, "{}", set.name);
        let gradient = Tensor::from_vec(found.gradient, (batch, n_tokens, dim), &Device::Cpu).unwrap();
        let want = set.io("soft.grad");
        assert!(max_diff(&gradient, &want) <= 1e-4 * abs_max(&want), "{}", set.name);
        n_checked += 1;
    }
    assert!(n_checked > 0 || common::elsewhere().is_some(), "no set has per-sample prompts");
}

/// `image_after`: the first tokens of the instruction, the image, the rest of the instruction; prompts come behind the first tokens.
#[test]
fn an_image_stands_behind_the_beginning_of_the_instruction() {
    let set = Set::open(&fixtures().join("sets/instructblip-tiny"));
    let (_, plain) = open(&set);
    let with = |image_after: usize| {
        let mut config = ModelConfig::read(&set.dir.join("config.json")).unwrap();
        config.image_after = image_after;
        let model = Blip::load_with(&set.dir, config, WeightDtype::F32, &Device::Cpu).unwrap();
        let (ids, mask) =
            model.without_placeholders(&set.io("input_ids"), &set.io("attention_mask")).unwrap();
        let qformer =
            QFormerText { ids: set.io("qformer_input_ids"), mask: set.io("qformer_attention_mask") };
        let instructions = Instructions { ids, mask, qformer: Some(qformer) };
        model.features(&set.io("pixel_values"), &instructions, &mut Tap::none()).map(|f| (model, f))
    };
    let (model, features) = with(2).unwrap();
    assert_eq!(model.prompt_place().segment(), 1);
    let rows = |features: &FrozenFeatures| features.samples(&set.io("labels")).unwrap();
    let d = model.language().d_model();
    for (sample, plain) in rows(&features).iter().zip(rows(&plain)) {
        let kinds: Vec<SegmentKind> = sample.segments.iter().map(|segment| segment.kind).collect();
        assert_eq!(kinds, [SegmentKind::Text, SegmentKind::Image, SegmentKind::Text]);
        let [image, text] = [0, 1].map(|i| &plain.segments[i].embeds);
        assert_eq!(sample.segments[0].embeds, text[..2 * d]);
        assert_eq!(sample.segments[1].embeds, *image);
        assert_eq!(sample.segments[2].embeds, text[2 * d..]);
        // The queries of a pool are those of the same image and words.
        assert_eq!((&sample.image_query, &sample.text_query), (&plain.image_query, &plain.text_query));
        // In front, prompts stand behind the first tokens: with them 2 + 1 + the rest.
        let input = model.input(&[sample]).unwrap();
        let prompt = Tensor::ones((1, 1, d), DType::F32, &Device::Cpu).unwrap();
        let read = input.with_prompt(&prompt).unwrap();
        let order: Vec<SegmentKind> = read.segments().iter().map(|segment| segment.kind).collect();
        assert_eq!(order, [SegmentKind::Text, SegmentKind::Prompt, SegmentKind::Image, SegmentKind::Text]);
    }
    // The shortest instruction of the set has fewer tokens.
    let refused = with(9).unwrap_err().to_string();
    assert!(refused.contains("9 tokens"), "{refused}");
}

/// The mean loss of a batch is that of its samples, weighted by their labels, if padding is not seen.
#[test]
fn a_sample_with_fewer_visual_tokens_is_the_same_in_a_batch_and_alone() {
    let set = Set::open(&fixtures().join("sets/instructblip-small"));
    let (model, features) = open(&set);
    let mut samples = features.samples(&set.io("labels")).unwrap();
    samples.truncate(2);
    assert_eq!(samples[0].segments[0].kind, SegmentKind::Image);
    samples[0].segments[0].embeds.truncate(3 * model.language().d_model());
    let loss = |batch: &[&Sample]| {
        let labels: Vec<&[i64]> = batch.iter().map(|s| &s.labels[..]).collect();
        let labels = padded(&labels, fwd_ops::IGNORE_INDEX, &Device::Cpu).unwrap();
        let input = model.input(batch).unwrap();
        let loss = model.language().score(&input, &labels, &mut Tap::none()).unwrap().loss;
        f64::from(loss.to_scalar::<f32>().unwrap())
    };
    let n = |s: &Sample| s.labels.len() as f64;
    let alone: f64 =
        samples.iter().map(|s| loss(&[s]) * n(s)).sum::<f64>() / samples.iter().map(n).sum::<f64>();
    let together = loss(&samples.iter().collect::<Vec<_>>());
    assert!((together - alone).abs() < 1e-5, "{together} in a batch, {alone} alone");
}

#[test]
fn both_models_learn_two_tasks_without_leaking() {
    for name in ["blip2-small", "instructblip-small"] {
        let set = Set::open(&fixtures().join("sets").join(name));
        let (model, features) = open(&set);
        let samples = features.samples(&set.io("labels")).unwrap();
        assert!(samples.len() >= 2, "{name} has too few samples for two tasks");
        let (first, second) = samples.split_at(samples.len() / 2);
        let task = |name: &str, train| Task { name: name.to_owned(), train };
        let curriculum =
            Curriculum { pretraining: &[][..], tasks: vec![task("first", first), task("second", second)] };
        let config = Config {
            rule: Rule::Fwd,
            pool: PoolConfig {
                allocation: Allocation::Shared(4),
                prompt_len: 4,
                top_k: 2,
                ..PoolConfig::default()
            },
            training: TrainingConfig { epochs: 30, batch_size: 4, ..TrainingConfig::default() },
            ..Config::default()
        };
        let mut evaluate = |learner: &PromptLearner<&Blip>, _: Moment, column| -> Result<f64, ModelError> {
            let Column::Task(task) = column else { panic!("there is no pre-training") };
            let (samples, model) = ([first, second][task.index()], learner.model());
            let pool = learner.prompts().pool();
            let mut total = 0.0;
            for sample in samples {
                let prompts = pool.gather(&[pool.select(&model.queries(sample)?).unwrap()]).unwrap();
                total += if pool.is_empty() { 50.0 } else { model.loss_gradient(&[sample], &prompts)?.loss };
            }
            Ok(total / samples.len() as f64)
        };
        let mut losses = Vec::new();
        let mut run = trainer(&model, curriculum, &config).unwrap();
        run.run(None, &mut evaluate, &mut |event| {
            if let Event::Step { task, loss, .. } = event {
                losses.push((task.clone(), *loss));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        for task in ["first", "second"] {
            let of_task: Vec<f64> = losses.iter().filter(|x| x.0 == task).map(|x| x.1).collect();
            assert!(of_task.last().unwrap() < &of_task[0], "{name}, {task}: {of_task:?}");
        }
        let found = &run.learner().prompts().interference()[1][1];
        assert!(found.forbidden && found.leakage <= 1e-5, "{name}: {found:?}");
    }
}

#[test]
fn samples_with_and_without_prompts_in_one_call_are_what_they_are_alone() {
    let losses = ["instructblip-small", "instructblip-vicuna-tiny", "blip2-opt-tiny"].map(|name| {
        let set = Set::open(&fixtures().join("sets").join(name));
        [Place::Front, Place::End].map(|place| agree(&set, place))
    });
    assert!(losses.iter().all(|[front, end]| (front - end).abs() > 1e-4), "{losses:?}");
}

/// The answers of a set, or others where it has none apart from the questions.
fn labels(set: &Set) -> Tensor {
    let other = || Tensor::new(&[[5i64, 7, 2], [6, 3, 2], [4, 9, 2]], &Device::Cpu).unwrap();
    if set.has("labels") { set.io("labels") } else { other() }
}

/// The loss of three samples with 5, 0 and 5 prompt tokens, which is that of each of them alone.
fn agree(set: &Set, place: Place) -> f64 {
    let (model, features) = open(set);
    let mut samples = features.samples(&labels(set)).unwrap();
    samples.truncate(3);
    samples[2].labels.pop();
    let (d, lengths) = (model.language().d_model(), [5, 0, 5]);
    // Of the two that run together one has a shorter text, and padding behind it.
    samples[0].segments[1].embeds.truncate(2 * d);
    let token = |i: usize| ((i * 37 % 101) as f32 / 50.0 - 1.0) * 0.3;
    let values: Vec<f32> = (0..10 * d).map(token).collect();
    let prompts = PromptBatch { values: values.clone(), lengths: lengths.to_vec(), dim: d, place };
    let batch: Vec<&Sample> = samples.iter().collect();
    let together = model.loss_gradient(&batch, &prompts).unwrap();
    // Prompts at the end run behind keys and values that are kept; here everything is computed, and differentiated, anew.
    let whole = model.input_gradient(&batch, &prompts).unwrap().unwrap().prompts;
    assert!((whole.loss - together.loss).abs() <= 1e-6 * whole.loss, "{} {}", whole.loss, together.loss);
    let largest = whole.gradient.iter().fold(0f32, |m, g| m.max(g.abs()));
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * largest;
    assert!(largest > 0.0 && whole.gradient.iter().zip(&together.gradient).all(close));
    assert_eq!(model.loss_gradient(&batch, &prompts).unwrap(), together);
    let without_gradient = model.loss(&batch, &prompts).unwrap();
    assert!((without_gradient - together.loss).abs() <= 1e-6 * together.loss, "{without_gradient}");
    let all: usize = samples.iter().map(|s| s.labels.len()).sum();
    let config = GenerationConfig::greedy(6, model.special_tokens().clone());
    let answers = answer(&model, &batch, &prompts, &config).unwrap();
    let (mut loss, mut gradient, mut start) = (0.0, Vec::new(), 0);
    for (i, (sample, length)) in samples.iter().zip(lengths).enumerate() {
        let own = values[start * d..(start + length) * d].to_vec();
        start += length;
        let own = PromptBatch { values: own, lengths: vec![length], dim: d, place };
        let alone = model.loss_gradient(&[sample], &own).unwrap();
        let share = sample.labels.len() as f64 / all as f64;
        loss += share * alone.loss;
        gradient.extend(alone.gradient.iter().map(|&g| share * f64::from(g)));
        assert_eq!(answers[i..=i], answer(&model, &[sample], &own, &config).unwrap());
    }
    assert!((together.loss - loss).abs() < 1e-6, "{} {loss}", together.loss);
    assert_eq!(together.gradient.len(), 10 * d);
    let largest = gradient.iter().fold(0f64, |m, g| m.max(g.abs()));
    let off =
        together.gradient.iter().zip(&gradient).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
    assert!(largest > 0.0 && off < 1e-5 * largest, "{off} of {largest}");
    let too_few = PromptBatch { values: vec![], lengths: vec![0], dim: d, place };
    assert!(model.loss_gradient(&batch, &too_few).is_err());
    together.loss
}

/// Prompts at the end are read behind the image and the instruction.
#[test]
fn prompts_at_the_end_are_the_last_segment() {
    let set = Set::open(&fixtures().join("sets/instructblip-vicuna-tiny"));
    let (model, features) = open(&set);
    let sample = &features.samples(&labels(&set)).unwrap()[0];
    let d = model.language().d_model();
    let values: Vec<f32> = (0..2 * d).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) * 0.3).collect();
    let prompt = Tensor::from_slice(&values, (1, 2, d), &Device::Cpu).unwrap();
    let input = model.input(&[sample]).unwrap();
    let n_segments = input.segments().len();
    let input = input.with_prompt_at(n_segments).unwrap().with_prompt(&prompt).unwrap();
    assert_eq!(input.segments().last().unwrap().kind, SegmentKind::Prompt);
    let labels = padded(&[&sample.labels[..]], fwd_ops::IGNORE_INDEX, &Device::Cpu).unwrap();
    let want = model.language().score(&input, &labels, &mut Tap::none()).unwrap().loss;
    let prompts = PromptBatch { values, lengths: vec![2], dim: d, place: Place::End };
    let found = model.loss(&[sample], &prompts).unwrap();
    assert!((found - f64::from(want.to_scalar::<f32>().unwrap())).abs() < 1e-6, "{found}");
}

/// The gradient of the samples' own embeddings, with and without prompts in one batch, is that of finite differences, and the prompts'
/// gradient is the one that is asked for alone.
#[test]
fn the_gradient_of_the_input_is_that_of_finite_differences() {
    let set = Set::open(&fixtures().join("sets/instructblip-small"));
    let (model, features) = open(&set);
    let mut samples = features.samples(&set.io("labels")).unwrap();
    samples.truncate(3);
    let d = model.language().d_model();
    // A sample with fewer visual tokens has padding in the batch.
    samples[0].segments[0].embeds.truncate(2 * d);
    let batch: Vec<&Sample> = samples.iter().collect();
    let values = (0..3 * d).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) * 0.3).collect();
    let prompts = PromptBatch { values, lengths: vec![2, 0, 1], dim: d, place: Place::Front };
    let found = model.input_gradient(&batch, &prompts).unwrap().unwrap();
    let alone = model.loss_gradient(&batch, &prompts).unwrap();
    assert!((found.prompts.loss - alone.loss).abs() < 1e-6);
    let largest = |rows: &[f32]| rows.iter().fold(0f32, |m, g| m.max(g.abs()));
    for (a, b) in found.prompts.gradient.iter().zip(&alone.gradient) {
        assert!((a - b).abs() <= 1e-5 * largest(&alone.gradient), "{a} {b}");
    }
    for (i, of_sample) in found.embeddings.iter().enumerate() {
        let own = model.embeddings(&samples[i]).unwrap();
        let sizes = (own.image.len(), own.text.len());
        assert_eq!((of_sample.image.len(), of_sample.text.len()), sizes);
        // Along each gradient the loss changes by its squared length.
        for is_image in [true, false] {
            let gradient = if is_image { &of_sample.image } else { &of_sample.text };
            let square: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum();
            let h = 0.01 / square.sqrt();
            let loss = |h: f64| {
                let moved = |rows: &[f32], is_moved: bool| -> Vec<f32> {
                    let h = if is_moved { h } else { 0.0 };
                    let pairs = rows.iter().enumerate();
                    let at = |j: usize| if is_moved { f64::from(gradient[j]) } else { 0.0 };
                    pairs.map(|(j, x)| (f64::from(*x) + h * at(j)) as f32).collect()
                };
                let (image, text) = (moved(&own.image, is_image), moved(&own.text, !is_image));
                let mut changed = samples.clone();
                changed[i] = samples[i].with_rows(&image, &text).unwrap();
                model.loss(&changed.iter().collect::<Vec<_>>(), &prompts).unwrap()
            };
            let slope = (loss(h) - loss(-h)) / (2.0 * h);
            assert!(
                square > 1e-10 && (slope / square - 1.0).abs() < 0.02,
                "{i} {is_image}: {slope} {square}"
            );
        }
    }
    let error = samples[0].with_rows(&[0.0], &[]).unwrap_err().to_string();
    assert!(error.contains("in the place of"), "{error}");
}

/// What is said of the answers' tokens is what the loss is made of.
#[test]
fn log_probabilities_of_the_answers_are_those_of_the_loss() {
    let set = Set::open(&fixtures().join("sets/instructblip-small"));
    let (model, features) = open(&set);
    let mut samples = features.samples(&set.io("labels")).unwrap();
    samples.truncate(2);
    samples[1].labels.pop();
    let d = model.language().d_model();
    let prompts = PromptBatch { values: vec![0.1; d], lengths: vec![1, 0], dim: d, place: Place::Front };
    let batch: Vec<&Sample> = samples.iter().collect();
    let rows = fwd_models::label_log_probs(&model, &batch, &prompts).unwrap();
    let vocabulary = model.language().vocab_size();
    let (mut sum, mut n) = (0.0, 0);
    for (sample, rows) in samples.iter().zip(&rows) {
        assert_eq!(rows.len(), sample.labels.len() * vocabulary);
        for (row, &label) in rows.chunks_exact(vocabulary).zip(&sample.labels) {
            let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
            assert!((total - 1.0).abs() < 1e-5, "{total}");
            sum -= f64::from(row[label as usize]);
            n += 1;
        }
    }
    let loss = model.loss(&batch, &prompts).unwrap();
    assert!((sum / f64::from(n) - loss).abs() < 1e-5, "{} {loss}", sum / f64::from(n));
}
