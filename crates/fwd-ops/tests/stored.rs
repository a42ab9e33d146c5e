//! Matrices that stay in their format: exact decoding, products against plain tensors and finite differences, errors.

#![allow(clippy::unwrap_used)] // Helpers may panic.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{abs_max, gradients, max_diff, normal, reference_linear, values, verify};
use fwd_ops::{
    Activation, Compute, Embedding, FeedForwardSublayer, FeedForwardWeights, Format, Linear, Matrix, Norm,
    OpError, Weight, embedding,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Formats of which matrices can be made.
const MADE: [Format; 8] = [
    Format::F32,
    Format::Bf16,
    Format::F16,
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q8_0,
];

/// A matrix of random elements; bytes of the formats that cannot be made are random, with sane scales.
fn matrix(seed: u64, format: Format, [n_rows, n_cols]: [usize; 2]) -> Matrix {
    let random = normal(seed, &[n_rows, n_cols], DType::F32).flatten_all().unwrap().to_vec1().unwrap();
    if MADE.contains(&format) {
        return Matrix::quantised("w", format, [n_rows, n_cols], &random).unwrap();
    }
    let n_bytes = format.row_bytes(n_cols) * n_rows;
    let bytes = values(&normal(seed, &[n_bytes], DType::F64));
    let mut bytes: Vec<u8> = bytes.into_iter().map(|v| (v * 80.0) as i64 as u8).collect();
    let scales: &[usize] = if format == Format::Q6K { &[208] } else { &[0, 2] };
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for &at in scales {
            block[at + 1] = 0x18 | block[at + 1] & 0x83; // About 0.003 of either sign.
        }
    }
    // An odd place: a mapped file aligns nothing.
    let mut file = vec![0xff];
    file.extend(&bytes);
    file.push(0xff);
    Matrix::new("w", format, [n_rows, n_cols], Arc::new(file), 1..n_bytes + 1).unwrap()
}

fn dense(matrix: &Matrix, dtype: DType) -> Tensor {
    let shape = (matrix.n_rows(), matrix.n_cols());
    Tensor::from_vec(matrix.values().unwrap(), shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// The folders of sets of block formats: those of the fixtures, or of the folder that `FWD_ORACLE_DIR` names.
fn sets() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = std::env::var_os("FWD_ORACLE_DIR")
        .map_or_else(|| root.join("tests/fixtures"), |dir| root.join("../..").join(dir));
    let mut sets: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let meta = std::fs::read_to_string(path.join("meta.json")).unwrap_or_default();
            meta.contains("\"set\": \"gguf-units")
        })
        .collect();
    sets.sort();
    assert!(!sets.is_empty() || std::env::var_os("FWD_ORACLE_DIR").is_some(), "no set in {}", dir.display());
    sets
}

fn flat<T: candle_core::WithDType>(tensor: &Tensor) -> Vec<T> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn every_format_is_decoded_to_the_bit_and_made_as_ggml_makes_it() {
    for set in sets() {
        let tensors: HashMap<String, Tensor> =
            candle_core::safetensors::load(set.join("io.safetensors"), &Device::Cpu).unwrap();
        let mut n_used = usize::from(tensors.contains_key("source"));
        for format in Format::ALL {
            let Some(bytes) = tensors.get(&format!("{format}.bytes")) else { continue };
            let want = &tensors[&format!("{format}.f32")];
            let (n_rows, n_cols) = want.dims2().unwrap();
            let what = format!("{}: {format}", set.display());
            let stored: Vec<u8> = flat(bytes);
            let range = 0..stored.len();
            let matrix = Matrix::new("w", format, [n_rows, n_cols], Arc::new(stored.clone()), range).unwrap();
            let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let want: Vec<f32> = flat(want);
            assert_eq!(bits(&matrix.values().unwrap()), bits(&want), "{what}");
            let last = n_rows as u32 - 1;
            let rows = matrix.select_rows(&[last, 0]).unwrap();
            let expected = [&want[(n_rows - 1) * n_cols..], &want[..n_cols]].concat();
            assert_eq!(bits(&rows), bits(&expected), "{what}");
            if MADE.contains(&format)
                && let Some(source) = tensors.get("source")
            {
                let made = Matrix::quantised("w", format, [n_rows, n_cols], &flat::<f32>(source)).unwrap();
                assert_eq!(bits(&made.values().unwrap()), bits(&want), "{what}: made");
            }
            n_used += 2;
        }
        assert_eq!(n_used, tensors.len(), "{}: a tensor was not checked", set.display());
    }
}

