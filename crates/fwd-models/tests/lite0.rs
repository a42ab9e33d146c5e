//! EfficientNet-Lite0 with the embedded weights: equal to PyTorch and ONNX Runtime at 128 px, to candle's convolutions at
//! other sizes, and damaged files are refused.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{DType, Device, Tensor, safetensors};
use common::{abs_max, fixtures, max_diff};
use fwd_models::{EfficientNetLite0, Lite0Features};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn weights() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/mini/vision.safetensors")
}

fn model() -> EfficientNetLite0 {
    EfficientNetLite0::load(&weights()).unwrap()
}

/// Four images as bytes, and the pooled features under the given name.
fn reference(name: &str) -> (Tensor, Tensor) {
    let tensors = safetensors::load(fixtures().join("lite0/ref128.safetensors"), &Device::Cpu).unwrap();
    let bytes = tensors["x"].to_dtype(DType::F32).unwrap();
    (((bytes - 127.0).unwrap() / 128.0).unwrap(), tensors[name].clone())
}

/// `‖a − b‖ / ‖b‖`.
fn relative(a: &Tensor, b: &Tensor) -> f64 {
    let norm = |t: &Tensor| f64::from(t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt());
    norm(&(a - b).unwrap()) / norm(b)
}

/// `pool_f16`: PyTorch in f64 with the same weights. `pool`: ONNX Runtime with the weights before they were rounded to f16,
/// which alone moves the features by 3.7e-3 to 4.8e-3 (in f64 as well).
#[test]
fn pooled_features_agree_with_pytorch_and_onnx_runtime() {
    let model = model();
    for (name, allowed) in [("pool_f16", 1e-5), ("pool", 5e-3)] {
        let (pixels, want) = reference(name);
        let features = model.forward(&pixels).unwrap();
        assert_eq!((features.mid.dims(), features.last.dims()), (&[4, 64, 112][..], &[4, 16, 1280][..]));
        let pooled = features.pooled().unwrap();
        for i in 0..4 {
            let off = relative(&pooled.narrow(0, i, 1).unwrap(), &want.narrow(0, i, 1).unwrap());
            assert!(off <= allowed, "{name}, image {i}: off by {off:.2e}");
        }
    }
}

/// The same network in candle's own operations, batch norms not folded.
struct Plain(HashMap<String, Tensor>);

impl Plain {
    fn new() -> Self {
        let tensors = safetensors::load(weights(), &Device::Cpu).unwrap();
        Self(tensors.into_iter().map(|(name, t)| (name, t.to_dtype(DType::F32).unwrap())).collect())
    }

    fn conv(&self, x: &Tensor, [name, norm]: [&str; 2], stride: usize, relu6: bool) -> Tensor {
        let weight = &self.0[&format!("{name}.weight")];
        let (n_out, per_group, kernel, _) = weight.dims4().unwrap();
        let (_, n_in, h, w) = x.dims4().unwrap();
        let pads = [h, w].map(|n| {
            let total = ((n.div_ceil(stride) - 1) * stride + kernel).saturating_sub(n);
            (total / 2, total - total / 2)
        });
        let x = x.pad_with_zeros(2, pads[0].0, pads[0].1).unwrap();
        let x = x.pad_with_zeros(3, pads[1].0, pads[1].1).unwrap();
        let y = x.conv2d(weight, 0, stride, 1, n_in / per_group).unwrap();
        let part = |part: &str| self.0[&format!("{norm}.{part}")].reshape((1, n_out, 1, 1)).unwrap();
        let deviation = (part("running_var") + 1e-3).unwrap().sqrt().unwrap();
        let y = y.broadcast_sub(&part("running_mean")).unwrap().broadcast_div(&deviation).unwrap();
        let y = y.broadcast_mul(&part("weight")).unwrap().broadcast_add(&part("bias")).unwrap();
        if relu6 { y.clamp(0f32, 6f32).unwrap() } else { y }
    }

    fn forward(&self, pixels: &Tensor) -> Lite0Features {
        let mut x = self.conv(pixels, ["_conv_stem", "_bn0"], 2, true);
        let mut mid = None;
        for i in 0..16 {
            let name = |part: &str| format!("_blocks.{i}.{part}");
            let stride = if [1, 3, 5, 11].contains(&i) { 2 } else { 1 };
            let input = x.clone();
            if i > 0 {
                x = self.conv(&x, [&name("_expand_conv"), &name("_bn0")], 1, true);
            }
            x = self.conv(&x, [&name("_depthwise_conv"), &name("_bn1")], stride, true);
            x = self.conv(&x, [&name("_project_conv"), &name("_bn2")], 1, false);
            if stride == 1 && x.dims() == input.dims() {
                x = (x + input).unwrap();
            }
            if x.dims()[1] == 112 {
                mid = Some(x.clone());
            }
        }
        let rows = |x: &Tensor| x.flatten(2, 3).unwrap().transpose(1, 2).unwrap().contiguous().unwrap();
        let last = self.conv(&x, ["_conv_head", "_bn1"], 1, true);
        Lite0Features { mid: rows(&mid.unwrap()), last: rows(&last) }
    }
}

