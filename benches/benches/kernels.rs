//! The operations of the kernel crate under criterion, on the CPU and, with `--features cuda` and a GPU, there: one group an operation.
//!
//! The CPU has the shapes that it does in a reasonable time. GPU times are those of the device's own events.

#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros, and a benchmark that cannot run may panic

use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fwd_benches::algebra::StepBench;
use fwd_benches::gpu::{Case, PROJECTIONS, cases};
use fwd_kernels::Target;
use fwd_linalg::{Gram, ProjectAt};
use fwd_ops::{Activation, AttentionBias, Norm};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Products beyond this many operations are left to the GPU.
const MOST_FLOP: u64 = 20_000_000_000;

fn throughput(case: &Case) -> Throughput {
    if case.bytes > 0 { Throughput::Bytes(case.bytes) } else { Throughput::Elements(case.flop) }
}

/// Operation and shape of a case's name.
fn parts(case: &Case) -> (&str, &str) {
    case.name.split_once(' ').unwrap()
}

fn cpu(c: &mut Criterion) {
    let all = cases(&Target::H100).unwrap();
    let small: Vec<&Case> =
        all.iter().filter(|case| case.flop < MOST_FLOP && case.name.ends_with("f32")).collect();
    for (rows, d, rank) in PROJECTIONS {
        for case in small.iter().filter(|case| case.name.ends_with(&format!(" {rows}x{d}x{rank} f32"))) {
            let (op, shape) = parts(case);
            let mut bench = StepBench::new(rows, d, rank).unwrap();
            let mut group = c.benchmark_group(op);
            group.sample_size(10).throughput(throughput(case));
            group.bench_function(BenchmarkId::new("cpu", shape), |b| match op {
                "projection" => b.iter(|| bench.project().unwrap()),
                _ => b.iter(|| bench.step(ProjectAt::Both).unwrap()),
            });
        }
    }
    let random = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
    for case in small {
        let (op, shape) = parts(case);
        let sizes: Vec<usize> =
            shape.trim_end_matches(" f32").split('x').map(|n| n.parse().unwrap()).collect();
        let mut group = c.benchmark_group(op);
        group.sample_size(10).throughput(throughput(case));
        let id = BenchmarkId::new("cpu", shape);
        match (op, &sizes[..]) {
            ("gram", &[rows, d]) => {
                let z = random(&[rows, d]).flatten_all().unwrap().to_vec1::<f32>().unwrap();
                group.bench_function(id, |b| b.iter(|| Gram::new(d).push(black_box(&z)).unwrap()));
            }
            ("rms_norm", &[rows, d]) => {
                let norm = Norm::rms(random(&[d]), 1e-6).unwrap();
                let x = random(&[rows, d]);
                group.bench_function(id, |b| b.iter(|| norm.forward(&x).unwrap()));
            }
            ("gated_gelu", &[rows, d]) => {
                let h = random(&[rows, 2 * d]);
                group.bench_function(id, |b| b.iter(|| Activation::GeluTanh.forward_gated(&h).unwrap()));
            }
            ("softmax", &[batch, heads, t_q, t_k]) => {
                let bias = AttentionBias::none().with_position(&random(&[heads, t_q, t_k])).unwrap();
                let scores = random(&[batch, heads, t_q, t_k]);
                group.bench_function(id, |b| b.iter(|| fwd_ops::softmax(&scores, &bias).unwrap()));
            }
            _ => {}
        }
        group.finish();
    }
}

#[cfg(feature = "cuda")]
fn cuda(c: &mut Criterion) {
    use fwd_kernels::Executor;
    let device = match fwd_kernels::Device::open(0) {
        Ok(device) => device,
        Err(error) => return eprintln!("{error}"),
    };
    for case in &cases(&device.target()).unwrap() {
        let (op, shape) = parts(case);
        let mut prepared = fwd_benches::gpu_run::Prepared::new(&device, case).unwrap();
        let mut group = c.benchmark_group(op);
        group.throughput(throughput(case));
        group.bench_function(BenchmarkId::new("cuda", shape), |b| {
            b.iter_custom(|n| (0..n).map(|_| prepared.run().unwrap()).sum());
        });
        group.finish();
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: &mut Criterion) {}

criterion_group!(benches, cpu, cuda);
criterion_main!(benches);
