//! What grows with tasks, prompts, widths, samples and prompt tokens: one piece of work of each kind, of any size, on synthetic features.
//!
//! Every number comes from the sizes alone. Files lie in a temporary folder that is deleted at the end.

mod learning;
mod reports;
mod rows;

use anyhow::Result;
use clap::ValueEnum;
use fwd_continual::{ScoreMatrix, normal, stream};
use fwd_linalg::{Basis, Gram, Projection, SubspaceConfig, subspace};
use fwd_prompt::{Dims, PromptPool, Queries, Rule, SubspaceLedger};
use rows::RowFile;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

/// Samples of a batch whose prompts are selected together.
const BATCH: usize = 64;
/// Rows of one call of [`Gram::push`].
const PUSH: usize = 768;
/// Directions that a task takes.
const RANK: usize = 4;
/// Repetitions of work that takes microseconds go on for so long, in seconds.
const LONG_ENOUGH: f64 = 0.3;

/// A piece of work whose cost is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// The prompts of one sample, found among all, in a batch: keys to prompts.
    Selection,
    /// From rows on disk to the basis of a task: streaming Gram matrix, eigenvectors, choice of the rank.
    Subspace,
    /// The last of all tasks is added to the ledger, and its interference with all older ones measured.
    Ledger,
    /// The projection of one update of all prompt tokens away from all older tasks.
    Projection,
    /// The state is saved, mean over the saves of the last task: begun, learnt, scored on all tasks.
    Saving,
    /// One task is learnt in one pass over its samples, which lie on disk.
    Task,
    /// The file of answers to all samples is read and scored, by exact match.
    Scoring,
    /// The same of captions, by CIDEr-D.
    Captions,
    /// All measures of a score matrix, after every task.
    Measures,
    /// `fwd-prompt report` on one run.
    Report,
}

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
    fn of_time(seconds: f64) -> Self {
        Self { seconds, ..Self::default() }
    }
}

/// Does a piece of work of a size; `program` is the built `fwd-prompt`, for [`Work::Report`].
///
/// # Errors
/// Files that cannot be written or read, a program that fails.
pub fn measure(work: Work, size: &Size, program: Option<&Path>) -> Result<Cost> {
    match work {
        Work::Selection => selection(size),
        Work::Subspace => of_subspace(size),
        Work::Ledger => ledger(size),
        Work::Projection => projection(size),
        Work::Saving => learning::saving(size),
        Work::Task => learning::task(size),
        Work::Scoring => reports::scoring(size, fwd_eval::Metric::Exact),
        Work::Captions => reports::scoring(size, fwd_eval::Metric::CiderD),
        Work::Measures => Ok(measures(size)),
        Work::Report => reports::report(size, program),
    }
}

/// The least time of some repetitions.
fn least(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
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

fn selection(size: &Size) -> Result<Cost> {
    let dims = Dims { model: 1, image_query: size.dim, text_query: size.dim };
    let mut pool = PromptPool::new(dims, 1, 4);
    let mut rng = stream(0, "keys", [0, 0]);
    let mut keys = || normal(&mut rng, size.dim, 1.0);
    for _ in 0..size.prompts {
        pool.push(&keys(), &keys(), &[0.0])?;
    }
    let queries: Vec<Queries<'_>> =
        (0..BATCH).map(|_| Queries { image: keys().into(), text: keys().into() }).collect();
    let seconds = least(|| {
        black_box(pool.select_all(&queries)?);
        Ok(())
    })?;
    Ok(Cost::of_time(seconds / BATCH as f64))
}

fn of_subspace(size: &Size) -> Result<Cost> {
    let file = RowFile::new(size.samples, size.dim)?;
    let config = SubspaceConfig::default();
    let seconds = least(|| {
        let mut gram = Gram::new(size.dim);
        file.each(PUSH, |rows| Ok(gram.push(rows)?))?;
        black_box(subspace(&gram, &config)?);
        Ok(())
    })?;
    Ok(Cost::of_time(seconds))
}

/// A ledger of the first `n` tasks.
fn filled(n: usize, dim: usize) -> Result<SubspaceLedger> {
    let mut ledger = SubspaceLedger::new(dim);
    for task in 0..n {
        add(&mut ledger, task)?;
    }
    Ok(ledger)
}

fn add(ledger: &mut SubspaceLedger, task: usize) -> Result<()> {
    let dim = ledger.dim();
    let mut gram = Gram::new(dim);
    gram.push(&normal(&mut stream(0, "rows", [task as u64, 0]), 2 * dim * dim, 1.0))?;
    let config = SubspaceConfig { max_rank: Some(RANK), ..SubspaceConfig::default() };
    ledger.add(&format!("task {task}"), &gram, &config)?;
    Ok(())
}

fn ledger(size: &Size) -> Result<Cost> {
    let ledger = filled(size.tasks - 1, size.dim)?;
    let change = normal(&mut stream(0, "change", [0, 0]), 40 * size.dim, 1.0);
    let seconds = least(|| {
        let mut ledger = ledger.clone();
        add(&mut ledger, size.tasks - 1)?;
        black_box(ledger.interference(Rule::Fwd, size.tasks - 1, &change)?);
        Ok(())
    })?;
    Ok(Cost::of_time(seconds))
}

fn projection(size: &Size) -> Result<Cost> {
    let rank = (RANK * size.tasks).min(size.dim - 1);
    let mut axes = vec![0.0; rank * size.dim];
    (0..rank).for_each(|i| axes[i * size.dim + i] = 1.0);
    let forbidden = Basis::from_orthonormal(size.dim, axes)?;
    let projection = Projection::new(size.dim, true, &[(&forbidden, -1.0)])?;
    let mut rows = normal(&mut stream(0, "update", [0, 0]), size.prompts * size.tokens * size.dim, 1.0);
    let seconds = least(|| Ok(projection.apply(&mut rows)?))?;
    Ok(Cost::of_time(seconds))
}

fn measures(size: &Size) -> Cost {
    let n = size.tasks;
    let score = |i: usize, j: usize| ((i * 31 + j * 17) % 101) as f64;
    let rows = (0..=n).map(|i| (0..n).map(|j| score(i, j)).collect()).collect();
    let scores = ScoreMatrix { n_tasks: n, rows };
    let began = Instant::now();
    let mut repeated = 0;
    while repeated < 3 || began.elapsed().as_secs_f64() < LONG_ENOUGH {
        for t in 1..=n {
            black_box((scores.average(t), scores.backward_transfer(t)));
        }
        black_box((scores.mean_average(), scores.forgetting(n), scores.forward_transfer()));
        repeated += 1;
    }
    Cost::of_time(began.elapsed().as_secs_f64() / f64::from(repeated))
}