#[test]
fn both_maps_agree_with_plain_convolutions_at_any_size() {
    let (model, plain, (pixels, _)) = (model(), Plain::new(), reference("pool"));
    for (n_images, h, w) in [(2, 96, 96), (1, 100, 100), (1, 33, 70), (1, 1, 1)] {
        let x = pixels.narrow(0, 0, n_images).unwrap().narrow(2, 0, h).unwrap().narrow(3, 0, w).unwrap();
        let (ours, want) = (model.forward(&x).unwrap(), plain.forward(&x.contiguous().unwrap()));
        let cells = |stride: usize| h.div_ceil(stride) * w.div_ceil(stride);
        assert_eq!(ours.mid.dims(), [n_images, cells(16), EfficientNetLite0::MID_CHANNELS]);
        assert_eq!(ours.last.dims(), [n_images, cells(32), EfficientNetLite0::LAST_CHANNELS]);
        for (name, a, b) in [("mid", &ours.mid, &want.mid), ("last", &ours.last, &want.last)] {
            // Rounding of f32 through 50 layers.
            let (off, allowed) = (max_diff(a, b), 1e-4 * abs_max(b).max(1.0));
            assert!(off <= allowed, "{h}x{w} {name}: off by {off:.2e}, allowed {allowed:.2e}");
        }
    }
}

#[test]
fn a_large_batch_is_its_images_one_by_one() {
    let (model, (pixels, _)) = (model(), reference("pool"));
    let small = pixels.narrow(2, 32, 64).unwrap().narrow(3, 32, 64).unwrap();
    let batch = Tensor::cat(&[&small; 5], 0).unwrap();
    let all = model.forward(&batch).unwrap();
    for i in [0, 7, 16, 19] {
        let one = model.forward(&batch.narrow(0, i, 1).unwrap()).unwrap();
        for (a, b) in [(&all.mid, &one.mid), (&all.last, &one.last)] {
            let off = relative(&a.narrow(0, i, 1).unwrap(), b);
            assert!(off < 1e-5, "image {i}: off by {off:.2e}");
        }
    }
}

#[test]
fn other_shapes_are_named() {
    let model = model();
    for dims in [&[1, 4, 32, 32][..], &[3, 32, 32], &[0, 3, 32, 32], &[1, 3, 0, 32]] {
        let error =
            model.forward(&Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap()).unwrap_err().to_string();
        assert!(error.contains("EfficientNet-Lite0: pixels must be (batch, 3, h, w)"), "{error}");
    }
}

#[test]
fn damaged_weights_are_refused_and_named() {
    let tensors = safetensors::load(weights(), &Device::Cpu).unwrap();
    let fails = |name: &str, value: Option<f32>, expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vision.safetensors");
        let mut tensors = tensors.clone();
        match value {
            None => drop(tensors.remove(name).unwrap()),
            Some(value) => {
                let old = &tensors[name];
                let mut values: Vec<f32> =
                    old.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap();
                values[0] = value;
                let new = Tensor::from_vec(values, old.shape(), &Device::Cpu).unwrap();
                tensors.insert(name.into(), new.to_dtype(DType::F16).unwrap());
            }
        }
        safetensors::save(&tensors, &path).unwrap();
        let error = EfficientNetLite0::load(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "`{expected}` is missing in: {error}");
        assert!(error.contains("vision.safetensors"), "{error}");
    };
    let stem = "_conv_stem.weight";
    fails(stem, Some(f32::NAN), &format!("1 tensors not finite: {stem}"));
    fails(stem, None, &format!("1 tensors missing: {stem}"));
    let variance = "_blocks.3._bn1.running_var";
    fails(variance, Some(f32::INFINITY), &format!("1 tensors not finite: {variance}"));
    fails(variance, Some(-0.5), "_blocks.3._bn1.running_var: a variance cannot be -0.5");
    let error = EfficientNetLite0::load(Path::new("no/such.safetensors")).unwrap_err();
    assert_eq!(error.to_string(), "no/such.safetensors");
    assert!(std::error::Error::source(&error).is_some_and(|cause| cause.is::<std::io::Error>()));
}
