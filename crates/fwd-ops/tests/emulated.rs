//! What the comparisons of the other files (all of which run on an emulated GPU too) leave out: views into tensors, weights in half
//! precision, empty tensors, hidden rows, errors, generation, convolutions.
#![cfg(feature = "emulate")]
#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::*;
use fwd_kernels::Target;
use fwd_ops::{
    Activation, AttentionBias, AttentionSublayer, AttentionWeights, FeedForwardSublayer, FeedForwardWeights,
    InvertedResidual, InvertedResidualWeights, KvCache, Linear, Norm, StemConv, attention, backward,
    cross_entropy, embedding, emulated, linear_relu6, softmax, token_nll,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn on_gpu<R>(body: impl FnOnce() -> R) -> R {
    emulated(Target::A100, body)
}

fn f32s(seed: u64, shape: &[usize]) -> Tensor {
    normal(seed, shape, DType::F32)
}

fn linear(seed: u64, n_out: usize, n_in: usize) -> Linear {
    let weight = (f32s(seed, &[n_out, n_in]) * (n_in as f64).powf(-0.5)).unwrap();
    Linear::new(weight, Some(f32s(seed + 1, &[n_out]))).unwrap()
}

/// Two f32 computations of one thing: sums of up to a thousand terms in another order.
fn close(what: &str, a: &Tensor, b: &Tensor) {
    let (off, scale) = (max_diff(a, b), abs_max(b).max(1.0));
    assert!(off <= 2e-5 * scale, "{what}: off by {off:e}");
}

/// Forward and gradients on the emulated GPU equal those on the CPU.
fn compare(what: &str, inputs: &[Tensor], f: Function<'_>) {
    close(what, &on_gpu(|| f(inputs)), &f(inputs));
    let (gpu, cpu) = (on_gpu(|| gradients(f, inputs)), gradients(f, inputs));
    for (i, (a, b)) in gpu.iter().zip(&cpu).enumerate() {
        close(&format!("{what}, gradient {i}"), a, b);
    }
}

#[test]
fn views_that_begin_within_a_tensor_and_run_across_it() {
    let whole = f32s(1, &[5, 6, 14]);
    // Seven numbers in, and every other row: neither is where a kernel's buffer begins.
    let views =
        [whole.narrow(0, 1, 2).unwrap(), whole.narrow(2, 3, 8).unwrap(), whole.transpose(0, 1).unwrap()];
    for (i, view) in views.iter().enumerate() {
        let d = view.dim(2).unwrap();
        let (norm, map) = (Norm::rms(f32s(2, &[d]), 1e-6).unwrap(), linear(3, 5, d));
        let run = |f: &dyn Fn(&Tensor) -> Tensor| {
            close(&format!("view {i}"), &on_gpu(|| f(view)), &f(&view.contiguous().unwrap()));
        };
        run(&|x| norm.forward(x).unwrap());
        run(&|x| map.forward(x).unwrap());
        run(&|x| Activation::GeluErf.forward(x).unwrap());
        run(&|x| Activation::Relu.forward_gated(x).unwrap());
        run(&|x| Activation::Silu.forward_gated(x).unwrap());
        run(&|x| Activation::QuickGelu.forward(x).unwrap());
        run(&|x| softmax(&x.unsqueeze(0).unwrap(), &AttentionBias::none()).unwrap());
    }
}

#[test]
fn sublayers_of_random_shapes_equal_those_of_the_cpu() {
    let mut rng = StdRng::seed_from_u64(7);
    let activations = [
        Activation::GeluErf,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::Silu,
        Activation::QuickGelu,
    ];
    for case in 0..12u64 {
        let [b, t, t_k, h, d_head] = [3, 9, 9, 4, 9].map(|most| rng.random_range(1..=most));
        let (d, hidden, width) = (rng.random_range(1..40), rng.random_range(1..40), h * d_head);
        let norm = |seed| Norm::layer(f32s(seed, &[d]), f32s(seed + 1, &[d]), 1e-2).unwrap();
        let build = |parts: usize| {
            AttentionSublayer::new(AttentionWeights {
                pre: Norm::rms(f32s(case, &[d]), 1e-2).unwrap(),
                projection: linear(case + 1, parts * width, d),
                output: linear(case + 3, d, width),
                post: norm(case + 5),
                n_heads: h,
                n_kv_heads: h,
                scale: (d_head as f64).powf(-0.5),
            })
            .unwrap()
        };
        let position = f32s(8, &[h, t, t]);
        let mask: Vec<u32> = (0..b * t).map(|i| u32::from(i % t == 0 || rng.random_bool(0.7))).collect();
        let mask = Tensor::from_vec(mask, (b, t), &Device::Cpu).unwrap();
        let bias = AttentionBias::none().with_position(&position).unwrap().with_padding_mask(&mask).unwrap();
        let bias = if case % 2 == 0 { bias.causal() } else { bias };
        let what = format!("case {case}: b{b} t{t} t_k{t_k} h{h} d_head{d_head} d{d} hidden{hidden}");
        let x = f32s(20 + case, &[b, t, d]);
        let layer = build(3);
        compare(&format!("{what}, self-attention"), std::slice::from_ref(&x), &|x| {
            layer.forward(&x[0], &bias).unwrap()
        });
        let memory = f32s(40 + case, &[b, t_k, 2 * width]);
        let cross = build(1);
        compare(&format!("{what}, cross-attention"), &[x.clone(), memory], &|x| {
            cross.forward_cross(&x[0], &x[1], &AttentionBias::none()).unwrap()
        });
        let gated = case % 3 != 0;
        let feed_forward = FeedForwardSublayer::new(FeedForwardWeights {
            pre: Norm::identity(),
            input: linear(case + 7, if gated { 2 * hidden } else { hidden }, d),
            activation: activations[case as usize % activations.len()],
            gated,
            output: linear(case + 9, d, hidden),
            post: norm(case + 11),
        })
        .unwrap();
        compare(&format!("{what}, feed-forward"), &[x], &|x| feed_forward.forward(&x[0]).unwrap());
    }
}

#[test]
fn half_precision_weights_are_widened_exactly_and_get_no_gradient() {
    let x = f32s(3, &[5, 48]);
    for dtype in [DType::BF16, DType::F16] {
        let weight = f32s(1, &[70, 48]).to_dtype(dtype).unwrap();
        let wide = weight.to_dtype(DType::F32).unwrap();
        let run = |w: &Tensor| {
            on_gpu(|| {
                gradients(
                    &|x| Linear::new(w.clone(), None).unwrap().forward(&x[0]).unwrap(),
                    std::slice::from_ref(&x),
                )
            })
        };
        assert_eq!(max_diff(&run(&weight)[0], &run(&wide)[0]), 0.0, "{dtype:?}");
        let scale = weight.narrow(1, 0, 1).unwrap().flatten_all().unwrap();
        let norm =
            |w: &Tensor| on_gpu(|| Norm::rms(w.clone(), 1e-6).unwrap().forward(&f32s(4, &[3, 70])).unwrap());
        assert_eq!(max_diff(&norm(&scale), &norm(&scale.to_dtype(DType::F32).unwrap())), 0.0, "{dtype:?}");
        let ids = Tensor::new(&[3i64, 0], &Device::Cpu).unwrap();
        let rows = on_gpu(|| embedding(&weight, &ids).unwrap());
        assert_eq!(max_diff(&rows, &embedding(&wide, &ids).unwrap()), 0.0, "{dtype:?}");
    }
    let weight = Var::from_tensor(&f32s(1, &[4, 3])).unwrap();
    let x = Var::from_tensor(&f32s(2, &[2, 3])).unwrap();
    let error = on_gpu(|| {
        let y = Linear::new(weight.as_detached_tensor(), None).unwrap().forward(&x).unwrap();
        backward(&y.sum_all().unwrap(), &[("x", &x), ("weight", &weight)]).unwrap_err().to_string()
    });
    assert_eq!(error, "backward: no gradient for [weight], non-finite gradient for []");
}

#[test]
fn f64_and_ids_outside_are_typed_errors() {
    let x = normal(1, &[2, 3], DType::F64);
    let map = Linear::new(normal(2, &[4, 3], DType::F64), None).unwrap();
    let error = on_gpu(|| map.forward(&x).unwrap_err().to_string());
    let words = "linear: dtype F64 is not supported, activations and trained parameters on a GPU are f32";
    assert!(error.starts_with(words), "{error}");
    let half = Var::from_tensor(&f32s(1, &[4, 3]).to_dtype(DType::BF16).unwrap()).unwrap();
    let error = on_gpu(|| {
        Linear::new(half.as_tensor().clone(), None).unwrap().forward(&f32s(1, &[2, 3])).unwrap_err()
    });
    assert!(error.to_string().contains("dtype BF16"), "{error}");
    let bad = Tensor::new(&[0i64, 4], &Device::Cpu).unwrap();
    let error = on_gpu(|| embedding(&f32s(1, &[4, 5]), &bad).unwrap_err().to_string());
    assert_eq!(error, "embedding: id 4 at position 1 is outside 0..4");
    let long = Norm::rms(f32s(1, &[16_388]), 1e-6).unwrap();
    let error = on_gpu(|| long.forward(&f32s(2, &[1, 16_388])).unwrap_err().to_string());
    assert!(error.contains("rows of 16388 are longer than 16384"), "{error}");
}

#[test]
fn empty_tensors_and_hidden_rows() {
    on_gpu(|| {
        let empty = Tensor::zeros((0, 5, 3), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(linear(1, 4, 3).forward(&empty).unwrap().dims(), [0, 5, 4]);
        assert_eq!(Norm::rms(f32s(1, &[3]), 1e-6).unwrap().forward(&empty).unwrap().dims(), [0, 5, 3]);
        let none = Tensor::zeros((2, 0, 4), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(Activation::Relu.forward_gated(&none).unwrap().dims(), [2, 0, 2]);
        let scores = Tensor::zeros((2, 3, 0, 5), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(softmax(&scores, &AttentionBias::none()).unwrap().dims(), [2, 3, 0, 5]);
        let q = Tensor::zeros((2, 3, 4), DType::F32, &Device::Cpu).unwrap();
        let context = attention(&q, &none, &none, 2, 1.0, &AttentionBias::none()).unwrap();
        assert_eq!((context.dims(), abs_max(&context)), (&[2usize, 3, 4][..], 0.0));
        let nothing = Tensor::zeros((0,), DType::I64, &Device::Cpu).unwrap();
        assert_eq!(embedding(&f32s(1, &[4, 5]), &nothing).unwrap().dims(), [0, 5]);
    });
    let mask = Tensor::new(&[[0u32, 0, 0], [1, 0, 1]], &Device::Cpu).unwrap();
    let bias = AttentionBias::none().with_padding_mask(&mask).unwrap();
    let qkv = [(1, 2), (2, 3), (3, 3)].map(|(seed, n)| f32s(seed, &[2, n, 8]));
    let run = |x: &[Tensor]| attention(&x[0], &x[1], &x[2], 2, 1.0, &bias).unwrap();
    assert!(values(&on_gpu(|| run(&qkv)))[..16].iter().all(|&v| v == 0.0));
    let hidden = on_gpu(|| gradients(&run, &qkv));
    assert!(hidden.iter().all(|g| values(&g.narrow(0, 0, 1).unwrap()).iter().all(|&v| v == 0.0)));
    compare("hidden keys", &qkv, &run);
}

#[test]
fn losses_of_large_logits_and_of_labels_that_do_not_count() {
    let labels = Tensor::new(&[[2i64, -100, 0], [6, 6, -100]], &Device::Cpu).unwrap();
    let logits = (f32s(1, &[2, 3, 7]) * 30.0).unwrap();
    compare("cross entropy", std::slice::from_ref(&logits), &|z| cross_entropy(&z[0], &labels).unwrap());
    close(
        "likelihoods",
        &on_gpu(|| token_nll(&logits, &labels).unwrap()),
        &token_nll(&logits, &labels).unwrap(),
    );
    let huge = (logits * 1e3).unwrap();
    assert!(abs_max(&on_gpu(|| cross_entropy(&huge, &labels).unwrap())).is_finite());
}

#[test]
fn generation_steps_equal_one_pass() {
    let (b, t, d, h, width) = (2, 5, 6, 2, 8);
    let layer = AttentionSublayer::new(AttentionWeights {
        pre: Norm::rms(f32s(1, &[d]), 1e-6).unwrap(),
        projection: linear(2, 3 * width, d),
        output: linear(4, d, width),
        post: Norm::identity(),
        n_heads: h,
        n_kv_heads: h,
        scale: 1.0,
    })
    .unwrap();
    let x = f32s(6, &[b, t, d]);
    let whole = layer.forward(&x, &AttentionBias::none().causal()).unwrap();
    on_gpu(|| {
        let mut cache = KvCache::default();
        let steps: Vec<Tensor> = (0..t)
            .map(|i| layer.step(&x.narrow(1, i, 1).unwrap(), &mut cache, &AttentionBias::none()).unwrap())
            .collect();
        close("steps", &Tensor::cat(&steps, 1).unwrap(), &whole);
    });
}

#[test]
fn convolutions_run_on_the_host() {
    let stem = StemConv::new(&f32s(1, &[8, 3, 3, 3]), f32s(2, &[8]), 2).unwrap();
    let block = InvertedResidual::new(InvertedResidualWeights {
        expand: Some(linear(3, 24, 8)),
        depthwise_weight: f32s(5, &[24, 1, 3, 3]),
        depthwise_bias: f32s(6, &[24]),
        stride: 1,
        project: linear(7, 8, 24),
    })
    .unwrap();
    let head = linear(9, 11, 8);
    let run = |x: &Tensor| block.forward(&stem.forward(x).unwrap()).unwrap();
    let pixels = f32s(10, &[2, 3, 9, 7]);
    assert_eq!(max_diff(&on_gpu(|| run(&pixels)), &run(&pixels)), 0.0);
    let features = run(&pixels);
    close(
        "head",
        &on_gpu(|| linear_relu6(&head, &features).unwrap()),
        &linear_relu6(&head, &features).unwrap(),
    );
}
