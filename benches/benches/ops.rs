//! Forward and backward of each operation against the same work in candle's own operations, shapes of FlanT5-base and
//! of the `base` model of the step benchmark.

#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros, and a benchmark that cannot run may panic

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{D, DType, Device, Module, Tensor, Var};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fwd_ops::{
    Activation, AttentionBias, AttentionSublayer, AttentionWeights, FeedForwardSublayer, FeedForwardWeights,
    Format, Linear, Matrix, Norm, backward, in_pool, softmax,
};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn normal(dims: &[usize], std: f64) -> Tensor {
    Tensor::randn(0f64, std, dims, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap()
}

/// Forward and backward to the input.
fn step(x: &Var, f: &dyn Fn(&Tensor) -> Tensor) {
    let loss = f(x).sum_all().unwrap();
    black_box(backward(&loss, &[("x", x)]).unwrap());
}

type Function = Box<dyn Fn(&Tensor) -> Tensor>;

/// Times ours and candle's in one group; both must agree first.
fn compare(
    c: &mut Criterion,
    group: &str,
    shape: &str,
    work: Throughput,
    x: &Tensor,
    ours: Function,
    candle: Function,
) {
    let (a, b) = (ours(x), candle(x));
    let off = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(off < 1e-3, "{group} {shape}: the two differ by {off}");
    let x = Var::from_tensor(x).unwrap();
    let mut group = c.benchmark_group(group);
    group.throughput(work).sample_size(20);
    for (backend, f) in [("fwd-ops", ours), ("candle", candle)] {
        group.bench_function(BenchmarkId::new(backend, shape), |b| b.iter(|| step(&x, &*f)));
    }
    group.finish();
}

fn flop(n: usize) -> Throughput {
    Throughput::Elements(n as u64)
}

fn bytes(elements: usize) -> Throughput {
    Throughput::Bytes(4 * elements as u64)
}

fn linear(c: &mut Criterion) {
    for (m, n_in, n_out) in [(768, 256, 768), (768, 768, 2048), (128, 256, 4096)] {
        let weight = normal(&[n_out, n_in], 0.05);
        let frozen = Linear::new(weight.clone(), None).unwrap();
        let ours: Function = Box::new(move |x| frozen.forward(x).unwrap());
        let candle: Function = Box::new(move |x| x.matmul(&weight.t().unwrap()).unwrap());
        let shape = format!("{m}x{n_in}x{n_out}");
        compare(
            c,
            "frozen_linear",
            &shape,
            flop(4 * m * n_in * n_out),
            &normal(&[m, n_in], 1.0),
            ours,
            candle,
        );
    }
}

/// Products with a matrix that stays in its format, beside candle's dense product and its product with the same blocks (`QMatMul`, which
/// rounds the activations to 8 bits and has no backward).
fn stored_linear(c: &mut Criterion) {
    let (n_out, n_in) = (2048, 2048);
    let weight = normal(&[n_out, n_in], 0.05);
    let values: Vec<f32> = weight.flatten_all().unwrap().to_vec1().unwrap();
    let mut group = c.benchmark_group("stored_linear");
    group.sample_size(20);
    for format in [Format::F32, Format::Bf16, Format::Q8_0, Format::Q4_0] {
        let matrix = Matrix::quantised("weight", format, [n_out, n_in], &values).unwrap();
        let n_bytes = matrix.n_bytes();
        let ours = Linear::new(matrix, None).unwrap();
        let blocks = match format {
            Format::Q8_0 => Some(GgmlDType::Q8_0),
            Format::Q4_0 => Some(GgmlDType::Q4_0),
            _ => None,
        };
        let candle: Option<Function> = match blocks {
            Some(blocks) => {
                let blocks = QMatMul::from_qtensor(QTensor::quantize(&weight, blocks).unwrap()).unwrap();
                Some(Box::new(move |x| blocks.forward(x).unwrap()))
            }
            None if format == Format::F32 => {
                let weight = weight.clone();
                Some(Box::new(move |x| x.matmul(&weight.t().unwrap()).unwrap()))
            }
            None => None,
        };
        for m in [1, 128] {
            let x = normal(&[m, n_in], 1.0);
            group.throughput(if m == 1 {
                Throughput::Bytes(n_bytes as u64)
            } else {
                flop(2 * m * n_in * n_out)
            });
            let shape = format!("{format}/forward/{m}x{n_in}x{n_out}");
            group.bench_function(BenchmarkId::new("fwd-ops", &shape), |b| {
                b.iter(|| in_pool(|| black_box(ours.forward(&x).unwrap())));
            });
            if let Some(candle) = &candle {
                group
                    .bench_function(BenchmarkId::new("candle", &shape), |b| b.iter(|| black_box(candle(&x))));
            }
        }
        let m = 128;
        let x = Var::from_tensor(&normal(&[m, n_in], 1.0)).unwrap();
        group.throughput(flop(4 * m * n_in * n_out));
        let shape = format!("{format}/forward and backward/{m}x{n_in}x{n_out}");
        group.bench_function(BenchmarkId::new("fwd-ops", &shape), |b| {
            b.iter(|| step(&x, &|x| ours.forward(x).unwrap()));
        });
        if let (Some(candle), Format::F32) = (&candle, format) {
            group.bench_function(BenchmarkId::new("candle", &shape), |b| b.iter(|| step(&x, &**candle)));
        }
    }
    group.finish();
}

fn candle_rms(x: &Tensor, weight: &Tensor) -> Tensor {
    let scale = (x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap() + 1e-6).unwrap().sqrt().unwrap();
    x.broadcast_div(&scale).unwrap().broadcast_mul(weight).unwrap()
}

fn norm(c: &mut Criterion) {
    for d in [256, 768, 2048] {
        let weight = normal(&[d], 1.0);
        let rms = Norm::rms(weight.clone(), 1e-6).unwrap();
        let ours: Function = Box::new(move |x| rms.forward(x).unwrap());
        let candle: Function = Box::new(move |x| candle_rms(x, &weight));
        compare(
            c,
            "rms_norm",
            &format!("768x{d}"),
            bytes(5 * 768 * d),
            &normal(&[768, d], 1.0),
            ours,
            candle,
        );
    }
}

fn gated_gelu(c: &mut Criterion) {
    for n in [512, 2048] {
        let ours: Function = Box::new(|h| Activation::GeluTanh.forward_gated(h).unwrap());
        let candle: Function = Box::new(move |h| {
            let (gate, up) = (h.narrow(1, 0, n).unwrap(), h.narrow(1, n, n).unwrap());
            (gate.contiguous().unwrap().gelu().unwrap() * up).unwrap()
        });
        compare(
            c,
            "gated_gelu",
            &format!("768x{n}"),
            bytes(8 * 768 * n),
            &normal(&[768, 2 * n], 1.0),
            ours,
            candle,
        );
    }
}

fn candle_softmax(scores: &Tensor) -> Tensor {
    let e = scores.broadcast_sub(&scores.max_keepdim(D::Minus1).unwrap()).unwrap().exp().unwrap();
    e.broadcast_div(&e.sum_keepdim(D::Minus1).unwrap()).unwrap()
}

fn softmax_rows(c: &mut Criterion) {
    for (b, h, t) in [(16, 8, 48), (8, 12, 128)] {
        let scores = normal(&[b, h, t, t], 1.0);
        let ours: Function = Box::new(|s| softmax(s, &AttentionBias::none()).unwrap());
        let work = bytes(5 * scores.elem_count());
        compare(c, "softmax", &format!("{b}x{h}x{t}x{t}"), work, &scores, ours, Box::new(candle_softmax));
    }
}

fn attention(c: &mut Criterion) {
    for (b, t, h, d_head) in [(16, 48, 8, 32), (4, 128, 12, 64)] {
        let d = h * d_head;
        let [qkv, out] = [normal(&[3 * d, d], 0.05), normal(&[d, d], 0.05)];
        let weight = normal(&[d], 1.0);
        let layer = AttentionSublayer::new(AttentionWeights {
            pre: Norm::rms(weight.clone(), 1e-6).unwrap(),
            projection: Linear::new(qkv.clone(), None).unwrap(),
            output: Linear::new(out.clone(), None).unwrap(),
            post: Norm::identity(),
            n_heads: h,
            n_kv_heads: h,
            scale: 1.0,
        })
        .unwrap();
        let ours: Function = Box::new(move |x| layer.forward(x, &AttentionBias::none()).unwrap());
        let candle: Function = Box::new(move |x| {
            let flat = candle_rms(x, &weight).reshape((b * t, d)).unwrap();
            let qkv = flat.matmul(&qkv.t().unwrap()).unwrap().reshape((b, t, 3, h, d_head)).unwrap();
            let part = |i: usize| {
                qkv.narrow(2, i, 1)
                    .unwrap()
                    .squeeze(2)
                    .unwrap()
                    .transpose(1, 2)
                    .unwrap()
                    .contiguous()
                    .unwrap()
            };
            let scores = part(0).matmul(&part(1).t().unwrap().contiguous().unwrap()).unwrap();
            let context = candle_softmax(&scores).matmul(&part(2)).unwrap().transpose(1, 2).unwrap();
            let context = context.contiguous().unwrap().reshape((b * t, d)).unwrap();
            (x + context.matmul(&out.t().unwrap()).unwrap().reshape((b, t, d)).unwrap()).unwrap()
        });
        let work = flop(2 * b * t * (8 * d * d + 2 * t * d) + 8 * b * t * t * d);
        compare(
            c,
            "attention_sublayer",
            &format!("{b}x{t}x{d}"),
            work,
            &normal(&[b, t, d], 1.0),
            ours,
            candle,
        );
    }
}

fn feed_forward(c: &mut Criterion) {
    for (m, d, hidden) in [(768, 256, 512), (512, 768, 2048)] {
        let [gate_up, out] = [normal(&[2 * hidden, d], 0.05), normal(&[d, hidden], 0.05)];
        let weight = normal(&[d], 1.0);
        let layer = FeedForwardSublayer::new(FeedForwardWeights {
            pre: Norm::rms(weight.clone(), 1e-6).unwrap(),
            input: Linear::new(gate_up.clone(), None).unwrap(),
            activation: Activation::GeluTanh,
            gated: true,
            output: Linear::new(out.clone(), None).unwrap(),
            post: Norm::identity(),
        })
        .unwrap();
        let ours: Function = Box::new(move |x| layer.forward(x).unwrap());
        let candle: Function = Box::new(move |x| {
            let h = candle_rms(x, &weight).matmul(&gate_up.t().unwrap()).unwrap();
            let (gate, up) = (h.narrow(1, 0, hidden).unwrap(), h.narrow(1, hidden, hidden).unwrap());
            let act = (gate.contiguous().unwrap().gelu().unwrap() * up).unwrap();
            (x + act.matmul(&out.t().unwrap()).unwrap()).unwrap()
        });
        let work = flop(4 * m * 3 * d * hidden);
        compare(
            c,
            "feed_forward_sublayer",
            &format!("{m}x{d}x{hidden}"),
            work,
            &normal(&[m, d], 1.0),
            ours,
            candle,
        );
    }
}

criterion_group!(benches, linear, stored_linear, norm, gated_gelu, softmax_rows, attention, feed_forward);
criterion_main!(benches);
