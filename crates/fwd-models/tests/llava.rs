//! LLaVA as a program uses it: images anywhere in the text, names of other checkpoints, training of the projector, the continual
//! algorithm. Its parity with transformers is in `decoders.rs`.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{DType, Device, Tensor, safetensors};
use common::{Set, fixtures, max_diff};
use fwd_models::{
    Checkpoint, FrozenFeatures, Instructions, Llava, MultimodalModel, PaddingSide, Result, Sample,
    SegmentKind, Tap, Trainable, WeightDtype, Weights, load, padded,
};
use fwd_ops::{IGNORE_INDEX, Weight};
use fwd_prompt::{FrozenModel, Place, PromptBatch};
use std::collections::{BTreeMap, HashMap};

const IMAGE: i64 = 128;

fn set() -> Set {
    Set::open(&fixtures().join("sets/llava-tiny"))
}

fn llava() -> Llava {
    set().llava("config.json", |_| ())
}

fn instructions(rows: &[&[i64]]) -> Instructions {
    let ids = padded(rows, IGNORE_INDEX, &Device::Cpu).unwrap();
    let mask = ids.ne(IGNORE_INDEX).unwrap();
    let ids = mask.where_cond(&ids, &ids.zeros_like().unwrap()).unwrap();
    Instructions { ids, mask, qformer: None }
}

fn features(model: &Llava, images: &Tensor, rows: &[&[i64]]) -> FrozenFeatures {
    model.features_of(images, &instructions(rows), &mut Tap::none()).unwrap()
}

/// What the language model reads of each row, without padding.
fn read(features: &FrozenFeatures) -> Vec<Tensor> {
    let packed = features.input.packed(PaddingSide::Right).unwrap();
    let n: Vec<f32> = packed.mask.sum(1).unwrap().to_vec1().unwrap();
    n.iter()
        .enumerate()
        .map(|(i, &n)| packed.embeds.get(i).unwrap().narrow(0, 0, n as usize).unwrap())
        .collect()
}

/// Rows with one, two, no and one image.
const ROWS: [&[i64]; 4] = [&[1, 5, IMAGE, 7, 9], &[1, IMAGE, IMAGE, 8], &[1, 4, 6], &[1, IMAGE, 3, 3, 3, 3]];

fn images(model: &Llava) -> Tensor {
    model.image_features(&set().io("pixel_values"), &mut Tap::none()).unwrap()
}

#[test]
fn one_placeholder_for_an_image_is_as_good_as_one_for_each_visual_token() {
    let model = llava();
    let images = images(&model);
    let n = model.config().n_visual_tokens();
    assert!(n > 1);
    let expand = |row: &&[i64]| -> Vec<i64> {
        row.iter().flat_map(|&id| std::iter::repeat_n(id, if id == IMAGE { n } else { 1 })).collect()
    };
    let expanded: Vec<Vec<i64>> = ROWS.iter().map(expand).collect();
    let expanded: Vec<&[i64]> = expanded.iter().map(|row| &row[..]).collect();
    let (a, b) = (features(&model, &images, &ROWS), features(&model, &images, &expanded));
    for (a, b) in read(&a).iter().zip(&read(&b)) {
        assert_eq!(a.dims(), b.dims());
        assert_eq!(max_diff(a, b), 0.0);
    }
    assert_eq!(max_diff(&a.image_query, &b.image_query), 0.0);
}

#[test]
fn images_stand_where_the_text_says_in_order_over_the_batch() {
    let model = llava();
    let images = images(&model);
    let visual = model.visual_tokens(&images, &mut Tap::none()).unwrap();
    let all = features(&model, &images, &ROWS);
    let (rows, n) = (read(&all), model.config().n_visual_tokens());
    let word = |id: i64| {
        model.language().embed(&Tensor::new(&[id], &Device::Cpu).unwrap()).unwrap().squeeze(0).unwrap()
    };
    let mut next = 0;
    for (row, ids) in rows.iter().zip(ROWS) {
        let mut at = 0;
        for &id in ids {
            if id == IMAGE {
                let ours = row.narrow(0, at, n).unwrap();
                assert_eq!(max_diff(&ours, &visual.get(next).unwrap()), 0.0, "image {next}");
                (at, next) = (at + n, next + 1);
            } else {
                assert_eq!(max_diff(&row.get(at).unwrap(), &word(id)), 0.0);
                at += 1;
            }
        }
        assert_eq!(row.dim(0).unwrap(), at);
    }
    assert_eq!(next, 4);
    // The queries: the class tokens of a row's images, their mean, or zeros.
    let class = images.narrow(1, 0, 1).unwrap().squeeze(1).unwrap();
    let query = |i: usize| all.image_query.get(i).unwrap();
    assert_eq!(max_diff(&query(0), &class.get(0).unwrap()), 0.0);
    let mean = ((class.get(1).unwrap() + class.get(2).unwrap()).unwrap() * 0.5).unwrap();
    assert!(max_diff(&query(1), &mean) < 4.0 * f64::from(f32::EPSILON) * common::abs_max(&mean));
    assert_eq!(common::abs_max(&query(2)), 0.0);
    assert_eq!(max_diff(&query(3), &class.get(3).unwrap()), 0.0);
    // Images do not count as words.
    let mean = [1, 5, 7, 9].map(word).into_iter().reduce(|a, b| (a + b).unwrap()).unwrap();
    assert!(max_diff(&all.text_query.get(0).unwrap(), &(mean * 0.25).unwrap()) < 1e-6);
}

