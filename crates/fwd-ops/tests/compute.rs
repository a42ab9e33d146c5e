//! Packed weights and products in bf16: what a matrix keeps, products against rounded references, sublayers.

#![allow(clippy::unwrap_used)] // Helpers may panic.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{abs_max, gradients, max_diff, normal, reference_linear, values, verify};
use fwd_ops::{
    Activation, AttentionBias, AttentionSublayer, AttentionWeights, Compute, FeedForwardSublayer,
    FeedForwardWeights, Format, Linear, Matrix, Norm, OpError,
};
use half::bf16;

fn matrix(seed: u64, format: Format, [n_rows, n_cols]: [usize; 2]) -> Matrix {
    let random: Vec<f32> =
        normal(seed, &[n_rows, n_cols], DType::F32).flatten_all().unwrap().to_vec1().unwrap();
    Matrix::quantised("w", format, [n_rows, n_cols], &random).unwrap()
}

/// The nearest bf16 of each element, in the type that it had.
fn rounded(t: &Tensor) -> Tensor {
    let values: Vec<f64> = values(t).iter().map(|&v| f64::from(bf16::from_f32(v as f32).to_f32())).collect();
    Tensor::from_vec(values, t.dims(), &Device::Cpu).unwrap().to_dtype(t.dtype()).unwrap()
}

