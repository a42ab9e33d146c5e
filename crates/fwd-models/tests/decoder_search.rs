//! Greedy and beam search of decoder-only language models as Hugging Face transformers does them, over the sets of `decoders.rs`; and
//! what their reference tensors do not say: gradients against differences, limits, training, and loading.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod case;
mod common;

use candle_core::{DType, Device, IndexOp, Tensor, Var};
use case::*;
use common::{Report, Share, max_diff, sets_of};
use fwd_models::{
    CausalLm, EarlyStopping, GenerationConfig, Hypothesis, LanguageInput, LanguageModel, MultimodalModel,
    Segment, SegmentKind, SpecialTokens, Tap, generate, load_language_model, padded,
};
use fwd_ops::IGNORE_INDEX;

/// Ids up to and including the first end, filled up with padding.
fn filled(hypothesis: &Hypothesis, len: usize, pad: u32) -> Vec<i64> {
    let mut ids: Vec<i64> = hypothesis.ids.iter().map(|&id| i64::from(id)).collect();
    ids.resize(len, i64::from(pad));
    ids
}

/// `read` are the ids in front, which transformers repeats where it was given ids.
fn check_greedy(
    case: &Case<'_>,
    input: &LanguageInput,
    name: &str,
    read: Option<Tensor>,
    report: &mut Report,
) {
    if !case.set.has(&format!("{name}.ids")) {
        return;
    }
    let want_ids: Vec<Vec<i64>> = case.io(&format!("{name}.ids")).to_vec2().unwrap();
    let n = want_ids[0].len();
    let config = GenerationConfig::greedy(n, case.tokens.clone());
    let mut logits = Vec::new();
    let mut on_step = |step: &Tensor| logits.push(step.clone());
    let rows = generate(&case.language, input, &config, Some(&mut on_step)).unwrap();
    let ids: Vec<Vec<i64>> = rows.iter().map(|row| filled(&row[0], n, case.tokens.pad)).collect();
    report.same(&format!("{name}.ids"), &ids, &want_ids);
    let sequences: Vec<Vec<i64>> = case.io(&format!("{name}.sequences")).to_vec2().unwrap();
    let read: Vec<Vec<i64>> = read.map_or(vec![Vec::new(); ids.len()], |ids| ids.to_vec2().unwrap());
    let ours = read.into_iter().zip(&ids).map(|(read, ids)| {
        let mut all = [&read[..], ids].concat();
        all.truncate(sequences[0].len());
        all
    });
    report.same(&format!("{name}.sequences"), &ours.collect::<Vec<_>>(), &sequences);
    report.against(case, &format!("{name}.logits"), &Tensor::stack(&logits, 1).unwrap(), ACTIVATION);
}

fn check_beams(
    case: &Case<'_>,
    input: &LanguageInput,
    (name, length_penalty, early_stopping): (&str, f64, EarlyStopping),
    report: &mut Report,
) {
    let own = |part: &str| format!("{name}.{part}");
    if !case.set.has(&own("all_ids")) {
        return;
    }
    let want: Vec<Vec<Vec<i64>>> = case.io(&own("all_ids")).to_vec3().unwrap();
    let (k, n) = (want[0].len(), want[0][0].len());
    let greedy = GenerationConfig::greedy(n, case.tokens.clone());
    let config = GenerationConfig { num_beams: k, length_penalty, early_stopping, ..greedy };
    let mut steps = Vec::new();
    let mut on_step = |step: &Tensor| steps.push(step.clone());
    let rows = generate(&case.language, input, &config, Some(&mut on_step)).unwrap();
    let ids: Vec<Vec<Vec<i64>>> =
        rows.iter().map(|r| r.iter().map(|h| filled(h, n, case.tokens.pad)).collect()).collect();
    report.same(&own("all_ids"), &ids, &want);
    let best: Vec<Vec<i64>> = ids.iter().map(|row| row[0].clone()).collect();
    if case.set.has(&own("ids")) {
        report.same(&own("ids"), &best, &case.io(&own("ids")).to_vec2().unwrap());
    }
    if case.set.has(&own("sequences")) {
        // The raw output of transformers fills up with padding or, where that is 0, with the end.
        let sequences: Vec<Vec<i64>> = case.io(&own("sequences")).to_vec2().unwrap();
        for (hypotheses, raw) in rows.iter().zip(&sequences) {
            let len = hypotheses[0].ids.len();
            report.same(&own("sequences"), &filled(&hypotheses[0], len, 0)[..], &raw[..len]);
        }
    }
    let scores: Vec<Vec<f32>> = rows.iter().map(|r| r.iter().map(|h| h.score).collect()).collect();
    // With length penalty −1 the score is the sum of n errors times the length n, not over it.
    let tolerance = if length_penalty < 0.0 { n as f64 * ACTIVATION } else { ACTIVATION };
    report.against(case, &own("all_scores"), &Tensor::new(scores, &Device::Cpu).unwrap(), tolerance);
    if case.set.has(&own("step_logits")) {
        let (batch, vocab) = (want.len(), case.language.vocab_size());
        for (step, logits) in steps.iter().enumerate() {
            let logits = logits.reshape((batch, k, vocab)).unwrap();
            for (i, hypotheses) in rows.iter().enumerate() {
                // A sample's search is over when its last hypothesis has ended; what its beams are then means nothing.
                if step < hypotheses.iter().map(|h| h.ids.len()).max().unwrap() {
                    let want = case.io(&own("step_logits")).i((i, .., step)).unwrap();
                    let ours = logits.i(i).unwrap();
                    report.close(
                        &format!("{name}.step_logits, step {step}, sample {i}"),
                        &ours,
                        &want,
                        ACTIVATION,
                    );
                }
            }
        }
    }
}

