//! The section of samples: picture, question, and what was answered before training, after the sample's own task and at the end.

use super::html::{Block, Sample, SampleAnswer, Section};
use super::picture::Picture;
use super::shared::{MOST_TASKS, minus, numbered, spread};
use anyhow::Result;
use fwd_data::bench::{Benchmark, Metric};
use fwd_run::comparison::{Change, Comparison, Example, Given, benchmark_of, examples};
use fwd_run::run::Manifest;
use std::path::Path;

/// Samples of each kind of change of a task.
const EACH: usize = 2;
/// Answers of a sample that are named.
const ANSWERS: usize = 5;
/// Characters of a question or an answer that are shown.
const LONGEST: usize = 400;

/// The benchmark of the runs, or why its pictures cannot be shown.
pub(super) struct Pictures(std::result::Result<Benchmark, String>);

/// A run whose samples are shown.
pub(super) struct Run<'a> {
    /// How it is called in the page.
    pub(super) name: String,
    /// Its directory.
    pub(super) dir: &'a Path,
    /// Its tasks as they were learnt, with their metrics where they are known.
    pub(super) tasks: Vec<(String, Option<Metric>)>,
    /// Whether tasks were learnt one after another.
    pub(super) is_sequence: bool,
    /// The split that was scored.
    pub(super) split: fwd_data::bench::Split,
}

impl Pictures {
    /// Opens the benchmark of a run, in `given` or where the run found it.
    pub(super) fn open(manifest: &Manifest, given: Option<&Path>) -> Self {
        Self(benchmark_of(manifest, given).map_err(|error| format!("{error:#}")))
    }

    /// The metric of a task, where the benchmark is there.
    pub(super) fn metric(&self, task: &str) -> Option<Metric> {
        self.0.as_ref().ok()?.task(task).ok().map(|task| task.metric)
    }

    /// The picture of a sample, if the benchmark has the sample where the run had it.
    fn of(&self, run: &Run<'_>, task: &str, example: &Example) -> Option<Picture> {
        let bench = self.0.as_ref().ok()?;
        let record = bench.task(task).ok()?.split(run.split).nth(example.number)?;
        let is_same = record.instruction == example.question;
        let bytes = bench.image(&record.image).ok().filter(|_| is_same)?;
        Picture::new(&bytes, &record.image).ok()
    }
}

/// The section about the first run of each group.
///
/// # Errors
/// A damaged file of answers.
pub(super) fn of_groups(comparison: &Comparison, pictures: &Pictures) -> Result<Section> {
    let runs = numbered(comparison).filter_map(|(_, group)| {
        let run = group.runs.first()?;
        let seed = if group.runs.len() > 1 { format!(", seed {}", run.metrics.seed) } else { String::new() };
        let tasks = run.metrics.tasks.iter().map(|task| (task.name.clone(), Some(task.metric)));
        Some(Run {
            name: format!("{}{seed}", group.name()),
            dir: &run.dir,
            tasks: tasks.collect(),
            is_sequence: group.is_sequence(),
            split: run.manifest.run.config.split,
        })
    });
    section(&runs.collect::<Vec<_>>(), pictures)
}

/// The section about some runs; without blocks if none has answers.
///
/// # Errors
/// A damaged file of answers.
pub(super) fn section(runs: &[Run<'_>], pictures: &Pictures) -> Result<Section> {
    let mut blocks = Vec::new();
    let (mut n_without, mut n_tasks_without) = (0, 0);
    for run in runs {
        let shown = spread(run.tasks.len(), MOST_TASKS);
        n_tasks_without = n_tasks_without.max(run.tasks.len() - shown.len());
        for place in shown {
            let (task, metric) = &run.tasks[place];
            let found = examples(run.dir, (place, task, *metric), (run.tasks.len(), run.is_sequence), EACH)?;
            if found.is_empty() {
                continue;
            }
            let samples: Vec<Sample> = found
                .iter()
                .map(|example| sample(example, pictures.of(run, task, example), run.is_sequence))
                .collect();
            n_without += samples.iter().filter(|sample| sample.picture.is_none()).count();
            blocks.push(Block::Heading(format!("{}: {} {task}", run.name, place + 1)));
            blocks.push(Block::Samples(samples));
        }
    }
    if !blocks.is_empty() {
        let mut text = format!(
            "Up to {EACH} samples of each task that were learnt (wrong before training, right after their task), forgotten (right after their \
             task, wrong at the end) and gained later, those whose score changed most; where no answer changed so, the first ones. ✓ is \
             right, ✗ wrong: an answer counts as right from half of the full score on. Captions are neither; they have their score in percent. \
             Where a method ran under several seeds, the samples are those of its first run."
        );
        if n_tasks_without > 0 {
            text += &format!(
                " Of so many tasks {MOST_TASKS} are shown, spread over the sequence; {n_tasks_without} are left out."
            );
        }
        match &pictures.0 {
            Err(reason) => text += &format!(" Without pictures: {}.", reason.trim_end_matches('.')),
            Ok(_) if n_without > 0 => {
                text += &format!(" {n_without} pictures cannot be read in the benchmark and are left out.");
            }
            Ok(_) => {}
        }
        blocks.insert(0, Block::Text(text));
    }
    Ok(Section { id: "samples", title: "Samples", blocks })
}

fn sample(example: &Example, picture: Option<Picture>, is_sequence: bool) -> Sample {
    let change = match example.change {
        Change::Forgotten => "Forgotten",
        Change::Learnt => "Learnt",
        Change::GainedLater => "Gained later",
        Change::Same => "Not changed",
    };
    let named =
        example.answers.iter().take(ANSWERS).map(|answer| short(answer)).collect::<Vec<_>>().join("; ");
    let rest = match example.answers.len().saturating_sub(ANSWERS) {
        0 => String::new(),
        n => format!("; and {n} more"),
    };
    let after = if is_sequence { "after its task" } else { "after training" };
    let given = [
        ("before training", example.before.as_ref()),
        (after, Some(&example.after)),
        ("at the end", example.end.as_ref()),
    ];
    let given = given.into_iter().filter_map(|(moment, given)| Some(answer(moment, given?)));
    Sample {
        picture,
        name: short(&example.question_id),
        change: change.to_owned(),
        question: short(&example.question),
        right: format!("{named}{rest}"),
        given: given.collect(),
    }
}

fn answer(moment: &str, given: &Given) -> SampleAnswer {
    let percent = minus(&format!("{:.0} %", 100.0 * given.score));
    let is_whole = given.score == 0.0 || given.score == 1.0;
    let mark = match given.is_right {
        Some(true) if is_whole => "✓ right".to_owned(),
        Some(true) => format!("✓ right, {percent}"),
        Some(false) if is_whole => "✗ wrong".to_owned(),
        Some(false) => format!("✗ wrong, {percent}"),
        None => percent,
    };
    let text = if given.text.is_empty() { "(nothing)".to_owned() } else { short(&given.text) };
    SampleAnswer { moment: moment.to_owned(), text, mark }
}

/// A text cut to [`LONGEST`] characters.
fn short(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
