//! Elastic weight consolidation (Kirkpatrick et al. 2017), with one running penalty for all older tasks.

use super::interface::{Method, StepView, TaskView};
use crate::curriculum::TaskInfo;
use crate::error::Failure;
use crate::learner::Change;
use crate::plan::Plan;
use crate::saved::{Section, SectionError};
use crate::streams::{permutation, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Elastic weight consolidation: the parameters are held where older tasks left them, each element as strongly as those tasks'
/// losses are sensitive to it.
///
/// ```text
/// L  = L_LM + ½·w · Σ_i F_i (p_i − p*_i)²                  p*: the parameters when the last task was learnt
/// F ← γ·F + mean_n (∂L_LM(n)/∂p)²                          after each task, n: its samples one by one
/// ```
/// The Fisher information is the empirical one: gradients of the loss at the samples' own targets, one sample at a time (not of
/// a batch, whose mean gradient would be squared), as the learner answers each. The penalty is added before the gradient is clipped
/// and projected; parameters that the learner reports apart, as the keys of prompts, are not penalised.
///
/// It only matters where tasks share parameters. Where no task trains an older one's, the penalty is zero by construction, and F is
/// not computed.
///
/// Cost: one forward and backward pass for each of the `fisher_samples` after a task, and as many floats as there are parameters.
///
/// # Source
/// Kirkpatrick et al. 2017, equation 3. There every task has a penalty of its own around its own optimum; one running F around
/// the latest prompts is Huszár's 2018 correction and, with γ, the online EWC of Schwarz et al. 2018.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EwcConfig {
    /// w: how strongly parameters are held.
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

/// Elastic weight consolidation with the Fisher information of the learnt tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Ewc {
    config: EwcConfig,
    /// The diagonal, one element for each parameter; empty before there is any.
    fisher: Vec<f32>,
}

impl Ewc {
    /// No information yet.
    pub fn new(config: EwcConfig) -> Self {
        Self { config, fisher: Vec::new() }
    }

    /// The penalty on a change, and its gradient, which is added.
    fn penalise(&self, change: &Change<'_>, gradient: &mut [f32]) -> f64 {
        let fisher = self.fisher.get(change.first..).unwrap_or_default();
        let mut penalty = 0.0;
        for ((&fisher, &change), gradient) in fisher.iter().zip(&*change.values).zip(gradient) {
            let (change, pull) =
                (f64::from(change), self.config.weight * f64::from(fisher) * f64::from(change));
            penalty += 0.5 * pull * change;
            *gradient += pull as f32;
        }
        penalty
    }
}

impl Method for Ewc {
    fn name(&self) -> &'static str {
        "ewc"
    }

    fn about(&self) -> &'static str {
        "a penalty on changing what older tasks are sensitive to"
    }

    fn options(&self) -> Value {
        json!(self.config)
    }

    fn check(&self, _plan: &Plan) -> Result<(), String> {
        let EwcConfig { weight, decay, fisher_samples } = self.config;
        Err(if !(weight >= 0.0 && weight.is_finite()) {
            format!("method.ewc.weight is {weight}, must be a number of at least 0")
        } else if !(0.0..=1.0).contains(&decay) {
            format!("method.ewc.decay is {decay}, must be in [0, 1]")
        } else if fisher_samples == 0 {
            "method.ewc.fisher_samples is 0, must be at least 1".to_owned()
        } else {
            return Ok(());
        })
    }

    fn adjust(&self, step: &mut StepView<'_>) -> Result<f64, Failure> {
        if self.fisher.is_empty() {
            return Ok(0.0);
        }
        Ok(self.penalise(&(step.change)(), step.gradient))
    }

    fn remember(&mut self, task: &mut TaskView<'_>) -> Result<Option<()>, Failure> {
        if !task.shares_parameters {
            return Ok(Some(()));
        }
        let mut rng = stream(task.plan.seed, "fisher samples", [task.task.number() as u64, 0]);
        let mut samples = permutation(&mut rng, task.tasks[task.task.index()].n_samples);
        samples.truncate(self.config.fisher_samples);
        let mut squares = Squares::default();
        if (task.gradients)(&samples, &mut |gradient| squares.add(gradient))?.is_none() {
            return Ok(None);
        }
        let old = self.fisher.iter().copied().chain(std::iter::repeat(0.0));
        let sum = squares.mean().into_iter().zip(old);
        self.fisher = sum.map(|(new, old)| (self.config.decay * f64::from(old) + new) as f32).collect();
        Ok(Some(()))
    }

    fn save(&self, section: &mut Section) {
        section.put_f32("fisher", &[self.fisher.len()], &self.fisher);
    }

    fn load(&mut self, section: &Section, _tasks: &[TaskInfo]) -> Result<(), SectionError> {
        let shape = section.shape("fisher").unwrap_or_default().to_vec();
        self.fisher = section.f32("fisher", &[shape.iter().product()])?;
        Ok(())
    }
}

