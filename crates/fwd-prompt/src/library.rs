//! Prompts that were tuned on other tasks before a run, from which the prompts of its tasks may start. This is ours, not the paper's.
//!
//! Prompts act on a frozen model through its attention, and what they make it do is found by training alone. A task that resembles one
//! that was learnt elsewhere, as a pre-training task of the model, need not find it anew: of all blocks of prompts in the library, its own
//! prompts take on the values of that which suits its samples best ([`Start`](crate::Start)), and are trained from there.

use crate::config::Fallback;
use crate::error::{PromptError, Result};
use crate::model::{Dims, Queries};
use crate::pool::{Guests, PromptPool};
use crate::prompts::{Prompts, runs};
use fwd_continual::ContinualError;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The prompts of finished runs, block by block: one for each task that opened prompts of its own.
///
/// A library knows the width of the model's embeddings and not the model. Prompts of another model of the same widths are no error; they
/// start a task from values that mean nothing to its model.
#[derive(Debug, Clone, PartialEq)]
pub struct Library {
    pool: PromptPool,
    /// Each block's task, and where its prompts stand in the pool.
    blocks: Vec<(String, Range<usize>)>,
}

impl Library {
    /// The prompts that the tasks of one run have learnt, or of several, as where each task was learnt alone.
    ///
    /// # Errors
    /// [`PromptError::Config`] if there are none, or if widths, tokens of a prompt or prompts of a sample differ from run to run.
    pub fn of<'p>(all: impl IntoIterator<Item = &'p Prompts>) -> Result<Self> {
        let mut library: Option<Self> = None;
        for prompts in all {
            let own = prompts.pool();
            let sizes = |pool: &PromptPool| (pool.dims(), pool.prompt_len(), pool.top_k());
            let empty = || Self { pool: own.emptied(), blocks: Vec::new() };
            let library = library.get_or_insert_with(empty);
            if sizes(own) != sizes(&library.pool) {
                let what = format!(
                    "a library of prompts of {:?} and {:?} (widths, tokens of a prompt, prompts of a sample)",
                    sizes(&library.pool),
                    sizes(own)
                );
                return Err(PromptError::Config(what));
            }
            let (before, entries) = (library.pool.len(), prompts.ledger().entries());
            let blocks = runs(prompts.owners()).into_iter().filter_map(|(t, of)| {
                Some((entries.get(t)?.task.clone(), before + of.start..before + of.end))
            });
            library.blocks.extend(blocks);
            library.pool.append(own.clone());
        }
        let library = library.filter(|library| !library.blocks.is_empty());
        library.ok_or_else(|| PromptError::Config("a library of prompts without any prompt".to_owned()))
    }

    /// The prompts of the run that was saved in a folder.
    ///
    /// # Errors
    /// Those of [`Prompts::load`], and [`ContinualError::Config`] if it has none.
    pub fn load(dir: &Path) -> Result<Self, ContinualError> {
        Self::of([&Prompts::load(dir)?])
            .map_err(|error| ContinualError::Config(format!("{}: {error}", dir.display())))
    }

    /// The widths of keys and tokens.
    pub fn dims(&self) -> Dims {
        self.pool.dims()
    }

    /// The tasks whose prompts these are, in the order in which they were learnt.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &str> {
        self.blocks.iter().map(|(task, _)| task.as_str())
    }

    /// The tokens of the block of each task, `(n, d)` row-major.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        let size = self.pool.prompt_size();
        self.blocks.iter().map(move |(_, of)| &self.pool.prompts()[of.start * size..of.end * size])
    }

    /// For each block, the mean over some samples of the score of its best prompt ([`PromptPool::select`]).
    pub(crate) fn nearness(&self, queries: &[Queries<'_>]) -> Result<Vec<f64>> {
        let of_block = |(_, of): &(String, Range<usize>)| {
            let selections = self.pool.select_all_among(queries, of.clone())?;
            let best = selections.iter().filter_map(|selection| selection.scores.first());
            Ok(best.map(|&score| f64::from(score)).sum::<f64>() / queries.len().max(1) as f64)
        };
        self.blocks.iter().map(of_block).collect()
    }

    /// These prompts for samples that no learnt task is for.
    pub(crate) fn guests(&self, fallback: Fallback) -> Option<Arc<Guests>> {
        let takes_all = match fallback {
            Fallback::Nothing => return None,
            Fallback::Nearest => true,
            Fallback::Claimed => false,
        };
        Some(Arc::new(Guests::new(self.pool.clone(), self.blocks.clone(), takes_all)))
    }

    /// Whether prompts of these sizes can stand beside those of the library.
    pub(crate) fn check_guests(&self, prompt_len: usize) -> Result<()> {
        if self.pool.prompt_len() == prompt_len {
            return Ok(());
        }
        Err(PromptError::Config(format!(
            "pool.fallback gives samples prompts of the library, which have {} tokens; pool.prompt_len is {prompt_len}, must be the same",
            self.pool.prompt_len()
        )))
    }

    /// A number that differs where names or values do: FNV-1a of all of them.
    pub fn digest(&self) -> u64 {
        let names = self
            .blocks
            .iter()
            .flat_map(|(task, of)| task.bytes().chain(of.clone().flat_map(|i| (i as u64).to_le_bytes())));
        let pool = &self.pool;
        let values =
            [&pool.prompts, &pool.image_keys, &pool.text_keys, &pool.thresholds].into_iter().flatten();
        names
            .chain(values.flat_map(|value| value.to_le_bytes()))
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}
