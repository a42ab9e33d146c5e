//! Subspaces and projected steps under criterion; `cargo xtask bench algebra` times them beside PyTorch.

#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros, and a benchmark that cannot run may panic

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fwd_benches::algebra::{STEPS, SUBSPACES, StepBench, find_subspace, rows};
use fwd_linalg::ProjectAt;
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn subspaces(c: &mut Criterion) {
    let mut group = c.benchmark_group("subspace");
    group.sample_size(10);
    for (n, dim) in SUBSPACES {
        let z = rows(n, dim);
        group.throughput(Throughput::Elements((n * dim * dim) as u64));
        group.bench_function(BenchmarkId::new("cpu", format!("{n}x{dim}")), |b| {
            b.iter(|| black_box(find_subspace(&z, dim).unwrap()));
        });
    }
    group.finish();
}

fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("projected_adamw");
    group.sample_size(30);
    for (n, dim, rank) in STEPS {
        let name = format!("{n}x{dim}x{rank}");
        let mut bench = StepBench::new(n, dim, rank).unwrap();
        group.throughput(Throughput::Elements((8 * n * dim * rank) as u64));
        group.bench_function(BenchmarkId::new("cpu", &name), |b| {
            b.iter(|| bench.step(ProjectAt::Both).unwrap())
        });
        group.bench_function(BenchmarkId::new("cpu, update only", &name), |b| {
            b.iter(|| bench.step(ProjectAt::Update).unwrap());
        });
        group.bench_function(BenchmarkId::new("faer, products only", &name), |b| {
            b.iter(|| black_box(bench.products(2)))
        });
        group.bench_function(BenchmarkId::new("faer, separate calls", &name), |b| {
            b.iter(|| bench.separate_calls().unwrap())
        });
    }
    group.finish();
}

criterion_group!(benches, subspaces, steps);
criterion_main!(benches);
