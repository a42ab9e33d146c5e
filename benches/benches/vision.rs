//! Images a second of EfficientNet-Lite0 at 128 px, forward only, for several batch sizes.

#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros, and a benchmark that cannot run may panic

use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fwd_models::EfficientNetLite0;
use std::hint::black_box;
use std::path::Path;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn lite0(c: &mut Criterion) {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/mini/vision.safetensors");
    let model = EfficientNetLite0::load(&weights).unwrap();
    let mut group = c.benchmark_group("efficientnet_lite0");
    group.sample_size(20);
    for batch in [1, 16, 64] {
        let pixels = Tensor::rand(-1f32, 1.0, (batch, 3, 128, 128), &Device::Cpu).unwrap();
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new("128px", batch), |b| {
            b.iter(|| black_box(model.forward(&pixels).unwrap()));
        });
    }
    group.finish();
}

criterion_group!(benches, lite0);
criterion_main!(benches);
