//! Which samples a step sees: each draws its task by the recipe's weights, and the next one in the task's own random order.

use super::recipe::Recipe;
use super::vocabulary::texts_of;
use crate::weight_training::Example;
use fwd_data::bench::{Benchmark, Record, Split};
use rand::distr::weighted::WeightedIndex;
use rand::prelude::*;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Draws batches, one step after another from the first.
pub(super) struct Sampler<'a> {
    recipe: &'a Recipe,
    tasks: Vec<Stream<'a>>,
    /// All words of the training texts: what instructions are replaced by.
    words: Vec<&'a str>,
}

/// What one step of the optimiser sees.
pub(super) struct Draw<'a> {
    /// As many as the recipe's batch size; none if every weight is 0.
    pub(super) samples: Vec<Drawn<'a>>,
    /// Whether each has the prompt of its task in front.
    pub(super) is_prompted: bool,
}

/// A sample and the place of its task.
pub(super) struct Drawn<'a> {
    /// The place among the sampler's tasks, and so of the prompt.
    pub(super) task: u32,
    /// What the model reads and shall answer.
    pub(super) sample: Example<'a>,
}

struct Stream<'a> {
    name: &'a str,
    may_replace: bool,
    records: Vec<&'a Record>,
    epoch: u64,
    order: Vec<usize>,
}

impl<'a> Sampler<'a> {
    /// The training records of the tasks that the recipe weighs.
    pub(super) fn new(recipe: &'a Recipe, bench: &'a Benchmark) -> Self {
        let tasks: Vec<Stream<'a>> = bench
            .pretraining()
            .into_iter()
            .filter(|task| recipe.weights.contains_key(&task.name))
            .map(|task| Stream {
                name: &task.name,
                may_replace: recipe.prompting.tasks.contains(&task.name),
                records: task.split(Split::Train).collect(),
                epoch: 0,
                order: Vec::new(),
            })
            .filter(|stream| !stream.records.is_empty())
            .collect();
        let texts = tasks.iter().flat_map(|s| s.records.iter().flat_map(|record| texts_of(record)));
        let words: BTreeSet<&str> = texts.flat_map(str::split_whitespace).collect();
        Self { recipe, tasks, words: words.into_iter().collect() }
    }

    /// Number of training samples.
    pub(super) fn n_samples(&self) -> usize {
        self.tasks.iter().map(|s| s.records.len()).sum()
    }

    /// How many tasks are drawn from.
    pub(super) fn n_tasks(&self) -> usize {
        self.tasks.len()
    }

    /// The samples of a step. Steps must be drawn in order, since tasks go through their samples at their own pace.
    pub(super) fn draw(&mut self, step: usize) -> Draw<'a> {
        let weights = self.recipe.weights_at(step);
        let weights = self.tasks.iter().map(|s| weights.get(s.name).copied().unwrap_or(0.0));
        let Ok(chosen) = WeightedIndex::new(weights) else {
            return Draw { samples: Vec::new(), is_prompted: false };
        };
        let Recipe { seed, prompting, .. } = self.recipe;
        let mut rng = fwd_continual::stream(*seed, "pre-training tasks", [step as u64, 0]);
        let is_prompted = prompting.tokens > 0 && rng.random_bool(self.recipe.prompting_share_at(step));
        let draw = |_| {
            let task = chosen.sample(&mut rng);
            let stream = &mut self.tasks[task];
            let record = stream.next(*seed, self.recipe.words_at(step, stream.name));
            let mut sample = Example::from(record);
            sample.image.1 = rng.random_range(0..self.recipe.views_of(stream.name));
            if is_prompted && stream.may_replace && rng.random_bool(prompting.replaced) {
                let n = rng.random_range(3..=8);
                let words: Vec<&str> = self.words.choose_multiple(&mut rng, n).copied().collect();
                sample.instruction = Cow::Owned(words.join(" "));
            }
            Drawn { task: task as u32, sample }
        };
        let samples = (0..self.recipe.batch_size).map(draw).collect();
        Draw { samples, is_prompted }
    }
}

impl<'a> Stream<'a> {
    /// The next record, passing over those without one of the words; any, if none in a whole pass has one.
    fn next(&mut self, seed: u64, words: Option<&[String]>) -> &'a Record {
        let has = |record: &Record, word: &String| {
            record.instruction.split(|c: char| !c.is_alphanumeric()).any(|part| part == word)
        };
        let mut left = self.records.len();
        loop {
            if self.order.is_empty() {
                self.order = (0..self.records.len()).collect();
                self.order.shuffle(&mut fwd_continual::stream(seed, self.name, [self.epoch, 0]));
                self.epoch += 1;
            }
            let record = self.records[self.order.pop().unwrap_or(0)];
            if left == 0 || words.is_none_or(|words| words.iter().any(|word| has(record, word))) {
                return record;
            }
            left -= 1;
        }
    }
}
