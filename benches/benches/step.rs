//! The four things a researcher waits for, under criterion; `cargo xtask bench step` times them beside PyTorch.

#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros, and a benchmark that cannot run may panic

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fwd_benches::algebra::StepBench;
use fwd_benches::{Bench, Kind, Size, config};
use fwd_linalg::ProjectAt;
use fwd_ops::Compute;
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn steps(c: &mut Criterion) {
    for (size, name) in [(Size::Small, "small"), (Size::Base, "base")] {
        let mut bench = Bench::new(size, Kind::Blip2, Compute::F32, 1).unwrap();
        let mut group = c.benchmark_group("step");
        group.sample_size(20);
        group.bench_function(BenchmarkId::new("vision", name), |b| {
            b.iter(|| black_box(bench.features().unwrap()))
        });
        group.bench_function(BenchmarkId::new("train_cached", name), |b| {
            b.iter(|| black_box(bench.step_cached().unwrap()));
        });
        // The share of the projection: the whole projected optimiser step of a pool of 160 tokens, half of the space forbidden.
        let dim = config(size, Kind::Blip2).text.d_model();
        let mut pool = StepBench::new(160, dim, dim / 2).unwrap();
        group.bench_function(BenchmarkId::new("projected_adamw", name), |b| {
            b.iter(|| pool.step(ProjectAt::Both).unwrap());
        });
        group.bench_function(BenchmarkId::new("train_full", name), |b| {
            b.iter(|| black_box(bench.step_full().unwrap()));
        });
        group.bench_function(BenchmarkId::new("generate", name), |b| {
            b.iter(|| black_box(bench.generate().unwrap()))
        });
        group.finish();
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
