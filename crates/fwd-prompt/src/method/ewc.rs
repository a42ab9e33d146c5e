//! Elastic weight consolidation of the prompts (Kirkpatrick et al. 2017), with one running penalty for all older tasks.

use super::{Hook, Memory};
use crate::config::{Allocation, Config};
use crate::error::{PromptError, Result};
use crate::state::RunState;
use crate::streams::{permutation, stream};
use serde::{Deserialize, Serialize};

/// Elastic weight consolidation: the prompts are held where older tasks left them, each element as strongly as those tasks'
/// losses are sensitive to it.
///
/// ```text
/// L  = L_LM + ½·w · Σ_i F_i (p_i − p*_i)²                  p*: the prompts when the last task was learnt
/// F ← γ·F + mean_n (∂L_LM(n)/∂p)²                          after each task, n: its samples one by one
/// ```
/// The Fisher information is the empirical one: gradients of the loss at the samples' own targets, one sample at a time (not of
/// a batch, whose mean gradient would be squared), with the prompts that each selects at inference. The penalty is added before
/// the gradient is clipped and projected; keys are not penalised.
///
/// It only matters where tasks share prompts. Under [`Allocation::Partitioned`] no task trains an older one's prompts, so
/// the penalty is zero by construction, and F is not computed.
///
/// Cost: one forward and backward pass for each of the F samples after a task, as many floats as the prompts have.
///
/// # Source
/// Kirkpatrick et al. 2017, equation 3. There every task has a penalty of its own around its own optimum; one running F around
/// the latest prompts is Huszár's 2018 correction and, with γ, the online EWC of Schwarz et al. 2018.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EwcConfig {
    /// w: how strongly prompts are held.
    pub weight: f64,
    /// γ in [0, 1]: what is left of the older tasks' F when a task is added.
    pub decay: f64,
    /// F is the mean over at most so many samples of a task, chosen at random.
    pub fisher_samples: usize,
}

impl Default for EwcConfig {
    fn default() -> Self {
        Self { weight: 1e3, decay: 1.0, fisher_samples: 256 }
    }
}

impl Hook for EwcConfig {
    fn check(&self, _config: &Config) -> Result<()> {
        let what = if !(self.weight >= 0.0 && self.weight.is_finite()) {
            format!("method.ewc.weight is {}, must be a number of at least 0", self.weight)
        } else if !(0.0..=1.0).contains(&self.decay) {
            format!("method.ewc.decay is {}, must be in [0, 1]", self.decay)
        } else if self.fisher_samples == 0 {
            "method.ewc.fisher_samples is 0, must be at least 1".to_owned()
        } else {
            return Ok(());
        };
        Err(PromptError::Config(what))
    }

    fn penalise(&self, memory: &Memory, start: usize, change: &[f32], gradient: &mut [f32]) -> f64 {
        let fisher = memory.fisher.get(start..).unwrap_or_default();
        let mut penalty = 0.0;
        for ((&fisher, &change), gradient) in fisher.iter().zip(change).zip(gradient) {
            let (change, pull) = (f64::from(change), self.weight * f64::from(fisher) * f64::from(change));
            penalty += 0.5 * pull * change;
            *gradient += pull as f32;
        }
        penalty
    }

    fn fisher_samples(&self, run: &RunState) -> Vec<usize> {
        if matches!(run.config.pool.allocation, Allocation::Partitioned(_)) {
            return Vec::new();
        }
        let t = run.cursor.task;
        let mut rng = stream(run.config.seed, "fisher samples", [t as u64, 0]);
        let mut samples = permutation(&mut rng, run.tasks[t].n_samples);
        samples.truncate(self.fisher_samples);
        samples
    }

    fn remember(&self, run: &RunState, fisher: &[f64]) -> Memory {
        let old = run.memory.fisher.iter().copied().chain(std::iter::repeat(0.0));
        let sum = fisher.iter().zip(old).map(|(new, old)| (self.decay * f64::from(old) + new) as f32);
        Memory { fisher: sum.collect(), ..run.memory.clone() }
    }
}

/// The diagonal of the empirical Fisher information: the mean over `samples` of each element of `gradient`, squared; none if one of
/// them is. Empty without samples.
pub(crate) fn fisher(
    samples: &[usize],
    mut gradient: impl FnMut(usize) -> Result<Option<Vec<f32>>>,
) -> Result<Option<Vec<f64>>> {
    let mut sum: Vec<f64> = Vec::new();
    for &sample in samples {
        let Some(gradient) = gradient(sample)? else { return Ok(None) };
        sum.resize(gradient.len(), 0.0);
        sum.iter_mut().zip(&gradient).for_each(|(sum, &g)| *sum += f64::from(g) * f64::from(g));
    }
    sum.iter_mut().for_each(|sum| *sum /= samples.len() as f64);
    Ok(Some(sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::normal;

    #[test]
    fn the_gradient_of_the_penalty_is_that_of_finite_differences() {
        let ewc = EwcConfig { weight: 3.0, ..EwcConfig::default() };
        let mut rng = stream(1, "test", [0, 0]);
        // Sixteen elements of which the last ten are trained, two of them without information.
        let mut values: Vec<f32> = normal(&mut rng, 14, 1.0).iter().map(|x| x * x).collect();
        values[7] = 0.0;
        let memory = Memory { fisher: values, ..Memory::default() };
        let (change, before) = (normal(&mut rng, 10, 1.0), normal(&mut rng, 10, 1.0));
        let mut gradient = before.clone();
        let penalty = ewc.penalise(&memory, 6, &change, &mut gradient);
        let by_hand = |i: usize| 1.5 * f64::from(memory.fisher[6 + i]) * f64::from(change[i]).powi(2);
        assert!((penalty - (0..8).map(by_hand).sum::<f64>()).abs() < 1e-9);
        for i in 0..10 {
            let nudged = |h: f32| {
                let mut change = change.clone();
                change[i] += h;
                ewc.penalise(&memory, 6, &change, &mut [0.0; 10])
            };
            let expected = (nudged(0.125) - nudged(-0.125)) / 0.25; // exact for a quadratic, but for the rounding of f32
            let found = f64::from(gradient[i] - before[i]);
            assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{i}: {found} {expected}");
            assert_eq!(expected != 0.0, i < 8 && i != 1);
        }
        // Prompts beyond all that have information are free, and keep their gradient to the bit.
        let mut gradient = before.clone();
        assert_eq!(ewc.penalise(&memory, 14, &change, &mut gradient), 0.0);
        assert_eq!(ewc.penalise(&memory, 99, &change, &mut gradient), 0.0);
        assert_eq!(gradient, before);
    }

    #[test]
    fn fisher_information_is_the_mean_of_squares_not_the_square_of_the_mean() {
        let gradients = [[1.0f32, 0.0], [-1.0, 4.0]];
        let found = fisher(&[0, 1], |i| Ok(Some(gradients[i].to_vec()))).unwrap();
        assert_eq!(found, Some(vec![1.0, 8.0]));
        assert_eq!(fisher(&[0, 1], |i| Ok((i == 0).then(|| vec![1.0]))).unwrap(), None);
        assert_eq!(fisher(&[], |_| Ok(None)).unwrap(), Some(vec![]));
    }
}