/// Few rows are multiplied with the stored bytes (in f32), more with tiles; rows and widths cross the bounds of a tile, and of a group
/// of 32 where a format allows it.
#[test]
fn products_equal_those_of_the_widened_matrix() {
    for format in Format::ALL {
        let block = format.block_len();
        let widths: &[usize] = if block == 1 { &[1, 45, 300] } else { &[1, 3, 9] };
        for (n_out, &width) in [1usize, 130, 67].into_iter().zip(widths) {
            let n_in = width * block;
            let w = matrix(7, format, [n_out, n_in]);
            // Random bytes make elements of other sizes; the bounds are for those near 1.
            let factor = 1.0 / abs_max(&dense(&w, DType::F64)).max(1.0);
            let bias = normal(8, &[n_out], DType::F64);
            for m in [0, 1, 2, 3, 4, 5, 8, 9, 30] {
                if m > 5 && block == 256 && n_in > 256 && m != 9 {
                    continue; // The same code with fewer bytes.
                }
                let scaled = |x: &Tensor| (x * (factor / (n_in as f64).sqrt())).unwrap();
                let of = |x: &Tensor| bias.to_dtype(x.dtype()).unwrap();
                let ours = |x: &[Tensor]| {
                    Linear::new(w.clone(), Some(of(&x[0]))).unwrap().forward(&scaled(&x[0])).unwrap()
                };
                let reference = |x: &[Tensor]| {
                    reference_linear(&scaled(&x[0]), &dense(&w, x[0].dtype()), Some(&of(&x[0])))
                };
                let x = [normal(9, &[m, n_in], DType::F64)];
                if m == 0 {
                    assert_eq!(ours(&x).dims(), [0, n_out]);
                    assert_eq!(ours(&[x[0].to_dtype(DType::F32).unwrap()]).dims(), [0, n_out]);
                } else {
                    verify(&format!("{format} {n_out}x{n_in}, {m} rows"), &x, &ours, &reference);
                }
            }
        }
    }
}

/// Tiles of a matrix that is larger than a tile both ways.
#[test]
fn a_large_matrix_is_multiplied_tile_by_tile() {
    for format in [Format::Bf16, Format::Q8_0, Format::Q4K] {
        let w = matrix(3, format, [600, 2304]);
        let factor = 1.0 / (48.0 * abs_max(&dense(&w, DType::F64)).max(1.0));
        let x = [(normal(4, &[40, 2304], DType::F64) * factor).unwrap()];
        let linear = Linear::new(w.clone(), None).unwrap();
        let ours = |x: &[Tensor]| linear.forward(&x[0]).unwrap();
        let reference = |x: &[Tensor]| reference_linear(&x[0], &dense(&w, x[0].dtype()), None);
        assert!(max_diff(&ours(&x), &reference(&x)) < 1e-12, "{format}");
        let (got, want) = (gradients(&ours, &x), gradients(&reference, &x));
        assert!(max_diff(&got[0], &want[0]) < 1e-10 * abs_max(&want[0]), "{format}");
    }
}

