//! What grows with tasks, prompts, widths, samples and prompt tokens: one piece of work of each kind, of any size, on synthetic features.
//!
//! Every number comes from the sizes alone. Files lie in a temporary folder that is deleted at the end.

mod arithmetic;
mod learning;
mod reports;
mod rows;
mod size;

use anyhow::Result;
use clap::ValueEnum;
pub use size::{Cost, Size};
use std::path::Path;

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

/// Does a piece of work of a size; `program` is the built `fwd-prompt`, for [`Work::Report`].
///
/// # Errors
/// Files that cannot be written or read, a program that fails.
pub fn measure(work: Work, size: &Size, program: Option<&Path>) -> Result<Cost> {
    match work {
        Work::Selection => arithmetic::selection(size),
        Work::Subspace => arithmetic::of_subspace(size),
        Work::Ledger => arithmetic::ledger(size),
        Work::Projection => arithmetic::projection(size),
        Work::Saving => learning::saving(size),
        Work::Task => learning::task(size),
        Work::Scoring => reports::scoring(size, fwd_eval::Metric::Exact),
        Work::Captions => reports::scoring(size, fwd_eval::Metric::CiderD),
        Work::Measures => Ok(arithmetic::measures(size)),
        Work::Report => reports::report(size, program),
    }
}
