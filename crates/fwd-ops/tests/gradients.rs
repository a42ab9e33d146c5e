//! Every operation against a reference in candle's basic operations and against finite differences, in f64, and in f32
//! against its own f64 result.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

use candle_core::{D, DType, Device, Tensor, Var};
use fwd_ops::{
    Activation, AttentionBias, AttentionSublayer, AttentionWeights, FeedForwardSublayer, FeedForwardWeights,
    Linear, Norm, attention, backward, cross_entropy, embedding, softmax,
};

mod common;
use common::*;

#[test]
fn frozen_linear() {
    in_pools(check_frozen_linear);
}

fn check_frozen_linear() {
    // The last two are large enough to be shared out: by rows of the input, and by rows of the weight.
    for (dims, n_in, n_out) in [
        (vec![3, 5], 5, 7),
        (vec![2, 1, 33], 33, 1),
        (vec![70, 16], 16, 40),
        (vec![9], 9, 4),
        (vec![130, 64], 64, 64),
        (vec![5, 64], 64, 700),
    ] {
        for with_bias in [false, true] {
            let weight = normal(1, &[n_out, n_in], DType::F64);
            let bias = with_bias.then(|| normal(2, &[n_out], DType::F64));
            let ours = |x: &[Tensor]| {
                let bias = bias.as_ref().map(|b| like(b, &x[0]));
                Linear::new(like(&weight, &x[0]), bias).unwrap().forward(&x[0]).unwrap()
            };
            let reference = |x: &[Tensor]| {
                let flat = x[0].reshape(((), n_in)).unwrap();
                let y = reference_linear(
                    &flat,
                    &like(&weight, &x[0]),
                    bias.as_ref().map(|b| like(b, &x[0])).as_ref(),
                );
                let mut shape = x[0].dims().to_vec();
                *shape.last_mut().unwrap() = n_out;
                y.reshape(shape).unwrap()
            };
            verify(
                &format!("linear {dims:?} bias {with_bias}"),
                &[normal(3, &dims, DType::F64)],
                &ours,
                &reference,
            );
        }
    }
}

/// Each sum of 48 products is off by at most `48·ε·Σ|x·w|`, in whatever order it is formed; a rounded weight would be off by `2⁻⁹`.
#[test]
fn frozen_linear_widens_half_precision_weights_exactly() {
    for (m, dtype) in [5, 40].into_iter().flat_map(|m| [(m, DType::BF16), (m, DType::F16)]) {
        let x = normal(3, &[m, 48], DType::F32);
        let weight = normal(1, &[700, 48], DType::F32).to_dtype(dtype).unwrap();
        let wide = weight.to_dtype(DType::F32).unwrap();
        let product = |w: &Tensor, x: &Tensor| Linear::new(w.clone(), None).unwrap().forward(x).unwrap();
        let off = (product(&weight, &x) - product(&wide, &x)).unwrap().abs().unwrap();
        let bound = (product(&wide.abs().unwrap(), &x.abs().unwrap())
            * (2.0 * 48.0 * f64::from(f32::EPSILON)))
        .unwrap();
        let worst = (off - bound).unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(worst.to_scalar::<f32>().unwrap() <= 0.0, "{dtype:?}, {m} rows");
    }
}

#[test]
fn a_non_contiguous_input_is_read_in_its_own_order() {
    let weight = normal(1, &[4, 6], DType::F64);
    let linear = Linear::new(weight.clone(), None).unwrap();
    let ours = |x: &[Tensor]| linear.forward(&x[0].transpose(0, 1).unwrap()).unwrap();
    let reference = |x: &[Tensor]| reference_linear(&x[0].t().unwrap(), &weight, None);
    let x = [normal(2, &[6, 9], DType::F64)];
    assert!(max_diff(&ours(&x), &reference(&x)) < 1e-12);
    assert!(max_diff(&gradients(&ours, &x)[0], &gradients(&reference, &x)[0]) < 1e-12);
}

