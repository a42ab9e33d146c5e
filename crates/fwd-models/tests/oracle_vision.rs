//! DINOv2 by itself against Hugging Face transformers: every tensor of every set of this kind, for every size of image in it, in
//! `tests/fixtures/sets` or in the folder that `FWD_ORACLE_DIR` names; with the feature `emulate` also as an emulated GPU computes
//! them. CLIP is in `decoders.rs`, where LLaVA has it.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{D, DType, Device, Tensor, safetensors};
use common::{Report, Set, fixtures, sets_of};
use fwd_models::{Result, Tap, VisionConfig, VisionTransformer, WeightDtype, Weights};
use std::collections::{BTreeMap, HashMap};

/// Largest error of an activation: f32 itself is up to 1e-5 away from f64 on these sets, and an ε of the layer norms of 1e-5 instead
/// of 1e-6 shows as 4e-5.
const ACTIVATION: f64 = 2e-5;

fn tower(set: &Set) -> VisionTransformer {
    VisionTransformer::load(&set.dir, WeightDtype::F32, &Device::Cpu).unwrap()
}

/// What the tower computes of the images of one size, under the names of the set.
fn stages(set: &Set, tower: &VisionTransformer, size: &str) -> BTreeMap<String, Tensor> {
    let mut seen = BTreeMap::new();
    let mut look = |name: &str, value: &Tensor| {
        seen.insert(name.trim_start_matches("vision.").to_string(), value.clone());
    };
    let pixels = set.io(&format!("pixel_values.{size}"));
    let features = tower.forward(&pixels, &mut Tap::new(&mut look)).unwrap();
    let n_patches = features.dim(1).unwrap() - 1;
    seen.insert("pooler_output".into(), features.narrow(1, 0, 1).unwrap().squeeze(1).unwrap());
    seen.insert("patch_mean".into(), features.narrow(1, 1, n_patches).unwrap().mean(1).unwrap());
    // Ours adds in one step what the layer scale gives, and has the scale in the map before it.
    let weights = safetensors::load(set.dir.join("model.safetensors"), &Device::Cpu).unwrap();
    let lambda = &weights["encoder.layer.0.layer_scale1.lambda1"];
    let scaled = (&seen["attention.0"] - &seen["embeddings"]).unwrap();
    seen.insert("layer.0.attention".into(), scaled.broadcast_div(lambda).unwrap());
    seen.insert("layer.0.layer_scale1".into(), scaled);
    seen
}

fn check(set: &Set, report: &mut Report) {
    let tower = tower(set);
    let sizes: Vec<String> =
        set.names().filter_map(|name| Some(name.strip_prefix("pixel_values.")?.into())).collect();
    assert!(!sizes.is_empty(), "{}: no images", set.name);
    let lambda = &safetensors::load(set.dir.join("model.safetensors"), &Device::Cpu).unwrap()["encoder.layer.0.layer_scale1.lambda1"];
    let least: f32 = lambda.abs().unwrap().min(D::Minus1).unwrap().to_scalar().unwrap();
    for size in &sizes {
        let ours = stages(set, &tower, size);
        for name in set.names().filter(|name| name.starts_with(size.as_str())) {
            let stage = &name[size.len() + 1..];
            // Taken out of a sum and divided by λ.
            let tolerance = if stage.ends_with(".attention") {
                ACTIVATION * (1.0 / f64::from(least)).max(1.0)
            } else {
                ACTIVATION
            };
            match ours.get(stage) {
                Some(ours) => report.close(name, ours, &set.io(name), tolerance),
                None => report.fail(format!("{name}: no such stage")),
            }
        }
    }
    report.covers(set, |name| !name.starts_with("pixel_values."));
}

#[test]
fn every_stage_of_every_size_agrees() {
    let mut report = Report::default();
    for set in sets_of(&["dinov2"]) {
        report.enter(&set.name);
        check(&set, &mut report);
        #[cfg(feature = "emulate")]
        {
            report.enter(&format!("{} on an emulated GPU", set.name));
            fwd_ops::emulated(fwd_kernels::Target::H100, || check(&set, &mut report));
        }
    }
    report.finish();
}

/// A CLIP alone, as its own class saves it and as part of the whole CLIP, is that of the LLaVA whose tower it is.
#[test]
fn a_clip_alone_is_loaded_from_its_directory() {
    let set = Set::open(&fixtures().join("sets/llava-tiny"));
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(set.dir.join("config.json")).unwrap()).unwrap();
    let weights = safetensors::load(set.dir.join("model.safetensors"), &Device::Cpu).unwrap();
    let pixels = set.io("pixel_values");
    let load = |config: &serde_json::Value, prefix: &str, others: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let tower = weights.iter().filter_map(|(name, tensor)| {
            Some((format!("{prefix}{}", name.strip_prefix("vision_tower.")?), tensor.clone()))
        });
        let mut tensors: HashMap<String, Tensor> = tower.collect();
        for other in others {
            tensors.insert((*other).into(), Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap());
        }
        safetensors::save(&tensors, dir.path().join("model.safetensors")).unwrap();
        VisionTransformer::load(dir.path(), WeightDtype::F32, &Device::Cpu)
    };
    let want = set.llava("config.json", |config| config.vision_feature_layer = -1);
    let want = fwd_models::MultimodalModel::image_features(&want, &pixels, &mut Tap::none()).unwrap();
    let whole = serde_json::json!({"model_type": "clip", "vision_config": config["vision_config"]});
    for tower in [
        load(&config["vision_config"], "", &[]),
        load(&config["vision_config"], "vision_model.", &[]),
        load(
            &whole,
            "vision_model.",
            &["text_model.final_layer_norm.bias", "logit_scale", "visual_projection.weight"],
        ),
    ] {
        let features = tower.unwrap().forward(&pixels, &mut Tap::none()).unwrap();
        assert_eq!(common::max_diff(&features, &want), 0.0);
    }
    // What belongs nowhere is still found.
    let error =
        load(&config["vision_config"], "vision_model.", &["vision_model.extra"]).unwrap_err().to_string();
    assert!(error.contains("vision_model.extra"), "{error}");
}

