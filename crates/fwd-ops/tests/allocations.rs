//! A step of generation allocates its results and hardly anything else: working memory is handed on from step to step.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

use candle_core::{Device, Tensor};
use fwd_ops::{
    Activation, AttentionBias, AttentionSublayer, AttentionWeights, FeedForwardSublayer, FeedForwardWeights,
    KvCache, Linear, Norm, in_pool,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, which adds up what is asked of it.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the arguments that came in.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the memory came from `System` with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const D: usize = 256;
const HIDDEN: usize = 2048;

fn linear(n_out: usize, n_in: usize) -> Linear {
    let weight = Tensor::randn(0f32, 0.05, (n_out, n_in), &Device::Cpu).unwrap();
    Linear::new(weight, None).unwrap()
}

fn norm() -> Norm {
    Norm::rms(Tensor::ones(D, candle_core::DType::F32, &Device::Cpu).unwrap(), 1e-5).unwrap()
}

#[test]
fn a_step_allocates_its_results_and_headers() {
    let attention = AttentionSublayer::new(AttentionWeights {
        pre: norm(),
        projection: linear(3 * D, D),
        output: linear(D, D),
        post: Norm::identity(),
        n_heads: 4,
        n_kv_heads: 4,
        scale: 0.125,
    })
    .unwrap();
    let feed_forward = FeedForwardSublayer::new(FeedForwardWeights {
        pre: norm(),
        input: linear(2 * HIDDEN, D),
        activation: Activation::Silu,
        gated: true,
        output: linear(D, HIDDEN),
        post: Norm::identity(),
    })
    .unwrap();
    let (steps, bias) = (40, AttentionBias::none());
    let mut cache = KvCache::with_capacity(steps);
    let x = Tensor::randn(0f32, 1.0, (1, 1, D), &Device::Cpu).unwrap();
    let mut bytes = Vec::new();
    in_pool(|| {
        for _ in 0..steps {
            let before = BYTES.load(Relaxed);
            let y = attention.step(&x, &mut cache, &bias).unwrap();
            feed_forward.forward(&y).unwrap();
            bytes.push(BYTES.load(Relaxed) - before);
        }
    });
    // Each sublayer has one result of `D` floats. Beside it there are the headers of its tensor (shape, strides, storage, reference counts)
    // and the lists of the parts of two matrices, each below 1 KiB. The smallest working memory, the projection, is larger than that.
    let allowed = 2 * (D * size_of::<f32>() + 1024);
    assert!(allowed < 2 * D * size_of::<f32>() + 3 * D * size_of::<f32>());
    // The first steps make the working memory of each thread; a thread may come late.
    let least = bytes.iter().min().unwrap();
    assert!(*least <= allowed, "{least} bytes, {allowed} expected; {bytes:?}");
}