#[test]
fn norms() {
    for dims in [vec![1, 1], vec![4, 17], vec![2, 3, 64], vec![300, 5]] {
        let d = *dims.last().unwrap();
        let (weight, bias) = (normal(1, &[d], DType::F64), normal(2, &[d], DType::F64));
        let x = [normal(3, &dims, DType::F64)];
        let rms = |x: &[Tensor]| Norm::rms(like(&weight, &x[0]), 1e-6).unwrap().forward(&x[0]).unwrap();
        verify(&format!("rms norm {dims:?}"), &x, &rms, &|x| {
            reference_rms(&x[0], &like(&weight, &x[0]), 1e-6)
        });
        // With one column the variance is 0 and the gradient of the reference is dominated by eps.
        if d > 1 {
            let layer = |x: &[Tensor]| {
                Norm::layer(like(&weight, &x[0]), like(&bias, &x[0]), 1e-5).unwrap().forward(&x[0]).unwrap()
            };
            let reference =
                |x: &[Tensor]| reference_layer_norm(&x[0], &like(&weight, &x[0]), &like(&bias, &x[0]), 1e-5);
            verify(&format!("layer norm {dims:?}"), &x, &layer, &reference);
        }
    }
}

#[test]
fn norms_keep_their_accuracy_far_from_zero_and_near_it() {
    let ones = Tensor::ones(64, DType::F32, &Device::Cpu).unwrap();
    let zeros = ones.zeros_like().unwrap();
    for scale in [1e-4, 1.0, 1e4] {
        let x = ((normal(5, &[8, 64], DType::F64) * scale).unwrap() + 100.0 * scale).unwrap();
        let got = Norm::layer(ones.clone(), zeros.clone(), 1e-12).unwrap().forward(&like(&x, &ones)).unwrap();
        let want =
            reference_layer_norm(&like(&like(&x, &ones), &x), &like(&ones, &x), &like(&zeros, &x), 1e-12);
        // The mean of 64 values near 100 costs about 100·eps of each unit-variance result.
        assert!(max_diff(&got, &want) < 2e-4, "scale {scale}: {:e}", max_diff(&got, &want));
    }
}

#[test]
fn activations() {
    let gelu_tanh = |x: &Tensor| {
        let u = ((x + (x.powf(3.0).unwrap() * 0.044715).unwrap()).unwrap()
            * (2.0 / std::f64::consts::PI).sqrt())
        .unwrap();
        ((u.tanh().unwrap() + 1.0).unwrap() * (x * 0.5).unwrap()).unwrap()
    };
    let gelu_erf = |x: &Tensor| {
        let cdf = ((x / std::f64::consts::SQRT_2).unwrap().erf().unwrap() + 1.0).unwrap();
        (cdf * (x * 0.5).unwrap()).unwrap()
    };
    let x = [(normal(1, &[3, 5, 22], DType::F64) * 2.0).unwrap()];
    let check = |name: &str, act: Activation, reference: &dyn Fn(&Tensor) -> Tensor| {
        verify(name, &x, &|x| act.forward(&x[0]).unwrap(), &|x| reference(&x[0]));
        let gated = |x: &[Tensor]| {
            let n = x[0].dim(D::Minus1).unwrap() / 2;
            let (gate, up) = (x[0].narrow(2, 0, n).unwrap(), x[0].narrow(2, n, n).unwrap());
            (reference(&gate.contiguous().unwrap()) * up).unwrap()
        };
        verify(&format!("gated {name}"), &x, &|x| act.forward_gated(&x[0]).unwrap(), &gated);
    };
    check("gelu erf", Activation::GeluErf, &gelu_erf);
    check("gelu tanh", Activation::GeluTanh, &gelu_tanh);
    check("relu", Activation::Relu, &|x| x.relu().unwrap());
    let sigmoid_gated = |x: &Tensor, a: f64| {
        let e = (x * -a).unwrap().exp().unwrap();
        (x / (e + 1.0).unwrap()).unwrap()
    };
    check("silu", Activation::Silu, &|x| sigmoid_gated(x, 1.0));
    check("quick gelu", Activation::QuickGelu, &|x| sigmoid_gated(x, 1.702));
    let odd = normal(1, &[2, 3], DType::F32);
    assert!(Activation::GeluErf.forward_gated(&odd).unwrap_err().to_string().contains("must be even"));
}

