//! Averaged gradient episodic memory (Chaudhry et al. 2019): a step never goes against what old samples want on average.
//!
//! ```text
//! g_ref = gradient of the mean loss of some samples from the buffer
//! g ← g − (gᵀg_ref / g_refᵀg_ref) · g_ref        if gᵀg_ref < 0, else g as it is
//! ```

use super::buffer::{BufferPolicy, drawn, updated};
use super::interface::{Method, StepView, TaskView};
use crate::curriculum::{StoredSample, TaskInfo};
use crate::error::Failure;
use crate::plan::Plan;
use crate::saved::{Section, SectionError};
use crate::streams::stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Averaged gradient episodic memory. After its step the loss of the buffer's samples does not rise, to first order and on average;
/// the step itself is as long as without it, or shorter.
///
/// Cost: one forward and backward pass more for each step, over `reference` samples.
///
/// # Source
/// Chaudhry et al. 2019, "Efficient Lifelong Learning with A-GEM", equation 11. There every task has a buffer of its own of fixed size
/// (`equal-share` is nearest to it).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgemConfig {
    /// Samples that the buffer holds at most, of all tasks together.
    pub size: usize,
    /// Samples of the buffer whose mean gradient a step is held against.
    pub reference: usize,
    /// Which samples the buffer holds.
    pub policy: BufferPolicy,
}

impl Default for AgemConfig {
    fn default() -> Self {
        Self { size: 100, reference: 16, policy: BufferPolicy::EqualShare }
    }
}

/// Averaged gradient episodic memory with its buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct Agem {
    config: AgemConfig,
    buffer: Vec<StoredSample>,
}

impl Agem {
    /// An empty buffer.
    pub fn new(config: AgemConfig) -> Self {
        Self { config, buffer: Vec::new() }
    }
}

impl Method for Agem {
    fn name(&self) -> &'static str {
        "agem"
    }

    fn about(&self) -> &'static str {
        "steps that never go against the mean gradient of a buffer of older samples"
    }

    fn options(&self) -> Value {
        json!(self.config)
    }

    fn check(&self, _plan: &Plan) -> Result<(), String> {
        for (key, value) in [("size", self.config.size), ("reference", self.config.reference)] {
            if value == 0 {
                return Err(format!("method.agem.{key} is 0, must be at least 1"));
            }
        }
        Ok(())
    }

    fn adjust(&self, step: &mut StepView<'_>) -> Result<f64, Failure> {
        if self.buffer.is_empty() {
            return Ok(0.0);
        }
        let at = step.at;
        let mut rng = stream(at.plan.seed, "agem", [at.task.number() as u64, at.step as u64]);
        let chosen = drawn(&mut rng, &self.buffer, self.config.reference);
        project(step.gradient, &(step.gradient_of)(&chosen)?);
        Ok(0.0)
    }

    fn remember(&mut self, task: &mut TaskView<'_>) -> Result<Option<()>, Failure> {
        self.buffer = updated((self.config.size, self.config.policy), &self.buffer, task);
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

/// Takes from a gradient what goes against the reference.
fn project(gradient: &mut [f32], reference: &[f32]) {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let along = dot(gradient, reference);
    if along < 0.0 {
        let factor = along / dot(reference, reference);
        gradient.iter_mut().zip(reference).for_each(|(g, &r)| *g -= (factor * f64::from(r)) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_against_the_reference_is_taken_away_and_nothing_else() {
        let mut against = [1.0f32, -2.0, 3.0];
        project(&mut against, &[0.0, 4.0, 0.0]);
        assert_eq!(against, [1.0, 0.0, 3.0]);
        let mut along = [1.0f32, 2.0, 3.0];
        project(&mut along, &[0.0, 4.0, -1.0]);
        assert_eq!(along, [1.0, 2.0, 3.0]);
        let mut without = [1.0f32, 2.0];
        project(&mut without, &[0.0, 0.0]);
        assert_eq!(without, [1.0, 2.0]);
    }

    #[test]
    fn impossible_options_are_named() {
        let refused = |config| Agem::new(config).check(&Plan::default()).unwrap_err();
        assert!(refused(AgemConfig { size: 0, ..AgemConfig::default() }).contains("method.agem.size is 0"));
        assert!(
            refused(AgemConfig { reference: 0, ..AgemConfig::default() }).contains("agem.reference is 0")
        );
        Agem::new(AgemConfig::default()).check(&Plan::default()).unwrap();
    }
}
