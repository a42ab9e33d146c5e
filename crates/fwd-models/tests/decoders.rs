//! Parity of decoder-only language models with Hugging Face transformers: LLaMA and OPT alone and behind BLIP-2, InstructBLIP and LLaVA.
//! Every tensor of every set of these kinds in `tests/fixtures/sets`, or in the folder that `FWD_ORACLE_DIR` names; with the feature
//! `emulate` also as an emulated GPU computes them.
//!
//! Two paths are checked. The *literal* one puts together the rows that transformers was given, padding where it was, with the positions
//! that its forward pass counts (LLaMA's counts padding, OPT's does not), and compares each stage. The *product's* one gives the model a
//! [`LanguageInput`] and labels and compares losses, gradients, trajectories and generated ids.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{DType, Device, IndexOp, Tensor, Var};
use common::{Report, Set, abs_max, sets_of};
use fwd_linalg::{AdamW, AdamWState};
use fwd_models::{
    Assembled, Blip, CausalLm, EarlyStopping, GenerationConfig, Hypothesis, Instructions, LanguageInput,
    LanguageModel, Llava, MultimodalModel, QFormerText, Segment, SegmentKind, SpecialTokens, Tap, TextConfig,
    generate, load_language_model,
};
use fwd_ops::IGNORE_INDEX;
use std::collections::BTreeMap;

const KINDS: [&str; 4] = ["llama", "blip2-opt", "instructblip-vicuna", "llava"];

/// Largest error of an activation; f32 itself is up to 4.7e-5 away from f64 on these sets.
const ACTIVATION: f64 = 1e-4;
/// Largest error of the first layer: a wrong ε of a norm moves it by 6e-5, f32 itself by 1.4e-5.
const FIRST_LAYER: f64 = 3e-5;
/// Largest error of the vision tower of LLaVA: a wrong ε moves its first layer by 5e-5, f32 itself by 7e-6.
const CLIP: f64 = 2e-5;
const LOSS: f64 = 1e-5;
/// Largest error of dLoss/dP relative to its largest element.
const GRADIENT: f64 = 1e-4;

/// A set with its model.
struct Case<'a> {
    set: &'a Set,
    language: CausalLm,
    config: TextConfig,
    /// The whole model, where there is an image.
    blip: Option<Blip>,
    llava: Option<Llava>,
    tokens: SpecialTokens,
    /// `(batch, n, d)`: the image as the language model reads it.
    image: Option<Tensor>,
}

fn qformer_text(set: &Set) -> Option<QFormerText> {
    set.has("qformer_input_ids")
        .then(|| QFormerText { ids: set.io("qformer_input_ids"), mask: set.io("qformer_attention_mask") })
}

impl<'a> Case<'a> {
    fn new(set: &'a Set, config_file: &str) -> Self {
        let (language, config) = set.causal(config_file);
        let is_llava = set.kind() == "llava";
        let blip = (set.has("pixel_values") && !is_llava).then(|| set.model(config_file));
        let llava = is_llava.then(|| set.llava(config_file, |_| ()));
        let tokens = match (&blip, &llava) {
            (Some(blip), _) => blip.special_tokens().clone(),
            (_, Some(llava)) => llava.special_tokens().clone(),
            _ => SpecialTokens::read(&set.dir.join("generation_config.json"), &config).unwrap(),
        };
        assert_eq!((tokens.eos.clone(), tokens.pad), (vec![set.eos_and_pad().0], set.eos_and_pad().1));
        let mut case = Self { set, language, config, blip, llava, tokens, image: None };
        case.image = case.blip.as_ref().map(|_| {
            let input = case.input();
            input.segments()[0].embeds.clone()
        });
        case
    }

    fn io(&self, name: &str) -> Tensor {
        self.set.io(name)
    }

    fn n_image(&self) -> usize {
        self.image.as_ref().map_or(0, |image| image.dims()[1])
    }

