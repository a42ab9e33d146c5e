//! Parity with PEFT over language models alone: prompt tuning and LoRA on T5 and LLaMA, every set of these kinds in
//! `tests/fixtures/sets`, or in the folder that `FWD_ORACLE_DIR` names.
//!
//! A soft prompt stands in front of the input. LoRA's `s·B·A` is added to the linear maps: trained, frozen within the fused sublayers, and
//! merged into the weights that the model asks for.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{DType, Device, IndexOp, Tensor, Var};
use common::{Report, Set, abs_max, elsewhere, fixtures, sets_of};
use fwd_adapters::{AdaptableModel, Lora, LoraConfig, LossGradient, Module};
use fwd_linalg::{AdamW, AdamWState};
use fwd_models::{
    Assembled, CausalLm, Checkpoint, Instructions, LanguageInput, LanguageModel, MultimodalModel, Result,
    Sample, Segment, SegmentKind, T5, Tap, TextConfig, TextOnly, WeightDtype, Weights, with_adapters,
};
use fwd_ops::{IGNORE_INDEX, Linear, LowRank};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Largest error of a logit: f32 itself is up to 5.5e-5 away from f64 on these sets, and 1.8e-6 in a loss.
const ACTIVATION: f64 = 1e-4;
const LOSS: f64 = 1e-5;
/// Largest error of a gradient relative to its own largest element.
const GRADIENT: f64 = 1e-4;

/// The losses fall from 9 to 1 in eight steps, and errors grow with them: f32 itself is up to 3e-5 from f64 in PEFT at the end.
const TRAJECTORY: f64 = 1.5e-4;
/// Penalties of O-LoRA and their gradients, which are sums of up to 256 numbers below 30: f32 itself is up to 1.2e-6 from f64.
const PENALTY: f64 = 5e-6;

/// What is put in.
const INPUTS: [&str; 3] = ["input_ids", "attention_mask", "labels"];

/// The folder of the frozen model of a set.
fn base(set: &Set) -> PathBuf {
    let root = elsewhere().unwrap_or_else(|| fixtures().join("sets"));
    root.join(set.meta["base"].as_str().unwrap())
}

/// A language model, either kind.
enum Model {
    T5(T5),
    Causal(CausalLm),
}

/// What a batch of a set gives: logits of every row that the set has logits of, and the loss.
struct Scored {
    logits: Tensor,
    loss: Tensor,
}

impl Model {
    fn open(set: &Set, weights: impl FnOnce(Checkpoint) -> Box<dyn Weights>) -> Self {
        let dir = base(set);
        let config = TextConfig::read(&dir.join("config.json")).unwrap();
        let checkpoint = Checkpoint::open(&dir, WeightDtype::F32, &Device::Cpu).unwrap();
        let mut weights = weights(checkpoint);
        match &config {
            TextConfig::T5(t5) => Self::T5(T5::new(t5, &mut *weights, "").unwrap()),
            config => Self::Causal(CausalLm::new(config, &mut *weights, "").unwrap()),
        }
    }

    /// The same model with `s·B·A` added to each map that `factors` has `[A, B]` of.
    fn adapted(&self, scale: f64, factors: impl Fn(&str) -> Option<[Tensor; 2]>) -> Self {
        let mut n_found = 0;
        let mut additions = |module: &str, _: [usize; 2]| {
            let found = factors(module);
            n_found += found.iter().len();
            Ok(found.map(|[a, b]| LowRank { a, b, scale, router: None }))
        };
        let mut change = |map: &Linear| map.adapted(&mut additions);
        let model = match self {
            Self::T5(model) => Self::T5(model.with_maps(&mut change).unwrap()),
            Self::Causal(model) => Self::Causal(model.with_maps(&mut change).unwrap()),
        };
        assert!(n_found > 0);
        model
    }