#[test]
fn a_batch_without_images_and_rows_alone_are_read_as_in_a_batch() {
    let model = llava();
    let images = images(&model);
    let rows = read(&features(&model, &images, &ROWS));
    let none = Tensor::zeros((0, 3, 28, 28), DType::F32, &Device::Cpu).unwrap();
    let none = model.image_features(&none, &mut Tap::none()).unwrap();
    let text = features(&model, &none, &[ROWS[2]]);
    assert_eq!(max_diff(&read(&text)[0], &rows[2]), 0.0);
    assert!(text.input.segments().iter().all(|s| s.kind == SegmentKind::Text));
    let two = features(&model, &images.narrow(0, 1, 2).unwrap(), &[ROWS[1]]);
    assert!(max_diff(&read(&two)[0], &rows[1]) < 1e-5);
}

#[test]
fn prompts_stand_behind_the_first_token_of_every_row() {
    let model = llava();
    let images = images(&model);
    let all = features(&model, &images, &ROWS);
    let labels = padded(&[&[7, 2], &[8, 2], &[9, 2], &[7, 2]], IGNORE_INDEX, &Device::Cpu).unwrap();
    let samples = all.samples(&labels).unwrap();
    assert_eq!(samples[2].image_rows().len(), 0);
    let prompt = Tensor::full(5f32, (2, model.prompt_dims().model), &Device::Cpu).unwrap();
    let of_samples = model.input(&samples.iter().collect::<Vec<_>>()).unwrap();
    for input in [&all.input, &of_samples] {
        let packed = input.with_prompt(&prompt).unwrap().packed(PaddingSide::Right).unwrap();
        for i in 0..4 {
            let row = packed.embeds.get(i).unwrap();
            assert_eq!(max_diff(&row.narrow(0, 1, 2).unwrap(), &prompt), 0.0, "row {i}");
            assert_eq!(max_diff(&row.get(0).unwrap(), &read(&all)[i].get(0).unwrap()), 0.0, "row {i}");
        }
    }
}

#[test]
fn what_does_not_fit_is_said_with_its_numbers() {
    let model = llava();
    let images = images(&model);
    let refused = |rows: &[&[i64]]| {
        model.features_of(&images, &instructions(rows), &mut Tap::none()).unwrap_err().to_string()
    };
    let error = refused(&[&[1, IMAGE, 4], &[1, IMAGE]]);
    assert!(
        error.contains("2 image tokens (128) for 4 images") && error.contains("4 visual tokens (16)"),
        "{error}"
    );
    assert!(refused(&[&[IMAGE, IMAGE, IMAGE, IMAGE, 1]]).contains("text 0 begins with an image token"));
    let empty = refused(&[&[1, IMAGE, IMAGE, IMAGE, IMAGE], &[]]);
    assert!(empty.contains("text 1 has no token"), "{empty}");
}

/// A directory with the parameters under other names.
fn renamed(name: &str, rename: impl Fn(&str) -> String) -> tempfile::TempDir {
    let (set, dir) = (set(), tempfile::tempdir().unwrap());
    for file in ["config.json", "generation_config.json"] {
        std::fs::copy(set.dir.join(file), dir.path().join(file)).unwrap();
    }
    let weights = safetensors::load(set.dir.join("model.safetensors"), &Device::Cpu).unwrap();
    let weights: HashMap<String, Tensor> = weights.into_iter().map(|(k, v)| (rename(&k), v)).collect();
    safetensors::save(&weights, dir.path().join("model.safetensors"))
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    dir
}

/// The names of transformers 4.
fn four(name: &str) -> String {
    match name.strip_prefix("vision_tower.") {
        Some(rest) => format!("vision_tower.vision_model.{rest}"),
        None => name.into(),
    }
}

