//! How many directions the language model's input needs, along a sequence: `ranks/after-T.json` in a run directory.
//!
//! The rows are those of the same training samples of every task, learnt or not, after each task. Under `finetune` the trained
//! layers embed them anew; under a method with prompts the embeddings stay, and the prompts that each sample selects come in front.

use super::paths::RunPaths;
use crate::files::{read_json, write_json};
use crate::model::{Backbone, Model, Sample};
use crate::observer::{Observer, check};
use crate::samples::{Exam, spread};
use crate::weight_training::{Batch, ImageFeatures};
use anyhow::{Context, Result};
use fwd_data::bench::{Record, Split};
use fwd_prompt::analysis::{ENERGIES, TaskGram, rank_growth};
use fwd_prompt::linalg::Gram;
use fwd_prompt::{FrozenModel, PromptPool};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// How many training samples of each task are embedded.
pub(super) const SAMPLES: usize = 32;

/// The ranks of the input embeddings of all tasks' samples, as the model stands after so many tasks.
///
/// The samples are the same at every stage: some training samples of every task of the run, learnt or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankStage {
    /// How many tasks are learnt.
    pub after: usize,
    /// The one that was learnt last.
    pub learnt: Option<String>,
    /// d: the width of an embedding.
    pub dim: usize,
    /// Samples of all tasks together.
    pub n_samples: usize,
    /// The shares of the energy at which `ranks` are given.
    pub energies: [f64; 3],
    /// Of all tasks together, then of each task, by kind of rows.
    pub ranks: Vec<Rank>,
}

/// How many directions some rows need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rank {
    /// Whose rows; none: those of all tasks together.
    pub task: Option<String>,
    /// Which of its rows.
    pub rows: Rows,
    /// N: how many rows there are.
    pub n_rows: u64,
    /// The fewest directions with each of the energies.
    pub ranks: [usize; 3],
    /// `exp(H(λ/Σλ))`: the effective rank, with H the entropy of the eigenvalues' shares.
    pub effective_rank: f64,
}

/// Rows of the language model's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rows {
    /// Visual tokens.
    Image,
    /// Instruction tokens.
    Text,
    /// Visual and instruction tokens.
    Both,
    /// Both, and the prompt tokens that each sample selects: all that the language model reads. Not under `finetune`.
    Prompted,
}

/// All ranks that a run directory keeps, after 0, 1, … tasks; nothing for a run that keeps none.
///
/// # Errors
/// A damaged file.
pub fn read_ranks(run: &Path) -> Result<Vec<RankStage>> {
    let dir = RunPaths::new(run).ranks_dir();
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let failed = || format!("cannot read {}", dir.display());
    let mut stages: Vec<RankStage> = Vec::new();
    for entry in fs::read_dir(&dir).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if path.extension().is_some_and(|e| e == "json") {
            stages.push(read_json(&path)?);
        }
    }
    stages.sort_by_key(|stage| stage.after);
    Ok(stages)
}

/// The ranks at one stage while tasks are added, of which no more than the sums of their Gram matrices are kept: memory does not grow with
/// the number of tasks.
#[derive(Default)]
pub(super) struct StageRanks {
    all: Vec<(Rows, Gram)>,
    of_tasks: Vec<Rank>,
}

impl StageRanks {
    /// Adds the visual and instruction tokens of a task, apart and together.
    ///
    /// # Errors
    /// Those of the decompositions, naming the task.
    pub(super) fn add_tokens(&mut self, grams: &TaskGram) -> Result<()> {
        self.merge(Rows::Image, &grams.image)?;
        self.merge(Rows::Text, &grams.text)?;
        self.add(&grams.task, Rows::Both, &grams.both()?)
    }

    /// Adds rows of a task whose own rank is wanted.
    ///
    /// # Errors
    /// Those of the decomposition, naming the task.
    pub(super) fn add(&mut self, task: &str, rows: Rows, gram: &Gram) -> Result<()> {
        self.merge(rows, gram)?;
        self.of_tasks.push(rank(Some(task), rows, gram)?);
        Ok(())
    }

    fn merge(&mut self, rows: Rows, gram: &Gram) -> Result<()> {
        match self.all.iter_mut().find(|(of, _)| *of == rows) {
            Some((_, sum)) => sum.merge(gram)?,
            None => self.all.push((rows, gram.clone())),
        }
        Ok(())
    }

