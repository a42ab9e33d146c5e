//! Which samples a step sees: each draws its task by the recipe's weights, and the next one in the task's own random order.

use super::recipe::Recipe;
use fwd_data::bench::{Benchmark, Record, Split};
use rand::distr::weighted::WeightedIndex;
use rand::prelude::*;

/// Draws batches, one step after another from the first.
pub(crate) struct Sampler<'a> {
    seed: u64,
    batch_size: usize,
    tasks: Vec<Stream<'a>>,
    chosen: Option<WeightedIndex<f64>>,
}

struct Stream<'a> {
    name: &'a str,
    records: Vec<&'a Record>,
    epoch: u64,
    order: Vec<usize>,
}

impl<'a> Sampler<'a> {
    /// The training records of the tasks that the recipe weighs.
    pub(crate) fn new(recipe: &Recipe, bench: &'a Benchmark) -> Self {
        let weight = |name: &str| recipe.weights.get(name).copied().unwrap_or(0.0);
        let tasks: Vec<Stream<'a>> = bench
            .pretraining()
            .into_iter()
            .filter(|task| weight(&task.name) > 0.0)
            .map(|task| Stream {
                name: &task.name,
                records: task.split(Split::Train).collect(),
                epoch: 0,
                order: Vec::new(),
            })
            .filter(|stream| !stream.records.is_empty())
            .collect();
        let chosen = WeightedIndex::new(tasks.iter().map(|s| weight(s.name))).ok();
        Self { seed: recipe.seed, batch_size: recipe.batch_size, tasks, chosen }
    }

    /// Number of training samples.
    pub(crate) fn n_samples(&self) -> usize {
        self.tasks.iter().map(|s| s.records.len()).sum()
    }

    /// The samples of a step. Steps must be drawn in order, since tasks go through their samples at their own pace.
    pub(crate) fn draw(&mut self, step: usize) -> Vec<&'a Record> {
        let Some(chosen) = &self.chosen else { return Vec::new() };
        let mut rng = fwd_prompt::stream(self.seed, "pre-training tasks", [step as u64, 0]);
        (0..self.batch_size).map(|_| self.tasks[chosen.sample(&mut rng)].next(self.seed)).collect()
    }
}

impl<'a> Stream<'a> {
    fn next(&mut self, seed: u64) -> &'a Record {
        if self.order.is_empty() {
            self.order = (0..self.records.len()).collect();
            self.order.shuffle(&mut fwd_prompt::stream(seed, self.name, [self.epoch, 0]));
            self.epoch += 1;
        }
        self.records[self.order.pop().unwrap_or(0)]
    }
}