#[test]
fn matrices_are_stacked_without_a_copy_and_with_tensors() {
    let parts = [
        matrix(1, Format::Q8_0, [70, 256]),
        matrix(2, Format::Q4K, [1, 256]),
        matrix(3, Format::Bf16, [64, 256]),
    ];
    let all = Matrix::stacked(&[&parts[0], &parts[1], &parts[2]]).unwrap();
    assert_eq!((all.n_rows(), all.n_cols(), all.format()), (135, 256, Format::Q8_0));
    assert_eq!(all.n_bytes(), parts.iter().map(Matrix::n_bytes).sum::<usize>());
    let rows = all.select_rows(&[70, 134, 0]).unwrap();
    let expected = [
        parts[1].values().unwrap(),
        parts[2].select_rows(&[63]).unwrap(),
        parts[0].select_rows(&[0]).unwrap(),
    ];
    assert_eq!(rows, expected.concat());
    let error = all.select_rows(&[0, 135]).unwrap_err();
    assert!(matches!(error, OpError::IdOutOfRange { id: 135, position: 1, limit: 135, .. }), "{error}");

    let biases: Vec<Tensor> =
        (0..3).map(|i| normal(9 + i, &[parts[i as usize].n_rows()], DType::F64)).collect();
    let bias = Tensor::cat(&biases, 0).unwrap();
    let weight = dense(&all, DType::F64);
    let scale = 1.0 / (16.0 * abs_max(&weight).max(1.0));
    for with_tensor in [false, true] {
        let ours = |x: &[Tensor]| {
            let dtype = x[0].dtype();
            let maps: Vec<Linear> = parts
                .iter()
                .zip(&biases)
                .enumerate()
                .map(|(i, (part, bias))| {
                    let bias = Some(bias.to_dtype(dtype).unwrap());
                    // Of f32 it becomes a matrix; with one of f64 the matrices become tensors.
                    let weight = if with_tensor && i == 1 {
                        dense(part, dtype).into()
                    } else {
                        Weight::from(part.clone())
                    };
                    Linear::new(weight, bias).unwrap()
                })
                .collect();
            let stacked = Linear::stacked(&maps.iter().collect::<Vec<_>>()).unwrap();
            assert!(!stacked.is_trained());
            stacked.forward(&(&x[0] * scale).unwrap()).unwrap()
        };
        let reference = |x: &[Tensor]| {
            let dtype = x[0].dtype();
            let (w, b) = (weight.to_dtype(dtype).unwrap(), bias.to_dtype(dtype).unwrap());
            reference_linear(&(&x[0] * scale).unwrap(), &w, Some(&b))
        };
        for m in [2, 12] {
            verify("stacked", &[normal(5, &[m, 256], DType::F64)], &ours, &reference);
        }
    }
    let narrow = matrix(4, Format::Bf16, [2, 32]);
    assert!(Matrix::stacked(&[&narrow, &all]).is_err() && Matrix::stacked(&[]).is_err());
}

/// A bias may be trained beside a weight that is stored.
#[test]
fn a_trained_bias_beside_a_matrix_gets_its_gradient() {
    let w = matrix(1, Format::Q8_0, [6, 32]);
    let ours = |x: &[Tensor]| {
        let linear = Linear::new(w.clone(), Some(x[1].clone())).unwrap();
        assert_eq!(linear.is_trained(), x[1].track_op());
        linear.forward(&x[0]).unwrap()
    };
    let reference = |x: &[Tensor]| reference_linear(&x[0], &dense(&w, x[0].dtype()), Some(&x[1]));
    verify("bias", &[normal(2, &[3, 32], DType::F64), normal(3, &[6], DType::F64)], &ours, &reference);
}

/// The fused sublayers take their maps as they are.
#[test]
fn a_sublayer_runs_on_stored_weights() {
    let (input, output) = (matrix(1, Format::Q8_0, [128, 64]), matrix(2, Format::Q4_1, [64, 64]));
    let layer = |input: Weight, output: Weight| {
        FeedForwardSublayer::new(FeedForwardWeights {
            pre: Norm::identity(),
            input: Linear::new(input, None).unwrap(),
            activation: Activation::GeluErf,
            gated: true,
            output: Linear::new(output, None).unwrap(),
            post: Norm::identity(),
        })
        .unwrap()
    };
    let scaled = |x: &Tensor| (x * 0.1).unwrap();
    let ours =
        |x: &[Tensor]| layer(input.clone().into(), output.clone().into()).forward(&scaled(&x[0])).unwrap();
    let reference = |x: &[Tensor]| {
        let [input, output] = [&input, &output].map(|m| dense(m, x[0].dtype()).into());
        layer(input, output).forward(&scaled(&x[0])).unwrap()
    };
    for m in [1, 40] {
        verify("feed-forward", &[normal(3, &[m, 64], DType::F64)], &ours, &reference);
    }
}