#[test]
fn activations_are_exact_at_the_ends_and_keep_nan() {
    let x = Tensor::new(&[-1e30f32, -50.0, 0.0, 50.0, 1e30, f32::NAN], &Device::Cpu).unwrap();
    let all = [
        Activation::GeluErf,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::Silu,
        Activation::QuickGelu,
    ];
    for act in all {
        let y: Vec<f32> = act.forward(&x).unwrap().to_vec1().unwrap();
        assert!(y[0].abs() < 1e-5 && y[1].abs() < 1e-5, "{act:?}: {y:?}");
        assert_eq!((y[2], y[3], y[4]), (0.0, 50.0, 1e30), "{act:?}");
        assert!(y[5].is_nan(), "{act:?}");
        let far = Var::from_tensor(&x.narrow(0, 0, 5).unwrap()).unwrap();
        let slope = backward(&act.forward(&far).unwrap().sum_all().unwrap(), &[("x", &far)]).unwrap();
        let slope: Vec<f32> = slope[0].to_vec1().unwrap();
        assert!(slope[0].abs() < 1e-6 && slope[1].abs() < 1e-6, "{act:?}: {slope:?}");
        assert!((slope[3] - 1.0).abs() < 1e-6 && (slope[4] - 1.0).abs() < 1e-6, "{act:?}: {slope:?}");
    }
}

struct BiasCase {
    name: &'static str,
    bias: AttentionBias,
    dense: Tensor,
}

fn bias_cases(b: usize, h: usize, t_q: usize, t_k: usize) -> Vec<BiasCase> {
    let position = normal(11, &[h, t_q, t_k], DType::F64);
    let mask: Vec<Vec<f64>> = (0..b)
        .map(|e| (0..t_k).map(|j| if j > 0 && (j + e) % 3 == 0 { 0.0 } else { 1.0 }).collect())
        .collect();
    let mask_tensor = Tensor::new(mask.clone(), &Device::Cpu).unwrap();
    let dense =
        |p: bool, m: bool, c| dense_bias(p.then_some(&position), m.then_some(&mask[..]), c, [b, h, t_q, t_k]);
    let none = AttentionBias::none;
    let mut cases = vec![
        BiasCase { name: "plain", bias: none(), dense: dense(false, false, false) },
        BiasCase {
            name: "position and mask",
            bias: none().with_position(&position).unwrap().with_padding_mask(&mask_tensor).unwrap(),
            dense: dense(true, true, false),
        },
    ];
    if t_q <= t_k {
        let bias = none().with_position(&position).unwrap().causal();
        cases.push(BiasCase { name: "position and causal", bias, dense: dense(true, false, true) });
    }
    cases
}

/// Runs a check on pools of one and of two threads: how the work is split depends on their number.
fn in_pools(check: impl Fn() + Sync) {
    for threads in [1, 2] {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(&check);
    }
}

#[test]
fn softmax_with_bias_and_masks() {
    for (b, h, t_q, t_k, _) in ATTENTION_SHAPES {
        for case in bias_cases(b, h, t_q, t_k) {
            let scores = [normal(1, &[b, h, t_q, t_k], DType::F64)];
            let name = format!("softmax {} {:?}", case.name, scores[0].shape());
            verify(&name, &scores, &|s| softmax(&s[0], &as_like(&case.bias, &s[0])).unwrap(), &|s| {
                reference_softmax(&s[0], &case.dense)
            });
        }
    }
}

/// The same bias for f32 activations: a frozen f64 tensor is not narrowed silently.
fn as_like(bias: &AttentionBias, x: &Tensor) -> AttentionBias {
    bias.to_dtype(x.dtype()).unwrap()
}

#[test]
fn multi_head_attention() {
    for (b, h, t_q, t_k, d) in ATTENTION_SHAPES {
        for case in bias_cases(b, h, t_q, t_k) {
            let inputs =
                [(1, t_q), (2, t_k), (3, t_k)].map(|(seed, n)| normal(seed, &[b, n, h * d], DType::F64));
            let ours =
                |x: &[Tensor]| attention(&x[0], &x[1], &x[2], h, 0.7, &as_like(&case.bias, &x[0])).unwrap();
            let reference = |x: &[Tensor]| reference_attention(&x[0], &x[1], &x[2], h, 0.7, &case.dense);
            verify(
                &format!("attention {} b{b} h{h} {t_q}x{t_k} d{d}", case.name),
                &inputs,
                &ours,
                &reference,
            );
        }
    }
}

