//! Weights at rest: those that stay in their file are mapped and give the same bits as those that are read; opening reads nothing of them;
//! a model of any type is that of its rounded weights.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{DType, Device, Tensor, safetensors};
use common::{Report, Set, max_diff, sets_of};
use fwd_models::{
    Blip, Checkpoint, Instructions, ModelConfig, ModelError, ModelKind, MultimodalModel, QFormerText, Tap,
    WeightDtype, WeightFile, Weights,
};
use fwd_ops::{Format, Matrix, Weight};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

const NAME: &str = "language_model.model.layers.0.mlp.up_proj.weight";

/// Writes a safetensors file with one tensor, whose elements lie in `[-1, 1]`.
fn write(path: &Path, name: &str, shape: &[usize], dtype: DType) -> Vec<f32> {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
    let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    safetensors::save(&HashMap::from([(name, tensor.clone())]), path).unwrap();
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn matrix(path: &Path, name: &str, shape: [usize; 2], dtype: WeightDtype) -> Matrix {
    match Checkpoint::open_file(path, dtype, &Device::Cpu).unwrap().weight(name, shape).unwrap() {
        Weight::Matrix(matrix) => matrix,
        Weight::Dense(_) => panic!("{name} is a tensor"),
    }
}

#[test]
fn what_is_mapped_and_what_is_converted_has_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    // More than one piece of 16 MiB, and rows that no piece ends with.
    let shape = [2111, 2080];
    for (stored, format) in
        [(DType::BF16, Format::Bf16), (DType::F16, Format::F16), (DType::F32, Format::F32)]
    {
        let values = write(&path, NAME, &shape, stored);
        for (dtype, wanted) in [
            (WeightDtype::Bf16, Format::Bf16),
            (WeightDtype::F16, Format::F16),
            (WeightDtype::Q8, Format::Q8_0),
            (WeightDtype::Q4, Format::Q4_0),
        ] {
            let got = matrix(&path, NAME, shape, dtype);
            assert_eq!((got.format(), got.n_rows(), got.n_cols()), (wanted, shape[0], shape[1]));
            let at_once = Matrix::quantised("w", wanted, shape, &values).unwrap();
            assert_eq!(got.values().unwrap(), at_once.values().unwrap(), "{format} as {wanted}");
        }
        let mut checkpoint = Checkpoint::open_file(&path, WeightDtype::F32, &Device::Cpu).unwrap();
        let Weight::Dense(tensor) = checkpoint.weight(NAME, shape).unwrap() else {
            panic!("f32 is a tensor")
        };
        assert_eq!(tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap(), values);
    }
}

#[test]
fn parts_that_are_small_or_that_blocks_do_not_fit_are_kept_more_precisely() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    write(&path, "lm_head.weight", &[3, 64], DType::F32);
    assert_eq!(matrix(&path, "lm_head.weight", [3, 64], WeightDtype::Q4).format(), Format::Q8_0);
    write(&path, NAME, &[3, 40], DType::F32);
    assert_eq!(matrix(&path, NAME, [3, 40], WeightDtype::Q4).format(), Format::Bf16);
    // Vectors and kernels of convolutions are f32 in every type.
    let values = write(&path, "vision_model.patch.weight", &[4, 3, 2, 2], DType::BF16);
    for dtype in WeightDtype::ALL {
        let mut checkpoint = Checkpoint::open_file(&path, dtype, &Device::Cpu).unwrap();
        let tensor = checkpoint.get("vision_model.patch.weight", &[4, 3, 2, 2]).unwrap();
        assert_eq!(tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap(), values);
    }
}

