//! Steps of generation: the same bytes for any number of threads, and the same values as without a cache.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

use candle_core::{DType, Device, Tensor};
use fwd_ops::{
    Activation, AttentionBias, AttentionSublayer, AttentionWeights, FeedForwardSublayer, FeedForwardWeights,
    KvCache, Linear, Norm,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const D: usize = 192;

fn tensor(rng: &mut StdRng, shape: &[usize], size: f32) -> Tensor {
    let n = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|_| rng.random_range(-size..size)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn linear(rng: &mut StdRng, n_out: usize, n_in: usize) -> Linear {
    Linear::new(tensor(rng, &[n_out, n_in], 0.1), None).unwrap()
}

fn sublayers(rng: &mut StdRng) -> (AttentionSublayer, AttentionSublayer, FeedForwardSublayer) {
    let norm = || Norm::rms(Tensor::ones(D, DType::F32, &Device::Cpu).unwrap(), 1e-5).unwrap();
    let mut attention = |n_out: usize, n_kv_heads: usize| {
        AttentionSublayer::new(AttentionWeights {
            pre: norm(),
            projection: linear(rng, n_out, D),
            output: linear(rng, D, D),
            post: norm(),
            n_heads: 6,
            n_kv_heads,
            scale: 0.2,
        })
        .unwrap()
    };
    // Heads of width 32: six of queries over two of keys and values, and a cross-attention of six over six.
    let (own, cross) = (attention(D + 2 * 64, 2), attention(D, 6));
    let feed_forward = FeedForwardSublayer::new(FeedForwardWeights {
        pre: norm(),
        input: linear(rng, 2 * 500, D),
        activation: Activation::Silu,
        gated: true,
        output: linear(rng, D, 500),
        post: Norm::identity(),
    })
    .unwrap();
    (own, cross, feed_forward)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn steps_do_not_depend_on_the_number_of_threads() {
    for batch in [1, 3, 16] {
        let run = || {
            let mut rng = StdRng::seed_from_u64(1);
            let (own, cross, feed_forward) = sublayers(&mut rng);
            let memory = tensor(&mut rng, &[batch, 50, 2 * D], 1.0);
            let (mut cache, mut all) = (KvCache::default(), Vec::new());
            for n_new in [90, 1, 1, 2, 1] {
                let x = tensor(&mut rng, &[batch, n_new, D], 1.0);
                let x = own.step(&x, &mut cache, &AttentionBias::none().causal()).unwrap();
                let x = cross.forward_cross(&x, &memory, &AttentionBias::none()).unwrap();
                all.extend(values(&feed_forward.forward(&x).unwrap()));
            }
            all
        };
        let with = |threads: usize| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
        };
        let one = with(1);
        for threads in [2, 3] {
            assert!(one == with(threads), "batch {batch}, {threads} threads");
        }
    }
}

#[test]
fn a_cross_attention_of_one_token_is_that_of_a_row_of_several() {
    let mut rng = StdRng::seed_from_u64(2);
    let (_, cross, _) = sublayers(&mut rng);
    let (x, memory) = (tensor(&mut rng, &[2, 5, D], 1.0), tensor(&mut rng, &[2, 7, 2 * D], 1.0));
    let mask = Tensor::new(&[[1u8, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 1]], &Device::Cpu).unwrap();
    let bias = AttentionBias::none().with_padding_mask(&mask).unwrap();
    let all = cross.forward_cross(&x, &memory, &bias).unwrap();
    for i in 0..5 {
        let one = cross.forward_cross(&x.narrow(1, i, 1).unwrap(), &memory, &bias).unwrap();
        let row = all.narrow(1, i, 1).unwrap();
        // Sums of at most 192 products of factors about 1, in another order; the norm behind them keeps values about 1.
        let bound = 192.0 * f32::EPSILON;
        for (a, b) in values(&one).into_iter().zip(values(&row)) {
            assert!((a - b).abs() <= bound * b.abs().max(1.0), "{a} {b}");
        }
    }
}

#[test]
fn selected_entries_go_on_from_what_they_were() {
    let mut rng = StdRng::seed_from_u64(3);
    let (own, ..) = sublayers(&mut rng);
    let causal = || AttentionBias::none().causal();
    let mut cache = KvCache::with_capacity(6);
    // What the entries have read so far.
    let mut read = vec![tensor(&mut rng, &[3, 4, D], 1.0)];
    own.step(&read[0], &mut cache, &causal()).unwrap();
    for rows in [[0u32, 1, 2], [2, 0, 0], [1, 1, 2], [0, 2, 1], [2, 2, 2]] {
        let index = Tensor::new(&rows, &Device::Cpu).unwrap();
        cache.select(&index).unwrap();
        read.iter_mut().for_each(|x| *x = x.index_select(&index, 0).unwrap());
        read.push(tensor(&mut rng, &[3, 1, D], 1.0));
        let got = own.step(&read[read.len() - 1], &mut cache, &causal()).unwrap();
        // Beside it a cache that the chosen entries were read into.
        let mut fresh = KvCache::default();
        let steps = read.iter().map(|x| own.step(x, &mut fresh, &causal()).unwrap());
        assert_eq!(steps.last().map(|y| values(&y)), Some(values(&got)), "{rows:?}");
    }
    let error = cache.select(&Tensor::new(&[0u32, 3, 1], &Device::Cpu).unwrap()).unwrap_err().to_string();
    assert!(error.contains('3'), "{error}");
}