    /// The ranks of all tasks together, then those of each task.
    ///
    /// # Errors
    /// Those of the decompositions.
    pub(super) fn ranks(self) -> Result<Vec<Rank>> {
        let together = self.all.iter().map(|(rows, gram)| rank(None, *rows, gram));
        let mut ranks = together.collect::<Result<Vec<_>>>()?;
        ranks.extend(self.of_tasks);
        Ok(ranks)
    }
}

/// Ranks of tokens and of what prompts make of them, those of a task beside each other and those of all tasks together first.
fn interleaved(tokens: &[Rank], prompted: Vec<Rank>) -> Vec<Rank> {
    let mut all = Vec::with_capacity(tokens.len() + prompted.len());
    for rank in prompted {
        all.extend(tokens.iter().filter(|of_tokens| of_tokens.task == rank.task).cloned());
        all.push(rank);
    }
    all
}

fn rank(task: Option<&str>, rows: Rows, gram: &Gram) -> Result<Rank> {
    let what = || task.unwrap_or("all tasks").to_owned();
    let growth = rank_growth(std::slice::from_ref(gram)).with_context(what)?;
    let (ranks, effective_rank) = growth.first().copied().with_context(what)?;
    Ok(Rank { task: task.map(str::to_owned), rows, n_rows: gram.n_rows(), ranks, effective_rank })
}

/// The frozen embeddings of a run with prompts, of which the ranks after each task are taken.
pub(super) struct Prompted<'a> {
    run: &'a RunPaths,
    model: &'a Model,
    observer: &'a dyn Observer,
    tasks: Vec<(&'a str, Vec<&'a Sample>)>,
    /// The ranks of the tokens, which no prompt changes: found once, but with a map after every task.
    of_tokens: Vec<Rank>,
}

impl<'a> Prompted<'a> {
    /// Of tasks and their training samples.
    pub(super) fn new(
        run: &'a RunPaths,
        model: &'a Model,
        observer: &'a dyn Observer,
        tasks: impl Iterator<Item = (&'a str, &'a [Sample])>,
    ) -> Self {
        let some = |all: &'a [Sample]| spread(all.len(), SAMPLES).map(|i| &all[i]).collect();
        let tasks = tasks.map(|(name, all)| (name, some(all))).collect();
        Self { run, model, observer, tasks, of_tokens: Vec::new() }
    }

    /// Writes the ranks after so many tasks, unless they are there.
    ///
    /// # Errors
    /// Those of the model and of the decompositions; a file that cannot be written.
    pub(super) fn record(&mut self, after: usize, pool: &PromptPool) -> Result<()> {
        let path = self.run.ranks(after);
        if path.exists() {
            return Ok(());
        }
        // Without a map the tokens stay as they are.
        let is_first = self.of_tokens.is_empty() || pool.map().is_some();
        let (mut of_tokens, mut of_prompted) = (StageRanks::default(), StageRanks::default());
        for (name, some) in &self.tasks {
            check(self.observer)?;
            let read = some.iter().map(|sample| pool.read(self.model, sample));
            let read = read.collect::<Result<Vec<_>, _>>()?;
            let grams = TaskGram::accumulate(self.model, name, read.iter().map(|sample| &**sample))?;
            if is_first {
                of_tokens.add_tokens(&grams)?;
            }
            let mut prompted = grams.both()?;
            let queries = some.iter().map(|sample| Ok(self.model.queries(sample)?));
            for selection in pool.select_all(&queries.collect::<Result<Vec<_>>>()?)? {
                prompted.push(&pool.gather(&[selection])?.values)?;
            }
            of_prompted.add(name, Rows::Prompted, &prompted)?;
        }
        if is_first {
            self.of_tokens = of_tokens.ranks()?;
        }
        let stage = RankStage {
            after,
            learnt: after.checked_sub(1).and_then(|t| self.tasks.get(t)).map(|(name, _)| (*name).to_owned()),
            dim: if self.tasks.is_empty() { 0 } else { self.model.prompt_dims().model },
            n_samples: self.tasks.iter().map(|(_, some)| some.len()).sum(),
            energies: ENERGIES,
            ranks: interleaved(&self.of_tokens, of_prompted.ranks()?),
        };
        write_json(&path, &stage)
    }
}

/// The embeddings of a run whose bridge is trained, of which the ranks after each task are taken.
pub(super) struct Bridged<'a> {
    pub(super) run: &'a RunPaths,
    pub(super) backbone: &'a Backbone,
    /// What is scored of each task, in the order in which they are learnt.
    pub(super) exams: &'a [Exam<'a>],
    pub(super) images: &'a ImageFeatures,
    /// Samples that are embedded at a time.
    pub(super) batch: usize,
    pub(super) observer: &'a dyn Observer,
}