/// Each element is summed by one thread, in an order that does not depend on their number.
#[test]
fn the_number_of_threads_does_not_change_a_product() {
    for format in [Format::Bf16, Format::Q4_0, Format::Q6K] {
        let linear = Linear::new(matrix(1, format, [200, 768]), None).unwrap();
        for m in [1, 3, 7, 40] {
            let x = [normal(2, &[m, 768], DType::F32)];
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let forward = |x: &[Tensor]| linear.forward(&x[0]).unwrap();
                pool.install(|| (forward(&x), gradients(&forward, &x).remove(0)))
            };
            let (one, two) = (run(1), run(2));
            assert_eq!(
                (max_diff(&one.0, &two.0), max_diff(&one.1, &two.1)),
                (0.0, 0.0),
                "{format}, {m} rows"
            );
        }
    }
}

#[test]
fn an_embedding_decodes_the_rows_that_it_is_asked_for() {
    let ids = Tensor::new(&[[3i64, 0], [4, 3]], &Device::Cpu).unwrap();
    for format in Format::ALL {
        let w = matrix(1, format, [5, 256]);
        let table = Embedding::new(w.clone()).unwrap();
        assert_eq!((table.n_rows(), table.width()), (5, 256));
        let rows = table.forward(&ids).unwrap();
        assert_eq!(max_diff(&rows, &embedding(&dense(&w, DType::F32), &ids).unwrap()), 0.0, "{format}");
        let bad = Tensor::new(&[0i64, -1], &Device::Cpu).unwrap();
        let error = table.forward(&bad).unwrap_err().to_string();
        assert_eq!(error, "embedding: id -1 at position 1 is outside 0..5");
        // A tied output map shares the bytes.
        let head = Linear::new(table.weight().clone(), None).unwrap();
        assert_eq!((head.n_out(), head.n_in()), (5, 256));
    }
    // A tensor may be trained, and half precision on the CPU is stored.
    let var = Var::from_tensor(&normal(1, &[5, 4], DType::F32)).unwrap();
    let rows = Embedding::new(var.as_tensor().clone()).unwrap().forward(&ids).unwrap();
    let gradient = fwd_ops::backward(&rows.sum_all().unwrap(), &[("table", &var)]).unwrap();
    assert_eq!(values(&gradient[0].sum(1).unwrap()), [4., 0., 0., 8., 4.]);
    let half = normal(1, &[5, 4], DType::F32).to_dtype(DType::BF16).unwrap();
    let table = Embedding::new(half.clone()).unwrap();
    assert!(matches!(table.weight(), Weight::Matrix(m) if m.format() == Format::Bf16));
    assert_eq!(max_diff(&table.forward(&ids).unwrap(), &embedding(&half, &ids).unwrap()), 0.0);
}

/// Opening reads nothing; the first use finds what is wrong, and an embedding only in the rows that it is asked for.
#[test]
fn a_number_that_is_not_finite_is_found_at_the_first_use() {
    for format in Format::ALL {
        let good = matrix(1, format, [5, 256]);
        let mut bytes = vec![0u8; good.n_bytes()];
        let at = 3 * format.row_bytes(256) + if format == Format::Q6K { 208 } else { 0 };
        let infinity: &[u8] = match format {
            Format::F32 => &[0, 0, 0x80, 0x7f],
            Format::Bf16 => &[0xc0, 0xff], // NaN
            _ => &[0, 0x7c],
        };
        bytes[at..at + infinity.len()].copy_from_slice(infinity);
        let range = 0..bytes.len();
        let bad = Matrix::new("h.3.weight", format, [5, 256], Arc::new(bytes), range).unwrap();
        let stacked = Matrix::stacked(&[&good, &bad]).unwrap();
        let says = "tensor h.3.weight: row 3 holds NaN or an infinity";
        for m in [1, 20] {
            let x = normal(2, &[m, 256], DType::F32);
            let error = Linear::new(stacked.clone(), None).unwrap().forward(&x).unwrap_err().to_string();
            assert!(error.contains(says), "{format}: {error}");
        }
        assert!(bad.values().unwrap_err().to_string().contains(says));
        assert!(bad.select_rows(&[0, 1, 2, 4]).is_ok());
        let error = bad.select_rows(&[0, 3]).unwrap_err();
        assert!(matches!(error, OpError::NonFiniteWeight { row: 3, .. }), "{format}: {error}");
    }
}

