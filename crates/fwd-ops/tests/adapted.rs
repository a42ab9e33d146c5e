//! Low-rank additions to linear maps: alone, of parts of stacked maps, and within sublayers, trained and frozen.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{DType, Device, Tensor};
use common::*;
use fwd_ops::{
    Activation, AttentionBias, AttentionSublayer, AttentionWeights, FeedForwardSublayer, FeedForwardWeights,
    Format, KvCache, Linear, LowRank, Matrix, Norm, Observer,
};
use std::sync::{Arc, Mutex};

/// `W + s·B·A`.
fn merged(weight: &Tensor, a: &Tensor, b: &Tensor, scale: f64) -> Tensor {
    (like(weight, a) + (b.matmul(a).unwrap() * scale).unwrap()).unwrap()
}

fn like(t: &Tensor, other: &Tensor) -> Tensor {
    t.to_dtype(other.dtype()).unwrap()
}

#[test]
fn an_addition_is_that_of_the_product_to_the_weight() {
    for (m, n_in, n_out, rank) in [(1, 1, 1, 1), (7, 5, 3, 2), (130, 64, 40, 8), (3, 96, 70, 16)] {
        let (weight, bias) = (normal(1, &[n_out, n_in], DType::F64), normal(2, &[n_out], DType::F64));
        let x = [normal(3, &[m, n_in], DType::F64), normal(4, &[rank, n_in], DType::F64)];
        let x = [x[0].clone(), x[1].clone(), normal(5, &[n_out, rank], DType::F64)];
        let ours = |x: &[Tensor]| {
            let map = Linear::new(like(&weight, &x[0]), Some(like(&bias, &x[0]))).unwrap().named("map");
            let low_rank = LowRank { a: x[1].clone(), b: x[2].clone(), scale: 0.7, router: None };
            map.adapted(&mut |name, shape| {
                assert_eq!((name, shape), ("map", [n_out, n_in]));
                Ok(Some(low_rank.clone()))
            })
            .unwrap()
            .forward(&x[0])
            .unwrap()
        };
        let reference = |x: &[Tensor]| {
            reference_linear(&x[0], &merged(&weight, &x[1], &x[2], 0.7), Some(&like(&bias, &x[0])))
        };
        verify(&format!("low-rank addition {m}x{n_in}x{n_out} rank {rank}"), &x, &ours, &reference);
    }
}

/// The gates of experts, from single operations.
fn reference_gates(x: &Tensor, router: &Tensor) -> Tensor {
    let logits = reference_linear(x, router, None);
    let most = logits.max_keepdim(1).unwrap().detach();
    let shifted = logits.broadcast_sub(&most).unwrap().exp().unwrap();
    shifted.broadcast_div(&shifted.sum_keepdim(1).unwrap()).unwrap()
}

/// Trained as a whole, and frozen, where the input gets its gradient through the gates too.
#[test]
fn experts_are_weighed_by_gates_of_the_input() {
    for (m, n_in, n_out, rank, n_experts) in [(1, 2, 3, 1, 1), (7, 5, 3, 4, 2), (70, 64, 40, 6, 3)] {
        let weight = normal(1, &[n_out, n_in], DType::F64);
        let x = [
            normal(3, &[m, n_in], DType::F64),
            normal(4, &[rank, n_in], DType::F64),
            normal(5, &[n_out, rank], DType::F64),
            normal(6, &[n_experts, n_in], DType::F64),
        ];
        let ours = |x: &[Tensor]| {
            let map = Linear::new(like(&weight, &x[0]), None).unwrap().named("map");
            let low_rank =
                LowRank { a: x[1].clone(), b: x[2].clone(), scale: 0.7, router: Some(x[3].clone()) };
            map.adapted(&mut |_, _| Ok(Some(low_rank.clone()))).unwrap().forward(&x[0]).unwrap()
        };
        let reference = |x: &[Tensor]| {
            let gates = reference_gates(&x[0], &x[3]);
            let n_each = rank / n_experts;
            let mut y = reference_linear(&x[0], &like(&weight, &x[0]), None);
            for e in 0..n_experts {
                let [a, b] = [(1, 0), (2, 1)].map(|(i, dim)| x[i].narrow(dim, e * n_each, n_each).unwrap());
                let of_expert = x[0].matmul(&a.t().unwrap()).unwrap().matmul(&b.t().unwrap()).unwrap();
                let weighed = of_expert.broadcast_mul(&gates.narrow(1, e, 1).unwrap()).unwrap();
                y = (y + (weighed * 0.7).unwrap()).unwrap();
            }
            y
        };
        let name = format!("{n_experts} experts, {m}x{n_in}x{n_out} rank {rank}");
        verify(&name, &x, &ours, &reference);
        let frozen = |f: &dyn Fn(&[Tensor]) -> Tensor, x: &Tensor| {
            let all = [
                normal(4, &[rank, n_in], DType::F64),
                normal(5, &[n_out, rank], DType::F64),
                normal(6, &[n_experts, n_in], DType::F64),
            ];
            f(&[vec![x.clone()], all.iter().map(|t| like(t, x)).collect()].concat())
        };
        verify(&format!("{name}, frozen"), &x[..1], &|x| frozen(&ours, &x[0]), &|x| {
            frozen(&reference, &x[0])
        });
    }
}

