//! Every share of a section runs once, whoever else wants the team, and a panic gets through.

use fwd_simd::{fork, fork_chunks, fork_columns};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

fn runs_of(n: usize, body: impl Fn(usize) + Sync) -> Vec<usize> {
    let runs: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
    fork(n, |share| {
        runs[share].fetch_add(1, Relaxed);
        body(share);
    });
    runs.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn every_share_runs_once_for_any_number_of_them() {
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..2000 {
        let n = rng.random_range(0..9);
        // Now and then the threads have gone to sleep.
        if rng.random_bool(0.01) {
            std::thread::sleep(Duration::from_micros(300));
        }
        let work = rng.random_range(0..2000);
        let runs = runs_of(n, |share| {
            std::hint::black_box((0..work * share).sum::<usize>());
        });
        assert_eq!(runs, vec![1; n]);
    }
}

#[test]
fn sections_within_sections_and_beside_each_other_end() {
    std::thread::scope(|scope| {
        for seed in 0..4 {
            scope.spawn(move || {
                let mut rng = StdRng::seed_from_u64(seed);
                for _ in 0..500 {
                    let (outer, inner) = (rng.random_range(1..6), rng.random_range(1..6));
                    let total = AtomicUsize::new(0);
                    let runs = runs_of(outer, |_| {
                        fork(inner, |share| {
                            total.fetch_add(share + 1, Relaxed);
                        });
                    });
                    assert_eq!(runs, vec![1; outer]);
                    assert_eq!(total.into_inner(), outer * inner * (inner + 1) / 2);
                }
            });
        }
    });
}

#[test]
fn a_panic_comes_out_after_all_shares_have_ended() {
    for bad in 0..4 {
        let ended = AtomicUsize::new(0);
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            fork(4, |share| {
                assert!(share != bad, "share {bad}");
                ended.fetch_add(1, Relaxed);
            });
        }));
        assert_eq!(panic.unwrap_err().downcast_ref::<String>(), Some(&format!("share {bad}")));
        assert_eq!(ended.into_inner(), 3);
        assert_eq!(runs_of(4, |_| {}), [1; 4], "the team serves on");
    }
}

#[test]
fn columns_and_chunks_are_shared_out_whole() {
    let mut rng = StdRng::seed_from_u64(2);
    for _ in 0..200 {
        let (rows, columns, unit) =
            (rng.random_range(0..4), rng.random_range(0..100), rng.random_range(1..40));
        let mut values = vec![0usize; rows * columns];
        let y = faer::MatMut::from_row_major_slice_mut(&mut values, rows, columns);
        fork_columns(y, unit, 8, |first, mut part| {
            assert!(first.is_multiple_of(unit), "{first} is within a unit of {unit}");
            for i in 0..part.nrows() {
                for j in 0..part.ncols() {
                    part[(i, j)] += 1 + i * columns + first + j;
                }
            }
        });
        assert_eq!(values, (1..=rows * columns).collect::<Vec<_>>());
        fork_chunks(&mut values, unit, 8, |first, part| {
            part.iter_mut().enumerate().for_each(|(i, value)| *value += first * unit + i);
        });
        assert_eq!(values, (0..rows * columns).map(|i| 2 * i + 1).collect::<Vec<_>>());
    }
}
