//! Parameters that are tracked: every one gets the gradient that a reference and finite differences give it.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{DType, Device, Tensor};
use common::*;
use fwd_ops::{
    Activation, AttentionBias, AttentionSublayer, AttentionWeights, FeedForwardSublayer, FeedForwardWeights,
    Linear, Norm, attention,
};

#[test]
fn trained_linear_maps_and_norms() {
    for (rows, n_in, n_out) in [(1, 1, 1), (7, 5, 3), (130, 64, 40)] {
        let x = [[rows, n_in], [n_out, n_in]].into_iter().enumerate();
        let mut x: Vec<Tensor> = x.map(|(i, dims)| normal(i as u64, &dims, DType::F64)).collect();
        x.push(normal(9, &[n_out], DType::F64));
        let linear =
            |x: &[Tensor]| Linear::new(x[1].clone(), x.get(2).cloned()).unwrap().forward(&x[0]).unwrap();
        let reference = |x: &[Tensor]| reference_linear(&x[0], &x[1], x.get(2));
        verify(&format!("trained linear {rows}x{n_in}x{n_out}"), &x, &linear, &reference);
        verify(&format!("trained linear, no bias {rows}x{n_in}x{n_out}"), &x[..2], &linear, &reference);
        let parts = |x: &[Tensor]| {
            let [a, b] = [1, 2].map(|i| Linear::new(x[i].clone(), None).unwrap());
            Linear::stacked(&[&a, &b]).unwrap().forward(&x[0]).unwrap()
        };
        let stacked = [x[0].clone(), x[1].clone(), normal(3, &[2, n_in], DType::F64)];
        verify("stacked trained maps", &stacked, &parts, &|x| {
            Tensor::cat(&[reference_linear(&x[0], &x[1], None), reference_linear(&x[0], &x[2], None)], 1)
                .unwrap()
        });
    }
    for dims in [vec![4, 17], vec![2, 3, 64]] {
        let d = *dims.last().unwrap();
        let x = [normal(3, &dims, DType::F64), normal(1, &[d], DType::F64), normal(2, &[d], DType::F64)];
        let rms = |x: &[Tensor]| Norm::rms(x[1].clone(), 1e-6).unwrap().forward(&x[0]).unwrap();
        verify("trained rms norm", &x[..2], &rms, &|x| reference_rms(&x[0], &x[1], 1e-6));
        let layer =
            |x: &[Tensor]| Norm::layer(x[1].clone(), x[2].clone(), 1e-5).unwrap().forward(&x[0]).unwrap();
        verify("trained layer norm", &x, &layer, &|x| reference_layer_norm(&x[0], &x[1], &x[2], 1e-5));
    }
}

/// Input 3 is the position bias, which is summed over the batch.
#[test]
fn attention_with_a_trained_position_bias() {
    for (b, h, t_q, t_k, d_head) in ATTENTION_SHAPES {
        let width = h * d_head;
        let mut x: Vec<Tensor> = [t_q, t_k, t_k]
            .iter()
            .enumerate()
            .map(|(i, &t)| normal(i as u64, &[b, t, width], DType::F64))
            .collect();
        x.push(normal(7, &[h, t_q, t_k], DType::F64));
        let mask: Vec<Vec<f64>> = (0..b)
            .map(|e| (0..t_k).map(|j| f64::from(u8::from(j == 0 || (j + e) % 3 != 0))).collect())
            .collect();
        let mask_tensor = Tensor::new(mask.clone(), &Device::Cpu).unwrap();
        let hidden = dense_bias(None, Some(&mask), false, [b, h, t_q, t_k]);
        let ours = |x: &[Tensor]| {
            let bias = AttentionBias::none().with_position(&x[3]).unwrap();
            let bias = bias.with_padding_mask(&mask_tensor).unwrap().to_dtype(x[0].dtype()).unwrap();
            attention(&x[0], &x[1], &x[2], h, 0.7, &bias).unwrap()
        };
        let reference = |x: &[Tensor]| {
            let dense = like(&hidden, &x[0]).broadcast_add(&x[3]).unwrap();
            reference_attention(&x[0], &x[1], &x[2], h, 0.7, &dense)
        };
        verify(&format!("trained position bias b{b} h{h} {t_q}x{t_k}"), &x, &ours, &reference);
    }
}