    /// The question as LLaVA reads it, with the stages on the way.
    fn of_llava(&self, llava: &Llava, tap: &mut Tap<'_>) -> LanguageInput {
        let (ids, mask) = (self.io("gen.input_ids"), self.io("gen.attention_mask"));
        let instructions = Instructions { ids, mask, qformer: None };
        llava.features(&self.io("pixel_values"), &instructions, tap).unwrap().input
    }

    /// The question: image, then `BOS` and words; or `BOS`, and words and images as they stand in LLaVA's text.
    fn input(&self) -> LanguageInput {
        if let Some(llava) = &self.llava {
            return self.of_llava(llava, &mut Tap::none()).with_prompt_at(0).unwrap();
        }
        let (ids, mask) = (self.io("gen.input_ids"), self.io("gen.attention_mask"));
        match &self.blip {
            Some(blip) => {
                let (ids, mask) = blip.without_placeholders(&ids, &mask).unwrap();
                let instructions = Instructions { ids, mask, qformer: qformer_text(self.set) };
                blip.features(&self.io("pixel_values"), &instructions, &mut Tap::none()).unwrap().input
            }
            None => {
                let words = self.language.embed(&ids).unwrap();
                LanguageInput::new(vec![Segment::new(SegmentKind::Text, words, &mask).unwrap()]).unwrap()
            }
        }
    }

    /// The question in two segments, of which the first is `BOS`, behind which prompts go.
    fn input_after_bos(&self) -> LanguageInput {
        if let Some(llava) = &self.llava {
            return self.of_llava(llava, &mut Tap::none());
        }
        let (ids, mask) = (self.io("gen.input_ids"), self.io("gen.attention_mask"));
        let rows: Vec<Vec<i64>> = ids.to_vec2().unwrap();
        let masks: Vec<Vec<i64>> = mask.to_vec2().unwrap();
        let first: Vec<usize> = masks.iter().map(|mask| mask.iter().position(|&m| m == 1).unwrap()).collect();
        let bos: Vec<i64> = rows.iter().zip(&first).map(|(row, &at)| row[at]).collect();
        let n = bos.len();
        let bos = self.language.embed(&Tensor::from_vec(bos, (n, 1), &Device::Cpu).unwrap()).unwrap();
        let rest: Vec<i64> = masks
            .iter()
            .zip(&first)
            .flat_map(|(mask, &at)| mask.iter().enumerate().map(move |(i, &m)| if i == at { 0 } else { m }))
            .collect();
        let rest = Tensor::from_vec(rest, ids.dims(), &Device::Cpu).unwrap();
        let words = self.language.embed(&ids).unwrap();
        let segments = vec![
            Segment::full(SegmentKind::Text, bos).unwrap(),
            Segment::new(SegmentKind::Text, words, &rest).unwrap(),
        ];
        LanguageInput::new(segments).unwrap().with_prompt_at(1).unwrap()
    }

    /// The answers, without what stands in front of them.
    fn labels(&self) -> Tensor {
        let rows: Vec<Vec<i64>> = self.io("right.labels").to_vec2().unwrap();
        let answers: Vec<Vec<i64>> =
            rows.into_iter().map(|row| row.into_iter().filter(|&id| id != IGNORE_INDEX).collect()).collect();
        let answers: Vec<&[i64]> = answers.iter().map(|row| &row[..]).collect();
        fwd_models::padded(&answers, IGNORE_INDEX, &Device::Cpu).unwrap()
    }

    /// The rows of a batch as transformers embeds them: images in front, padding where it lies.
    fn literal(&self, batch: &str) -> Assembled {
        let ids = self.io(&format!("{batch}.input_ids"));
        let n = self.n_image();
        let words = ids.narrow(1, n, ids.dim(1).unwrap() - n).unwrap().contiguous().unwrap();
        let words = self.language.embed(&words).unwrap();
        let embeds = match (&self.image, &self.llava) {
            (Some(image), _) => Tensor::cat(&[image, &words], 1).unwrap(),
            (_, Some(llava)) => self.with_images(llava, &ids, &words),
            _ => words,
        };
        let mask = self.io(&format!("{batch}.attention_mask")).to_dtype(DType::F32).unwrap();
        Assembled { embeds, mask }
    }