fn check_generation(case: &Case<'_>, report: &mut Report) {
    let input = case.input();
    check_greedy(case, &input, "greedy", Some(case.io("gen.input_ids")), report);
    let prompt = case.io("soft_shared.prompt");
    let with_prompt = input.with_prompt(&prompt).unwrap();
    check_greedy(case, &with_prompt, "soft_shared.greedy", None, report);
    let behind = case_input_after_bos(case, &input).with_prompt(&prompt).unwrap();
    check_greedy(case, &behind, "soft_bos.greedy", None, report);
    if let Some(blip) = &case.blip {
        let pixels = case.io("pixel_values");
        let batch = pixels.dim(0).unwrap();
        let empty = blip.empty_instructions(batch, qformer_text(case.set), &Device::Cpu).unwrap();
        if case.set.has("noprompt.first_ids") {
            let first = case.io("noprompt.first_ids");
            let mask = first.ones_like().unwrap();
            let (ids, _) = blip.without_placeholders(&first, &mask).unwrap();
            report.close("noprompt.first_ids", &empty.ids, &ids, 0.0);
        }
        let captioned = blip.features(&pixels, &empty, &mut Tap::none()).unwrap().input;
        let first = case.set.has("noprompt.first_ids").then(|| case.io("noprompt.first_ids"));
        check_greedy(case, &captioned, "noprompt.greedy", first, report);
    }
    check_beams(case, &input, ("beam3_plain", 1.0, EarlyStopping::Heuristic), report);
    for search in [
        ("beam3", 1.0, EarlyStopping::Heuristic),
        ("beam3_lp-1", -1.0, EarlyStopping::Heuristic),
        ("beam3_es", 1.0, EarlyStopping::Always),
    ] {
        check_beams(case, &with_prompt, search, report);
    }
}

#[test]
fn greedy_and_beam_search_agree() {
    for_all_sets(Share::Generation, check_generation);
}

/// The gradient to a prompt in f64, in front and behind `BOS` (behind the image where there is one), in a batch with padding.
#[test]
fn the_gradient_to_a_prompt_is_that_of_finite_differences() {
    for set in sets_of(&KINDS) {
        let case = Case::new(&set, "config.json");
        let wide = |input: &LanguageInput| {
            let segments = input
                .segments()
                .iter()
                .map(|s| Segment::new(s.kind, s.embeds.to_dtype(DType::F64).unwrap(), &s.mask).unwrap());
            LanguageInput::new(segments.collect()).unwrap().with_prompt_at(input.prompt_at()).unwrap()
        };
        let behind = match &case.blip {
            Some(_) => case.input().with_prompt_at(1).unwrap(),
            None => case.input_after_bos(),
        };
        for input in [wide(&case.input()), wide(&behind)] {
            let prompt =
                Var::from_tensor(&case.io("soft_shared.prompt").to_dtype(DType::F64).unwrap()).unwrap();
            let gradient = gradient_of(&case.loss(&input, &prompt), &prompt).flatten_all().unwrap();
            let gradient: Vec<f64> = gradient.to_vec1().unwrap();
            let values: Vec<f64> = prompt.flatten_all().unwrap().to_vec1().unwrap();
            let largest = gradient.iter().fold(0f64, |m, g| m.max(g.abs()));
            assert!(largest > 1e-4, "{}: the prompt does not matter: {largest:.1e}", set.name);
            for i in (0..values.len()).step_by(values.len() / 12) {
                let at = |step: f64| {
                    let mut values = values.clone();
                    values[i] += step;
                    let prompt = Tensor::from_vec(values, prompt.shape(), &Device::Cpu).unwrap();
                    case.loss(&input, &prompt).to_scalar::<f64>().unwrap()
                };
                let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
                let off = (gradient[i] - difference).abs();
                assert!(
                    off <= 1e-7 * largest,
                    "{}: coordinate {i} is off by {off:.1e} of {largest:.1e}",
                    set.name
                );
            }
        }
    }
}

