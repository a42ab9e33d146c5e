//! Samples that show what a run has learnt and forgotten: the answers before training, after the sample's own task and at the end, of
//! the samples where they differ most.

use crate::predictions::{Answered, read, read_each};
use crate::run::{Manifest, RunPaths};
use anyhow::{Result, ensure};
use fwd_data::bench::{Benchmark, Metric};
use fwd_data::task::{self, OnBad};
use std::path::{Path, PathBuf};

/// From this share of the full score on an answer counts as right.
pub const RIGHT: f64 = 0.5;
/// By how much the score of a caption must change to be shown; captions are not right or wrong.
const CHANGE: f64 = 0.1;
/// The full score of CIDEr-D.
const CIDER_FULL: f64 = 10.0;

/// How the answers to a sample changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Right after its task, wrong at the end.
    Forgotten,
    /// Wrong before, right after its task.
    Learnt,
    /// Wrong after its task, right at the end.
    GainedLater,
    /// None of these.
    Same,
}

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// The answer.
    pub text: String,
    /// Its share of the full score, 0 to 1.
    pub score: f64,
    /// Whether it counts as right; none for captions.
    pub is_right: Option<bool>,
}

/// A sample with its answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Its number within the split, from 0.
    pub number: usize,
    /// The record's own name, or `TASK/SPLIT/NUMBER`.
    pub question_id: String,
    /// What was asked.
    pub question: String,
    /// Every answer that counts as right.
    pub answers: Vec<String>,
    /// The answer before training, if it was kept.
    pub before: Option<Given>,
    /// The answer right after the sample's own task.
    pub after: Given,
    /// The answer after the last task that was learnt; none where that is the sample's own.
    pub end: Option<Given>,
    /// How they differ.
    pub change: Change,
}

/// Up to `n` samples of each kind of change of a task, those that changed most first; some that did not change where there is no
/// other. Nothing if the task was not learnt, or if nothing was trained.
///
/// `place` is the number of the task in the sequence, from 0; `is_sequence` whether tasks were learnt one after another. Where the
/// metric is not known, a score from [`RIGHT`] on is right.
///
/// # Errors
/// A damaged file of answers, or files of different lengths.
pub fn examples(
    dir: &Path,
    (place, name, metric): (usize, &str, Option<Metric>),
    (n_tasks, is_sequence): (usize, bool),
    n: usize,
) -> Result<Vec<Example>> {
    let paths = RunPaths::new(dir);
    let file = |after: usize| Some(paths.answers(after, name)).filter(|path| path.is_file());
    let own = if is_sequence { place + 1 } else { 1 };
    let Some(after) = file(own) else { return Ok(Vec::new()) };
    let last = if is_sequence { (own + 1..=n_tasks).rev().find_map(file) } else { None };
    let after = read(&after)?;
    // Of the other files no more than answers and scores are kept.
    let other = |path: Option<PathBuf>| -> Result<Option<Vec<Given>>> {
        let Some(path) = path else { return Ok(None) };
        let (mut answers, mut is_same) = (Vec::with_capacity(after.len()), true);
        read_each(&path, |answer| {
            let here = after.get(answers.len());
            is_same &=
                here.is_some_and(|a| (&a.question_id, &a.prompt) == (&answer.question_id, &answer.prompt));
            answers.push(given(&answer, metric));
            Ok(())
        })?;
        is_same &= answers.len() == after.len();
        ensure!(is_same, "{} answers other samples than the other files of its task", path.display());
        Ok(Some(answers))
    };
    let (before, end) = (other(file(0))?, other(last)?);
    let example = |number: usize| {
        let of = |answers: &Option<Vec<Given>>| answers.as_ref().map(|all| all[number].clone());
        let (before, own, end) = (of(&before), given(&after[number], metric), of(&end));
        let change = change(before.as_ref(), &own, end.as_ref());
        let Answered { question_id, prompt, answers, .. } = after[number].clone();
        Example { number, question_id, question: prompt, answers, before, after: own, end, change }
    };
    let all = (0..after.len()).map(|number| {
        let example = example(number);
        (number, example.change, size(&example))
    });
    let all: Vec<(usize, Change, f64)> = all.collect();
    let mut chosen = Vec::new();
    for kind in [Change::Forgotten, Change::Learnt, Change::GainedLater] {
        let mut of_kind: Vec<_> = all.iter().filter(|(_, change, _)| *change == kind).collect();
        of_kind.sort_by(|a, b| b.2.total_cmp(&a.2));
        chosen.extend(of_kind.into_iter().take(n).map(|&(number, ..)| example(number)));
    }
    if chosen.is_empty() {
        chosen.extend((0..after.len()).take(n).map(example));
    }
    Ok(chosen)
}