#[test]
fn a_fully_masked_row_gives_zeros_and_a_zero_gradient() {
    let mask = Tensor::new(&[[0u32, 0, 0], [1, 0, 1]], &Device::Cpu).unwrap();
    let bias = AttentionBias::none().with_padding_mask(&mask).unwrap();
    let scores = [normal(1, &[2, 1, 2, 3], DType::F32)];
    let probs = values(&softmax(&scores[0], &bias).unwrap());
    assert_eq!(&probs[..6], &[0.0; 6]);
    assert!((probs[6..9].iter().sum::<f64>() - 1.0).abs() < 1e-6 && probs[7] == 0.0);
    let gradient = &gradients(&|s| softmax(&s[0], &bias).unwrap(), &scores)[0];
    assert_eq!(&values(gradient)[..6], &[0.0; 6]);
    let qkv = [(1, 2), (2, 3), (3, 3)].map(|(seed, n)| normal(seed, &[2, n, 8], DType::F32));
    let run = |x: &[Tensor]| attention(&x[0], &x[1], &x[2], 2, 1.0, &bias).unwrap();
    assert!(values(&run(&qkv))[..16].iter().all(|&v| v == 0.0));
    assert!(
        gradients(&run, &qkv).iter().all(|g| values(&g.narrow(0, 0, 1).unwrap()).iter().all(|&v| v == 0.0))
    );
}

/// A sublayer in f64 and in f32, as the activations ask for it.
fn linear_of(seed: u64, n_out: usize, n_in: usize, dtype: DType) -> Linear {
    let weight = (normal(seed, &[n_out, n_in], DType::F64) * (n_in as f64).powf(-0.5)).unwrap();
    Linear::new(weight.to_dtype(dtype).unwrap(), Some(normal(seed + 1, &[n_out], dtype))).unwrap()
}

fn norm_of(kind: &str, seed: u64, d: usize, dtype: DType) -> Norm {
    let (weight, bias) = (normal(seed, &[d], dtype), normal(seed + 1, &[d], dtype));
    match kind {
        "rms" => Norm::rms(weight, 1e-6).unwrap(),
        "layer" => Norm::layer(weight, bias, 1e-6).unwrap(),
        _ => Norm::identity(),
    }
}

const NORM_PAIRS: [(&str, &str); 4] =
    [("rms", "none"), ("none", "layer"), ("layer", "none"), ("layer", "rms")];

#[test]
fn attention_sublayers_equal_their_parts() {
    in_pools(check_attention_sublayers);
}

fn check_attention_sublayers() {
    for (b, h, t, _, d_head) in ATTENTION_SHAPES {
        let (d, width) = (6, h * d_head);
        for (pre, post) in NORM_PAIRS {
            for case in bias_cases(b, h, t, t) {
                let build = |dtype| AttentionWeights {
                    pre: norm_of(pre, 20, d, dtype),
                    projection: linear_of(30, 3 * width, d, dtype),
                    output: linear_of(40, d, width, dtype),
                    post: norm_of(post, 50, d, dtype),
                    n_heads: h,
                    n_kv_heads: h,
                    scale: 0.8,
                };
                let ours = |x: &[Tensor]| {
                    let sublayer = AttentionSublayer::new(build(x[0].dtype())).unwrap();
                    sublayer.forward(&x[0], &as_like(&case.bias, &x[0])).unwrap()
                };
                let reference = |x: &[Tensor]| {
                    let c = build(x[0].dtype());
                    let qkv = c.projection.forward(&c.pre.forward(&x[0]).unwrap()).unwrap();
                    let [q, k, v] = [0, 1, 2].map(|i| qkv.narrow(2, i * width, width).unwrap());
                    let context = reference_attention(&q, &k, &v, h, c.scale, &case.dense);
                    c.post.forward(&(&x[0] + c.output.forward(&context).unwrap()).unwrap()).unwrap()
                };
                let x = [normal(1, &[b, t, d], DType::F64)];
                verify(
                    &format!("self-attention {pre}/{post} {} b{b} h{h} t{t}", case.name),
                    &x,
                    &ours,
                    &reference,
                );
            }
        }
    }
}

#[test]
fn cross_attention_sublayers_equal_their_parts() {
    in_pools(check_cross_attention_sublayers);
}

