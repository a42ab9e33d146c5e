//! The arithmetic of prompts and subspaces, and the measures of a score matrix.

use super::rows::RowFile;
use super::size::{Cost, LONG_ENOUGH, RANK, Size, least};
use anyhow::Result;
use fwd_continual::{ScoreMatrix, normal, stream};
use fwd_linalg::{Basis, Gram, Projection, SubspaceConfig, subspace};
use fwd_prompt::{Dims, PromptPool, Queries, Rule, SubspaceLedger};
use std::hint::black_box;
use std::time::Instant;

/// Samples of a batch whose prompts are selected together.
const BATCH: usize = 64;
/// Rows of one call of [`Gram::push`].
const PUSH: usize = 768;
pub(super) fn selection(size: &Size) -> Result<Cost> {
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

pub(super) fn of_subspace(size: &Size) -> Result<Cost> {
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
        add(&mut ledger, task, &gram(task, dim)?)?;
    }
    Ok(ledger)
}

/// The Gram matrix of a task's 256 rows.
fn gram(task: usize, dim: usize) -> Result<Gram> {
    let mut gram = Gram::new(dim);
    gram.push(&normal(&mut stream(0, "rows", [task as u64, 0]), 256 * dim, 1.0))?;
    Ok(gram)
}

fn add(ledger: &mut SubspaceLedger, task: usize, gram: &Gram) -> Result<()> {
    let config = SubspaceConfig { max_rank: Some(RANK), ..SubspaceConfig::default() };
    ledger.add(&format!("task {task}"), gram, &config)?;
    Ok(())
}

pub(super) fn ledger(size: &Size) -> Result<Cost> {
    let ledger = filled(size.tasks - 1, size.dim)?;
    let change = normal(&mut stream(0, "change", [0, 0]), 40 * size.dim, 1.0);
    let last = gram(size.tasks - 1, size.dim)?;
    let seconds = least(|| {
        let mut ledger = ledger.clone();
        add(&mut ledger, size.tasks - 1, &last)?;
        black_box(ledger.interference(Rule::Fwd, size.tasks - 1, &change)?);
        Ok(())
    })?;
    Ok(Cost::of_time(seconds))
}

pub(super) fn projection(size: &Size) -> Result<Cost> {
    let rank = (RANK * size.tasks).min(size.dim - 1);
    let mut axes = vec![0.0; rank * size.dim];
    (0..rank).for_each(|i| axes[i * size.dim + i] = 1.0);
    let forbidden = Basis::from_orthonormal(size.dim, axes)?;
    let projection = Projection::new(size.dim, true, &[(&forbidden, -1.0)])?;
    let mut rows = normal(&mut stream(0, "update", [0, 0]), size.prompts * size.tokens * size.dim, 1.0);
    let seconds = least(|| Ok(projection.apply(&mut rows)?))?;
    Ok(Cost::of_time(seconds))
}

pub(super) fn measures(size: &Size) -> Cost {
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
