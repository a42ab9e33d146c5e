//! Grouped-query attention and rotary positions against plain references: keys and values repeated for every head of queries, and pairs
//! of elements turned one by one.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::*;
use fwd_ops::{AttentionBias, AttentionSublayer, AttentionWeights, KvCache, Linear, Norm, Rotary, attention};

/// `(batch, heads, heads of keys, tokens, d_head)`: one head of keys for all, groups of two, three and five, as many as heads of queries;
/// of the last one each of two threads gets several blocks.
const SHAPES: [(usize, usize, usize, usize, usize); 6] =
    [(1, 2, 1, 1, 2), (2, 4, 2, 5, 4), (3, 6, 2, 4, 6), (1, 5, 1, 7, 2), (2, 3, 3, 6, 4), (7, 4, 2, 90, 2)];

fn linear(seed: u64, n_out: usize, n_in: usize, dtype: DType) -> Linear {
    let weight = (normal(seed, &[n_out, n_in], DType::F64) * (n_in as f64).powf(-0.5)).unwrap();
    Linear::new(weight.to_dtype(dtype).unwrap(), Some(normal(seed + 1, &[n_out], dtype))).unwrap()
}

/// Keys or values with every head as often as there are heads of queries that read it.
fn repeated(kv: &Tensor, n_heads: usize, n_kv_heads: usize) -> Tensor {
    let (b, t, w) = kv.dims3().unwrap();
    let group = n_heads / n_kv_heads;
    let heads = kv.reshape((b, t, n_kv_heads, 1, w / n_kv_heads)).unwrap();
    let every = heads.broadcast_as((b, t, n_kv_heads, group, w / n_kv_heads)).unwrap();
    every.contiguous().unwrap().reshape((b, t, w * group)).unwrap()
}

/// `(batch, tokens, heads·d_head)` with each pair `(i, i + d_head/2)` turned by its own 2×2 rotation.
fn turned(x: &Tensor, n_heads: usize, frequencies: &[f64], positions: &[Vec<i64>]) -> Tensor {
    let (b, t, w) = x.dims3().unwrap();
    let (d, half) = (w / n_heads, frequencies.len());
    let angle = |f: fn(f64) -> f64| -> Tensor {
        let angles = positions.iter().flatten().flat_map(|&p| frequencies.iter().map(move |w| p as f64 * w));
        let values: Vec<f64> = angles.map(f).collect();
        Tensor::from_vec(values, (b, t, 1, half), &Device::Cpu).unwrap().to_dtype(x.dtype()).unwrap()
    };
    let (cos, sin) = (angle(f64::cos), angle(f64::sin));
    let heads = x.reshape((b, t, n_heads, d)).unwrap();
    let (left, right) = (heads.narrow(3, 0, half).unwrap(), heads.narrow(3, half, half).unwrap());
    let times = |a: &Tensor, b: &Tensor| a.broadcast_mul(b).unwrap();
    let first = (times(&left, &cos) - times(&right, &sin)).unwrap();
    let second = (times(&right, &cos) + times(&left, &sin)).unwrap();
    Tensor::cat(&[first, second], 3).unwrap().reshape((b, t, w)).unwrap()
}

fn frequencies(d_head: usize) -> Vec<f64> {
    (0..d_head / 2).map(|i| 100f64.powf(-2.0 * i as f64 / d_head as f64)).collect()
}

/// Positions that begin elsewhere in every row and leave one out.
fn positions(batch: usize, tokens: usize) -> Vec<Vec<i64>> {
    (0..batch).map(|b| (0..tokens).map(|t| (3 * b + t + t / 3) as i64).collect()).collect()
}

fn rotary(d_head: usize, positions: &[Vec<i64>], dtype: DType) -> Rotary {
    let positions = Tensor::new(positions.to_vec(), &Device::Cpu).unwrap();
    Rotary::new(&frequencies(d_head), &positions, dtype, &Device::Cpu).unwrap()
}