/// The mean of squared gradients: the diagonal of the empirical Fisher information.
#[derive(Default)]
struct Squares {
    sum: Vec<f64>,
    n: usize,
}

impl Squares {
    fn add(&mut self, gradient: &[f32]) {
        self.sum.resize(gradient.len(), 0.0);
        self.sum.iter_mut().zip(gradient).for_each(|(sum, &g)| *sum += f64::from(g) * f64::from(g));
        self.n += 1;
    }

    fn mean(mut self) -> Vec<f64> {
        self.sum.iter_mut().for_each(|sum| *sum /= self.n as f64);
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curriculum::TaskId;
    use crate::streams::normal;

    #[test]
    fn the_gradient_of_the_penalty_is_that_of_finite_differences() {
        let mut ewc = Ewc::new(EwcConfig { weight: 3.0, ..EwcConfig::default() });
        let mut rng = stream(1, "test", [0, 0]);
        // Sixteen elements of which the last ten are trained, two of them without information.
        let mut values: Vec<f32> = normal(&mut rng, 14, 1.0).iter().map(|x| x * x).collect();
        values[7] = 0.0;
        ewc.fisher = values;
        let (change, before) = (normal(&mut rng, 10, 1.0), normal(&mut rng, 10, 1.0));
        let mut gradient = before.clone();
        let moved = |first: usize, change: &[f32]| Change { first, values: change.to_vec().into() };
        let penalty = ewc.penalise(&moved(6, &change), &mut gradient);
        let by_hand = |i: usize| 1.5 * f64::from(ewc.fisher[6 + i]) * f64::from(change[i]).powi(2);
        assert!((penalty - (0..8).map(by_hand).sum::<f64>()).abs() < 1e-9);
        for i in 0..10 {
            let nudged = |h: f32| {
                let mut change = change.clone();
                change[i] += h;
                ewc.penalise(&moved(6, &change), &mut [0.0; 10])
            };
            let expected = (nudged(0.125) - nudged(-0.125)) / 0.25; // exact for a quadratic, but for the rounding of f32
            let actual = f64::from(gradient[i] - before[i]);
            assert!((actual - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{i}: {actual} {expected}");
            assert_eq!(expected != 0.0, i < 8 && i != 1);
        }
        // Prompts beyond all that have information are free, and keep their gradient to the bit.
        let mut gradient = before.clone();
        assert_eq!(ewc.penalise(&moved(14, &change), &mut gradient), 0.0);
        assert_eq!(ewc.penalise(&moved(99, &change), &mut gradient), 0.0);
        assert_eq!(gradient, before);
    }

    #[test]
    fn fisher_information_is_the_mean_of_squares_not_the_square_of_the_mean() {
        let gradients = [[1.0f32, 0.0], [-1.0, 4.0]];
        let tasks = [TaskInfo { name: "a".to_owned(), n_samples: 2 }];
        let remember = |ewc: &mut Ewc, stops: bool, shares_parameters: bool| {
            let mut show = |samples: &[usize], see: &mut dyn FnMut(&[f32])| {
                samples.iter().for_each(|&sample| see(&gradients[sample]));
                Ok((!stops).then_some(()))
            };
            let (plan, task) = (&Plan::default(), TaskId::from_index(0));
            ewc.remember(&mut TaskView { plan, task, tasks: &tasks, shares_parameters, gradients: &mut show })
                .unwrap()
        };
        let mut ewc = Ewc::new(EwcConfig { decay: 0.5, ..EwcConfig::default() });
        // Nothing is kept of a pass that was stopped, nor where no task trains what an older one has trained.
        assert_eq!((remember(&mut ewc, true, true), remember(&mut ewc, false, false)), (None, Some(())));
        assert!(ewc.fisher.is_empty());
        assert_eq!(remember(&mut ewc, false, true), Some(()));
        assert_eq!(ewc.fisher, [1.0, 8.0]);
        remember(&mut ewc, false, true);
        assert_eq!(ewc.fisher, [1.5, 12.0]);
    }
}