/// The names of a state that was saved as it is.
fn raw(name: &str) -> String {
    let name = four(name);
    match name.strip_prefix("language_model.") {
        Some(rest) if rest.starts_with("lm_head") => rest.into(),
        Some(rest) => format!("model.language_model.{}", rest.trim_start_matches("model.")),
        None => format!("model.{name}"),
    }
}

#[test]
fn checkpoints_of_every_spelling_give_the_same_model() {
    let reference = images(&llava());
    for dir in [renamed("4", four), renamed("raw", raw)] {
        let model = load(dir.path(), WeightDtype::F32, &Device::Cpu).unwrap();
        let ours = model.image_features(&set().io("pixel_values"), &mut Tap::none()).unwrap();
        assert_eq!(max_diff(&ours, &reference), 0.0);
    }
    // What belongs nowhere is still found.
    let dir = renamed("odd", |name| name.replace("pre_layrnorm", "pre_layernorm"));
    let error = load(dir.path(), WeightDtype::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("vision_tower.pre_layernorm.weight"), "{error}");
    assert!(error.contains("vision_tower.vision_model.pre_layrnorm.weight"), "{error}");
    // One tensor under two names.
    let path = dir.path().join("model.safetensors");
    let mut tensors = safetensors::load(&path, &Device::Cpu).unwrap();
    let norm = tensors["language_model.model.norm.weight"].clone();
    tensors.insert("model.language_model.norm.weight".into(), norm);
    safetensors::save(&tensors, &path).unwrap();
    let error = load(dir.path(), WeightDtype::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("two names of one tensor"), "{error}");
}

/// Full fine-tuning finds every parameter of a checkpoint of any spelling under the names that the model asks for; and a tied head that
/// such a checkpoint keeps a copy of is a copy.
#[test]
fn a_checkpoint_of_another_spelling_is_trained_and_may_have_a_tied_head() {
    let dir = renamed("raw", raw);
    let mut checkpoint = Checkpoint::open(dir.path(), WeightDtype::F32, &Device::Cpu).unwrap();
    let model = load(dir.path(), WeightDtype::F32, &Device::Cpu).unwrap();
    let mut source =
        |name: &str, shape: &[usize]| Ok(checkpoint.get(name, shape)?.flatten_all()?.to_vec1::<f32>()?);
    let build = |weights: &mut dyn Weights| model.with_parameters(weights).map(drop);
    let trainable = Trainable::record(&mut source, &Device::Cpu, build).unwrap();
    let names: Vec<&str> = trainable.names().collect();
    assert!(
        names.contains(&"language_model.lm_head.weight")
            && names.contains(&"language_model.model.norm.weight")
    );
    checkpoint
        .get("language_model.lm_head.weight", trainable.get("language_model.lm_head.weight").unwrap().0)
        .unwrap();

    let config = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["text_config"]["tie_word_embeddings"] = true.into();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let error = load(dir.path(), WeightDtype::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("lm_head.weight (differs from"), "{error}");
    let path = dir.path().join("model.safetensors");
    let mut tensors = safetensors::load(&path, &Device::Cpu).unwrap();
    let words = tensors["model.language_model.embed_tokens.weight"].copy().unwrap();
    tensors.insert("lm_head.weight".into(), words);
    safetensors::save(&tensors, &path).unwrap();
    load(dir.path(), WeightDtype::F32, &Device::Cpu).unwrap();
}

/// Parameters of a type, handed out in f32.
struct Widened(Checkpoint);

