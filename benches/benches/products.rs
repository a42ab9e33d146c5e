//! Products of f32 at each level of the processor, beside faer: weights that were packed once, and matrices that are used once.

#![allow(missing_docs)] // criterion's macros

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use fwd_simd::{Cpu, Level, Lhs, PANEL, Panels, gemm, multiply_panels};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `(m, k, n)` of attention: scores (the right factor turned) and contexts.
const ATTENTION: [(usize, usize, usize, bool); 8] = [
    (37, 32, 37, true),
    (37, 37, 32, false),
    (48, 64, 48, true),
    (48, 48, 64, false),
    (52, 64, 52, true),
    (52, 52, 64, false),
    (16, 64, 500, true),
    (16, 500, 64, false),
];

/// `(m, k, n)` of maps: activations `(m, k)`, weight `(n, k)`.
const WEIGHTS: [(usize, usize, usize); 7] = [
    (1, 576, 1536),
    (4, 576, 1536),
    (16, 576, 1536),
    (37, 192, 768),
    (300, 768, 768),
    (600, 3072, 768),
    (192, 2048, 5120),
];

/// Bytes of a weight that no cache holds.
const STREAMED: (usize, usize) = (4096, 16384);

fn levels() -> impl Iterator<Item = Cpu> {
    Cpu::all().filter(|cpu| cpu.level() <= Level::Avx512)
}

fn rows_mut(data: &mut [f32], m: usize, n: usize) -> MatMut<'_, f32> {
    MatMut::from_column_major_slice_mut(data, n, m).transpose_mut()
}

fn name((m, k, n): (usize, usize, usize)) -> String {
    format!("{m}x{k}x{n}")
}

fn dense(c: &mut Criterion) {
    let mut group = c.benchmark_group("products, dense");
    for (m, k, n, turned) in ATTENTION {
        let (a, b, mut y) = (vec![0.5f32; m * k], vec![0.25f32; k * n], vec![0f32; m * n]);
        let lhs = MatRef::from_row_major_slice(&a, m, k);
        let rhs = if turned {
            MatRef::from_column_major_slice(&b, k, n)
        } else {
            MatRef::from_row_major_slice(&b, k, n)
        };
        let shape = name((m, k, n));
        group.throughput(Throughput::Elements((2 * m * k * n) as u64));
        for cpu in levels() {
            group.bench_function(BenchmarkId::new(cpu.level().name(), &shape), |bench| {
                bench.iter(|| gemm(cpu, rows_mut(black_box(&mut y), m, n), Accum::Replace, lhs, rhs, 1.0));
            });
        }
        group.bench_function(BenchmarkId::new("faer", &shape), |bench| {
            bench.iter(|| matmul(rows_mut(black_box(&mut y), m, n), Accum::Replace, lhs, rhs, 1.0, Par::Seq));
        });
    }
    group.finish();
}

/// `y = x·Wᵀ` on one thread, with the packing of the activations.
fn forward(cpu: Cpu, w: &Panels<f32>, x: &[f32], y: &mut [f32]) {
    let (n, k) = (w.n_rows(), w.n_cols());
    let m = x.len() / k;
    let x = Lhs::<f32>::pack(cpu, MatRef::from_row_major_slice(x, m, k), 1.0);
    let mut rest = rows_mut(y, m, n);
    let mut jobs = Vec::with_capacity(w.n_panels());
    for i in 0..w.n_panels() {
        let (columns, other) = rest.split_at_col_mut(PANEL.min(n - i * PANEL));
        rest = other;
        jobs.push((w.panel(i), columns));
    }
    multiply_panels(&x, 0, &mut jobs, Accum::Replace);
}

fn packed(c: &mut Criterion) {
    let mut group = c.benchmark_group("products, packed");
    group.sample_size(20);
    for shape in WEIGHTS {
        let (m, k, n) = shape;
        let (x, w, mut y) = (vec![0.5f32; m * k], vec![0.25f32; n * k], vec![0f32; m * n]);
        group.throughput(Throughput::Elements((2 * m * k * n) as u64));
        for cpu in levels() {
            let packed = Panels::<f32>::pack(cpu, n, k, |i, out| out.copy_from_slice(&w[i * k..][..k]));
            group.bench_function(BenchmarkId::new(cpu.level().name(), name(shape)), |bench| {
                bench.iter(|| forward(cpu, &packed, &x, black_box(&mut y)));
            });
        }
        let lhs = MatRef::from_row_major_slice(&x, m, k);
        let rhs = MatRef::from_column_major_slice(&w, k, n);
        group.bench_function(BenchmarkId::new("faer", name(shape)), |bench| {
            bench.iter(|| matmul(rows_mut(black_box(&mut y), m, n), Accum::Replace, lhs, rhs, 1.0, Par::Seq));
        });
    }
    group.finish();
}

/// Weights from memory on one thread, beside copying: bytes read, and written where there are any.
fn streamed(c: &mut Criterion) {
    let mut group = c.benchmark_group("products, streamed");
    group.sample_size(10);
    let (k, n) = STREAMED;
    let bytes = (size_of::<f32>() * k * n) as u64;
    for m in [1, 2, 4] {
        let (x, mut y) = (vec![0.5f32; m * k], vec![0f32; m * n]);
        group.throughput(Throughput::Bytes(bytes));
        for cpu in levels() {
            let packed = Panels::<f32>::pack(cpu, n, k, |_, out| out.fill(0.25));
            group.bench_function(BenchmarkId::new(cpu.level().name(), name((m, k, n))), |bench| {
                bench.iter(|| forward(cpu, &packed, &x, black_box(&mut y)));
            });
        }
    }
    let (from, mut to) = (vec![1f32; k * n], vec![0f32; k * n]);
    group.throughput(Throughput::Bytes(2 * bytes));
    group.bench_function("copy", |bench| bench.iter(|| black_box(&mut to[..]).copy_from_slice(&from)));
    group.finish();
}

criterion_group!(benches, dense, packed, streamed);
criterion_main!(benches);