    /// Reads a batch as transformers does, behind a prompt `(tokens, d)` or none.
    fn score(&self, set: &Set, prompt: Option<&Tensor>) -> Scored {
        let (ids, mask) = (set.io("input_ids"), set.io("attention_mask"));
        let labels = set.io("labels");
        match self {
            Self::T5(model) => {
                let words = model.embed(&ids).unwrap();
                let words = Segment::new(SegmentKind::Text, words, &mask).unwrap();
                let mut input = LanguageInput::new(vec![words]).unwrap();
                if let Some(prompt) = prompt {
                    input = input.with_prompt(prompt).unwrap();
                }
                let scored = model.score(&input, &labels, &mut Tap::none()).unwrap();
                Scored { logits: scored.logits, loss: scored.loss }
            }
            Self::Causal(model) => {
                let (mut embeds, mut mask) = (model.embed(&ids).unwrap(), mask.to_dtype(DType::F32).unwrap());
                let mut labels = labels;
                let batch = ids.dim(0).unwrap();
                if let Some(prompt) = prompt {
                    let (n, d) = prompt.dims2().unwrap();
                    let rows = prompt.unsqueeze(0).unwrap().broadcast_as((batch, n, d)).unwrap();
                    let ones = Tensor::ones((batch, n), DType::F32, &Device::Cpu).unwrap();
                    let ignored = Tensor::full(IGNORE_INDEX, (batch, n), &Device::Cpu).unwrap();
                    embeds = Tensor::cat(&[&rows, &embeds], 1).unwrap();
                    mask = Tensor::cat(&[&ones, &mask], 1).unwrap();
                    labels = Tensor::cat(&[&ignored, &labels], 1).unwrap();
                }
                let read = Assembled { embeds, mask: mask.clone() };
                let positions = read.positions().unwrap();
                let states = model.states(&read, &positions, &mut Tap::none()).unwrap();
                let logits = model.logits(&states, &mut Tap::none()).unwrap();
                let n = labels.dim(1).unwrap() - 1;
                let before = logits.narrow(1, 0, n).unwrap().contiguous().unwrap();
                let after = labels.narrow(1, 1, n).unwrap().contiguous().unwrap();
                let loss = fwd_ops::cross_entropy(&before, &after).unwrap();
                Scored { logits: logits.broadcast_mul(&mask.unsqueeze(2).unwrap()).unwrap(), loss }
            }
        }
    }

    /// Logits with the rows of padding set to 0, where there are any.
    fn real(&self, set: &Set, logits: &Tensor) -> Tensor {
        match self {
            Self::T5(_) => logits.clone(),
            Self::Causal(_) => {
                let mask = set.io("attention_mask").to_dtype(DType::F32).unwrap();
                let n_prompt = logits.dim(1).unwrap() - mask.dim(1).unwrap();
                let ones = Tensor::ones((mask.dim(0).unwrap(), n_prompt), DType::F32, &Device::Cpu).unwrap();
                let mask = Tensor::cat(&[&ones, &mask], 1).unwrap().unsqueeze(2).unwrap();
                logits.broadcast_mul(&mask).unwrap()
            }
        }
    }

    fn check(
        &self,
        set: &Set,
        prefix: &str,
        scored: &Scored,
        (of_logits, of_loss): (f64, f64),
        report: &mut Report,
    ) {
        let want = self.real(set, &set.io(&format!("{prefix}logits")));
        report.close(&format!("{prefix}logits"), &scored.logits, &want, of_logits);
        if set.has(&format!("{prefix}loss")) {
            let loss = scored.loss.detach().unsqueeze(0).unwrap();
            report.close(&format!("{prefix}loss"), &loss, &set.io(&format!("{prefix}loss")), of_loss);
        }
    }
}

#[test]
fn a_prompt_of_peft_stands_in_front() {
    let mut report = Report::default();
    for set in sets_of(&["prompt-t5", "prompt-llama"]) {
        report.enter(&set.name);
        let model = Model::open(&set, |checkpoint| Box::new(checkpoint));
        let all = set.io("prompt_embeddings");
        // PEFT stores as many rows for the decoder of a T5, and does not use them.
        let n = set.meta["num_virtual_tokens"].as_u64().unwrap() as usize;
        let prompt = Var::from_tensor(&all.narrow(0, 0, n).unwrap().contiguous().unwrap()).unwrap();
        let scored = model.score(&set, Some(&prompt));
        model.check(&set, "", &scored, (ACTIVATION, LOSS), &mut report);
        let gradient = fwd_ops::backward(&scored.loss, &[("prompt", &prompt)]).unwrap().remove(0);
        let want = set.io("grad");
        report.close("grad", &gradient, &want.narrow(0, 0, n).unwrap(), GRADIENT * abs_max(&want));
        let unused = want.dim(0).unwrap() - n;
        if unused > 0 {
            report.same("grad of unused rows", &abs_max(&want.narrow(0, n, unused).unwrap()), &0.0);
        }
        if let Model::Causal(model) = &model {
            check_product(&set, model, &prompt, &mut report);
        }
        report.covers(&set, |name| !INPUTS.contains(&name) && name != "prompt_embeddings");
    }
    report.finish();
}

