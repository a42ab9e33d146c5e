//! Gradient episodic memory (Lopez-Paz & Ranzato 2017): a step goes against no older task.
//!
//! ```text
//! G    = one row for each older task t: the gradient of the mean loss of some of its samples from the buffer
//! g̃    = the gradient nearest to g with G·g̃ ≥ 0:   g̃ = g + Gᵀv,   v = argmin_{v ≥ γ} ½ vᵀGGᵀv + (G·g)ᵀv
//! ```
//! `γ` (`margin`) above 0 moves a step towards older tasks beyond that. Where `G·g ≥ 0` already, `g` stays as it is.

use super::buffer::{BufferPolicy, drawn, updated};
use super::interface::{Method, StepView, TaskView};
use crate::curriculum::{StoredSample, TaskInfo};
use crate::error::Failure;
use crate::plan::Plan;
use crate::saved::{Section, SectionError};
use crate::streams::stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Gradient episodic memory. A step along its gradient raises the loss of none of the samples that it drew of each older task, to first order and on average.
///
/// Cost: one forward and backward pass more for each step and older task, over `reference` samples each.
///
/// # Source
/// Lopez-Paz & Ranzato 2017, "Gradient Episodic Memory for Continual Learning", equations 8 to 12. There every pass sees a task's whole
/// memory, of a fixed size, and the constraints of `margin` are those of the authors' code (`memory_strength`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GemConfig {
    /// Samples that the buffer holds at most, of all tasks together.
    pub size: usize,
    /// Samples of each older task whose mean gradient a step is held against; all that the buffer has of it if they are fewer.
    pub reference: usize,
    /// How much of each older task's gradient a step that goes against one of them has at least.
    pub margin: f64,
    /// Which samples the buffer holds.
    pub policy: BufferPolicy,
}

impl Default for GemConfig {
    /// The margin is that of the authors.
    fn default() -> Self {
        Self { size: 100, reference: 16, margin: 0.5, policy: BufferPolicy::EqualShare }
    }
}

/// Gradient episodic memory with its buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct Gem {
    config: GemConfig,
    buffer: Vec<StoredSample>,
}

impl Gem {
    /// An empty buffer.
    pub fn new(config: GemConfig) -> Self {
        Self { config, buffer: Vec::new() }
    }
}