/// Parameters by name, made where they are first asked for.
#[derive(Default)]
struct Made(HashMap<String, Tensor>);

impl Weights for Made {
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let n: usize = shape.iter().product();
        let seed = name.bytes().fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b)));
        let value = |i: usize| (((i as u32).wrapping_mul(2_654_435_761) ^ seed) % 2001) as f32 / 1000.0 - 1.0;
        let values: Vec<f32> = (0..n).map(|i| 0.3 * value(i)).collect();
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
        Ok(self.0.entry(name.into()).or_insert(tensor).clone())
    }

    fn has(&self, _: &str) -> bool {
        true
    }
}

/// The gated feed-forward of DINOv2 giant, of which there is no reference set: `x + λ∘(W₂·(silu(g)∘u) + b₂)`, `[g ; u] = W₁·norm(x) + b₁`.
#[test]
fn the_gated_feed_forward_is_its_formula() {
    let config: VisionConfig = serde_json::from_str(
        r#"{"model_type": "dinov2", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "image_size": 8,
            "patch_size": 4, "mlp_ratio": 4, "use_swiglu_ffn": true}"#,
    )
    .unwrap();
    let hidden = 48; // int(64·2/3) = 42, rounded up to a multiple of 8
    assert_eq!(config.intermediate_size, hidden);
    let mut made = Made::default();
    let tower = VisionTransformer::new(&config, &mut made, "").unwrap();
    let mut seen = HashMap::new();
    let mut look = |name: &str, value: &Tensor| drop(seen.insert(name.to_string(), value.clone()));
    let pixels = made.get("pixels", &[2, 3, 8, 8]).unwrap();
    tower.forward(&pixels, &mut Tap::new(&mut look)).unwrap();

    let f64_of = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
    let weight = |name: &str| f64_of(&made.0[&format!("encoder.layer.0.{name}")]);
    let x = f64_of(&seen["vision.attention.0"]).flatten(0, 1).unwrap();
    let centred = x.broadcast_sub(&x.mean_keepdim(1).unwrap()).unwrap();
    let deviation = (centred.sqr().unwrap().mean_keepdim(1).unwrap() + 1e-6).unwrap().sqrt().unwrap();
    let linear = |x: &Tensor, name: &str| {
        let y = x.matmul(&weight(&format!("{name}.weight")).t().unwrap()).unwrap();
        y.broadcast_add(&weight(&format!("{name}.bias"))).unwrap()
    };
    let normed = centred.broadcast_div(&deviation).unwrap().broadcast_mul(&weight("norm2.weight")).unwrap();
    let h = linear(&normed.broadcast_add(&weight("norm2.bias")).unwrap(), "mlp.weights_in");
    let (gate, up) = (h.narrow(1, 0, hidden).unwrap(), h.narrow(1, hidden, hidden).unwrap());
    let inner = (gate.silu().unwrap() * up).unwrap();
    let scaled = linear(&inner, "mlp.weights_out").broadcast_mul(&weight("layer_scale2.lambda1")).unwrap();
    let want = (x + scaled).unwrap();
    let ours = seen["vision.layer.0"].flatten(0, 1).unwrap();
    // Sums of up to 48 products of numbers near 1.
    let tolerance = 4.0 * 48.0 * f64::from(f32::EPSILON);
    assert!(common::max_diff(&ours, &want) < tolerance, "{:e}", common::max_diff(&ours, &want));
}

#[test]
fn images_smaller_than_a_patch_are_refused() {
    let config: VisionConfig = serde_json::from_str(
        r#"{"model_type": "dinov2", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 0, "image_size": 8, "patch_size": 4}"#,
    )
    .unwrap();
    let tower = VisionTransformer::new(&config, &mut Made::default(), "").unwrap();
    let forward = |h: usize, w: usize| {
        tower.forward(&Tensor::zeros((1, 3, h, w), DType::F32, &Device::Cpu).unwrap(), &mut Tap::none())
    };
    // Rows and columns that fill no patch are left out, as the convolution leaves them.
    assert_eq!(forward(14, 7).unwrap().dims(), [1, 1 + 3, 8]);
    let error = forward(3, 8).unwrap_err().to_string();
    assert!(error.contains("smaller than a patch"), "{error}");
}