fn none() -> AttentionBias {
    AttentionBias::none()
}

#[test]
fn pairs_of_heads_are_turned_and_the_rest_stays() {
    for (b, h, _, t, d) in SHAPES {
        for rest in [0, 3] {
            let positions = positions(b, t);
            let ours = |x: &[Tensor]| rotary(d, &positions, x[0].dtype()).forward(&x[0], h).unwrap();
            let reference = |x: &[Tensor]| {
                let heads = turned(&x[0].narrow(2, 0, h * d).unwrap(), h, &frequencies(d), &positions);
                Tensor::cat(&[heads, x[0].narrow(2, h * d, rest).unwrap()], 2).unwrap()
            };
            verify(
                &format!("rotary b{b} h{h} t{t} d{d} rest{rest}"),
                &[normal(1, &[b, t, h * d + rest], DType::F64)],
                &ours,
                &reference,
            );
        }
    }
}

#[test]
fn heads_of_queries_share_keys_and_values_in_groups() {
    for (b, h, kv, t, d) in SHAPES {
        for (t_k, causal) in [(t, true), (t + 2, false)] {
            let position = normal(8, &[h, t, t_k], DType::F64);
            let dense = dense_bias(None, None, causal, [b, h, t, t_k]);
            let bias = if causal { none().causal() } else { none() };
            let inputs = [(1, t, h), (2, t_k, kv), (3, t_k, kv)]
                .map(|(seed, n, heads)| normal(seed, &[b, n, heads * d], DType::F64));
            let ours = |x: &[Tensor]| attention(&x[0], &x[1], &x[2], h, 0.7, &bias).unwrap();
            let reference = |x: &[Tensor]| {
                let [k, v] = [1, 2].map(|i| repeated(&x[i], h, kv));
                reference_attention(&x[0], &k, &v, h, 0.7, &dense)
            };
            let what = format!("grouped attention b{b} h{h}/{kv} {t}x{t_k} d{d}");
            verify(&what, &inputs, &ours, &reference);
            // A position bias that is trained takes another way through the same heads.
            let trained = [inputs[0].clone(), inputs[1].clone(), inputs[2].clone(), position.clone()];
            let ours = |x: &[Tensor]| {
                let bias = none().with_position(&x[3]).unwrap();
                attention(&x[0], &x[1], &x[2], h, 0.7, &bias).unwrap()
            };
            let reference = |x: &[Tensor]| {
                let [k, v] = [1, 2].map(|i| repeated(&x[i], h, kv));
                let bias = x[3].unsqueeze(0).unwrap().broadcast_as((b, h, t, t_k)).unwrap();
                reference_attention(&x[0], &k, &v, h, 0.7, &bias)
            };
            verify(&format!("{what}, trained bias"), &trained, &ours, &reference);
        }
    }
}

fn weights(h: usize, kv: usize, d_head: usize, d: usize, dtype: DType) -> AttentionWeights {
    AttentionWeights {
        pre: Norm::rms(normal(20, &[d], dtype), 1e-6).unwrap(),
        projection: linear(30, (h + 2 * kv) * d_head, d, dtype),
        output: linear(40, d, h * d_head, dtype),
        post: Norm::identity(),
        n_heads: h,
        n_kv_heads: kv,
        scale: (d_head as f64).powf(-0.5),
    }
}