/// Of three stacked maps the first and the last have an addition, and the input needs no gradient.
#[test]
fn parts_of_stacked_maps_have_additions_of_their_own() {
    let (m, n_in, widths, ranks) = (9, 6, [4, 3, 5], [2, 0, 3]);
    let weights: Vec<Tensor> =
        widths.iter().enumerate().map(|(i, &n)| normal(i as u64, &[n, n_in], DType::F64)).collect();
    let input = normal(30, &[m, n_in], DType::F64);
    let mut x = Vec::new();
    for part in [0, 2] {
        x.push(normal(10 + part as u64, &[ranks[part], n_in], DType::F64));
        x.push(normal(20 + part as u64, &[widths[part], ranks[part]], DType::F64));
    }
    let ours = |x: &[Tensor]| {
        let maps: Vec<Linear> = ["q", "k", "v"]
            .iter()
            .zip(&weights)
            .map(|(name, weight)| Linear::new(like(weight, &x[0]), None).unwrap().named(name))
            .collect();
        let stacked = Linear::stacked(&maps.iter().collect::<Vec<_>>()).unwrap();
        let of = |i: usize| Some(LowRank { a: x[i].clone(), b: x[i + 1].clone(), scale: 1.5, router: None });
        let adapted = stacked
            .adapted(&mut |name, _| Ok(if name == "k" { None } else { of(if name == "q" { 0 } else { 2 }) }));
        let adapted = adapted.unwrap();
        assert!(adapted.is_trained() == x[0].track_op());
        let y = adapted.forward(&like(&input, &x[0])).unwrap();
        // What is adapted before it is stacked is the same.
        let apart: Vec<Linear> = maps
            .iter()
            .map(|map| {
                map.adapted(&mut |name, _| {
                    Ok(match name {
                        "q" => of(0),
                        "v" => of(2),
                        _ => None,
                    })
                })
                .unwrap()
            })
            .collect();
        let again = Linear::stacked(&apart.iter().collect::<Vec<_>>()).unwrap().forward(&like(&input, &x[0]));
        assert_eq!(max_diff(&y, &again.unwrap()), 0.0);
        y
    };
    let reference = |x: &[Tensor]| {
        let parts = [
            merged(&weights[0], &x[0], &x[1], 1.5),
            like(&weights[1], &x[0]),
            merged(&weights[2], &x[2], &x[3], 1.5),
        ];
        reference_linear(&like(&input, &x[0]), &Tensor::cat(&parts, 0).unwrap(), None)
    };
    verify("additions to parts of stacked maps", &x, &ours, &reference);
}

const D: usize = 32;
const N_HEADS: usize = 2;

/// Maps of a sublayer that read `D` and more, with an addition each: the sublayer's maps, and these with their additions in the weight.
struct Sublayers {
    dtype: DType,
    /// None: the additions are in the weights.
    scale: Option<f64>,
    factors: Vec<(Tensor, Tensor)>,
}