/// Every parameter of a sublayer gets the gradient that its parts give it, and the values are those of the fused operation.
#[test]
fn trained_sublayers() {
    let (b, t, t_k, d, h, width, hidden) = (3, 5, 4, 6, 2, 8, 7);
    let vector = |seed, n: usize| normal(seed, &[n], DType::F64);
    let attention_of = |x: &[Tensor], n: usize| AttentionWeights {
        pre: Norm::rms(x[n].clone(), 1e-6).unwrap(),
        projection: Linear::new(x[n + 1].clone(), Some(x[n + 2].clone())).unwrap(),
        output: Linear::new(x[n + 3].clone(), None).unwrap(),
        post: Norm::layer(x[n + 4].clone(), x[n + 5].clone(), 1e-5).unwrap(),
        n_heads: h,
        n_kv_heads: h,
        scale: 0.8,
    };
    let parameters = |parts: usize| {
        [
            vector(20, d),
            normal(21, &[parts * width, d], DType::F64),
            vector(22, parts * width),
            normal(23, &[d, width], DType::F64),
            vector(24, d),
            vector(25, d),
        ]
    };
    let rest = |x: &[Tensor], c: &AttentionWeights, [q, k, v]: [Tensor; 3]| {
        let none = Tensor::zeros((b, h, 1, 1), x[0].dtype(), &Device::Cpu).unwrap();
        let dense =
            none.broadcast_add(&Tensor::zeros((t, k.dim(1).unwrap()), x[0].dtype(), &Device::Cpu).unwrap());
        let context = reference_attention(&q, &k, &v, h, 0.8, &dense.unwrap());
        c.post.forward(&(&x[0] + c.output.forward(&context).unwrap()).unwrap()).unwrap()
    };
    let part = |t: &Tensor, i: usize| t.narrow(2, i * width, width).unwrap();
    let query =
        |x: &[Tensor], c: &AttentionWeights| c.projection.forward(&c.pre.forward(&x[0]).unwrap()).unwrap();

    let mut x = vec![normal(1, &[b, t, d], DType::F64)];
    x.extend(parameters(3));
    let ours = |x: &[Tensor]| {
        AttentionSublayer::new(attention_of(x, 1)).unwrap().forward(&x[0], &AttentionBias::none()).unwrap()
    };
    let reference = |x: &[Tensor]| {
        let c = attention_of(x, 1);
        let qkv = query(x, &c);
        rest(x, &c, [0, 1, 2].map(|i| part(&qkv, i)))
    };
    verify("trained self-attention sublayer", &x, &ours, &reference);

    let mut x = vec![normal(1, &[b, t, d], DType::F64), normal(2, &[b, t_k, 2 * width], DType::F64)];
    x.extend(parameters(1));
    let ours = |x: &[Tensor]| {
        let layer = AttentionSublayer::new(attention_of(x, 2)).unwrap();
        layer.forward_cross(&x[0], &x[1], &AttentionBias::none()).unwrap()
    };
    let reference = |x: &[Tensor]| {
        let c = attention_of(x, 2);
        rest(x, &c, [query(x, &c), part(&x[1], 0), part(&x[1], 1)])
    };
    verify("trained cross-attention sublayer", &x, &ours, &reference);

    for gated in [false, true] {
        let wide = if gated { 2 * hidden } else { hidden };
        let x = [
            normal(1, &[9, d], DType::F64),
            vector(2, d),
            normal(3, &[wide, d], DType::F64),
            normal(4, &[d, hidden], DType::F64),
        ];
        let config = |x: &[Tensor]| FeedForwardWeights {
            pre: Norm::rms(x[1].clone(), 1e-6).unwrap(),
            input: Linear::new(x[2].clone(), None).unwrap(),
            activation: Activation::GeluTanh,
            gated,
            output: Linear::new(x[3].clone(), None).unwrap(),
            post: Norm::identity(),
        };
        let ours = |x: &[Tensor]| FeedForwardSublayer::new(config(x)).unwrap().forward(&x[0]).unwrap();
        let reference = |x: &[Tensor]| {
            let h = reference_linear(&reference_rms(&x[0], &x[1], 1e-6), &x[2], None);
            let act = Activation::GeluTanh;
            let a = if gated { act.forward_gated(&h) } else { act.forward(&h) };
            (&x[0] + reference_linear(&a.unwrap(), &x[3], None)).unwrap()
        };
        verify(&format!("trained feed-forward sublayer, gated {gated}"), &x, &ours, &reference);
    }
}