fn check_sublayers() {
    for (b, h, kv, t, d_head) in SHAPES {
        let (d, positions) = (6, positions(b, t));
        let mask: Vec<Vec<f64>> = (0..b)
            .map(|b| (0..t).map(|t| f64::from(u8::from(t >= b.min(2) || t + 1 == b))).collect())
            .collect();
        let mask_tensor = Tensor::new(mask.clone(), &Device::Cpu).unwrap();
        let bias = none().with_padding_mask(&mask_tensor).unwrap().causal();
        // Rows of padding alone: our softmax of nothing is 0, the reference's is not, so their outputs are left out.
        let seen = mask_tensor.unsqueeze(2).unwrap();
        let dense = dense_bias(None, Some(&mask), true, [b, h, t, t]);
        let hide = |y: Tensor| y.broadcast_mul(&seen.to_dtype(y.dtype()).unwrap()).unwrap();
        let ours = |x: &[Tensor]| {
            let dtype = x[0].dtype();
            let layer = AttentionSublayer::new(weights(h, kv, d_head, d, dtype)).unwrap();
            let bias = bias.to_dtype(dtype).unwrap();
            hide(layer.forward_rotary(&x[0], &bias, &rotary(d_head, &positions, dtype)).unwrap())
        };
        let reference = |x: &[Tensor]| {
            let c = weights(h, kv, d_head, d, x[0].dtype());
            let qkv = c.projection.forward(&c.pre.forward(&x[0]).unwrap()).unwrap();
            let part = |from: usize, n: usize| qkv.narrow(2, from * d_head, n * d_head).unwrap();
            let turn = |x: &Tensor, n: usize| turned(x, n, &frequencies(d_head), &positions);
            let (q, k, v) = (turn(&part(0, h), h), turn(&part(h, kv), kv), part(h + kv, kv));
            let context = reference_attention(
                &q,
                &repeated(&k, h, kv),
                &repeated(&v.contiguous().unwrap(), h, kv),
                h,
                c.scale,
                &dense,
            );
            hide((&x[0] + c.output.forward(&context).unwrap()).unwrap())
        };
        let x = [normal(1, &[b, t, d], DType::F64)];
        verify(&format!("rotary sublayer b{b} h{h}/{kv} t{t} d_head{d_head}"), &x, &ours, &reference);
    }
}

#[test]
fn sublayers_with_groups_and_positions_equal_their_parts() {
    for threads in [1, 2] {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(check_sublayers);
    }
}

/// Generation: steps of one and of several tokens through a cache that must grow give what one pass gives.
#[test]
fn steps_through_a_cache_equal_one_pass() {
    let check = || {
        for (b, h, kv, t, d_head) in SHAPES.into_iter().filter(|s| s.3 > 1) {
            let (d, positions) = (6, positions(b, t));
            let layer = AttentionSublayer::new(weights(h, kv, d_head, d, DType::F32)).unwrap();
            let x = normal(1, &[b, t, d], DType::F32);
            let whole =
                layer.forward_rotary(&x, &none().causal(), &rotary(d_head, &positions, DType::F32)).unwrap();
            for (capacity, first) in [(0, 1), (t, 2), (3, t - 1)] {
                let (mut cache, mut at, mut steps) = (KvCache::with_capacity(capacity), 0, Vec::new());
                while at < t {
                    let n = if at == 0 { first.min(t) } else { 1 };
                    let of_step: Vec<Vec<i64>> = positions.iter().map(|p| p[at..at + n].to_vec()).collect();
                    let rotary = rotary(d_head, &of_step, DType::F32);
                    let new = x.narrow(1, at, n).unwrap();
                    steps.push(layer.step_rotary(&new, &mut cache, &none().causal(), &rotary).unwrap());
                    at += n;
                }
                let off = max_diff(&Tensor::cat(&steps, 1).unwrap(), &whole);
                assert!(off < 1e-5, "b{b} h{h}/{kv} t{t}, capacity {capacity}: off by {off:e}");
                assert_eq!(cache.len(), t);
            }
        }
    };
    check();
    #[cfg(feature = "emulate")]
    fwd_ops::emulated(fwd_kernels::Target::A100, check);
}