impl Method for Gem {
    fn name(&self) -> &'static str {
        "gem"
    }

    fn about(&self) -> &'static str {
        "steps that go against the gradient of no older task's samples in a buffer"
    }

    fn options(&self) -> Value {
        json!(self.config)
    }

    fn check(&self, _plan: &Plan) -> Result<(), String> {
        for (key, value) in [("size", self.config.size), ("reference", self.config.reference)] {
            if value == 0 {
                return Err(format!("method.gem.{key} is 0, must be at least 1"));
            }
        }
        let margin = self.config.margin;
        if !(margin >= 0.0 && margin.is_finite()) {
            return Err(format!("method.gem.margin is {margin}, must be 0 or a number above it"));
        }
        Ok(())
    }

    fn adjust(&self, step: &mut StepView<'_>) -> Result<f64, Failure> {
        let at = step.at;
        let mut rng = stream(at.plan.seed, "gem", [at.task.number() as u64, at.step as u64]);
        let mut older = Vec::new();
        for of_task in self.buffer.chunk_by(|a, b| a.task == b.task) {
            let chosen = drawn(&mut rng, of_task, self.config.reference);
            older.push((step.gradient_of)(&chosen)?);
        }
        project(step.gradient, &older, self.config.margin);
        Ok(0.0)
    }

    fn remember(&mut self, task: &mut TaskView<'_>) -> Result<Option<()>, Failure> {
        self.buffer = updated((self.config.size, self.config.policy), &self.buffer, task);
        // So that those of a task stand together, in the random order in which they may be dropped.
        self.buffer.sort_by_key(|sample| sample.task);
        Ok(Some(()))
    }

    fn stored_samples(&self) -> &[StoredSample] {
        &self.buffer
    }

    fn save(&self, section: &mut Section) {
        section.save_samples("buffer", &self.buffer);
    }

    fn load(&mut self, section: &Section, tasks: &[TaskInfo]) -> Result<(), SectionError> {
        self.buffer = section.load_samples("buffer", tasks)?;
        Ok(())
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Moves a gradient to the nearest one that goes against none of the older ones, if it goes against any.
fn project(gradient: &mut [f32], older: &[Vec<f32>], margin: f64) {
    let along: Vec<f64> = older.iter().map(|old| dot(gradient, old)).collect();
    if along.iter().all(|along| *along >= 0.0) {
        return;
    }
    let products: Vec<Vec<f64>> = older.iter().map(|a| older.iter().map(|b| dot(a, b)).collect()).collect();
    for (old, factor) in older.iter().zip(multipliers(&products, &along, margin)) {
        gradient.iter_mut().zip(old).for_each(|(g, &o)| *g += (factor * f64::from(o)) as f32);
    }
}

/// The `v ≥ margin` with the least `½ vᵀPv + cᵀv`, `P` symmetric and positive semidefinite: one coordinate after another is set to its best value
/// until none moves. There are as many as older tasks, so that this costs nothing beside their gradients.
fn multipliers(p: &[Vec<f64>], c: &[f64], margin: f64) -> Vec<f64> {
    const SWEEPS: usize = 100_000;
    let mut v = vec![margin; c.len()];
    for _ in 0..SWEEPS {
        let mut moved = 0f64;
        for (i, row) in p.iter().enumerate() {
            // A gradient of zeros forbids nothing.
            if row[i] <= 0.0 {
                continue;
            }
            let slope: f64 = c[i] + row.iter().zip(&v).map(|(p, v)| p * v).sum::<f64>();
            let next = (v[i] - slope / row[i]).max(margin);
            moved = moved.max((next - v[i]).abs() / next.abs().max(1.0));
            v[i] = next;
        }
        if moved < 1e-12 {
            break;
        }
    }
    v
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curriculum::TaskId;
    use crate::method::EachGradient;
    use rand::Rng;

    #[test]
    fn one_older_task_without_margin_is_what_agem_does_with_it() {
        let mut against = [1.0f32, -2.0, 3.0];
        project(&mut against, &[vec![0.0, 4.0, 0.0]], 0.0);
        assert_eq!(against, [1.0, 0.0, 3.0]);
        let mut along = [1.0f32, 2.0, 3.0];
        project(&mut along, &[vec![0.0, 4.0, -1.0], vec![0.0; 3]], 0.5);
        assert_eq!(along, [1.0, 2.0, 3.0]);
        let mut with_margin = [1.0f32, -1.0, 3.0];
        project(&mut with_margin, &[vec![0.0, 4.0, 0.0]], 0.5);
        assert_eq!(with_margin, [1.0, 1.0, 3.0]);
    }

    #[test]
    fn the_nearest_gradient_that_goes_against_no_older_task_is_found() {
        let mut rng = stream(7, "test", [0, 0]);
        let mut n_moved = 0;
        for n in 1..=6 {
            let mut row = || -> Vec<f32> { (0..9).map(|_| rng.random_range(-1.0..1.0)).collect() };
            let older: Vec<Vec<f32>> = (0..n).map(|_| row()).collect();
            let before = row();
            let mut after = before.clone();
            project(&mut after, &older, 0.0);
            assert!(older.iter().all(|old| dot(old, &after) > -1e-5), "{n}");
            // The conditions of the optimum: the change is a combination of those rows alone that bind, with weights of at least 0.
            let change: Vec<f32> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
            let weights = multipliers(
                &older.iter().map(|a| older.iter().map(|b| dot(a, b)).collect()).collect::<Vec<_>>(),
                &older.iter().map(|old| dot(old, &before)).collect::<Vec<_>>(),
                0.0,
            );
            assert!(
                weights.iter().zip(&older).all(|(w, old)| *w >= 0.0 && w * dot(old, &after).abs() < 1e-5)
            );
            let combined =
                |i: usize| -> f64 { older.iter().zip(&weights).map(|(o, w)| w * f64::from(o[i])).sum() };
            assert!(change.iter().enumerate().all(|(i, c)| (f64::from(*c) - combined(i)).abs() < 1e-5));
            n_moved += usize::from(after != before);
        }
        assert!(n_moved >= 4, "{n_moved}");
    }

    /// Of sixteen samples eight are kept, of these four: not those that stand first.
    #[test]
    fn what_is_kept_of_a_task_is_a_random_part_of_what_was_kept() {
        let tasks = ["a", "b"].map(|name| TaskInfo { name: name.to_owned(), n_samples: 16 });
        let is_first_kept = |seed: u64| {
            let mut gem = Gem::new(GemConfig { size: 8, ..GemConfig::default() });
            let mut kept = Vec::new();
            for now in 0..2 {
                let (plan, task) = (&Plan { seed, ..Plan::default() }, TaskId::from_index(now));
                let gradients: EachGradient<'_> = &mut |_, _| Ok(Some(()));
                let mut view = TaskView { plan, task, tasks: &tasks, shares_parameters: true, gradients };
                gem.remember(&mut view).unwrap();
                kept.push(gem.stored_samples().to_vec());
            }
            assert!(kept[1].is_sorted_by_key(|sample| sample.task));
            let mut first = kept[0].clone();
            first.sort();
            kept[1].contains(&first[0])
        };
        let n_kept = (0..40).filter(|seed| is_first_kept(*seed)).count();
        assert!((8..33).contains(&n_kept), "half of the time: {n_kept} of 40");
    }

    #[test]
    fn impossible_options_are_named() {
        let refused = |config| Gem::new(config).check(&Plan::default()).unwrap_err();
        assert!(refused(GemConfig { size: 0, ..GemConfig::default() }).contains("method.gem.size is 0"));
        assert!(refused(GemConfig { reference: 0, ..GemConfig::default() }).contains("gem.reference is 0"));
        assert!(refused(GemConfig { margin: -0.5, ..GemConfig::default() }).contains("gem.margin is -0.5"));
        Gem::new(GemConfig::default()).check(&Plan::default()).unwrap();
    }
}