/// The benchmark of a run, in `given` or where the run found it, to show its pictures.
///
/// # Errors
/// If it is not there any more, or another one.
pub fn benchmark_of(manifest: &Manifest, given: Option<&Path>) -> Result<Benchmark> {
    let dir = given.map_or_else(|| manifest.bench_dir(), |dir| Ok(dir.to_path_buf()))?;
    let on_bad = if manifest.run.config.skip_bad { OnBad::Skip } else { OnBad::Refuse };
    let bench = task::open(&dir, on_bad)?.bench;
    manifest.check_benchmark(&bench.hash().to_string(), &dir)?;
    Ok(bench)
}

fn given(answer: &Answered, metric: Option<Metric>) -> Given {
    let full = if metric == Some(Metric::CiderD) { CIDER_FULL } else { 1.0 };
    let score = answer.score / full;
    let is_caption = metric.is_some_and(Metric::is_of_captions);
    Given { text: answer.text.clone(), score, is_right: (!is_caption).then_some(score >= RIGHT) }
}

fn change(before: Option<&Given>, after: &Given, end: Option<&Given>) -> Change {
    let rises = |from: &Given, to: &Given| match (from.is_right, to.is_right) {
        (Some(from), Some(to)) => !from && to,
        _ => to.score - from.score >= CHANGE,
    };
    match (before, end) {
        (_, Some(end)) if rises(end, after) => Change::Forgotten,
        (_, Some(end)) if rises(after, end) => Change::GainedLater,
        (Some(before), _) if rises(before, after) => Change::Learnt,
        _ => Change::Same,
    }
}

/// By how much the score changed.
fn size(example: &Example) -> f64 {
    let from = |given: &Option<Given>| given.as_ref().map(|g| (g.score - example.after.score).abs());
    let other = if example.change == Change::Learnt { &example.before } else { &example.end };
    from(other).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn write(dir: &Path, after: usize, scores: &[f64]) {
        let path = RunPaths::new(dir).answers(after, "a");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let lines = scores.iter().enumerate().map(|(i, score)| {
            let line = serde_json::json!({
                "question_id": format!("a/test/{i}"), "prompt": "which?", "text": format!("{after}"),
                "answers": ["x"], "score": score,
            });
            format!("{line}\n")
        });
        fs::write(path, lines.collect::<String>()).unwrap();
    }

    #[test]
    fn samples_are_chosen_by_what_became_of_their_answers() {
        let dir = tempfile::tempdir().unwrap();
        let found = |metric, n| examples(dir.path(), (0, "a", metric), (3, true), n).unwrap();
        assert_eq!(found(None, 2), []);
        write(dir.path(), 0, &[0.0, 0.0, 0.0, 1.0, 0.0]);
        write(dir.path(), 1, &[1.0, 0.6, 0.0, 1.0, 1.0]);
        // Nothing came after it so far.
        let kinds = |found: &[Example]| found.iter().map(|e| (e.number, e.change)).collect::<Vec<_>>();
        assert_eq!(kinds(&found(None, 2)), [(0, Change::Learnt), (4, Change::Learnt)]);
        write(dir.path(), 2, &[0.0; 5]);
        write(dir.path(), 3, &[1.0, 0.4, 1.0, 0.0, 1.0]);
        let all = found(Some(Metric::VqaSoft), 2);
        let expected = [
            (3, Change::Forgotten),
            (1, Change::Forgotten),
            (0, Change::Learnt),
            (4, Change::Learnt),
            (2, Change::GainedLater),
        ];
        assert_eq!(kinds(&all), expected);
        assert_eq!((all[0].after.text.as_str(), all[0].end.as_ref().unwrap().text.as_str()), ("1", "3"));
        assert_eq!(all[0].end.as_ref().unwrap().is_right, Some(false));
        // Captions are not right or wrong; CIDEr-D reaches 10.
        let captions = found(Some(Metric::CiderD), 2);
        assert_eq!(
            kinds(&captions),
            [(3, Change::Forgotten), (0, Change::Learnt), (4, Change::Learnt), (2, Change::GainedLater)]
        );
        assert_eq!(captions[0].after.is_right, None);
        write(dir.path(), 3, &[0.0; 4]);
        let message = examples(dir.path(), (0, "a", None), (3, true), 2).unwrap_err().to_string();
        assert!(message.contains("after-3") && message.contains("other samples"), "{message}");
    }
}