fn dense(matrix: &Matrix) -> Tensor {
    let shape = (matrix.n_rows(), matrix.n_cols());
    Tensor::from_vec(matrix.values().unwrap(), shape, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
}

#[test]
fn a_packed_matrix_keeps_its_elements_and_its_size_is_that_of_its_panels() {
    for shape @ [n_rows, n_cols] in [[1usize, 1usize], [31, 7], [32, 64], [70, 33]] {
        let stored = matrix(1, Format::F32, shape);
        let f32s = stored.clone().packed(Compute::F32).unwrap();
        let bf16s = stored.clone().packed(Compute::Bf16).unwrap();
        let rows = n_rows.next_multiple_of(32);
        assert_eq!((f32s.format(), f32s.n_bytes()), (Format::F32, rows * n_cols * 4));
        assert_eq!((bf16s.format(), bf16s.n_bytes()), (Format::Bf16, rows * n_cols.next_multiple_of(32) * 2));
        assert_eq!(f32s.values().unwrap(), stored.values().unwrap());
        assert_eq!(max_diff(&dense(&bf16s), &rounded(&dense(&stored))), 0.0);
        let last = n_rows as u32 - 1;
        assert_eq!(f32s.select_rows(&[last, 0]).unwrap(), stored.select_rows(&[last, 0]).unwrap());
        assert_eq!(bf16s.select_rows(&[last]).unwrap(), bf16s.values().unwrap()[last as usize * n_cols..]);
        assert!(matches!(f32s.select_rows(&[last + 1]), Err(OpError::IdOutOfRange { .. })));
    }
}

#[test]
fn half_precision_stays_as_it_is_stored_in_f32_and_blocks_always_do() {
    for format in [Format::Bf16, Format::F16, Format::Q8_0, Format::Q4_0] {
        let stored = matrix(1, format, [40, 64]);
        let (n_bytes, all) = (stored.n_bytes(), stored.values().unwrap());
        let as_f32 = stored.clone().packed(Compute::F32).unwrap();
        assert_eq!((as_f32.format(), as_f32.n_bytes()), (format, n_bytes));
        for compute in [Compute::Bf16, Compute::Int8] {
            let packed = stored.clone().packed(compute).unwrap();
            if format.block_len() > 1 {
                assert_eq!((packed.format(), packed.n_bytes()), (format, n_bytes));
                assert_eq!(packed.values().unwrap(), all);
            } else {
                assert_eq!((packed.format(), packed.n_bytes()), (Format::Bf16, 64 * 64 * 2));
                assert_eq!(max_diff(&dense(&packed), &rounded(&dense(&stored))), 0.0);
            }
        }
    }
}

#[test]
fn what_cannot_be_packed_is_said_with_the_name_of_the_tensor_and_the_row() {
    let with = |value: f32| {
        let mut bytes = vec![0u8; 40 * 3 * 4];
        bytes[35 * 12 + 4..][..4].copy_from_slice(&value.to_le_bytes());
        Matrix::new("h.3.weight", Format::F32, [40, 3], std::sync::Arc::new(bytes), 0..480).unwrap()
    };
    for compute in Compute::ALL {
        let error = with(f32::NAN).packed(compute).unwrap_err().to_string();
        assert!(error.contains("tensor h.3.weight: row 35 holds NaN or an infinity"), "{error}");
    }
    let error = with(f32::MAX).packed(Compute::Bf16).unwrap_err().to_string();
    assert_eq!(error, "tensor h.3.weight: row 35 holds a value that is too large for bf16: compute in f32");
    assert!(with(f32::MAX).packed(Compute::F32).is_ok());
    // A tensor is packed at once and checked when it is first used.
    let linear = Linear::new(Tensor::new(&[[1f32, f32::NAN]], &Device::Cpu).unwrap(), None).unwrap();
    let error = linear.forward(&normal(1, &[2, 2], DType::F32)).unwrap_err();
    assert!(error.to_string().contains("tensor weight: row 0 holds NaN"), "{error}");
}

/// Few rows and many, widths that fill no panel and no tile, several parts.
#[test]
fn packed_f32_products_equal_those_of_the_matrix() {
    for [n_out, n_in] in [[1usize, 1usize], [33, 45], [130, 300], [67, 1100], [1100, 40]] {
        let w = matrix(7, Format::F32, [n_out, n_in]);
        let linear = Linear::new(w.clone().packed(Compute::F32).unwrap(), None).unwrap();
        let scaled = |x: &Tensor| (x / (n_in as f64).sqrt()).unwrap();
        let ours = |x: &[Tensor]| linear.forward(&scaled(&x[0])).unwrap();
        let reference =
            |x: &[Tensor]| reference_linear(&scaled(&x[0]), &dense(&w).to_dtype(x[0].dtype()).unwrap(), None);
        for m in [1, 3, 17, 70] {
            verify(&format!("{n_out}x{n_in}, {m}"), &[normal(9, &[m, n_in], DType::F64)], &ours, &reference);
        }
    }
}

/// Products of bf16 are exact in f32, so only the sums of `k` of them round: to `(k + 2)·2⁻²³·Σ|x·w|` at most, whatever their order and
/// if every addition rounds twice. In f64 nothing rounds but the factors.
#[test]
fn bf16_products_round_both_factors_and_nothing_else() {
    for [n_out, n_in] in [[1usize, 1usize], [33, 45], [130, 300], [67, 1100], [1100, 40]] {
        let w = matrix(7, Format::F32, [n_out, n_in]);
        let linear = Linear::new(w.clone(), None).unwrap().with_compute(Compute::Bf16).unwrap();
        let weight = rounded(&dense(&w));
        for m in [1, 3, 17, 70] {
            let x = normal(9, &[m, n_in], DType::F32).to_dtype(DType::F64).unwrap();
            let want = reference_linear(&rounded(&x), &weight, None);
            // The loss weights every element of the result by a random number: that is dy.
            let dy = rounded(&normal(99, &[m, n_out], DType::F32).to_dtype(DType::F64).unwrap());
            let want_dx = dy.matmul(&weight).unwrap();
            let sizes = reference_linear(&rounded(&x).abs().unwrap(), &weight.abs().unwrap(), None);
            let sizes_dx = dy.abs().unwrap().matmul(&weight.abs().unwrap()).unwrap();
            let ours = |x: &[Tensor]| linear.forward(&x[0]).unwrap();
            for (dtype, unit) in [(DType::F32, 2f64.powi(-23)), (DType::F64, 2f64.powi(-52))] {
                let x = [x.to_dtype(dtype).unwrap()];
                let (y, dx) = (ours(&x), gradients(&ours, &x).remove(0));
                for (what, got, want, sizes, k) in
                    [("y", &y, &want, &sizes, n_in), ("dx", &dx, &want_dx, &sizes_dx, n_out)]
                {
                    for ((got, want), size) in values(got).iter().zip(values(want)).zip(values(sizes)) {
                        let bound = (k + 2) as f64 * unit * size;
                        assert!(
                            (got - want).abs() <= bound,
                            "{n_out}x{n_in}, {m} rows, {what}: {got}, {want}"
                        );
                    }
                }
            }
            // And it does round: the exact product is another one.
            let exact = reference_linear(&x, &dense(&w), None);
            assert!(max_diff(&exact, &want) > 2f64.powi(-12) * abs_max(&want));
        }
    }
}

#[test]
fn parts_of_several_forms_are_one_map() {
    let parts = [
        matrix(1, Format::F32, [70, 64]).packed(Compute::F32).unwrap(),
        matrix(2, Format::F32, [33, 64]).packed(Compute::F32).unwrap(),
        matrix(3, Format::Q8_0, [10, 64]),
        matrix(4, Format::F32, [5, 64]).packed(Compute::Bf16).unwrap(),
    ];
    let maps: Vec<Linear> = parts.iter().map(|part| Linear::new(part.clone(), None).unwrap()).collect();
    let all = Linear::stacked(&maps.iter().collect::<Vec<_>>()).unwrap();
    let x = (normal(5, &[40, 64], DType::F32) / 8.0).unwrap();
    let apart: Vec<Tensor> = maps.iter().map(|map| map.forward(&x).unwrap()).collect();
    assert!(max_diff(&all.forward(&x).unwrap(), &Tensor::cat(&apart, 1).unwrap()) < 1e-6);
    // The loss weights the columns of the stacked map's result by what it weights those of the parts by.
    let together = |x: &[Tensor]| all.forward(&x[0]).unwrap();
    let one_by_one = |x: &[Tensor]| {
        let apart: Vec<Tensor> = maps.iter().map(|map| map.forward(&x[0]).unwrap()).collect();
        Tensor::cat(&apart, 1).unwrap()
    };
    let x = [x];
    let (got, want) = (gradients(&together, &x).remove(0), gradients(&one_by_one, &x).remove(0));
    assert!(max_diff(&got, &want) < 1e-5 * abs_max(&want));
}

fn linear_of(seed: u64, [n_out, n_in]: [usize; 2], compute: Compute) -> Linear {
    let weight = (normal(seed, &[n_out, n_in], DType::F32) / (n_in as f64).sqrt()).unwrap();
    let bias = normal(seed + 1, &[n_out], DType::F32);
    Linear::new(weight, Some(bias)).unwrap().with_compute(compute).unwrap()
}

fn norm_of(seed: u64, d: usize) -> Norm {
    let weight = normal(seed, &[d], DType::F32).affine(0.1, 1.0).unwrap();
    Norm::layer(weight, normal(seed + 1, &[d], DType::F32), 1e-6).unwrap()
}

/// A feed-forward and an attention sublayer one after the other.
fn block_of(d: usize, compute: Compute) -> impl Fn(&Tensor) -> Tensor + Sync {
    let attention = AttentionSublayer::new(AttentionWeights {
        pre: norm_of(1, d),
        projection: linear_of(3, [3 * d, d], compute),
        output: linear_of(5, [d, d], compute),
        post: Norm::identity(),
        n_heads: 3,
        n_kv_heads: 3,
        scale: (3.0 / d as f64).sqrt(),
    })
    .unwrap();
    let feed_forward = FeedForwardSublayer::new(FeedForwardWeights {
        pre: Norm::identity(),
        input: linear_of(7, [4 * d, d], compute),
        activation: Activation::GeluErf,
        gated: false,
        output: linear_of(9, [d, 4 * d], compute),
        post: norm_of(11, d),
    })
    .unwrap();
    move |x| feed_forward.forward(&attention.forward(x, &AttentionBias::none()).unwrap()).unwrap()
}

fn rms(t: &Tensor) -> f64 {
    let values = values(t);
    (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
}

/// In f64 a sublayer in bf16 rounds the factors of its products and nothing else, so the run in f32 differs from it by what f32 rounds,
/// about `2⁻²⁴·sqrt(k)` for the longest sum `k`, and by factors that this moves across the middle between two numbers of bf16. The
/// share of these is twice that over the distance `2⁻⁸` of two numbers, `p = sqrt(k)·2⁻¹⁵`; each moves by one distance, `sqrt(12)`
/// times the error that rounding makes of every factor on average. So the difference is at most about `sqrt(12·p)` of the whole effect of
/// rounding, which is the difference from the run without it.
#[test]
fn a_sublayer_in_bf16_rounds_the_factors_of_its_products_and_nothing_else() {
    let d = 96;
    let (in_bf16, in_f32) = (block_of(d, Compute::Bf16), block_of(d, Compute::F32));
    let share = (12.0 * f64::sqrt(4.0 * d as f64) * 2f64.powi(-15)).sqrt();
    for (batch, t) in [(1, 1), (1, 7), (9, 13)] {
        let x = [normal(20, &[batch, t, d], DType::F32)];
        let wide = [x[0].to_dtype(DType::F64).unwrap()];
        let run = |f: &dyn Fn(&Tensor) -> Tensor, x: &[Tensor]| {
            [f(&x[0]), gradients(&|x: &[Tensor]| f(&x[0]), x).remove(0)]
        };
        let (got, want, exact) = (run(&in_bf16, &x), run(&in_bf16, &wide), run(&in_f32, &wide));
        for ((got, want), exact) in got.iter().zip(&want).zip(&exact) {
            let off = rms(&(got.to_dtype(DType::F64).unwrap() - want).unwrap());
            let effect = rms(&(want - exact).unwrap());
            assert!(off <= share * effect, "{batch}x{t}: off by {off:e}, rounding makes {effect:e}");
            // Each product rounds two factors by up to 2⁻⁹; there are four products on the way, each of about the size of its input.
            let size = rms(exact);
            assert!(effect > 2f64.powi(-12) * size, "{batch}x{t}: rounding makes {effect:e} of {size:e}");
            assert!(
                effect < 8.0 * 2f64.powi(-9) * size,
                "{batch}x{t}: rounding makes {effect:e} of {size:e}"
            );
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_product_and_no_sublayer() {
    for compute in [Compute::F32, Compute::Bf16] {
        let (linear, block) = (linear_of(1, [200, 96], compute), block_of(96, compute));
        for (batch, t) in [(1, 1), (1, 3), (2, 5), (3, 11), (17, 13), (41, 29)] {
            let x = [normal(2, &[batch, t, 96], DType::F32)];
            let run = |threads| {
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                    let map = |x: &[Tensor]| linear.forward(&x[0]).unwrap();
                    let block = |x: &[Tensor]| block(&x[0]);
                    [map(&x), gradients(&map, &x).remove(0), block(&x), gradients(&block, &x).remove(0)]
                })
            };
            let one = run(1);
            for threads in [2, 3, 7] {
                for (i, (one, many)) in one.iter().zip(&run(threads)).enumerate() {
                    assert_eq!(
                        max_diff(one, many),
                        0.0,
                        "{compute}, {batch}x{t}, {threads} threads, result {i}"
                    );
                }
            }
        }
    }
}