/// The same loss and gradient through [`LanguageModel::score`], whose input ends where the answer begins.
fn check_product(set: &Set, model: &CausalLm, prompt: &Var, report: &mut Report) {
    let ids: Vec<Vec<i64>> = set.io("input_ids").to_vec2().unwrap();
    let labels: Vec<Vec<i64>> = set.io("labels").to_vec2().unwrap();
    let parts: Vec<(Vec<i64>, Vec<i64>)> = ids
        .iter()
        .zip(&labels)
        .map(|(ids, labels)| {
            let first = labels.iter().position(|&id| id != IGNORE_INDEX).unwrap();
            let answer = labels.iter().copied().filter(|&id| id != IGNORE_INDEX).collect();
            (ids[..first].to_vec(), answer)
        })
        .collect();
    let questions: Vec<&[i64]> = parts.iter().map(|part| &part.0[..]).collect();
    let answers: Vec<&[i64]> = parts.iter().map(|part| &part.1[..]).collect();
    let questions = fwd_models::padded(&questions, IGNORE_INDEX, &Device::Cpu).unwrap();
    let mask = questions.ne(IGNORE_INDEX).unwrap();
    let ids = mask.where_cond(&questions, &questions.zeros_like().unwrap()).unwrap();
    let words = Segment::new(SegmentKind::Text, model.embed(&ids).unwrap(), &mask).unwrap();
    let input = LanguageInput::new(vec![words]).unwrap().with_prompt(prompt).unwrap();
    let answers = fwd_models::padded(&answers, IGNORE_INDEX, &Device::Cpu).unwrap();
    let loss = model.score(&input, &answers, &mut Tap::none()).unwrap().loss;
    report.close("loss of score", &loss.detach().unsqueeze(0).unwrap(), &set.io("loss"), LOSS);
    let gradient = fwd_ops::backward(&loss, &[("prompt", prompt)]).unwrap().remove(0);
    report.close("grad of score", &gradient, &set.io("grad"), GRADIENT * abs_max(&set.io("grad")));
}

/// A checkpoint some of whose matrices are replaced.
struct Merged(Checkpoint, BTreeMap<String, Tensor>);

impl Weights for Merged {
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        match self.1.get(name) {
            Some(weight) => Ok(weight.clone()),
            None => self.0.get(name, shape),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.has(name)
    }
}

/// The pairs of an adapter by the name of the weight they are for, and their scale.
struct Reference {
    pairs: BTreeMap<String, [Tensor; 2]>,
    scale: f64,
}

/// The key of PEFT for a part of a pair.
fn key(module: &str, part: &str) -> String {
    format!("base_model.model.{module}.lora_{part}.weight")
}

impl Reference {
    fn open(set: &Set) -> Self {
        let file = set.dir.join("adapter/adapter_model.safetensors");
        let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        let modules = tensors.keys().filter_map(|name| {
            name.strip_prefix("base_model.model.")?.strip_suffix(".lora_A.weight").map(str::to_owned)
        });
        let pairs = modules
            .map(|module| {
                let pair = ["A", "B"].map(|part| tensors[&key(&module, part)].clone());
                (module, pair)
            })
            .collect();
        Self { pairs, scale: set.meta["scaling"].as_f64().unwrap() }
    }