impl Weights for Widened {
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.0.get(name, shape)
    }

    fn weight(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight> {
        match self.0.weight(name, shape)? {
            Weight::Matrix(matrix) => Ok(Tensor::from_vec(matrix.values()?, &shape, &Device::Cpu)?.into()),
            dense => Ok(dense),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.has(name)
    }
}

/// Tower, projector and language model keep their matrices in the type, and compute with the values that it stores.
#[test]
fn a_model_of_any_type_is_that_of_its_stored_values() {
    let set = set();
    let exact = images(&llava());
    for dtype in [WeightDtype::Bf16, WeightDtype::F16, WeightDtype::Q8, WeightDtype::Q4] {
        let open = || Checkpoint::open(&set.dir, dtype, &Device::Cpu).unwrap();
        let of_type = Llava::new(llava().config().clone(), &mut open()).unwrap();
        let widened = Llava::new(llava().config().clone(), &mut Widened(open())).unwrap();
        let (ours, want) = (images(&of_type), images(&widened));
        // Only the order of the sums differs; rounding to f16, the finest of these types, moves a feature by some 2⁻¹².
        let scale = common::abs_max(&want);
        assert!(max_diff(&ours, &want) < 2e-5 * scale, "{dtype:?}: {:e}", max_diff(&ours, &want));
        assert!(max_diff(&ours, &exact) > 1e-4 * scale, "{dtype:?}: nothing was rounded");
        let (ours, want) = (features(&of_type, &ours, &ROWS), features(&widened, &want, &ROWS));
        for (ours, want) in read(&ours).iter().zip(&read(&want)) {
            assert!(max_diff(ours, want) < 1e-4 * common::abs_max(want), "{dtype:?}");
        }
    }
}

#[test]
fn the_projector_is_trained_through_the_layout() {
    let (set, model) = (set(), llava());
    let parameters = safetensors::load(set.dir.join("model.safetensors"), &Device::Cpu).unwrap();
    let mut source = |name: &str, _: &[usize]| Ok(parameters[name].flatten_all()?.to_vec1::<f32>()?);
    let names = ["linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias"]
        .map(|name| format!("multi_modal_projector.{name}"));
    assert!(names.iter().all(|name| model.bridge_parameters().iter().any(|prefix| name.starts_with(prefix))));
    let build = |weights: &mut dyn Weights| {
        for name in &names {
            weights.get(name, parameters[name].dims())?;
        }
        Ok(())
    };
    let trainable = Trainable::record(&mut source, &Device::Cpu, build).unwrap();
    let images = images(&model);
    let labels = padded(&[&[7, 2], &[8, 2], &[9, 2], &[7, 2]], IGNORE_INDEX, &Device::Cpu).unwrap();
    let loss_of = |trainable: &Trainable| {
        let mut tracked = trainable.tracked(&Device::Cpu).unwrap();
        let model = model.with_parameters(&mut tracked).unwrap();
        let input = model.features_of(&images, &instructions(&ROWS), &mut Tap::none()).unwrap().input;
        let loss = model.language().score(&input, &labels, &mut Tap::none()).unwrap().loss;
        (tracked, loss)
    };
    let (tracked, loss) = loss_of(&trainable);
    let before = loss.to_scalar::<f32>().unwrap();
    let frozen = features(&model, &images, &ROWS).input;
    let plain = model.language().score(&frozen, &labels, &mut Tap::none()).unwrap().loss;
    assert!((plain.to_scalar::<f32>().unwrap() - before).abs() < 1e-5);
    let mut trainable = trainable.clone();
    let gradient = tracked.gradient(&loss).unwrap();
    let config = fwd_models::StepConfig {
        optimiser: fwd_linalg::AdamW { lr: 1e-3, ..Default::default() },
        max_norm: 1e9,
    };
    let report = trainable.step(gradient, &config).unwrap();
    assert!(report.grad_norm > 0.0);
    let after = loss_of(&trainable).1.to_scalar::<f32>().unwrap();
    assert!(after < before, "{before} -> {after}");
}

/// The gradient of a batch whose rows differ in structure is that of its rows, each by its share of the labels.
#[test]
fn samples_of_any_structure_run_under_the_continual_algorithm() {
    let model = llava();
    let images = images(&model);
    let labels = padded(&[&[7, 2], &[8, 3, 2], &[2], &[7, 2]], IGNORE_INDEX, &Device::Cpu).unwrap();
    let samples = features(&model, &images, &ROWS).samples(&labels).unwrap();
    let dim = model.prompt_dims().model;
    let prompts = |n: usize| PromptBatch {
        values: (0..n * 2 * dim).map(|i| ((i % 17) as f32 - 8.0) / 40.0).collect(),
        lengths: vec![2; n],
        dim,
        place: Place::Front,
    };
    let all: Vec<&Sample> = samples.iter().collect();
    let together = model.loss_gradient(&all, &prompts(4)).unwrap();
    let mut parts = BTreeMap::new();
    for (i, sample) in all.iter().enumerate() {
        let values = prompts(4).values[i * 2 * dim..(i + 1) * 2 * dim].to_vec();
        let alone = model
            .loss_gradient(&[sample], &PromptBatch { values, lengths: vec![2], dim, place: Place::Front })
            .unwrap();
        parts.insert(i, (alone, sample.labels.len() as f64 / 8.0));
    }
    let loss: f64 = parts.values().map(|(part, share)| part.loss * share).sum();
    assert!((loss - together.loss).abs() < 1e-5, "{loss} {}", together.loss);
    let largest = together.gradient.iter().fold(0f32, |m, g| m.max(g.abs()));
    for (i, (part, share)) in parts {
        let row = &together.gradient[i * 2 * dim..(i + 1) * 2 * dim];
        for (ours, alone) in row.iter().zip(&part.gradient) {
            assert!((f64::from(*ours) - share * f64::from(*alone)).abs() < 1e-4 * f64::from(largest));
        }
    }
}