    /// Images in the places of their tokens, in order over the whole batch.
    fn with_images(&self, llava: &Llava, ids: &Tensor, words: &Tensor) -> Tensor {
        let features = llava.image_features(&self.io("pixel_values"), &mut Tap::none()).unwrap();
        let visual = llava.visual_tokens(&features, &mut Tap::none()).unwrap().flatten(0, 1).unwrap();
        let ids: Vec<i64> = ids.flatten_all().unwrap().to_vec1().unwrap();
        let mut next = ids.len() as u32;
        let row = |(i, &id): (usize, &i64)| {
            if id != i64::from(llava.config().image_token) {
                return i as u32;
            }
            next += 1;
            next - 1
        };
        let rows: Vec<u32> = ids.iter().enumerate().map(row).collect();
        assert_eq!(next as usize, ids.len() + visual.dim(0).unwrap());
        let table = Tensor::cat(&[&words.flatten(0, 1).unwrap(), &visual], 0).unwrap();
        let rows = Tensor::new(rows, &Device::Cpu).unwrap();
        table.index_select(&rows, 0).unwrap().reshape(words.shape()).unwrap()
    }

    /// The positions that the forward pass of transformers counts for a mask.
    fn literal_positions(&self, mask: &Tensor) -> Tensor {
        let rows: Vec<Vec<f32>> = mask.to_vec2().unwrap();
        let row = |mask: &Vec<f32>| -> Vec<i64> {
            let mut n = 0;
            let counted = mask.iter().map(|&m| {
                n += i64::from(m != 0.0);
                if m == 0.0 { -1 } else { n - 1 }
            });
            match &self.config {
                TextConfig::Opt(_) => counted.collect(),
                _ => (0..mask.len() as i64).collect(),
            }
        };
        Tensor::new(rows.iter().map(row).collect::<Vec<_>>(), &Device::Cpu).unwrap()
    }

    /// Logits of every token with these positions.
    fn literal_logits(&self, read: &Assembled, positions: &Tensor, tap: &mut Tap<'_>) -> Tensor {
        let states = self.language.states(read, positions, tap).unwrap();
        self.language.logits(&states, tap).unwrap()
    }

    fn loss(&self, input: &LanguageInput, prompt: &Tensor) -> Tensor {
        let input = input.with_prompt(prompt).unwrap();
        self.language.score(&input, &self.labels(), &mut Tap::none()).unwrap().loss
    }
}

/// Tokens of padding set to 0, as in the sets.
fn real(values: &Tensor, mask: &Tensor) -> Tensor {
    values.broadcast_mul(&mask.unsqueeze(2).unwrap()).unwrap()
}

/// The mean loss of labels that are as long as the input, as transformers shifts them.
fn shifted_loss(logits: &Tensor, labels: &Tensor) -> Tensor {
    let n = labels.dim(1).unwrap() - 1;
    let logits = logits.narrow(1, 0, n).unwrap().contiguous().unwrap();
    fwd_ops::cross_entropy(&logits, &labels.narrow(1, 1, n).unwrap().contiguous().unwrap()).unwrap()
}

fn gradient_of(loss: &Tensor, prompt: &Var) -> Tensor {
    fwd_ops::backward(loss, &[("prompt", prompt)]).unwrap().remove(0)
}

fn one(loss: &Tensor) -> Tensor {
    loss.detach().unsqueeze(0).unwrap()
}

impl Report {
    /// Compares with a tensor of the set, if it holds that.
    fn against(&mut self, case: &Case<'_>, name: &str, ours: &Tensor, tolerance: f64) {
        if case.set.has(name) {
            self.close(name, ours, &case.io(name), tolerance);
        }
    }

    fn gradient(&mut self, case: &Case<'_>, name: &str, ours: &Tensor) {
        if case.set.has(name) {
            self.close(name, ours, &case.io(name), GRADIENT * abs_max(&case.io(name)));
        }
    }
}