    /// `W + s·B·A` of every pair.
    fn merged(&self, set: &Set) -> BTreeMap<String, Tensor> {
        let mut base = Checkpoint::open(&base(set), WeightDtype::F32, &Device::Cpu).unwrap();
        let merge = |(module, [a, b]): (&String, &[Tensor; 2])| {
            let name = format!("{module}.weight");
            let shape = [b.dim(0).unwrap(), a.dim(1).unwrap()];
            let change = (b.matmul(a).unwrap() * self.scale).unwrap();
            (name.clone(), (base.get(&name, &shape).unwrap() + change).unwrap())
        };
        self.pairs.iter().map(merge).collect()
    }

    /// The loss, and the gradients of `[A, B]` by module.
    fn gradients(&self, set: &Set) -> (Scored, BTreeMap<String, [Tensor; 2]>) {
        let variables: BTreeMap<&str, [Var; 2]> = self
            .pairs
            .iter()
            .map(|(module, pair)| (module.as_str(), [0, 1].map(|i| Var::from_tensor(&pair[i]).unwrap())))
            .collect();
        let model = Model::open(set, |checkpoint| Box::new(checkpoint));
        let factors =
            |module: &str| variables.get(module).map(|pair| [0, 1].map(|i| pair[i].as_tensor().clone()));
        let scored = model.adapted(self.scale, factors).score(set, None);
        let named: Vec<(&str, &Var)> =
            variables.iter().flat_map(|(module, [a, b])| [(*module, a), (*module, b)]).collect();
        let gradients = fwd_ops::backward(&scored.loss, &named).unwrap();
        let pairs = gradients.chunks(2).map(|pair| [pair[0].clone(), pair[1].clone()]);
        let gradients = self.pairs.keys().cloned().zip(pairs).collect();
        (scored, gradients)
    }
}

#[test]
fn adapters_give_the_logits_and_gradients_of_peft() {
    let mut report = Report::default();
    for set in sets_of(&["lora-t5", "lora-llama"]) {
        report.enter(&set.name);
        let plain = Model::open(&set, |checkpoint| Box::new(checkpoint));
        plain.check(&set, "base.", &plain.score(&set, None), (ACTIVATION, LOSS), &mut report);
        let lora = Reference::open(&set);
        let merged = lora.merged(&set);
        for (name, ours) in &merged {
            let name = format!("merged.{name}");
            report.close(&name, ours, &set.io(&name), 1e-6);
        }
        let model = Model::open(&set, |checkpoint| Box::new(Merged(checkpoint, merged)));
        let scored = model.score(&set, None);
        let want = model.real(&set, &set.io("merged.logits"));
        report.close("merged.logits", &scored.logits, &want, ACTIVATION);
        let frozen = plain.adapted(lora.scale, |module| lora.pairs.get(module).cloned()).score(&set, None);
        plain.check(&set, "", &frozen, (ACTIVATION, LOSS), &mut report);
        let (scored, gradients) = lora.gradients(&set);
        plain.check(&set, "", &scored, (ACTIVATION, LOSS), &mut report);
        for (module, pair) in &gradients {
            for (part, ours) in ["A", "B"].iter().zip(pair) {
                let name = format!("grad.{}", key(module, part));
                let want = set.io(&name);
                report.close(&name, ours, &want, GRADIENT * abs_max(&want));
            }
        }
        check_penalties(&set, &lora, &mut report);
        check_trajectory(&set, lora, &mut report);
        report.covers(&set, |name| !INPUTS.contains(&name) && !name.starts_with("olora.A_old."));
    }
    report.finish();
}

/// A sample without an image.
fn sample(model: &dyn MultimodalModel, labels: &Tensor) -> Sample {
    let ids = Tensor::new(&[[5i64, 9, 13, 7]], &Device::Cpu).unwrap();
    let instructions = Instructions { mask: ids.ones_like().unwrap(), ids, qformer: None };
    let image = Tensor::zeros((1, 1, 1), DType::F32, &Device::Cpu).unwrap();
    let features = model.features_of(&image, &instructions, &mut Tap::none()).unwrap();
    features.samples(labels).unwrap().remove(0)
}

