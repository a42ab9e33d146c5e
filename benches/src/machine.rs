//! What the machine can do at most: bytes that its memory copies and gives, and products that its cores do, with all threads of the pool.

use faer::{Accum, Mat};
use fwd_simd::{Cpu, Element, Lhs, PANEL, Panels, multiply, vectorize};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// Bytes of a buffer: far more than the caches hold.
const BYTES: usize = 512 << 20;

/// The best of several runs, in seconds a run.
fn best(n: usize, mut run: impl FnMut()) -> f64 {
    let clock = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    clock(&mut run);
    (0..n).map(|_| clock(&mut run)).fold(f64::INFINITY, f64::min)
}

/// The bandwidth of a copy in 10⁹ bytes a second, where a byte that is read and written counts twice, as in STREAM (McCalpin 1995).
pub fn copy_gb_s() -> f64 {
    let from = vec![1u64; BYTES / 8];
    let mut to = vec![2u64; BYTES / 8];
    let piece = from.len().div_ceil(rayon::current_num_threads());
    let seconds = best(7, || {
        to.par_chunks_mut(piece).zip(from.par_chunks(piece)).for_each(|(to, from)| to.copy_from_slice(from));
        black_box(&mut to);
    });
    2.0 * BYTES as f64 / seconds / 1e9
}

/// The bandwidth of reading in 10⁹ bytes a second.
pub fn read_gb_s() -> f64 {
    let from = vec![1u64; BYTES / 8];
    let piece = from.len().div_ceil(rayon::current_num_threads());
    let seconds = best(7, || {
        let folded = from.par_chunks(piece).map(|from| {
            vectorize(
                #[inline(always)]
                || {
                    let mut lanes = [0u64; 64];
                    for chunk in from.chunks_exact(64) {
                        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane ^= x);
                    }
                    lanes.iter().fold(0, |a, b| a ^ b)
                },
            )
        });
        black_box(folded.reduce(|| 0, |a, b| a ^ b));
    });
    BYTES as f64 / seconds / 1e9
}

/// 10⁹ operations a second of our own products, `(48, 256)` with a panel, with operands that stay in the cache of a core.
pub fn gflop_s<T: Element>() -> f64 {
    const ROWS: usize = 48;
    const DEPTH: usize = 256;
    const PRODUCTS: usize = 4000;
    let cpu = Cpu::current();
    let value = |i: usize, j: usize| ((i * 7 + j) % 13) as f32 / 13.0;
    let seconds = best(5, || {
        rayon::broadcast(|_| {
            let x = Mat::from_fn(ROWS, DEPTH, value);
            let x = Lhs::<T>::pack(cpu, x.as_ref(), 1.0);
            let panels = Panels::<T>::pack(cpu, PANEL, DEPTH, |i, row| {
                row.iter_mut().enumerate().for_each(|(j, out)| *out = value(i, j));
            });
            // The transpose of a column-major matrix, whose columns lie side by side.
            let mut y = Mat::<f32>::zeros(PANEL, ROWS);
            for _ in 0..PRODUCTS {
                multiply(&x, 0, black_box(panels.panel(0)), y.as_mut().transpose_mut(), Accum::Replace);
            }
            black_box(y);
        });
    });
    let threads = rayon::current_num_threads();
    (2 * ROWS * DEPTH * PANEL * PRODUCTS * threads) as f64 / seconds / 1e9
}
