//! A decoder-only language model from outside of the crate: it implements [`LanguageModel`], and then generates, stands in a
//! [`Blip`] and runs under the continual algorithm.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;
mod decoder;

use candle_core::{DType, Device, Tensor, Var};
use common::{Set, abs_max, fixtures, max_diff};
use decoder::{Decoder, Random, tokens};
use fwd_models::{
    Blip, GenerationConfig, Hypothesis, Instructions, LanguageInput, LanguageModel, ModelError,
    MultimodalModel, PaddingSide, Sample, SampleSegment, Segment, SegmentKind, SpecialTokens, Tap, Trainable,
    generate, padded,
};
use fwd_ops::IGNORE_INDEX;
use fwd_prompt::{FrozenModel, Place, PromptBatch};
use std::sync::Arc;

/// Two samples of different lengths, each `[words ; image ; words]`, so that there is padding inside; and each of them alone.
fn inputs(model: &Decoder, dtype: DType) -> (LanguageInput, [LanguageInput; 2]) {
    let d = model.d_model();
    let mut random = Random(77);
    let texts: [[&[i64]; 2]; 2] = [[&[5, 9], &[3, 3, 4]], [&[7, 2, 8, 6], &[10]]];
    let image = random.tensor(&[2, 3, d], 1.0);
    let words = |rows: &[&[i64]]| -> Segment {
        let ids = padded(rows, IGNORE_INDEX, &Device::Cpu).unwrap();
        let mask = ids.ne(IGNORE_INDEX).unwrap();
        let ids = mask.where_cond(&ids, &ids.zeros_like().unwrap()).unwrap();
        let embeds = model.embed(&ids).unwrap().to_dtype(dtype).unwrap();
        Segment::new(SegmentKind::Text, embeds, &mask).unwrap()
    };
    let input = |rows: &[usize]| {
        let part = |i: usize| words(&rows.iter().map(|&row| texts[row][i]).collect::<Vec<_>>());
        let of_rows: Vec<Tensor> = rows.iter().map(|&row| image.narrow(0, row, 1).unwrap()).collect();
        let image = Tensor::cat(&of_rows, 0).unwrap().to_dtype(dtype).unwrap();
        LanguageInput::new(vec![part(0), Segment::full(SegmentKind::Image, image).unwrap(), part(1)]).unwrap()
    };
    (input(&[0, 1]), [input(&[0]), input(&[1])])
}