/// The gradient of an adapter against differences of the loss.
fn check_differences(name: &str, lora: &Lora, at: &dyn Fn(&Lora) -> LossGradient) {
    let found = at(lora).gradient;
    let largest = found.iter().fold(0f32, |most, g| most.max(g.abs()));
    for i in (0..lora.values().len()).step_by(101) {
        let loss = |step: f32| {
            let mut moved = lora.clone();
            moved.values_mut()[i] += step;
            at(&moved).loss
        };
        let slope = (loss(0.01) - loss(-0.01)) / 0.02;
        let got = f64::from(found[i]);
        assert!(
            (slope - got).abs() < 0.02 * f64::from(largest),
            "{name} {i}: {got}, differences say {slope}"
        );
    }
}

/// Experts within a model: their gradient, and the same loss where they are frozen. The weights that a learner sees are the checkpoint's.
#[test]
fn experts_are_trained_and_answer_within_a_language_model() {
    for name in ["peft-base-t5", "peft-base-llama"] {
        let dir = fixtures().join("sets").join(name);
        let model = TextOnly::load(&dir, WeightDtype::F32, &Device::Cpu).unwrap();
        let model: &dyn MultimodalModel = &model;
        let labels = Tensor::new(&[[11i64, 3]], &Device::Cpu).unwrap();
        let sample = sample(model, &labels);
        let config = LoraConfig { rank: 4, experts: 2, ..LoraConfig::default() };
        let modules = config.chosen(&model.sites().concat()).unwrap();
        let mut lora = Lora::with_experts(&modules, &config, 1, 0);
        lora.values_mut().iter_mut().enumerate().for_each(|(i, x)| *x += ((i * 37 % 11) as f32 - 5.0) * 0.02);
        let at = |lora: &Lora| model.adapter_gradient(&[&sample], &[lora]).unwrap();
        check_differences(name, &lora, &at);
        let found = at(&lora);
        let adapted = with_adapters(model, &[&lora]).unwrap();
        let scored = adapted.language().score(&adapted.input(&[&sample]).unwrap(), &labels, &mut Tap::none());
        let loss = f64::from(scored.unwrap().loss.to_scalar::<f32>().unwrap());
        assert!((loss - found.loss).abs() < 1e-4, "{loss} frozen, {} trained", found.loss);
        let plain = Lora::new(&modules, &config, 1, 1);
        assert!(with_adapters(model, &[&lora, &plain]).unwrap_err().to_string().contains("experts"));
        let mut n_seen = 0;
        let mut weights = Checkpoint::open(&dir, WeightDtype::F32, &Device::Cpu).unwrap();
        model
            .weights(&mut |module, rows| {
                let Module { n_out, n_in, .. } =
                    model.sites().concat().into_iter().find(|site| site.name == module).unwrap();
                let want = weights.get(&format!("{module}.weight"), &[n_out, n_in]).unwrap();
                assert_eq!(rows, want.flatten_all().unwrap().to_vec1::<f32>().unwrap(), "{module}");
                n_seen += 1;
            })
            .unwrap();
        assert_eq!(n_seen, model.sites().concat().len());
    }
}