impl Sublayers {
    fn map(&self, seed: u64, n_out: usize, n_in: usize, index: usize) -> Linear {
        let weight = normal(seed, &[n_out, n_in], self.dtype);
        let (a, b) = &self.factors[index];
        match self.scale {
            None => Linear::new(merged(&weight, a, b, 0.3), None).unwrap(),
            Some(scale) => {
                let low_rank = LowRank { a: a.clone(), b: b.clone(), scale, router: None };
                let map = Linear::new(weight, None).unwrap().named("map");
                map.adapted(&mut |_, _| Ok(Some(low_rank.clone()))).unwrap()
            }
        }
    }

    fn norm(&self) -> Norm {
        Norm::rms(Tensor::ones(D, self.dtype, &Device::Cpu).unwrap(), 1e-6).unwrap()
    }

    fn attention(&self) -> AttentionSublayer {
        AttentionSublayer::new(AttentionWeights {
            pre: self.norm(),
            projection: self.map(1, 3 * D, D, 0),
            output: self.map(2, D, D, 1),
            post: Norm::identity(),
            n_heads: N_HEADS,
            n_kv_heads: N_HEADS,
            scale: 0.25,
        })
        .unwrap()
    }

    fn feed_forward(&self) -> FeedForwardSublayer {
        FeedForwardSublayer::new(FeedForwardWeights {
            pre: self.norm(),
            input: self.map(3, 2 * 40, D, 2),
            activation: Activation::Silu,
            gated: true,
            output: self.map(4, D, 40, 3),
            post: Norm::identity(),
        })
        .unwrap()
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.attention().forward(x, &AttentionBias::none().causal()).unwrap();
        self.feed_forward().forward(&y).unwrap()
    }
}

/// Widths of the maps of [`Sublayers`]: outputs and inputs.
const MAPS: [[usize; 2]; 4] = [[3 * D, D], [D, D], [80, D], [D, 40]];

fn factors(dtype: DType) -> Vec<Tensor> {
    let of = |(i, [n_out, n_in]): (usize, [usize; 2])| {
        [normal(50 + i as u64, &[4, n_in], dtype), normal(60 + i as u64, &[n_out, 4], dtype)]
    };
    MAPS.into_iter().enumerate().flat_map(of).collect()
}

fn pairs(factors: &[Tensor]) -> Vec<(Tensor, Tensor)> {
    factors.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

#[test]
fn sublayers_take_additions_along() {
    let mut x = vec![normal(7, &[3, 5, D], DType::F64)];
    x.extend(factors(DType::F64));
    let of = |x: &[Tensor], scale: Option<f64>| {
        Sublayers { dtype: x[0].dtype(), scale, factors: pairs(&x[1..]) }.forward(&x[0])
    };
    verify("sublayers with trained additions", &x, &|x| of(x, Some(0.3)), &|x| of(x, None));
    // Frozen, they are part of the fused operations, of which the input gets its gradient.
    let frozen = |x: &[Tensor], scale| {
        let factors = factors(DType::F64).iter().map(|t| like(t, &x[0])).collect::<Vec<_>>();
        Sublayers { dtype: x[0].dtype(), scale, factors: pairs(&factors) }.forward(&x[0])
    };
    verify("sublayers with frozen additions", &x[..1], &|x| frozen(x, Some(0.3)), &|x| frozen(x, None));
}

#[test]
fn an_observer_sees_what_maps_read() {
    let layers = Sublayers { dtype: DType::F32, scale: Some(0.3), factors: pairs(&factors(DType::F32)) };
    type Seen = Vec<(Vec<String>, Tensor)>;
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let kept = Arc::clone(&seen);
    let observer = Observer::new(move |names, input| {
        kept.lock().unwrap().push((names.iter().map(|&name| name.to_owned()).collect(), input.clone()));
    });
    let mut change = |map: &Linear| Ok(map.observed(&observer));
    let x = normal(7, &[3, 5, D], DType::F32);
    let attention = layers.attention();
    let fused = attention.forward(&x, &AttentionBias::none().causal()).unwrap();
    let apart =
        attention.with_maps(&mut change).unwrap().forward(&x, &AttentionBias::none().causal()).unwrap();
    assert!(max_diff(&fused, &apart) <= 1e-5 * abs_max(&fused));
    let feed_forward = layers.feed_forward();
    let observed = feed_forward.with_maps(&mut change).unwrap().forward(&apart).unwrap();
    assert!(max_diff(&feed_forward.forward(&apart).unwrap(), &observed) <= 1e-5 * abs_max(&observed));
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|(names, _)| names == &["map"]));
    let widths: Vec<&[usize]> = seen.iter().map(|(_, input)| input.dims()).collect();
    assert_eq!(widths, [&[3, 5, D][..], &[3, 5, D], &[3, 5, D], &[3, 5, 40]]);
    // The first map reads the input as the norm leaves it.
    let normed = layers.norm().forward(&x).unwrap();
    assert!(max_diff(&seen[0].1, &normed) <= 1e-6 * abs_max(&normed));
}

