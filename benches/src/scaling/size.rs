//! How large a piece of work is, what it has cost, and how its time is taken.

use anyhow::Result;
use std::time::Instant;

/// Directions that a task takes.
pub(super) const RANK: usize = 4;
/// Repetitions of work that takes microseconds go on for so long, in seconds.
pub(super) const LONG_ENOUGH: f64 = 0.3;

/// How large a piece of work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Tasks learnt so far, or in all.
    pub tasks: usize,
    /// Prompts in the pool; every task has its share.
    pub prompts: usize,
    /// Width of embeddings, queries and keys.
    pub dim: usize,
    /// Samples of a task.
    pub samples: usize,
    /// Tokens of a prompt.
    pub tokens: usize,
}

/// What a piece of work has cost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Of one unit of the work.
    pub seconds: f64,
    /// Bytes written to files by one unit, where that is part of the work.
    pub bytes: Option<f64>,
    /// Most memory of another process that did the work, in MiB.
    pub peak_mib: Option<u64>,
}

impl Cost {
    pub(super) fn of_time(seconds: f64) -> Self {
        Self { seconds, ..Self::default() }
    }
}

/// The least time of some repetitions.
pub(super) fn least(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let (began, mut least) = (Instant::now(), f64::INFINITY);
    for i in 0.. {
        let start = Instant::now();
        work()?;
        least = least.min(start.elapsed().as_secs_f64());
        let all = began.elapsed().as_secs_f64();
        if (i >= 2 && all > LONG_ENOUGH) || all > 10.0 * LONG_ENOUGH {
            break;
        }
    }
    Ok(least)
}