/// What a learner of adapters asks of a model: sites in order, their inputs, and a gradient that is that of the loss.
#[test]
fn a_language_model_alone_is_adaptable() {
    for name in ["peft-base-t5", "peft-base-llama"] {
        let model =
            TextOnly::load(&fixtures().join("sets").join(name), WeightDtype::F32, &Device::Cpu).unwrap();
        let model: &dyn MultimodalModel = &model;
        let sites = model.sites();
        let of_first: Vec<&str> =
            sites[0].iter().map(|module| module.name.rsplit('.').next().unwrap()).collect();
        let is_t5 = name.ends_with("t5");
        assert_eq!(of_first, if is_t5 { ["q", "k", "v"] } else { ["q_proj", "k_proj", "v_proj"] });
        assert!(sites.iter().all(|site| site.iter().all(|module| module.n_in == site[0].n_in)));
        let labels = Tensor::new(&[[11i64, 3]], &Device::Cpu).unwrap();
        let sample = sample(model, &labels);
        let config = LoraConfig { rank: 2, ..LoraConfig::default() };
        let modules = config.chosen(&sites.concat()).unwrap();
        let mut lora = Lora::new(&modules, &config, 1, 0);
        // B begins at 0, where A has no gradient.
        lora.values_mut().iter_mut().enumerate().for_each(|(i, x)| *x += ((i * 37 % 11) as f32 - 5.0) * 0.01);
        let mut older = lora.clone();
        older.values_mut().iter_mut().for_each(|x| *x *= -0.5);
        let mut seen = Vec::new();
        model
            .inputs(&sample, &[&older, &lora], &mut |names, rows| {
                seen.push((names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(), rows.len()));
            })
            .unwrap();
        let expected = sites.iter().filter(|site| !site[0].name.ends_with("lm_head"));
        for site in expected {
            let names: Vec<&str> = site.iter().map(|module| module.name.as_str()).collect();
            let (_, n) =
                seen.iter().find(|(of, _)| *of == names).unwrap_or_else(|| panic!("{names:?} is not seen"));
            assert!(*n > 0 && n % site[0].n_in == 0, "{names:?}: {n} elements");
        }
        let at = |lora: &Lora| model.adapter_gradient(&[&sample], &[&older, lora]).unwrap();
        let found = at(&lora);
        assert_eq!(found.gradient.len(), lora.values().len());
        check_differences(name, &lora, &at);
        // Frozen in the model, both give the same loss.
        let adapted = with_adapters(model, &[&older, &lora]).unwrap();
        let scored = adapted.language().score(&adapted.input(&[&sample]).unwrap(), &labels, &mut Tap::none());
        let loss = f64::from(scored.unwrap().loss.to_scalar::<f32>().unwrap());
        assert!((loss - found.loss).abs() < 1e-4, "{loss} frozen, {} trained", found.loss);
        // A file of another model.
        let mut other = modules.clone();
        other[0].n_in += 1;
        let refused = with_adapters(model, &[&Lora::new(&other, &config, 1, 0)]).unwrap_err().to_string();
        assert!(refused.contains(&other[0].name), "{refused}");
        other[0] = Module { name: "nowhere.q_proj".into(), n_out: 3, n_in: 2 };
        let refused = with_adapters(model, &[&Lora::new(&other, &config, 1, 0)]).unwrap_err().to_string();
        assert!(refused.contains("nowhere.q_proj"), "{refused}");
    }
}

/// The files of PEFT's adapters are read as PEFT reads them.
#[test]
fn files_of_peft_are_read() {
    for set in sets_of(&["lora-t5", "lora-llama"]) {
        let read = fwd_adapters::read(&set.dir.join("adapter")).unwrap();
        let lora = Reference::open(&set);
        assert_eq!(read.modules().count(), lora.pairs.len());
        for (module, [a, b]) in &lora.pairs {
            let factors = read.factors(module).unwrap();
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!((factors.a, factors.b), (&flat(a)[..], &flat(b)[..]), "{} {module}", set.name);
            assert!((factors.scale - lora.scale).abs() < 1e-12, "{}", set.name);
        }
    }
}

/// Penalties of O-LoRA on the overlap `M = A_old·Aᵀ` of each module with an earlier adapter, summed over modules, and their gradients to
/// `A`: `Σ|m|` with `sgn(M)ᵀ·A_old`, `‖M‖` with `Mᵀ·A_old/‖M‖`, and `‖M‖²` with `2Mᵀ·A_old`.
fn check_penalties(set: &Set, lora: &Reference, report: &mut Report) {
    if !set.names().any(|name| name.starts_with("olora.")) {
        return;
    }
    let mut sums = [0f64; 3];
    for (module, [a, _]) in &lora.pairs {
        let key = key(module, "A");
        let old = set.io(&format!("olora.A_old.{key}")).to_dtype(DType::F64).unwrap();
        let m = old.matmul(&a.to_dtype(DType::F64).unwrap().t().unwrap()).unwrap();
        let sum = |t: Tensor| t.sum_all().unwrap().to_scalar::<f64>().unwrap();
        let (l1, fro2) = (sum(m.abs().unwrap()), sum(m.sqr().unwrap()));
        let sign = (m.broadcast_div(&m.abs().unwrap())).unwrap();
        let penalties = [
            ("l1", l1, sign),
            ("fro", fro2.sqrt(), (&m / fro2.sqrt()).unwrap()),
            ("fro2", fro2, (&m * 2.0).unwrap()),
        ];
        for (sum, (name, value, of_m)) in sums.iter_mut().zip(penalties) {
            *sum += value;
            let gradient = of_m.t().unwrap().matmul(&old).unwrap();
            let name = format!("olora.{name}.grad.{key}");
            report.close(&name, &gradient, &set.io(&name), PENALTY * abs_max(&gradient).max(1.0));
        }
    }
    check_own_penalty(set, sums[0], report);
    for (name, sum) in ["olora.l1", "olora.fro", "olora.fro2"].into_iter().zip(sums) {
        report.close(
            name,
            &Tensor::new(&[sum], &Device::Cpu).unwrap(),
            &set.io(name),
            PENALTY * sum.max(1.0),
        );
    }
}