/// Of an input that is longer than the model has positions for, the error says how long both are.
#[test]
fn what_is_too_long_is_refused_with_numbers() {
    for set in sets_of(&KINDS) {
        let case = Case::new(&set, "config.json");
        let most = case.language.max_tokens().unwrap();
        let d = case.language.d_model();
        let input = |n: usize| {
            let words = Tensor::zeros((1, n, d), DType::F32, &Device::Cpu).unwrap();
            LanguageInput::new(vec![Segment::full(SegmentKind::Text, words).unwrap()]).unwrap()
        };
        let labels = Tensor::new(&[[5i64]], &Device::Cpu).unwrap();
        case.language.score(&input(most), &labels, &mut Tap::none()).unwrap();
        let error = case.language.score(&input(most + 1), &labels, &mut Tap::none()).unwrap_err().to_string();
        for part in [format!("{} tokens", most + 1), format!("more than the {most}")] {
            assert!(error.contains(&part), "`{part}` is missing in: {error}");
        }
        // An answer that would end beyond is refused at the token that has no position.
        let config = |n: usize| GenerationConfig {
            min_new_tokens: n,
            ..GenerationConfig::greedy(n, case.tokens.clone())
        };
        generate(&case.language, &input(most), &config(1), None).unwrap();
        let error = generate(&case.language, &input(most), &config(2), None).unwrap_err().to_string();
        assert!(error.contains(&format!("{} tokens", most + 1)), "{error}");
    }
}

/// Rows of words as an input.
fn words(model: &CausalLm, rows: &[&[i64]]) -> LanguageInput {
    let ids = padded(rows, IGNORE_INDEX, &Device::Cpu).unwrap();
    let mask = ids.ne(IGNORE_INDEX).unwrap();
    let ids = mask.where_cond(&ids, &ids.zeros_like().unwrap()).unwrap();
    let words = Segment::new(SegmentKind::Text, model.embed(&ids).unwrap(), &mask).unwrap();
    LanguageInput::new(vec![words]).unwrap()
}

/// A row that is over needs no further position: one that fills all of them ends, and the other of its batch goes on as it does alone.
#[test]
fn a_long_row_that_is_over_does_not_end_the_others() {
    for set in sets_of(&KINDS) {
        let case = Case::new(&set, "config.json");
        let (model, most) = (&case.language, case.language.max_tokens().unwrap());
        let n_words = model.vocab_size() as i64 - 3;
        let row = |n: usize, first: i64| -> Vec<i64> {
            (0..n as i64).map(|i| 3 + (first + 7 * i) % n_words).collect()
        };
        let long = row(most, 0);
        let (_, first) = model.start(&words(model, &[&long]), &case.tokens, 1).unwrap();
        let first: Vec<f32> = first.squeeze(0).unwrap().to_vec1().unwrap();
        let mut ids: Vec<u32> = (0..first.len() as u32).collect();
        ids.sort_by(|&a, &b| first[b as usize].total_cmp(&first[a as usize]));
        // What the long row says first ends it, in both of its beams.
        let tokens = SpecialTokens { eos: ids[..2].to_vec(), ..case.tokens.clone() };
        for num_beams in [1, 2] {
            let early_stopping = EarlyStopping::Always;
            let config =
                GenerationConfig { num_beams, early_stopping, ..GenerationConfig::greedy(5, tokens.clone()) };
            let search = |rows: &[&[i64]]| -> Vec<Vec<Vec<u32>>> {
                let found = generate(model, &words(model, rows), &config, None).unwrap();
                found.into_iter().map(|row| row.into_iter().map(|h| h.ids).collect()).collect()
            };
            let goes_on = |ids: &Vec<u32>| ids.len() > 2;
            let short = (0..n_words).map(|first| row(2, first));
            let (short, alone) = short
                .map(|row| (row.clone(), search(&[&row]).remove(0)))
                .find(|(_, alone)| alone.iter().all(goes_on))
                .unwrap();
            let both = search(&[&long, &short]);
            assert!(both[0].iter().all(|ids| ids.len() == 1), "{}: {:?}", set.name, both[0]);
            assert_eq!(both[1], alone, "{}", set.name);
        }
    }
}

