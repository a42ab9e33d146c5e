//! Learning-rate schedules: linear warm-up, then constant or a half cosine (Loshchilov & Hutter 2017, without restarts).

use serde::{Deserialize, Serialize};

/// The shape of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// The learning rate stays as it is.
    #[default]
    Constant,
    /// It falls to 0 like `(1 + cos πx)/2`.
    Cosine,
}

/// The factor that a learning rate is multiplied with at each step of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// Steps over which the factor rises: `(s + 1)/warmup_steps` at step s = 0, 1, ….
    pub warmup_steps: usize,
    /// What follows.
    pub decay: Decay,
}

impl Schedule {
    /// The factor of step `step` (from 0) of `n_steps`, in [0, 1].
    ///
    /// # Examples
    /// ```
    /// use fwd_continual::{Decay, Schedule};
    /// let schedule = Schedule { warmup_steps: 2, decay: Decay::Cosine };
    /// let factors: Vec<f64> = (0..6).map(|step| schedule.factor(step, 6)).collect();
    /// assert_eq!(factors[..3], [0.5, 1.0, 1.0]); // the rise, and the top of the cosine
    /// assert!((factors[4] - 0.5).abs() < 1e-12);
    /// ```
    pub fn factor(&self, step: usize, n_steps: usize) -> f64 {
        if step < self.warmup_steps {
            return (step + 1) as f64 / self.warmup_steps as f64;
        }
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Cosine => {
                let rest = n_steps.saturating_sub(self.warmup_steps).max(1);
                let done = ((step - self.warmup_steps) as f64 / rest as f64).min(1.0);
                0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
        }
    }
}