#[test]
fn what_cannot_be_stored_is_said_with_the_name_of_the_tensor() {
    let says = |result: fwd_ops::Result<Matrix>, words: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with("tensor w: ") && error.contains(words), "{error}");
    };
    let made = |format, shape, values: &[f32]| Matrix::quantised("w", format, shape, values);
    says(made(Format::Q8_0, [1, 40], &[0.0; 40]), "rows of 40 are no whole blocks of 32");
    says(made(Format::Q4_0, [2, 48], &[0.0; 96]), "keep it in bf16 or f16");
    says(made(Format::Q4K, [1, 256], &[0.0; 256]), "q4_k can be read but not made");
    says(made(Format::F32, [2, 2], &[0.0; 3]), "3 values were given for 2x2");
    says(made(Format::F32, [0, 2], &[]), "is empty");
    says(made(Format::F16, [2, 1], &[1.0, 65_520.0]), "row 1 holds a value that is too large for f16");
    assert!(made(Format::F16, [2, 1], &[1.0, 65_519.0]).is_ok());
    says(made(Format::Bf16, [1, 1], &[f32::MAX]), "too large for bf16");
    let mut large = [0.0; 64];
    large[40] = 1e7;
    says(made(Format::Q8_0, [2, 32], &large), "row 1 holds a value that is too large for q8_0");
    large[40] = f32::NAN;
    says(made(Format::Q4_0, [2, 32], &large), "row 1 holds NaN");
    let file = |n| -> Arc<dyn AsRef<[u8]> + Send + Sync> { Arc::new(vec![0u8; n]) };
    says(Matrix::new("w", Format::Q8_0, [2, 32], file(68), 0..67), "takes 68 bytes, but 67 are given");
    says(Matrix::new("w", Format::Q8_0, [2, 32], file(60), 0..68), "takes 68 bytes");
    says(Matrix::new("w", Format::F32, [usize::MAX, 2], file(60), 0..60), "more than memory holds");
    let one = matrix(1, Format::Q8_0, [4, 32]);
    let error = Linear::new(one, Some(Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap())).unwrap_err();
    assert!(error.to_string().contains("bias must be (4)"), "{error}");
}

/// A quantised element is at most half a step of its block from the value that it was made of.
#[test]
fn quantised_values_are_within_half_a_step() {
    let x: Vec<f32> = flat(&normal(5, &[8, 96], DType::F32));
    // The step of a block, from its largest magnitude or its range; the last step of q4_0 and q5_0 is cut off at the end that has no
    // code, so there the bound is a whole step. Scales are rounded to f16 (2⁻¹¹), which moves the largest of the codes the most.
    for (format, codes, ends, cut) in [
        (Format::Q8_0, 127.0, false, 0.5),
        (Format::Q4_0, 8.0, false, 1.0),
        (Format::Q5_0, 16.0, false, 1.0),
        (Format::Q4_1, 15.0, true, 0.5),
        (Format::Q5_1, 31.0, true, 0.5),
    ] {
        let made = Matrix::quantised("w", format, [8, 96], &x).unwrap().values().unwrap();
        for (block, made) in x.chunks(32).zip(made.chunks(32)) {
            let (low, high) = block.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
            let largest = low.abs().max(high.abs());
            let step = if ends { high - low } else { largest } / codes;
            let bound = step * cut + 2f32.powi(-11) * (largest + if ends { high - low } else { 0.0 });
            for (v, m) in block.iter().zip(made) {
                assert!((v - m).abs() <= bound, "{format}: {v} became {m}, the step is {step}");
            }
        }
    }
}

/// The elements of a tensor in f64, rounded to bf16.
fn rounded(x: &Tensor) -> Tensor {
    x.to_dtype(DType::F32).unwrap().to_dtype(DType::BF16).unwrap().to_dtype(DType::F64).unwrap()
}

/// `|x|·|w|ᵀ`, whose product with a relative error bounds that of `x·wᵀ`.
fn size_of_product(x: &Tensor, w: &Tensor) -> Tensor {
    x.abs().unwrap().matmul(&w.abs().unwrap().t().unwrap()).unwrap()
}