/// Logits behind the input and some more tokens of one sample, with nothing kept from before.
fn recomputed(model: &Decoder, input: &LanguageInput, ids: &[u32]) -> Vec<f32> {
    let mut input = input.clone();
    if !ids.is_empty() {
        let ids = Tensor::from_slice(ids, (1, ids.len()), &Device::Cpu).unwrap();
        let written = Segment::full(SegmentKind::Text, model.embed(&ids).unwrap()).unwrap();
        input = input.insert(input.segments().len(), written).unwrap();
    }
    let read = input.packed(PaddingSide::Left).unwrap();
    let states = model.states(&read).unwrap();
    let last = states.narrow(1, states.dim(1).unwrap() - 1, 1).unwrap().contiguous().unwrap();
    model.head.forward(&last).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn argmax(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32
}

/// Beam search of one sample, written down plainly: every sequence is computed from its beginning.
fn plain_beam_search(model: &Decoder, input: &LanguageInput, k: usize, n_new: usize) -> Vec<Hypothesis> {
    let mut running = vec![(0f64, Vec::new())];
    let mut finished: Vec<Hypothesis> = Vec::new();
    for step in 1..=n_new {
        let mut candidates = Vec::new();
        for (score, ids) in &running {
            let logits = recomputed(model, input, ids);
            let log_sum = logits.iter().map(|&z| f64::from(z).exp()).sum::<f64>().ln();
            for (token, &z) in logits.iter().enumerate() {
                let ids: Vec<u32> = ids.iter().copied().chain([token as u32]).collect();
                candidates.push((score + f64::from(z) - log_sum, ids));
            }
        }
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
        candidates.truncate(2 * k);
        let ends = |ids: &[u32]| step == n_new || ids.last() == Some(&1);
        for (score, ids) in candidates.iter().take(k).filter(|(_, ids)| ends(ids)) {
            finished.push(Hypothesis { ids: ids.clone(), score: (score / step as f64) as f32 });
        }
        finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        finished.truncate(k);
        running = candidates.into_iter().filter(|(_, ids)| !ends(ids)).take(k).collect();
        let Some(best) = running.first() else { break };
        if finished.len() == k && best.0 / step as f64 <= f64::from(finished[k - 1].score) {
            break;
        }
    }
    finished
}

#[test]
fn the_gradient_to_a_prompt_is_that_of_finite_differences() {
    let model = Decoder::new(12, 8, 1);
    let (input, _) = inputs(&model, DType::F64);
    let labels = Tensor::new(&[[4i64, 6, 1], [9, 1, IGNORE_INDEX]], &Device::Cpu).unwrap();
    let values: Vec<f64> = Random(3).values(3 * 8, 1.0).into_iter().map(f64::from).collect();
    let loss_of = |prompt: &Tensor| {
        let input = input.with_prompt(prompt).unwrap();
        model.score(&input, &labels, &mut Tap::none()).unwrap().loss
    };
    let prompt = Var::from_slice(&values, (3, 8), &Device::Cpu).unwrap();
    let gradient = fwd_ops::backward(&loss_of(&prompt), &[("prompt", &prompt)]).unwrap().remove(0);
    let differences: Vec<f64> = (0..values.len())
        .map(|i| {
            let at = |step: f64| {
                let mut values = values.clone();
                values[i] += step;
                loss_of(&Tensor::from_vec(values, (3, 8), &Device::Cpu).unwrap()).to_scalar::<f64>().unwrap()
            };
            (at(1e-5) - at(-1e-5)) / 2e-5
        })
        .collect();
    let differences = Tensor::from_vec(differences, (3, 8), &Device::Cpu).unwrap();
    let (off, size) = (max_diff(&gradient, &differences), abs_max(&differences));
    assert!(size > 1e-3, "the prompt does not matter: {size:.1e}");
    assert!(off <= 1e-7 * size, "off by {off:.1e} of {size:.1e}");
}

#[test]
fn a_batch_scores_as_its_samples_do_alone() {
    let model = Decoder::new(12, 8, 1);
    let (both, alone) = inputs(&model, DType::F32);
    let labels = [vec![4i64, 6, 1], vec![9, 1]];
    let rows = padded(&[&labels[0], &labels[1]], IGNORE_INDEX, &Device::Cpu).unwrap();
    let together = model.score(&both, &rows, &mut Tap::none()).unwrap();
    let mut total = 0.0;
    for (i, (input, labels)) in alone.iter().zip(&labels).enumerate() {
        let rows = Tensor::from_slice(labels, (1, labels.len()), &Device::Cpu).unwrap();
        let scored = model.score(input, &rows, &mut Tap::none()).unwrap();
        let of_batch = together.logits.narrow(0, i, 1).unwrap().narrow(1, 0, labels.len()).unwrap();
        assert!(max_diff(&scored.logits, &of_batch) < 1e-5, "sample {i}");
        total += scored.loss.to_scalar::<f32>().unwrap() * labels.len() as f32;
        // Label 0 follows the input, so the logits are those of generation.
        let first: Vec<f32> = scored.logits.get(0).unwrap().get(0).unwrap().to_vec1().unwrap();
        assert_eq!(argmax(&first), argmax(&recomputed(&model, input, &[])));
    }
    assert!((together.loss.to_scalar::<f32>().unwrap() - total / 5.0).abs() < 1e-5);
}

#[test]
fn greedy_search_with_a_cache_is_greedy_search_without() {
    let mut answers = Vec::new();
    for seed in 1..6 {
        let model = Decoder::new(12, 8, seed);
        let (both, alone) = inputs(&model, DType::F32);
        // Ten tokens for every sample: the end may not come before.
        let config = GenerationConfig { min_new_tokens: 10, ..GenerationConfig::greedy(10, tokens()) };
        let mut steps = Vec::new();
        let mut on_step = |logits: &Tensor| steps.push(logits.clone());
        let rows = generate(&model, &both, &config, Some(&mut on_step)).unwrap();
        assert_eq!(steps.len(), 10);
        for (i, input) in alone.iter().enumerate() {
            let mut ids = Vec::new();
            for step in &steps {
                let mut want = recomputed(&model, input, &ids);
                let ours: Vec<f32> = step.get(i).unwrap().to_vec1().unwrap();
                let off = ours.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off < 1e-4, "seed {seed}, sample {i}, token {}: off by {off:.1e}", ids.len());
                want[1] = f32::NEG_INFINITY;
                ids.push(argmax(&want));
            }
            assert_eq!(rows[i][0].ids, ids, "seed {seed}, sample {i}");
            assert_eq!(generate(&model, input, &config, None).unwrap()[0][0].ids, ids);
            answers.push(ids);
        }
    }
    answers.sort();
    answers.dedup();
    assert!(answers.len() >= 8, "answers that hardly depend on model and input check little: {answers:?}");
}