#[test]
fn steps_of_generation_take_additions_along() {
    let steps = |scale| {
        let layers = Sublayers { dtype: DType::F32, scale, factors: pairs(&factors(DType::F32)) };
        let (attention, feed_forward) = (layers.attention(), layers.feed_forward());
        let mut cache = KvCache::with_capacity(8);
        let mut written = Vec::new();
        for (i, n) in [3, 1, 1, 2].into_iter().enumerate() {
            let x = normal(i as u64, &[2, n, D], DType::F32);
            let y = attention.step(&x, &mut cache, &AttentionBias::none().causal()).unwrap();
            written.push(feed_forward.forward(&y).unwrap());
        }
        Tensor::cat(&written, 1).unwrap()
    };
    let (ours, want) = (steps(Some(0.3)), steps(None));
    let off = max_diff(&ours, &want);
    assert!(off <= 1e-5 * abs_max(&want), "off by {off:e}");
}

/// In training, without gradients, and in steps of generation.
#[test]
fn sublayers_take_experts_along() {
    let with_experts = |map: &Linear, x: &Tensor| {
        map.adapted(&mut |_, [n_out, n_in]| {
            let [a, b, r] = [(60, [4, n_in]), (70, [n_out, 4]), (80, [2, n_in])]
                .map(|(seed, dims)| normal(seed, &dims, DType::F64));
            Ok(Some(LowRank { a: like(&a, x), b: like(&b, x), scale: 0.3, router: Some(like(&r, x)) }))
        })
    };
    let forward = |x: &Tensor| {
        let layers = Sublayers { dtype: x.dtype(), scale: Some(0.3), factors: pairs(&factors(x.dtype())) };
        let attention = layers.attention().with_maps(&mut |map| with_experts(map, x)).unwrap();
        let feed_forward = layers.feed_forward().with_maps(&mut |map| with_experts(map, x)).unwrap();
        let mut cache = KvCache::with_capacity(8);
        let y = attention.forward(x, &AttentionBias::none().causal()).unwrap();
        let step = attention.step(x, &mut cache, &AttentionBias::none().causal());
        (feed_forward.forward(&y).unwrap(), step.map(|y| feed_forward.forward(&y).unwrap()))
    };
    let x = normal(7, &[2, 5, D], DType::F64);
    // The gradient of the input, against differences.
    verify("sublayers with experts", std::slice::from_ref(&x), &|x| forward(&x[0]).0, &|x| {
        forward(&like(&x[0], &x[0])).0
    });
    // With equal gates experts are one addition with a part of its scale.
    let equal = |x: &Tensor| {
        let layers = Sublayers { dtype: x.dtype(), scale: Some(0.6), factors: pairs(&factors(x.dtype())) };
        let mut with_router = |map: &Linear| {
            let [n_out, n_in] = [map.n_out(), map.n_in()];
            map.adapted(&mut |_, _| {
                let of = MAPS.iter().position(|dims| *dims == [n_out, n_in]).unwrap();
                let (a, b) = layers.factors[of].clone();
                let router = Tensor::zeros((2, n_in), x.dtype(), &Device::Cpu).unwrap();
                Ok(Some(LowRank { a, b, scale: 0.6, router: Some(router) }))
            })
        };
        let attention = layers.attention().with_maps(&mut with_router).unwrap();
        let feed_forward = layers.feed_forward().with_maps(&mut with_router).unwrap();
        feed_forward.forward(&attention.forward(x, &AttentionBias::none().causal()).unwrap()).unwrap()
    };
    let merged = |x: &Tensor| {
        Sublayers { dtype: x.dtype(), scale: None, factors: pairs(&factors(x.dtype())) }.forward(x)
    };
    verify("sublayers with equal gates", std::slice::from_ref(&x), &|x| equal(&x[0]), &|x| merged(&x[0]));
    let x = x.to_dtype(DType::F32).unwrap();
    let (whole, steps) = forward(&x);
    let off = max_diff(&whole, &steps.unwrap());
    assert!(off <= 1e-5 * abs_max(&whole), "off by {off:e}");
    let tracked = candle_core::Var::from_tensor(&x).unwrap();
    assert!(max_diff(&whole, &forward(tracked.as_tensor()).0) <= 1e-5 * abs_max(&whole));
}

