//! How fast products of one row of activations stream a stored matrix that no cache holds, beside copying memory: GB of the matrix a
//! second for one thread and for two, best of several passes.
//!
//! `cargo run --release -p fwd-simd --example stored_rows [MiB of the matrix]`
#![allow(clippy::print_stdout)]

use fwd_simd::{Cpu, Format, Rounded, products, rounded_products};
use std::time::Instant;

const N_COLS: usize = 2048;
const PASSES: usize = 7;

/// The best rate of several passes over shares of the work, in GB/s.
fn rate(n_threads: usize, n_bytes: usize, share: impl Fn(usize) + Sync) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let start = Instant::now();
        std::thread::scope(|scope| {
            (1..n_threads).for_each(|i| {
                let share = &share;
                scope.spawn(move || share(i));
            });
            share(0);
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    n_bytes as f64 / best / 1e9
}

fn main() {
    let mib: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(128);
    let cpu = Cpu::current();
    let (from, mut to) = (vec![1u8; mib << 20], vec![0u8; mib << 20]);
    for n_threads in [1, 2] {
        let size = from.len() / n_threads;
        let mut best = f64::INFINITY;
        for _ in 0..PASSES {
            let start = Instant::now();
            std::thread::scope(|scope| {
                for (to, from) in to.chunks_mut(size).zip(from.chunks(size)) {
                    scope.spawn(move || to.copy_from_slice(from));
                }
            });
            best = best.min(start.elapsed().as_secs_f64());
        }
        println!(
            "copy, {n_threads} threads: {:.1} GB/s read and as much written",
            from.len() as f64 / best / 1e9
        );
        let sum = |part: &[u8]| part.as_chunks::<8>().0.iter().fold(0u64, |s, b| s ^ u64::from_le_bytes(*b));
        let read = rate(n_threads, from.len(), |i| {
            std::hint::black_box(fwd_simd::vectorize(
                #[inline(always)]
                || sum(&from[i * size..][..size]),
            ));
        });
        println!("read, {n_threads} threads: {read:.1} GB/s");
    }
    println!("{:?}", cpu.level());
    let x: Vec<f32> = (0..N_COLS).map(|i| (i as f32).sin()).collect();
    let rounded = Rounded::new(&x, N_COLS);
    println!("{:>6} {:>14} {:>14} {:>14} {:>14}", "format", "f32 1 thread", "f32 2", "8 bits 1", "8 bits 2");
    for format in Format::ALL {
        let row_bytes = format.row_bytes(N_COLS);
        let n_rows = (mib << 20) / row_bytes / 128 * 128;
        // Random codes; zero where scales lie, which costs the same as any number.
        let mut bytes: Vec<u8> = (0..n_rows * row_bytes).map(|i| ((i * 37) >> 3) as u8 & 0x3f).collect();
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            format.scale_places().iter().for_each(|&at| block[at + 1] = 0x2c);
        }
        let run = |n_threads: usize, in_8_bits: bool| {
            let per_thread = n_rows / n_threads;
            rate(n_threads, bytes.len(), |i| {
                let mut y = [0f32; 64];
                for first in (i * per_thread..(i + 1) * per_thread).step_by(64) {
                    let rows = &bytes[first * row_bytes..][..64 * row_bytes];
                    if in_8_bits {
                        rounded_products(cpu, format, rows, &rounded, &mut y);
                    } else {
                        products(cpu, format, rows, &x, N_COLS, &mut y);
                    }
                    std::hint::black_box(&y);
                }
            })
        };
        let exact = [run(1, false), run(2, false)];
        let in_8_bits = if format.block_len() > 1 { [run(1, true), run(2, true)] } else { [0.0; 2] };
        let [a, b] = exact;
        let [c, d] = in_8_bits;
        println!("{:>6} {a:>14.1} {b:>14.1} {c:>14.1} {d:>14.1}", format.name());
    }
}