impl Bridged<'_> {
    /// Writes the ranks of the embeddings as a model makes them after so many tasks, unless they are there.
    ///
    /// # Errors
    /// As [`Prompted::record`].
    pub(super) fn record(&self, after: usize, model: &Model) -> Result<()> {
        let path = self.run.ranks(after);
        if path.exists() {
            return Ok(());
        }
        let (mut ranks, mut n_samples) = (StageRanks::default(), 0);
        for Exam { task, .. } in self.exams {
            let records: Vec<&Record> = task.split(Split::Train).collect();
            let records: Vec<&Record> = spread(records.len(), SAMPLES).map(|i| records[i]).collect();
            let mut samples = Vec::with_capacity(records.len());
            for records in records.chunks(self.batch) {
                check(self.observer)?;
                let batch = Batch::new(self.backbone.reader(), self.images, None, records)?;
                samples.extend(batch.features(model)?.samples(&batch.labels)?);
            }
            check(self.observer)?;
            ranks.add_tokens(&TaskGram::accumulate(model, &task.name, &samples)?)?;
            n_samples += samples.len();
        }
        let learnt = after.checked_sub(1).and_then(|t| self.exams.get(t)).map(|exam| exam.task.name.clone());
        let dim = if self.exams.is_empty() { 0 } else { model.prompt_dims().model };
        let ranks = ranks.ranks()?;
        write_json(&path, &RankStage { after, learnt, dim, n_samples, energies: ENERGIES, ranks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows along axes of R^4.
    fn gram(axes: &[usize]) -> Gram {
        let mut gram = Gram::new(4);
        for &axis in axes {
            gram.push(&(0..4).map(|i| f32::from(u8::from(i == axis))).collect::<Vec<_>>()).unwrap();
        }
        gram
    }

    #[test]
    fn tasks_are_counted_alone_and_together() {
        let (mut tokens, mut prompted) = (StageRanks::default(), StageRanks::default());
        for (task, image, text) in [("a", [0, 0], [2]), ("b", [0, 1], [2])] {
            tokens
                .add_tokens(&TaskGram { task: task.to_owned(), image: gram(&image), text: gram(&text) })
                .unwrap();
            let all = [&image[..], &text[..], &[3]].concat();
            prompted.add(task, Rows::Prompted, &gram(&all)).unwrap();
            // One sum for each kind of rows, however many tasks.
            assert_eq!((tokens.all.len(), prompted.all.len()), (3, 1));
        }
        let ranks = interleaved(&tokens.ranks().unwrap(), prompted.ranks().unwrap());
        let order: Vec<_> = ranks.iter().map(|rank| (rank.task.as_deref(), rank.rows)).collect();
        use Rows::{Both, Image, Prompted as WithPrompts, Text};
        let together = [Image, Text, Both, WithPrompts].map(|rows| (None, rows));
        let apart = ["a", "b"].into_iter().flat_map(|task| [(Some(task), Both), (Some(task), WithPrompts)]);
        assert!(order.iter().copied().eq(together.into_iter().chain(apart)), "{order:?}");
        let first =
            RankStage { after: 1, learnt: Some("a".into()), dim: 4, n_samples: 4, energies: ENERGIES, ranks };
        let of = |task: Option<&str>, rows| {
            let rank = first.ranks.iter().find(|r| r.task.as_deref() == task && r.rows == rows);
            rank.map(|r| (r.n_rows, r.ranks[2]))
        };
        assert_eq!(of(None, Rows::Image), Some((4, 2)));
        assert_eq!(of(None, Rows::Text), Some((2, 1)));
        assert_eq!(of(None, Rows::Both), Some((6, 3)));
        assert_eq!(of(None, Rows::Prompted), Some((8, 4)));
        assert_eq!(of(Some("a"), Rows::Both), Some((3, 2)));
        assert_eq!(of(Some("b"), Rows::Prompted), Some((4, 4)));
        assert_eq!(of(Some("a"), Rows::Image), None);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_ranks(dir.path()).unwrap(), []);
        for after in [10, 9] {
            write_json(&RunPaths::new(dir.path()).ranks(after), &RankStage { after, ..first.clone() })
                .unwrap();
        }
        assert_eq!(
            read_ranks(dir.path()).unwrap(),
            [9, 10].map(|after| RankStage { after, ..first.clone() })
        );
    }
}