#[test]
fn numbers_that_are_not_finite_are_found_on_converting_and_in_a_mapped_file_at_the_first_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let save = |values: Vec<f32>, dtype| {
        let tensor = Tensor::from_vec(values, (2, 32), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        safetensors::save(&HashMap::from([(NAME, tensor)]), &path).unwrap();
    };
    let finish = |dtype| {
        let mut checkpoint = Checkpoint::open_file(&path, dtype, &Device::Cpu).unwrap();
        checkpoint.weight(NAME, [2, 32]).unwrap();
        checkpoint.finish(|_| None)
    };
    let mut values = vec![0.5; 64];
    values[40] = f32::NAN;
    save(values.clone(), DType::F32);
    for dtype in WeightDtype::ALL {
        let error = finish(dtype).unwrap_err().to_string();
        assert!(error.ends_with(&format!("1 tensors not finite: {NAME}")), "{dtype}: {error}");
    }
    save(values.clone(), DType::BF16);
    finish(WeightDtype::Bf16).unwrap();
    let error = matrix(&path, NAME, [2, 32], WeightDtype::Bf16).values().unwrap_err().to_string();
    assert!(error.contains(NAME), "{error}");
    values[40] = 1e9;
    save(values, DType::F32);
    finish(WeightDtype::Bf16).unwrap();
    let error = finish(WeightDtype::F16).unwrap_err().to_string();
    assert!(error.contains(&format!("not finite: {NAME} (in f16)")), "{error}");
    // The scale of a block is an f16.
    let error = finish(WeightDtype::Q8).unwrap_err().to_string();
    assert!(error.contains(&format!("not finite: {NAME} (in q8_0)")), "{error}");
}

/// Between a matrix that is widened tile by tile and a tensor lies the order of sums alone: the error of f32 in activations.
const ACTIVATION: f64 = 1e-4;

/// The format of a tensor in a model; none for what every type keeps in f32: vectors, kernels, tables of positions, the embeddings of the
/// Q-Former and, in BLIP-2, all of it.
fn format(name: &str, shape: &[usize], dtype: WeightDtype, is_blip2: bool) -> Option<Format> {
    let is_full =
        ["relative_attention_bias", "position", "qformer.embeddings"].iter().any(|part| name.contains(part))
            || (is_blip2 && name.starts_with("qformer."));
    let &[_, n_cols] = shape else { return None };
    if is_full {
        return None;
    }
    let is_layer = name.starts_with("language_model.")
        && !["shared", "embed_tokens", "lm_head"].iter().any(|part| name.contains(part));
    let blocks = match dtype {
        WeightDtype::F32 => return None,
        WeightDtype::Bf16 => return Some(Format::Bf16),
        WeightDtype::F16 => return Some(Format::F16),
        WeightDtype::Q4 if is_layer => Format::Q4_0,
        WeightDtype::Q8 | WeightDtype::Q4 => Format::Q8_0,
    };
    Some(if n_cols % 32 == 0 { blocks } else { Format::Bf16 })
}

/// Writes the checkpoint of a set with all matrices rounded as a type rounds them, in f32.
fn write_rounded(set: &Path, dtype: WeightDtype, is_blip2: bool, to: &Path) {
    let mut tensors = safetensors::load(set.join("model.safetensors"), &Device::Cpu).unwrap();
    for (name, tensor) in &mut tensors {
        if let Some(format) = format(name, tensor.dims(), dtype, is_blip2) {
            let (n_rows, n_cols) = tensor.dims2().unwrap();
            let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            let rounded = Matrix::quantised(name, format, [n_rows, n_cols], &values).unwrap();
            *tensor = Tensor::from_vec(rounded.values().unwrap(), (n_rows, n_cols), &Device::Cpu).unwrap();
        }
    }
    safetensors::save(&tensors, to.join("model.safetensors")).unwrap();
}

#[test]
fn a_model_of_any_type_is_that_of_its_rounded_weights() {
    let mut report = Report::default();
    for set in sets_of(&["blip2", "instructblip", "blip2-opt", "instructblip-vicuna"]) {
        let config = ModelConfig::read(&set.dir.join("config.json")).unwrap();
        let of_f32 = logits(&set, &config, &set.dir, WeightDtype::F32);
        for dtype in WeightDtype::ALL {
            report.enter(&format!("{} {dtype}", set.name));
            let folder = tempfile::tempdir().unwrap();
            write_rounded(&set.dir, dtype, config.kind == ModelKind::Blip2, folder.path());
            let ours = logits(&set, &config, &set.dir, dtype);
            report.close(
                "logits",
                &ours,
                &logits(&set, &config, folder.path(), WeightDtype::F32),
                ACTIVATION,
            );
            // What is rounded shows: the check above is no comparison of f32 with itself.
            let off = max_diff(&ours, &of_f32);
            if (off > ACTIVATION) == (dtype == WeightDtype::F32) {
                report.fail(format!("the logits differ by {off:.1e} from those in f32"));
            }
        }
    }
    report.finish();
}