fn check_cross_attention_sublayers() {
    for (b, h, t_q, t_k, d_head) in ATTENTION_SHAPES {
        let (d, width) = (5, h * d_head);
        for (pre, post) in NORM_PAIRS {
            let case = bias_cases(b, h, t_q, t_k).remove(1);
            let build = |dtype| AttentionWeights {
                pre: norm_of(pre, 20, d, dtype),
                projection: linear_of(30, width, d, dtype),
                output: linear_of(40, d, width, dtype),
                post: norm_of(post, 50, d, dtype),
                n_heads: h,
                n_kv_heads: h,
                scale: 1.0,
            };
            let ours = |x: &[Tensor]| {
                let sublayer = AttentionSublayer::new(build(x[0].dtype())).unwrap();
                sublayer.forward_cross(&x[0], &x[1], &as_like(&case.bias, &x[0])).unwrap()
            };
            let reference = |x: &[Tensor]| {
                let c = build(x[0].dtype());
                let q = c.projection.forward(&c.pre.forward(&x[0]).unwrap()).unwrap();
                let (k, v) = (x[1].narrow(2, 0, width).unwrap(), x[1].narrow(2, width, width).unwrap());
                let context = reference_attention(&q, &k, &v, h, c.scale, &case.dense);
                c.post.forward(&(&x[0] + c.output.forward(&context).unwrap()).unwrap()).unwrap()
            };
            let x = [normal(1, &[b, t_q, d], DType::F64), normal(2, &[b, t_k, 2 * width], DType::F64)];
            verify(&format!("cross-attention {pre}/{post} b{b} h{h} {t_q}x{t_k}"), &x, &ours, &reference);
            // The first decoder layer: the input is untracked, only the memory has a gradient.
            let only_memory = |f: Function<'_>, m: &[Tensor]| f(&[x[0].clone(), m[0].clone()]);
            let got = gradients(&|m| only_memory(&ours, m), &x[1..]);
            let want = gradients(&|m| only_memory(&reference, m), &x[1..]);
            assert!(max_diff(&got[0], &want[0]) < 1e-10 * abs_max(&want[0]).max(1.0));
        }
    }
}

#[test]
fn feed_forward_sublayers_equal_their_parts() {
    in_pools(check_feed_forward_sublayers);
}

fn check_feed_forward_sublayers() {
    for (rows, d, hidden) in [(1, 3, 5), (70, 6, 9), (301, 4, 16)] {
        for (pre, post) in NORM_PAIRS {
            for gated in [false, true] {
                let build = |dtype| FeedForwardWeights {
                    pre: norm_of(pre, 20, d, dtype),
                    input: linear_of(30, if gated { 2 * hidden } else { hidden }, d, dtype),
                    activation: Activation::GeluTanh,
                    gated,
                    output: linear_of(40, d, hidden, dtype),
                    post: norm_of(post, 50, d, dtype),
                };
                let ours = |x: &[Tensor]| {
                    FeedForwardSublayer::new(build(x[0].dtype())).unwrap().forward(&x[0]).unwrap()
                };
                let reference = |x: &[Tensor]| {
                    let c = build(x[0].dtype());
                    let h = c.input.forward(&c.pre.forward(&x[0]).unwrap()).unwrap();
                    let a = if gated { c.activation.forward_gated(&h) } else { c.activation.forward(&h) };
                    let sum = (&x[0] + c.output.forward(&a.unwrap()).unwrap()).unwrap();
                    c.post.forward(&sum).unwrap()
                };
                let x = [normal(1, &[rows, d], DType::F64)];
                verify(&format!("feed-forward {pre}/{post} gated {gated} {rows}x{d}"), &x, &ours, &reference);
            }
        }
    }
}

#[test]
fn embedding_gathers_and_scatters() {
    let ids = Tensor::new(&[[3i64, 0, 3], [1, 1, 1]], &Device::Cpu).unwrap();
    let ours = |t: &[Tensor]| embedding(&t[0], &ids).unwrap();
    let flat = ids.flatten_all().unwrap();
    let reference = |t: &[Tensor]| t[0].index_select(&flat, 0).unwrap().reshape((2, 3, 5)).unwrap();
    verify("embedding", &[normal(1, &[4, 5], DType::F64)], &ours, &reference);
    let half = normal(1, &[4, 5], DType::F32).to_dtype(DType::BF16).unwrap();
    let want = half.to_dtype(DType::F32).unwrap().index_select(&flat, 0).unwrap().reshape((2, 3, 5)).unwrap();
    assert_eq!(max_diff(&embedding(&half, &ids).unwrap(), &want), 0.0);
    let bad = Tensor::new(&[0i64, 4], &Device::Cpu).unwrap();
    let error = embedding(&half, &bad).unwrap_err().to_string();
    assert_eq!(error, "embedding: id 4 at position 1 is outside 0..4");
}