/// The penalty that a learner adds, the sum of magnitudes, and its gradient times a weight.
fn check_own_penalty(set: &Set, sum: f64, report: &mut Report) {
    let weight = 0.5;
    let adapter = fwd_adapters::read(&set.dir.join("adapter")).unwrap();
    let mut older = adapter.clone();
    let flat = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let mut places = Vec::new();
    let mut start = 0;
    for module in adapter.modules() {
        let factors = adapter.factors(&module.name).unwrap();
        places.push((key(&module.name, "A"), start, factors.a.len()));
        start += factors.a.len() + factors.b.len();
    }
    for (key, start, n) in &places {
        let a = flat(set.io(&format!("olora.A_old.{key}")));
        older.values_mut()[*start..start + n].copy_from_slice(&a);
    }
    let mut gradient = vec![0.0; adapter.values().len()];
    let penalty = fwd_adapters::add_overlap(&adapter, &[&older], weight, &mut gradient);
    let scalar = |x: f64| Tensor::new(&[x], &Device::Cpu).unwrap();
    report.close("olora.l1, of the learner", &scalar(penalty), &scalar(sum), PENALTY * sum.max(1.0));
    for (key, start, n) in places {
        let name = format!("olora.l1.grad.{key}");
        let want = (set.io(&name) * weight).unwrap();
        let ours = Tensor::from_slice(&gradient[start..start + n], want.shape(), &Device::Cpu).unwrap();
        report.close(&format!("{name}, of the learner"), &ours, &want, PENALTY * abs_max(&want).max(1.0));
    }
}

/// AdamW on all pairs, learning rate 0.01, no weight decay.
fn check_trajectory(set: &Set, mut lora: Reference, report: &mut Report) {
    let want = set.io("train.adamw.losses");
    let optimiser = AdamW { lr: 0.01, weight_decay: 0.0, ..AdamW::default() };
    let mut states: BTreeMap<String, [AdamWState; 2]> = lora
        .pairs
        .iter()
        .map(|(module, pair)| (module.clone(), [0, 1].map(|i| AdamWState::new(pair[i].elem_count()))))
        .collect();
    let mut losses = Vec::new();
    for step in 0..want.elem_count() {
        let (scored, gradients) = lora.gradients(set);
        losses.push(scored.loss.to_scalar::<f32>().unwrap());
        if step + 1 == want.elem_count() {
            break;
        }
        for (module, pair) in &mut lora.pairs {
            for (i, parameter) in pair.iter_mut().enumerate() {
                let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let mut values = flat(parameter);
                let state = &mut states.get_mut(module).unwrap()[i];
                optimiser.step(state, &mut values, &flat(&gradients[module][i])).unwrap();
                *parameter = Tensor::from_vec(values, parameter.shape(), &Device::Cpu).unwrap();
            }
        }
    }
    let ours = Tensor::new(losses, &Device::Cpu).unwrap();
    report.close("train.adamw.losses, first", &ours.i(..2).unwrap(), &want.i(..2).unwrap(), LOSS);
    report.close("train.adamw.losses", &ours, &want, TRAJECTORY);
    for (module, pair) in &lora.pairs {
        for (part, ours) in ["A", "B"].iter().zip(pair) {
            let name = format!("train.adamw.final.{}", key(module, part));
            report.close(&name, ours, &set.io(&name), 2.0 * ACTIVATION);
        }
    }
}