fn logits(set: &Set, config: &ModelConfig, dir: &Path, dtype: WeightDtype) -> Tensor {
    let model = Blip::load_with(dir, config.clone(), dtype, &Device::Cpu).unwrap();
    let pixels = set.io("pixel_values");
    let n = pixels.dim(0).unwrap();
    let ids = Tensor::new(&[[5i64, 9, 12, 3, 7]], &Device::Cpu).unwrap().repeat((n, 1)).unwrap();
    let mask = ids.ones_like().unwrap();
    let qformer =
        model.bridge_reads_instruction().then(|| QFormerText { ids: ids.clone(), mask: mask.clone() });
    let instructions = Instructions { ids: ids.clone(), mask, qformer };
    let features = model.features(&pixels, &instructions, &mut Tap::none()).unwrap();
    model.language().score(&features.input, &ids, &mut Tap::none()).unwrap().logits
}

/// The bytes of this process that are in memory.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A file of 16 GiB that takes no room on the disk: two matrices of zeros, the second one a copy of the first.
#[cfg(target_os = "linux")]
fn sparse(path: &Path) -> [usize; 2] {
    let shape = [1 << 20, 1 << 12];
    let n_bytes = 2 * shape[0] * shape[1];
    let entry = |i: usize| serde_json::json!({ "dtype": "BF16", "shape": shape, "data_offsets": [i * n_bytes, (i + 1) * n_bytes] });
    let header =
        serde_json::json!({ "model.embed_tokens.weight": entry(0), "lm_head.weight": entry(1) }).to_string();
    let head = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    fs::write(path, &head).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len((head.len() + 2 * n_bytes) as u64)
        .unwrap();
    shape
}

#[cfg(target_os = "linux")]
#[test]
fn opening_a_large_file_reads_a_small_part_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let shape = sparse(&path);
    // Other tests of this program run meanwhile: they take some tens of megabytes.
    let (before, start) = (resident(), std::time::Instant::now());
    let mut checkpoint = Checkpoint::open(folder.path(), WeightDtype::Bf16, &Device::Cpu).unwrap();
    let Weight::Matrix(matrix) = checkpoint.weight("model.embed_tokens.weight", shape).unwrap() else {
        panic!("a mapped matrix")
    };
    let original = ["model.embed_tokens.weight".to_owned()];
    checkpoint.finish(|_| Some(fwd_models::Redundant::CopyOf(&original))).unwrap();
    assert_eq!(matrix.select_rows(&[0, (1 << 20) - 1]).unwrap(), vec![0.0; 2 << 12]);
    let mut n_sampled = 0;
    WeightFile::open(&path).unwrap().samples(|bytes| n_sampled += bytes.len()).unwrap();
    assert!((8 << 12..1 << 20).contains(&n_sampled), "{n_sampled}");
    let grown = resident().saturating_sub(before);
    assert!(grown < 256 << 20, "{} MiB more are in memory", grown >> 20);
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

#[test]
fn a_file_that_is_cut_off_before_a_matrix_is_mapped_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    write(&path, NAME, &[64, 64], DType::BF16);
    let mut checkpoint = Checkpoint::open_file(&path, WeightDtype::Bf16, &Device::Cpu).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5000).unwrap();
    let error = checkpoint.weight(NAME, [64, 64]).unwrap_err();
    assert!(
        matches!(&error, ModelError::WeightFile { what, .. } if what.contains("became shorter")),
        "{error}"
    );
}

#[test]
fn buffers_of_old_checkpoints_are_not_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let zeros = |dtype| Tensor::zeros(4, dtype, &Device::Cpu).unwrap();
    let positions = Tensor::new(&[[0i64, 1, 2]], &Device::Cpu).unwrap();
    let save = |positions: &Tensor| {
        let tensors = HashMap::from([
            ("language_model.model.layers.0.self_attn.rotary_emb.inv_freq", zeros(DType::F32)),
            ("vision_model.embeddings.position_ids", positions.clone()),
            ("rope_freqs.weight", zeros(DType::F32)),
        ]);
        safetensors::save(&tensors, &path).unwrap();
        Checkpoint::open_file(&path, WeightDtype::F32, &Device::Cpu).unwrap().finish(|_| None)
    };
    save(&positions).unwrap();
    let error = save(&(positions * 2.0).unwrap()).unwrap_err().to_string();
    assert!(error.contains("vision_model.embeddings.position_ids (is not 0, 1, 2 …)"), "{error}");
}