#[test]
fn cross_entropy_averages_over_the_labels_that_count() {
    let labels = Tensor::new(&[[2i64, -100, 0], [6, 6, -100]], &Device::Cpu).unwrap();
    let ours = |z: &[Tensor]| cross_entropy(&z[0], &labels).unwrap();
    let reference = |z: &[Tensor]| {
        let log_sum = z[0].exp().unwrap().sum(2).unwrap().log().unwrap();
        let picks = [(0, 0, 2), (0, 2, 0), (1, 0, 6), (1, 1, 6)];
        let terms: Vec<Tensor> = picks
            .iter()
            .map(|&(b, t, label)| {
                let at = |x: &Tensor, i| {
                    x.narrow(0, b, 1).unwrap().narrow(1, t, 1).unwrap().narrow(i, 0, 1).unwrap()
                };
                let z_label = z[0].narrow(2, label, 1).unwrap().squeeze(2).unwrap();
                (at(&log_sum, 0) - at(&z_label, 0)).unwrap().reshape(()).unwrap()
            })
            .collect();
        (Tensor::stack(&terms, 0).unwrap().sum_all().unwrap() / 4.0).unwrap()
    };
    verify("cross entropy", &[normal(1, &[2, 3, 7], DType::F64)], &ours, &reference);
    let huge = (normal(1, &[2, 3, 7], DType::F32) * 1e4).unwrap();
    assert!(abs_max(&cross_entropy(&huge, &labels).unwrap()).is_finite());
    let nothing = Tensor::full(-100i64, (2, 3), &Device::Cpu).unwrap();
    assert!(cross_entropy(&huge, &nothing).unwrap_err().to_string().contains("every label is -100"));
    let outside = Tensor::full(7i64, (2, 3), &Device::Cpu).unwrap();
    assert!(
        cross_entropy(&huge, &outside)
            .unwrap_err()
            .to_string()
            .contains("id 7 at position 0 is outside 0..7")
    );
}