fn within(what: &str, got: &Tensor, want: &Tensor, bound: &Tensor) {
    for (i, ((got, want), bound)) in values(got).iter().zip(values(want)).zip(values(bound)).enumerate() {
        assert!(
            (got - want).abs() <= bound,
            "{what}: element {i} is {got} instead of {want}, bound {bound:e}"
        );
    }
}

/// In bf16 both factors are rounded, and the sums are those of f32: `eps·(k + 2)·Σ|x·w|`, since each product and each partial sum is
/// rounded once.
#[test]
fn blocks_are_rounded_to_bf16_where_products_are_to_be_in_bf16() {
    let eps = f64::from(f32::EPSILON);
    for format in Format::ALL.into_iter().filter(|format| format.block_len() > 1) {
        let (n_out, n_in) = (77, 1024);
        let w = matrix(3, format, [n_out, n_in]);
        let linear = Linear::new(w.clone(), None).unwrap().with_compute(Compute::Bf16).unwrap();
        let w = rounded(&dense(&w, DType::F64));
        for m in [1, 5, 21] {
            let x = normal(4, &[m, n_in], DType::F64);
            let what = format!("{format}, {m} rows");
            let ours = |x: &[Tensor]| linear.forward(&x[0]).unwrap();
            let (x32, x64) = ([x.to_dtype(DType::F32).unwrap()], rounded(&x));
            let bound = (size_of_product(&x64, &w) * (eps * (n_in as f64 + 2.0))).unwrap();
            within(&what, &ours(&x32), &reference_linear(&x64, &w, None), &bound);
            // In f64, factors are rounded alike; the gradient's bound is of the same form over the rows.
            let (got, want) = (gradients(&ours, &x32), gradients(&ours, std::slice::from_ref(&x)));
            let dy = rounded(&gradients(&|y: &[Tensor]| y[0].clone(), &[ours(std::slice::from_ref(&x))])[0]);
            let bound = (size_of_product(&dy, &w.t().unwrap()) * (eps * (n_out as f64 + 2.0))).unwrap();
            within(&format!("{what}: gradient"), &got[0], &want[0], &bound);
            assert!(abs_max(&got[0]) > 0.0, "{what}: no gradient");
        }
    }
}

/// Of few rows, an activation is off by at most half a step of its block of 32, `s/2` with `s = max|x|/127`; so a product is off by at
/// most `Σ|w|·s/2`, besides the rounding of f32. More rows are multiplied as in bf16.
#[test]
fn products_of_few_rows_in_8_bits_are_off_by_half_a_step_of_the_activations() {
    let eps = f64::from(f32::EPSILON);
    for format in Format::ALL.into_iter().filter(|format| format.block_len() > 1) {
        let (n_out, n_in) = (131, 1024);
        let w = matrix(5, format, [n_out, n_in]);
        let of = |compute| Linear::new(w.clone(), None).unwrap().with_compute(compute).unwrap();
        let w64 = dense(&w, DType::F64);
        for m in [1, 2, 3, 7, 8, 9] {
            let x = normal(6, &[m, n_in], DType::F32);
            let y = of(Compute::Int8).forward(&x).unwrap();
            let what = format!("{format}, {m} rows");
            if m > 8 {
                assert_eq!(max_diff(&y, &of(Compute::Bf16).forward(&x).unwrap()), 0.0, "{what}");
                continue;
            }
            let x = x.to_dtype(DType::F64).unwrap();
            let largest = x.reshape((m, n_in / 32, 32)).unwrap().abs().unwrap().max_keepdim(2).unwrap();
            // Rounding of x·127/max and of the scale moves the bound by a few units of f32.
            let half_step = (largest * (0.5 / 127.0 * (1.0 + 256.0 * eps))).unwrap();
            let half_step = half_step.broadcast_as((m, n_in / 32, 32)).unwrap().reshape((m, n_in)).unwrap();
            // A sum has at most as many terms as columns; offsets make the terms of some formats larger than |w·x|, at most threefold here.
            let f32_rounding = (size_of_product(&x, &w64) * (3.0 * eps * (n_in as f64 + 2.0))).unwrap();
            let bound = (size_of_product(&half_step, &w64) + f32_rounding).unwrap();
            within(&what, &y, &reference_linear(&x, &w64, None), &bound);
        }
    }
}