/// Vision tower and projector of LLaVA. It computes no layer behind the one that the projector reads, but another LLaVA may.
fn check_llava(case: &Case<'_>, llava: &Llava, config: &str, report: &mut Report) {
    let stages_of = |llava: &Llava| {
        let mut stages = BTreeMap::new();
        let mut look = |name: &str, value: &Tensor| {
            stages.insert(name.to_string(), value.clone());
        };
        case.of_llava(llava, &mut Tap::new(&mut look));
        stages
    };
    let stages = stages_of(llava);
    let of_all = stages_of(&case.set.llava(config, |config| config.vision_feature_layer = -1));
    report.against(case, "image_features", &stages["image_features"], ACTIVATION);
    for name in case.set.names().filter(|n| n.starts_with("vision.") || n.starts_with("projector.")) {
        let tolerance = if name.starts_with("vision.") { CLIP } else { ACTIVATION };
        let is_behind = name.starts_with("vision.layer.") && !stages.contains_key(name);
        match if is_behind { of_all.get(name) } else { stages.get(name) } {
            Some(ours) => report.close(name, ours, &case.io(name), tolerance),
            None => report.fail(format!("{name}: no such stage")),
        }
    }
}

/// Vision tower and Q-Former, and the rows of both batches at every layer.
fn check_stages(case: &Case<'_>, config: &str, report: &mut Report) {
    if let Some(llava) = &case.llava {
        check_llava(case, llava, config, report);
    }
    if let Some(blip) = &case.blip {
        let mut stages = BTreeMap::new();
        let mut look = |name: &str, value: &Tensor| {
            stages.insert(name.to_string(), value.clone());
        };
        let n = case.io("pixel_values").dim(0).unwrap();
        let empty = blip.empty_instructions(n, qformer_text(case.set), &Device::Cpu).unwrap();
        blip.features(&case.io("pixel_values"), &empty, &mut Tap::new(&mut look)).unwrap();
        let image = stages.remove("language_projection").unwrap();
        report.against(case, "image_features", &image, ACTIVATION);
        for name in case.set.names().filter(|n| n.starts_with("vision.") || n.starts_with("qformer.")) {
            match stages.get(name) {
                Some(ours) => report.close(name, ours, &case.io(name), ACTIVATION),
                None => report.fail(format!("{name}: no such stage")),
            }
        }
    }
    for batch in ["right", "left"] {
        let read = case.literal(batch);
        let positions = case.literal_positions(&read.mask);
        let mut stages = BTreeMap::new();
        let mut look = |name: &str, value: &Tensor| {
            stages.insert(name.to_string(), value.clone());
        };
        let logits = case.literal_logits(&read, &positions, &mut Tap::new(&mut look));
        let embeds = stages["decoder.inputs_embeds"].clone();
        let own = |part: &str| format!("{batch}.{part}");
        report.against(case, &own("inputs_embeds"), &embeds, ACTIVATION);
        let mut first_input = embeds;
        if let Some(added) = stages.get("decoder.position_embeds") {
            report.against(case, &own("position_embeds"), added, 0.0);
            first_input = (first_input + added).unwrap();
        }
        let attention = (&stages["decoder.attention.0"] - first_input).unwrap();
        if case.set.has(&own("layer.0.self_attn")) {
            let want = real(&case.io(&own("layer.0.self_attn")), &read.mask);
            report.close(&own("layer.0.self_attn"), &real(&attention, &read.mask), &want, ACTIVATION);
        }
        for i in 0..case.config.n_layers() {
            let ours = real(&stages[&format!("decoder.layer.{i}")], &read.mask);
            let tolerance = if i == 0 { FIRST_LAYER } else { ACTIVATION };
            report.against(case, &own(&format!("layer.{i}")), &ours, tolerance);
        }
        report.against(case, &own("norm"), &real(&stages["decoder.norm"], &read.mask), ACTIVATION);
        report.against(case, &own("logits"), &real(&logits, &read.mask), ACTIVATION);
        let labels = case.io(&own("labels"));
        report.against(case, &own("loss"), &one(&shifted_loss(&logits, &labels)), LOSS);
        check_token_nll(case, &own("token_nll"), &logits, &labels, report);
    }
    let read = case.literal("left");
    report.same(
        "left.position_ids",
        &counted(&read),
        &case.io("left.position_ids").to_vec2::<i64>().unwrap(),
    );
    report.same(
        "gen.position_ids",
        &counted(&case.literal("gen")),
        &case.io("gen.position_ids").to_vec2::<i64>().unwrap(),
    );
    let logits = case.literal_logits(&read, &case.io("left.position_ids"), &mut Tap::none());
    report.against(case, "left_pos.logits", &real(&logits, &read.mask), ACTIVATION);
}