#[test]
fn empty_batches_and_sequences_pass_through() {
    let linear = linear_of(1, 4, 3, DType::F32);
    let empty = Tensor::zeros((0, 5, 3), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(linear.forward(&empty).unwrap().dims(), [0, 5, 4]);
    assert_eq!(norm_of("rms", 1, 3, DType::F32).forward(&empty).unwrap().dims(), [0, 5, 3]);
    let q = Tensor::zeros((2, 3, 4), DType::F32, &Device::Cpu).unwrap();
    let none = Tensor::zeros((2, 0, 4), DType::F32, &Device::Cpu).unwrap();
    let scores = Tensor::zeros((2, 3, 0, 5), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(softmax(&scores, &AttentionBias::none()).unwrap().dims(), [2, 3, 0, 5]);
    assert_eq!(Activation::Relu.forward_gated(&none).unwrap().dims(), [2, 0, 2]);
    let layer = AttentionSublayer::new(AttentionWeights {
        pre: Norm::identity(),
        projection: linear_of(1, 12, 4, DType::F32),
        output: linear_of(2, 4, 4, DType::F32),
        post: norm_of("layer", 3, 4, DType::F32),
        n_heads: 2,
        n_kv_heads: 2,
        scale: 1.0,
    })
    .unwrap();
    let tracked = Var::from_tensor(&none).unwrap();
    let y = layer.forward(&tracked, &AttentionBias::none()).unwrap();
    let gradient = backward(&y.sum_all().unwrap(), &[("x", &tracked)]).unwrap();
    assert_eq!((y.dims(), gradient[0].dims()), (&[2usize, 0, 4][..], &[2usize, 0, 4][..]));
    let context = attention(&q, &none, &none, 2, 1.0, &AttentionBias::none()).unwrap();
    assert_eq!((context.dims(), abs_max(&context)), (&[2usize, 3, 4][..], 0.0));
}

#[test]
fn wrong_shapes_and_types_are_typed_errors() {
    let linear = linear_of(1, 4, 3, DType::F32);
    let error = linear.forward(&normal(1, &[2, 5], DType::F32)).unwrap_err().to_string();
    assert_eq!(error, "linear: the last dimension of the input must be 3, got [2, 5]");
    let ids = Tensor::zeros((2, 3), DType::I64, &Device::Cpu).unwrap();
    assert!(linear.forward(&ids).unwrap_err().to_string().contains("activations are f32 or f64"));
    assert!(Linear::new(ids, None).unwrap_err().to_string().contains("frozen parameters are"));
    assert!(Linear::new(Tensor::zeros((4, 0), DType::F32, &Device::Cpu).unwrap(), None).is_err());
    assert!(Linear::stacked(&[]).is_err());
    let wide = Linear::new(normal(1, &[4, 3], DType::F64), None).unwrap();
    let error = wide.forward(&normal(1, &[2, 3], DType::F32)).unwrap_err().to_string();
    assert!(error.contains("f64 for f64 activations"), "{error}");
    let half = Var::from_tensor(&normal(1, &[4, 3], DType::F32).to_dtype(DType::BF16).unwrap()).unwrap();
    let error = embedding(&half, &Tensor::new(&[0i64], &Device::Cpu).unwrap()).unwrap_err().to_string();
    assert!(error.contains("a table that is trained must be f32 or f64"), "{error}");
    let q = normal(1, &[2, 3, 4], DType::F32);
    let mask = Tensor::ones((2, 4), DType::F32, &Device::Cpu).unwrap();
    let bias = AttentionBias::none().with_padding_mask(&mask).unwrap();
    let error = attention(&q, &q, &q, 2, 1.0, &bias).unwrap_err().to_string();
    assert_eq!(error, "attention: padding mask must be [2, 3], got [2, 4]");
    assert!(AttentionBias::none().with_position(&mask).is_err());
}

#[test]
fn backward_names_every_parameter_that_is_left_out_or_not_finite() {
    let good = Var::from_tensor(&normal(1, &[3], DType::F32)).unwrap();
    let unused = Var::from_tensor(&normal(2, &[3], DType::F32)).unwrap();
    let zero = Var::zeros(3, DType::F32, &Device::Cpu).unwrap();
    // The root of 0 has an infinite slope.
    let loss = (good.sqr().unwrap() + zero.sqrt().unwrap()).unwrap().sum_all().unwrap();
    let error =
        backward(&loss, &[("good", &good), ("unused", &unused), ("zero", &zero)]).unwrap_err().to_string();
    assert_eq!(error, "backward: no gradient for [unused], non-finite gradient for [zero]");
    let nan = (good.sum_all().unwrap() * f64::NAN).unwrap();
    assert!(backward(&nan, &[("good", &good)]).unwrap_err().to_string().contains("the loss is NaN"));
}

/// A weight without a history is a part of the operation, not an argument of it.
#[test]
fn no_gradient_of_a_frozen_weight_comes_into_being() {
    let weight = Var::from_tensor(&normal(1, &[4, 3], DType::F32)).unwrap();
    let x = Var::from_tensor(&normal(2, &[2, 3], DType::F32)).unwrap();
    let y = Linear::new(weight.as_detached_tensor(), None).unwrap().forward(&x).unwrap();
    let error = backward(&y.sum_all().unwrap(), &[("x", &x), ("weight", &weight)]).unwrap_err().to_string();
    assert_eq!(error, "backward: no gradient for [weight], non-finite gradient for []");
}

/// A sublayer gives the same bits on one thread and on many: its rows are shared out, nothing is summed across threads.
#[test]
fn the_number_of_threads_does_not_change_a_sublayer() {
    let layer = FeedForwardSublayer::new(FeedForwardWeights {
        pre: norm_of("rms", 20, 24, DType::F32),
        input: linear_of(30, 64, 24, DType::F32),
        activation: Activation::GeluErf,
        gated: true,
        output: linear_of(40, 24, 32, DType::F32),
        post: Norm::identity(),
    })
    .unwrap();
    let x = [normal(1, &[600, 24], DType::F32)];
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            (layer.forward(&x[0]).unwrap(), gradients(&|x| layer.forward(&x[0]).unwrap(), &x).remove(0))
        })
    };
    let (one, four) = (run(1), run(4));
    assert_eq!((max_diff(&one.0, &four.0), max_diff(&one.1, &four.1)), (0.0, 0.0));
}