#[test]
fn weights_as_they_are_stored_have_additions_too() {
    let (m, n_out, n_in) = (6, 24, 64);
    let weight: Vec<f32> = normal(1, &[n_out, n_in], DType::F32).flatten_all().unwrap().to_vec1().unwrap();
    let x = [
        normal(3, &[m, n_in], DType::F64),
        normal(4, &[8, n_in], DType::F64),
        normal(5, &[n_out, 8], DType::F64),
    ];
    for format in [Format::Bf16, Format::Q8_0, Format::Q4_0] {
        let matrix = Matrix::quantised("w", format, [n_out, n_in], &weight).unwrap();
        let widened = Tensor::from_vec(matrix.values().unwrap(), (n_out, n_in), &Device::Cpu).unwrap();
        let ours = |x: &[Tensor]| {
            let map = Linear::new(matrix.clone(), None).unwrap().named("map");
            let low_rank = LowRank { a: x[1].clone(), b: x[2].clone(), scale: 2.0, router: None };
            map.adapted(&mut |_, _| Ok(Some(low_rank.clone()))).unwrap().forward(&x[0]).unwrap()
        };
        let reference = |x: &[Tensor]| reference_linear(&x[0], &merged(&widened, &x[1], &x[2], 2.0), None);
        verify(&format!("an addition to {format:?}"), &x, &ours, &reference);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let map = || Linear::new(normal(1, &[4, 6], DType::F32), None).unwrap().named("map");
    let adapted = |a: &[usize], b: &[usize], dtype: DType| {
        let low_rank =
            LowRank { a: normal(2, a, dtype), b: normal(3, b, DType::F32), scale: 1.0, router: None };
        map().adapted(&mut |_, _| Ok(Some(low_rank.clone()))).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(adapted(&[2, 6], &[4, 2], DType::F32), Ok(()));
    for (a, b) in [([2, 5], [4, 2]), ([2, 6], [5, 2]), ([2, 6], [4, 3]), ([0, 6], [4, 0])] {
        let refused = adapted(&a, &b, DType::F32).unwrap_err();
        assert!(refused.contains("4x6"), "{refused}");
    }
    assert!(adapted(&[2, 6], &[4, 2], DType::F64).unwrap_err().contains("f32"));
    for router in [[3, 6], [2, 5], [0, 6]] {
        let [a, b, r] = [[2, 6], [4, 2], router].map(|dims| normal(2, &dims, DType::F32));
        let low_rank = LowRank { a, b, scale: 1.0, router: Some(r) };
        let refused = map().adapted(&mut |_, _| Ok(Some(low_rank.clone()))).unwrap_err().to_string();
        assert!(refused.contains("a router") && refused.contains("rank 2"), "{refused}");
    }
    // A weight that is trained itself.
    let weight = candle_core::Var::from_tensor(&normal(1, &[4, 6], DType::F32)).unwrap();
    let a = candle_core::Var::from_tensor(&normal(2, &[2, 6], DType::F32)).unwrap();
    for a in [a.as_tensor().clone(), normal(2, &[2, 6], DType::F32)] {
        let low_rank = LowRank { a, b: normal(3, &[4, 2], DType::F32), scale: 1.0, router: None };
        let trained = Linear::new(weight.as_tensor().clone(), None).unwrap().named("map");
        let trained = trained.adapted(&mut |_, _| Ok(Some(low_rank.clone()))).unwrap();
        let refused = trained.forward(&normal(4, &[3, 6], DType::F32)).unwrap_err().to_string();
        assert!(refused.contains("trained"), "{refused}");
    }
}
