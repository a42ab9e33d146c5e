//! How many directions the language model's input needs, along a sequence: `ranks/after-T.json` in a run directory.
//!
//! The rows are those of the same training samples of every task, learnt or not, after each task. Under `finetune` the trained
//! layers embed them anew; under a method with prompts the embeddings stay, and the prompts that each sample selects come in front.

use crate::files::{read_json, write_json};
use crate::findings::{Rank, Rows, Stage};
use crate::frozen::Frozen;
use crate::interrupt;
use crate::samples::spread;
use anyhow::{Context, Result};
use fwd_models::{Blip, BlipSample};
use fwd_prompt::analysis::{ENERGIES, TaskGram, rank_growth};
use fwd_prompt::linalg::Gram;
use fwd_prompt::{FrozenModel, PromptPool};
use std::fs;
use std::path::{Path, PathBuf};

/// Samples of each task.
pub(crate) const SAMPLES: usize = 32;

/// Where a run directory keeps the ranks after so many tasks.
pub(crate) fn path(run: &Path, after: usize) -> PathBuf {
    run.join("ranks").join(format!("after-{after}.json"))
}

/// All that a run directory has, in order; nothing for a run that keeps none.
///
/// # Errors
/// A damaged file.
pub(crate) fn read(run: &Path) -> Result<Vec<Stage>> {
    let dir = run.join("ranks");
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let failed = || format!("cannot read {}", dir.display());
    let mut stages: Vec<Stage> = Vec::new();
    for entry in fs::read_dir(&dir).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if path.extension().is_some_and(|e| e == "json") {
            stages.push(read_json(&path)?);
        }
    }
    stages.sort_by_key(|stage| stage.after);
    Ok(stages)
}

/// The rows of one task at one stage.
pub(crate) struct TaskRows {
    /// Visual and instruction tokens.
    pub(crate) grams: TaskGram,
    /// The same and the prompts in front.
    pub(crate) prompted: Option<Gram>,
    /// Samples.
    pub(crate) n_samples: usize,
}

/// The ranks at one stage.
///
/// # Errors
/// Those of the decompositions, naming the task.
pub(crate) fn stage(after: usize, learnt: Option<&str>, tasks: &[TaskRows]) -> Result<Stage> {
    let dim = tasks.first().map_or(0, |task| task.grams.image.dim());
    let mut ranks = Vec::new();
    let mut all: Vec<(Rows, Gram)> = Vec::new();
    for task in tasks {
        let (name, both) = (&task.grams.task, task.grams.both()?);
        let parts = [
            (Rows::Image, Some(&task.grams.image)),
            (Rows::Text, Some(&task.grams.text)),
            (Rows::Both, Some(&both)),
            (Rows::Prompted, task.prompted.as_ref()),
        ];
        for (rows, gram) in parts.into_iter().filter_map(|(rows, gram)| Some((rows, gram?))) {
            match all.iter_mut().find(|(of, _)| *of == rows) {
                Some((_, sum)) => sum.merge(gram)?,
                None => all.push((rows, gram.clone())),
            }
            if matches!(rows, Rows::Both | Rows::Prompted) {
                interrupt::check()?;
                ranks.push(rank(Some(name), rows, gram)?);
            }
        }
    }
    let together = all.iter().map(|(rows, gram)| rank(None, *rows, gram));
    let mut found = together.collect::<Result<Vec<_>>>()?;
    found.extend(ranks);
    let n_samples = tasks.iter().map(|task| task.n_samples).sum();
    Ok(Stage { after, learnt: learnt.map(str::to_owned), dim, n_samples, energies: ENERGIES, ranks: found })
}

fn rank(task: Option<&str>, rows: Rows, gram: &Gram) -> Result<Rank> {
    let what = || task.unwrap_or("all tasks").to_owned();
    let found = rank_growth(std::slice::from_ref(gram)).with_context(what)?;
    let (ranks, effective_rank) = found.first().copied().with_context(what)?;
    Ok(Rank { task: task.map(str::to_owned), rows, n_rows: gram.n_rows(), ranks, effective_rank })
}

/// The frozen embeddings of a run with prompts, of which the ranks after each task are taken.
pub(crate) struct Prompted<'a> {
    run: &'a Path,
    model: &'a Blip,
    tasks: Vec<(&'a str, Vec<&'a BlipSample>)>,
    /// Made when they are needed first; they stay.
    grams: Vec<TaskGram>,
}

impl<'a> Prompted<'a> {
    /// Of tasks and their training samples.
    pub(crate) fn new(
        run: &'a Path,
        model: &'a Blip,
        tasks: impl Iterator<Item = (&'a str, &'a [BlipSample])>,
    ) -> Self {
        let some = |all: &'a [BlipSample]| spread(all.len(), SAMPLES).map(|i| &all[i]).collect();
        Self { run, model, tasks: tasks.map(|(name, all)| (name, some(all))).collect(), grams: Vec::new() }
    }

    /// Writes the ranks after so many tasks, unless they are there.
    ///
    /// # Errors
    /// Those of the model and of the decompositions; a file that cannot be written.
    pub(crate) fn record(&mut self, after: usize, pool: &PromptPool) -> Result<()> {
        let path = path(self.run, after);
        if path.exists() {
            return Ok(());
        }
        let model = Frozen(self.model);
        if self.grams.is_empty() {
            let gram = |(name, some): &(&str, Vec<&BlipSample>)| {
                Ok(TaskGram::accumulate(&model, name, some.iter().copied())?)
            };
            self.grams = self.tasks.iter().map(gram).collect::<Result<_>>()?;
        }
        let mut tasks = Vec::new();
        for ((_, some), grams) in self.tasks.iter().zip(&self.grams) {
            let mut prompted = grams.both()?;
            for sample in some {
                prompted.push(&pool.gather(&[pool.select(&model.queries(sample)?)?])?.values)?;
            }
            tasks.push(TaskRows { grams: grams.clone(), prompted: Some(prompted), n_samples: some.len() });
        }
        let learnt = after.checked_sub(1).and_then(|t| self.tasks.get(t)).map(|(name, _)| *name);
        write_json(&path, &stage(after, learnt, &tasks)?)
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
        let rows = |task: &str, image: &[usize], text: &[usize]| TaskRows {
            grams: TaskGram { task: task.to_owned(), image: gram(image), text: gram(text) },
            prompted: Some(gram(&[image, text, &[3]].concat())),
            n_samples: image.len(),
        };
        let found = stage(1, Some("a"), &[rows("a", &[0, 0], &[2]), rows("b", &[0, 1], &[2])]).unwrap();
        assert_eq!((found.after, found.learnt.as_deref(), found.dim, found.n_samples), (1, Some("a"), 4, 4));
        let of = |task: Option<&str>, rows| {
            let rank = found.ranks.iter().find(|r| r.task.as_deref() == task && r.rows == rows);
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
        assert_eq!(read(dir.path()).unwrap(), []);
        for after in [10, 9] {
            write_json(&path(dir.path(), after), &Stage { after, ..found.clone() }).unwrap();
        }
        assert_eq!(read(dir.path()).unwrap(), [9, 10].map(|after| Stage { after, ..found.clone() }));
    }
}