/// The positions by which the model counts, 0 for padding as in the sets.
fn counted(read: &Assembled) -> Vec<Vec<i64>> {
    let mask = read.mask.to_dtype(DType::I64).unwrap();
    (read.positions().unwrap() * mask).unwrap().to_vec2().unwrap()
}

fn check_token_nll(case: &Case<'_>, name: &str, logits: &Tensor, labels: &Tensor, report: &mut Report) {
    let (batch, n) = labels.dims2().unwrap();
    let before = logits.narrow(1, 0, n - 1).unwrap().contiguous().unwrap();
    let after = labels.narrow(1, 1, n - 1).unwrap().contiguous().unwrap();
    let nll = fwd_ops::token_nll(&before, &after).unwrap();
    let first = Tensor::zeros((batch, 1), nll.dtype(), &Device::Cpu).unwrap();
    report.against(case, name, &Tensor::cat(&[&first, &nll], 1).unwrap(), ACTIVATION);
}

fn check_rotary(case: &Case<'_>, report: &mut Report) {
    let TextConfig::Llama(llama) = &case.config else { return };
    let frequencies = llama.inv_freq().unwrap();
    let of_f32: Vec<f32> = frequencies.iter().map(|&f| f as f32).collect();
    // Relative to f32, in which transformers computes a power and a quotient.
    report.close(
        "rope.inv_freq",
        &Tensor::new(of_f32, &Device::Cpu).unwrap(),
        &case.io("rope.inv_freq"),
        2e-7,
    );
    let n = case.io("rope.cos").dim(0).unwrap() as i64;
    let positions = Tensor::arange(0, n, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let rotary = fwd_ops::Rotary::new(&frequencies, &positions, DType::F32, &Device::Cpu).unwrap();
    // An angle of some hundred radians is rounded to f32 by 1.5e-5 at most.
    report.close("rope.cos", &rotary.cos().squeeze(0).unwrap(), &case.io("rope.cos"), 2e-5);
    report.close("rope.sin", &rotary.sin().squeeze(0).unwrap(), &case.io("rope.sin"), 2e-5);
}

/// Rows `[BOS ; P ; rest]` of the right-padded batch, or the same columns of a mask or of labels.
fn after_bos(whole: &Tensor, inserted: &Tensor) -> Tensor {
    let n = whole.dim(1).unwrap();
    let (bos, rest) = (whole.narrow(1, 0, 1).unwrap(), whole.narrow(1, 1, n - 1).unwrap());
    Tensor::cat(&[&bos, inserted, &rest], 1).unwrap()
}

/// The literal layouts of prompts: in front, after BOS, and in front of padding.
fn check_layouts(case: &Case<'_>, report: &mut Report) {
    let prompt = Var::from_tensor(&case.io("soft.prompt")).unwrap();
    let (batch, n, _) = prompt.dims3().unwrap();
    let ones = Tensor::ones((batch, n), DType::F32, &Device::Cpu).unwrap();
    let no_labels = Tensor::full(IGNORE_INDEX, (batch, n), &Device::Cpu).unwrap();
    let read_of = |layout: &str, side: &str| {
        let read = case.literal(side);
        let labels = case.io(&format!("{side}.labels"));
        let join = |whole: &Tensor, inserted: &Tensor| match layout {
            "soft_bos" => after_bos(whole, inserted),
            _ => Tensor::cat(&[inserted, whole], 1).unwrap(),
        };
        let read = Assembled { embeds: join(&read.embeds, &prompt), mask: join(&read.mask, &ones) };
        (read, join(&labels, &no_labels))
    };
    for (layout, side) in [
        ("soft", "right"),
        ("soft_bos", "right"),
        ("soft_left_default", "left"),
        ("soft_left_cumsum", "left"),
    ] {
        if !case.set.has(&format!("{layout}.loss")) {
            continue;
        }
        let (read, labels) = read_of(layout, side);
        let own = |part: &str| format!("{layout}.{part}");
        report.against(case, &own("inputs_embeds"), &read.embeds, ACTIVATION);
        report.against(case, &own("attention_mask"), &read.mask, 0.0);
        report.against(case, &own("labels"), &labels, 0.0);
        let positions = match layout {
            "soft_left_cumsum" => read.positions().unwrap(),
            _ => case.literal_positions(&read.mask),
        };
        let logits = case.literal_logits(&read, &positions, &mut Tap::none());
        report.against(case, &own("logits"), &real(&logits, &read.mask), ACTIVATION);
        let loss = shifted_loss(&logits, &labels);
        report.against(case, &own("loss"), &one(&loss), LOSS);
        report.gradient(case, &own("grad"), &gradient_of(&loss, &prompt));
    }
}

/// Losses, gradients and logits as a caller of the model gets them.
fn check_scores(case: &Case<'_>, report: &mut Report) {
    let (input, labels) = (case.input(), case.labels());
    let scored = case.language.score(&input, &labels, &mut Tap::none()).unwrap();
    report.against(case, "right.loss", &one(&scored.loss), LOSS);
    // The logits in front of the labels, which the sets have at every token.
    let rows: Vec<Vec<i64>> = case.io("right.labels").to_vec2().unwrap();
    for (i, row) in rows.iter().enumerate() {
        let first = row.iter().position(|&id| id != IGNORE_INDEX).unwrap();
        let n = row.iter().filter(|&&id| id != IGNORE_INDEX).count();
        let want = case.io("right.logits").i((i, first - 1..first - 1 + n)).unwrap();
        report.close("score, right.logits", &scored.logits.i((i, ..n)).unwrap(), &want, ACTIVATION);
    }
    for (name, input) in [("soft", &input), ("soft_bos", &case_input_after_bos(case, &input))] {
        for shared in ["", "_shared"] {
            let own = |part: &str| format!("{name}{shared}.{part}");
            if !case.set.has(&own("loss")) {
                continue;
            }
            let prompt = Var::from_tensor(&case.io(&format!("soft{shared}.prompt"))).unwrap();
            let loss = case.loss(input, &prompt);
            report.against(case, &own("loss"), &one(&loss), LOSS);
            report.gradient(case, &own("grad"), &gradient_of(&loss, &prompt));
        }
    }
}

/// [`Case::input_after_bos`] where the sets have that placement.
fn case_input_after_bos(case: &Case<'_>, input: &LanguageInput) -> LanguageInput {
    if case.blip.is_some() { input.clone() } else { case.input_after_bos() }
}

fn check_training(case: &Case<'_>, report: &mut Report) {
    let (front, behind) = (case.input(), case_input_after_bos(case, &case.input()));
    for (name, input, weight_decay) in [
        ("train.adamw", &front, 0.0),
        ("train.adamw_wd", &front, 0.01),
        ("train_bos.adamw", &behind, 0.0),
        ("train_bos.adamw_wd", &behind, 0.01),
    ] {
        if !case.set.has(&format!("{name}.losses")) {
            continue;
        }
        let want = case.io(&format!("{name}.losses"));
        let shape = case.io("soft_shared.prompt").shape().clone();
        let mut values: Vec<f32> = case.io("soft_shared.prompt").flatten_all().unwrap().to_vec1().unwrap();
        let mut state = AdamWState::new(values.len());
        let optimiser = AdamW { lr: 0.05, weight_decay, ..AdamW::default() };
        let mut losses = Vec::new();
        for _ in 0..want.elem_count() {
            let prompt = Var::from_slice(&values, &shape, &Device::Cpu).unwrap();
            let loss = case.loss(input, &prompt);
            losses.push(loss.to_scalar::<f32>().unwrap());
            if losses.len() < want.elem_count() {
                let gradient: Vec<f32> =
                    gradient_of(&loss, &prompt).flatten_all().unwrap().to_vec1().unwrap();
                optimiser.step(&mut state, &mut values, &gradient).unwrap();
            }
        }
        report.close(
            &format!("{name}.losses"),
            &Tensor::new(losses, &Device::Cpu).unwrap(),
            &want,
            5.0 * LOSS,
        );
        let last = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        report.against(case, &format!("{name}.final_prompt"), &last, ACTIVATION);
    }
}

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
        check_beams(case, &input, ("beam3_plain", 1.0, EarlyStopping::Heuristic), report);
    }
    for search in [
        ("beam3", 1.0, EarlyStopping::Heuristic),
        ("beam3_lp-1", -1.0, EarlyStopping::Heuristic),
        ("beam3_es", 1.0, EarlyStopping::Always),
    ] {
        check_beams(case, &with_prompt, search, report);
    }
}