/// The later tokens behind keys and values of the earlier ones: values and gradients are those of one pass over all.
#[test]
fn tokens_behind_a_prefix_are_what_they_are_in_one_pass() {
    let check = || {
        for (b, h, kv, t, d_head) in SHAPES.into_iter().filter(|s| s.3 > 1) {
            let (d, positions, n) = (6, positions(b, t), t / 2);
            let layer = AttentionSublayer::new(weights(h, kv, d_head, d, DType::F32)).unwrap();
            let x = normal(1, &[b, t, d], DType::F32);
            let part = |from: usize, n: usize| -> Rotary {
                let of_part: Vec<Vec<i64>> = positions.iter().map(|p| p[from..from + n].to_vec()).collect();
                rotary(d_head, &of_part, DType::F32)
            };
            let mut cache = KvCache::with_capacity(n);
            let earlier = x.narrow(1, 0, n).unwrap().contiguous().unwrap();
            layer.step_rotary(&earlier, &mut cache, &none().causal(), &part(0, n)).unwrap();
            let later = Var::from_tensor(&x.narrow(1, n, t - n).unwrap().contiguous().unwrap()).unwrap();
            let (before, rotary) = (cache.tokens().unwrap(), part(n, t - n));
            let ours = layer.forward_behind(&later, &before, &none().causal(), Some(&rotary)).unwrap();
            let all = Tensor::cat(&[&earlier, later.as_tensor()], 1).unwrap();
            let whole = layer.forward_rotary(&all, &none().causal(), &part(0, t)).unwrap();
            let whole = whole.narrow(1, n, t - n).unwrap();
            assert!(max_diff(&ours, &whole) < 1e-5, "b{b} h{h}/{kv} t{t}");
            let gradient = |y: &Tensor| {
                let loss = y.sqr().unwrap().sum_all().unwrap();
                fwd_ops::backward(&loss, &[("later", &later)]).unwrap().remove(0)
            };
            let (ours, whole) = (gradient(&ours), gradient(&whole.contiguous().unwrap()));
            let largest = whole.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(max_diff(&ours, &whole) < 1e-5 * f64::from(largest), "b{b} h{h}/{kv} t{t}: gradient");
        }
    };
    check();
    #[cfg(feature = "emulate")]
    fwd_ops::emulated(fwd_kernels::Target::A100, check);
    let layer = AttentionSublayer::new(weights(4, 2, 4, 8, DType::F32)).unwrap();
    let (x, before) = (normal(1, &[2, 3, 8], DType::F32), normal(2, &[2, 3, 15], DType::F32));
    let error = layer.forward_behind(&x, &before, &none(), None).unwrap_err().to_string();
    assert!(error.contains("keys and values [2, 3, 15] in front of [2, 3, 8]"), "{error}");
    assert!(KvCache::default().tokens().is_err());
}

#[test]
fn what_does_not_fit_is_a_typed_error() {
    let x = normal(1, &[2, 3, 8], DType::F32);
    let of = |d_head, t| rotary(d_head, &positions(2, t), DType::F32);
    let error = of(4, 2).forward(&x, 2).unwrap_err().to_string();
    assert_eq!(error, "rotary: 2 heads of width 4 at 2x2 positions do not fit [2, 3, 8]");
    assert!(of(4, 3).forward(&x, 3).is_err());
    let layer = AttentionSublayer::new(weights(4, 2, 4, 8, DType::F32)).unwrap();
    assert!(layer.forward_rotary(&x, &none(), &of(4, 3)).is_ok());
    let error = layer.forward_rotary(&x, &none(), &of(6, 3)).unwrap_err().to_string();
    assert_eq!(error, "attention_sublayer: rotary positions must be (2, 3, 2), got [2, 3, 3]");
    let error = AttentionSublayer::new(AttentionWeights { n_kv_heads: 3, ..weights(4, 2, 4, 8, DType::F32) });
    assert!(error.unwrap_err().to_string().contains("4 heads, 3 of keys and values do not fit together"));
    let error = Rotary::new(&[], &Tensor::new(&[[0i64]], &Device::Cpu).unwrap(), DType::F32, &Device::Cpu);
    assert!(error.unwrap_err().to_string().contains("there is no frequency"));
    let kv = normal(2, &[2, 3, 6], DType::F32);
    assert!(attention(&x, &kv, &kv, 4, 1.0, &none()).unwrap_err().to_string().contains("sizes do not fit"));
}