#[test]
fn beam_search_is_beam_search_without_a_cache() {
    let (mut n_ended, mut n_other) = (0, 0);
    for seed in 1..9 {
        let model = Decoder::new(12, 8, seed);
        let (both, alone) = inputs(&model, DType::F32);
        let greedy = GenerationConfig::greedy(6, tokens());
        let beams = GenerationConfig { num_beams: 3, ..greedy.clone() };
        let of_batch = generate(&model, &both, &beams, None).unwrap();
        let best = generate(&model, &both, &greedy, None).unwrap();
        for (i, input) in alone.iter().enumerate() {
            let place = format!("seed {seed}, sample {i}");
            assert_eq!(plain_beam_search(&model, input, 1, 6)[0].ids, best[i][0].ids, "{place}");
            let want = plain_beam_search(&model, input, 3, 6);
            let alone = &generate(&model, input, &beams, None).unwrap()[0];
            for ours in [&of_batch[i], alone] {
                assert_eq!(ours.len(), want.len(), "{place}");
                for (ours, want) in ours.iter().zip(&want) {
                    assert_eq!(ours.ids, want.ids, "{place}");
                    assert!((ours.score - want.score).abs() < 1e-4, "{place}");
                }
            }
            n_ended += usize::from(want.iter().any(|h| h.ids.len() < 6));
            n_other += usize::from(want[0].ids != best[i][0].ids);
        }
    }
    assert!(
        n_ended > 0 && n_other > 0,
        "{n_ended} searches ended early, {n_other} differ from greedy search"
    );
}

/// A small BLIP-2 with a [`Decoder`] behind it, and two samples of its own set.
fn blip() -> (Blip, Vec<Sample>) {
    let set = Set::open(&fixtures().join("sets/blip2-tiny"));
    let model = set.model("config.json");
    let (vocab, d) = (model.language().vocab_size(), model.language().d_model());
    let wrong = model.clone().with_language(Arc::new(Decoder::new(vocab, d + 2, 5))).unwrap_err();
    assert!(wrong.to_string().contains("the projection leads to 32"), "{wrong}");
    let model = model.with_language(Arc::new(Decoder::new(vocab, d, 5))).unwrap();
    let outside = SpecialTokens { pad: vocab as u32, ..tokens() };
    assert!(model.clone().with_special_tokens(outside).is_err());
    let model = model.with_special_tokens(tokens()).unwrap();
    let (ids, mask) = model.without_placeholders(&set.io("input_ids"), &set.io("attention_mask")).unwrap();
    let instructions = Instructions { ids, mask, qformer: None };
    let features = model.features(&set.io("pixel_values"), &instructions, &mut Tap::none()).unwrap();
    let mut samples = features.samples(&set.io("labels")).unwrap();
    samples.truncate(2);
    // The second has words in front of its image as well.
    let words = SampleSegment { kind: SegmentKind::Text, embeds: samples[0].text_rows().into_owned() };
    samples[1].segments.insert(0, words);
    (model, samples)
}