fn for_all_sets(check: impl Fn(&Case<'_>, &mut Report)) {
    let mut report = Report::default();
    for set in sets_of(&KINDS) {
        let case = Case::new(&set, "config.json");
        report.enter(&set.name);
        check(&case, &mut report);
        #[cfg(feature = "emulate")]
        {
            report.enter(&format!("{} on an emulated GPU", set.name));
            fwd_ops::emulated(fwd_kernels::Target::H100, || check(&case, &mut report));
        }
    }
    report.finish();
}

#[test]
fn every_stage_agrees() {
    for_all_sets(|case, report| {
        check_stages(case, "config.json", report);
        check_rotary(case, report);
    });
}

#[test]
fn prompt_losses_and_gradients_agree() {
    for_all_sets(|case, report| {
        check_layouts(case, report);
        check_scores(case, report);
    });
}

#[test]
fn adamw_trajectories_agree() {
    for_all_sets(check_training);
}

#[test]
fn greedy_and_beam_search_agree() {
    for_all_sets(check_generation);
}

#[test]
fn the_config_of_transformers_4_gives_the_same_model() {
    let mut report = Report::default();
    for set in sets_of(&KINDS).iter().filter(|set| set.dir.join("config_hf4.json").exists()) {
        report.enter(&format!("{} (config_hf4.json)", set.name));
        let case = Case::new(set, "config_hf4.json");
        check_stages(&case, "config_hf4.json", &mut report);
        check_scores(&case, &mut report);
    }
    report.finish();
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

/// No tensor of a set goes unchecked: each name belongs to an input or to one of the checks above.
#[test]
fn every_tensor_of_every_set_is_an_input_or_checked() {
    let rows = ["input_ids", "attention_mask", "labels", "position_ids"];
    let stages = ["inputs_embeds", "position_embeds", "norm", "logits", "loss", "token_nll"];
    let soft = ["prompt", "inputs_embeds", "attention_mask", "labels", "logits", "loss", "grad"];
    let generated = ["sequences", "ids", "logits", "all_ids", "all_scores", "step_logits"];
    let own = ["pixel_values", "qformer_input_ids", "qformer_attention_mask", "image_features"];
    for set in sets_of(&KINDS) {
        for name in set.names() {
            let (group, leaf) = name.rsplit_once('.').unwrap_or(("", name));
            let known = match group.split('.').next().unwrap_or_default() {
                "" => own.contains(&name),
                "right" | "left" | "gen" => {
                    rows.contains(&leaf)
                        || stages.contains(&leaf)
                        || group.ends_with(".layer")
                        || group.ends_with(".layer.0")
                }
                "left_pos" => leaf == "logits",
                "rope" => ["cos", "sin", "inv_freq"].contains(&leaf),
                "train" | "train_bos" => ["losses", "final_prompt"].contains(&leaf),
                "noprompt" if leaf == "first_ids" => true,
                _ if group.ends_with("greedy") || group.starts_with("beam3") => generated.contains(&leaf),
                part if part.starts_with("soft") => soft.contains(&leaf),
                part => ["vision", "qformer", "projector"].contains(&part),
            };
            assert!(known, "{}: nothing checks `{name}`", set.name);
        }
    }
}