/// A label of −100 is not read: the labels behind it are as likely as without it.
#[test]
fn labels_behind_a_gap_are_predicted_from_what_stands_before_it() {
    for set in sets_of(&KINDS) {
        let case = Case::new(&set, "config.json");
        let input = words(&case.language, &[&[5, 6, 7], &[8]]);
        let score = |labels: &[[i64; 4]; 2]| {
            let labels = Tensor::new(labels, &Device::Cpu).unwrap();
            case.language.score(&input, &labels, &mut Tap::none()).unwrap()
        };
        const NONE: i64 = IGNORE_INDEX;
        let plain = score(&[[9, 4, 6, NONE], [5, 7, 3, 8]]);
        let gaps = score(&[[NONE, 9, 4, 6], [5, 7, 3, 8]]);
        let inner = score(&[[9, NONE, 4, 6], [5, 7, 3, 8]]);
        for (scored, columns) in [(&gaps, [1, 2, 3]), (&inner, [0, 2, 3])] {
            for (j, column) in columns.into_iter().enumerate() {
                let of = |scored: &fwd_models::Scored, j: usize| scored.logits.i((0, j)).unwrap();
                assert!(
                    max_diff(&of(scored, column), &of(&plain, j)) < ACTIVATION,
                    "{}: label {j}",
                    set.name
                );
            }
            assert!(max_diff(&scored.loss, &plain.loss) < LOSS, "{}", set.name);
        }
    }
}

/// Full fine-tuning asks for every parameter by its name, and each gets a gradient.
#[test]
fn every_parameter_can_be_trained() {
    for set in sets_of(&KINDS) {
        let case = Case::new(&set, "config.json");
        let prefix = if set.has("pixel_values") { "language_model" } else { "" };
        let (dtype, device) = (fwd_models::WeightDtype::F32, Device::Cpu);
        let mut checkpoint = fwd_models::Checkpoint::open(&set.dir, dtype, &device).unwrap();
        let mut source = |name: &str, shape: &[usize]| {
            let values = fwd_models::Weights::get(&mut checkpoint, name, shape)?;
            Ok(values.flatten_all()?.to_vec1()?)
        };
        let build =
            |weights: &mut dyn fwd_models::Weights| CausalLm::new(&case.config, weights, prefix).map(drop);
        let trainable = fwd_models::Trainable::record(&mut source, &Device::Cpu, build).unwrap();
        let mut tracked = trainable.tracked(&Device::Cpu).unwrap();
        let model = case.language.with_parameters(&mut tracked, prefix).unwrap().unwrap();
        let (input, labels) = (case.input(), case.labels());
        let loss = model.score(&input, &labels, &mut Tap::none()).unwrap().loss;
        let frozen = case.language.score(&input, &labels, &mut Tap::none()).unwrap().loss;
        let off = (loss.to_scalar::<f32>().unwrap() - frozen.to_scalar::<f32>().unwrap()).abs();
        assert!(f64::from(off) < LOSS, "{}: the trained model is off by {off:.1e}", set.name);
        let gradient = tracked.gradient(&loss).unwrap();
        assert!(trainable.names().count() > 10 && gradient.loss().is_finite(), "{}", set.name);
    }
}

/// The loader of a directory finds the same model, and has a use for every tensor in it.
#[test]
fn a_language_model_alone_is_loaded_from_its_directory() {
    let mut report = Report::default();
    for set in sets_of(&["llama"]) {
        report.enter(&set.name);
        let (language, tokens) =
            load_language_model(&set.dir, fwd_models::WeightDtype::F32, &Device::Cpu).unwrap();
        let case = Case::new(&set, "config.json");
        assert_eq!(tokens, case.tokens);
        let scored = language.score(&case.input(), &case.labels(), &mut Tap::none()).unwrap();
        report.against(&case, "right.loss", &one(&scored.loss), LOSS);
    }
    report.finish();
}