#[test]
fn inside_a_multimodal_model_it_learns_prompts_and_answers() {
    let (model, samples) = blip();
    let model: &dyn MultimodalModel = &model;
    let (d, n_tokens) = (model.prompt_dims().model, 3);
    let prompt = Random(9).values(n_tokens * d, 1.0);
    let gradient_of = |batch: &[&Sample], prompt: &[f32]| {
        let prompts = PromptBatch {
            values: prompt.repeat(batch.len()),
            lengths: vec![n_tokens; batch.len()],
            dim: d,
            place: Place::Front,
        };
        model.loss_gradient(batch, &prompts).unwrap()
    };
    let whole: Vec<&Sample> = samples.iter().collect();
    let together = gradient_of(&whole, &prompt);
    let n = |s: &Sample| s.labels.len() as f64;
    let all: f64 = samples.iter().map(n).sum();
    let mut loss = 0.0;
    for (sample, ours) in samples.iter().zip(together.gradient.chunks_exact(n_tokens * d)) {
        let alone = gradient_of(&[sample], &prompt);
        loss += alone.loss * n(sample) / all;
        let largest = alone.gradient.iter().fold(0f32, |m, g| m.max(g.abs()));
        assert!(largest > 0.0);
        for (ours, alone) in ours.iter().zip(&alone.gradient) {
            let want = alone * (n(sample) / all) as f32;
            assert!((ours - want).abs() <= 1e-4 * largest, "{ours} in a batch, {want} alone");
        }
    }
    assert!((together.loss - loss).abs() < 1e-5, "{} in a batch, {loss} alone", together.loss);
    // Down the gradient the loss falls by its square, to first order.
    let sum: Vec<f32> =
        (0..n_tokens * d).map(|i| together.gradient[i] + together.gradient[n_tokens * d + i]).collect();
    let square: f64 = sum.iter().map(|&g| f64::from(g).powi(2)).sum();
    let step = 1e-2 / square.sqrt();
    let lower: Vec<f32> = prompt.iter().zip(&sum).map(|(p, g)| p - (step as f32) * g).collect();
    let fall = together.loss - gradient_of(&whole, &lower).loss;
    assert!((fall / (step * square) - 1.0).abs() < 0.05, "fell by {fall:.2e}, {:.2e} due", step * square);

    let config = GenerationConfig::greedy(6, model.special_tokens().clone());
    let prompt = Tensor::from_vec(prompt, (n_tokens, d), &Device::Cpu).unwrap();
    let answer = |batch: &[&Sample]| {
        let input = model.input(batch).unwrap().with_prompt(&prompt).unwrap();
        generate(model.language(), &input, &config, None).unwrap()
    };
    let answers = answer(&whole);
    for (sample, ours) in samples.iter().zip(&answers) {
        assert_eq!(answer(&[sample])[0], *ours);
    }
    assert_ne!(answers[0], answers[1]);
}

#[test]
fn the_bridge_in_front_of_it_can_be_trained() {
    let (model, _) = blip();
    let mut ones = |_: &str, shape: &[usize]| Ok::<_, ModelError>(vec![0.5; shape.iter().product()]);
    let build =
        |weights: &mut dyn fwd_models::Weights| MultimodalModel::with_parameters(&model, weights).map(drop);
    let trainable = Trainable::record(&mut ones, &Device::Cpu, build).unwrap();
    let is_bridge = |name: &str| model.bridge_parameters().iter().any(|part| name.starts_with(part));
    assert!(trainable.names().count() > 10);
    for name in trainable.names() {
        assert!(is_bridge(name), "`{name}` is not of the bridge; the language model has none to give");
    }
}
