//! AdamW (Loshchilov & Hutter 2019, algorithm 2) on one parameter slice, bias correction on:
//!
//! ```text
//! m ← β₁·m + (1−β₁)·g        v ← β₂·v + (1−β₂)·g²
//! p ← p·(1 − η·w) − η·(m/(1−β₁ᵗ)) / (sqrt(v/(1−β₂ᵗ)) + eps)
//! ```

/// The hyper-parameters of AdamW. The defaults are PyTorch's but for `weight_decay`, which is 0: a prompt is not shrunk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Step size η.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay w.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

/// The moments of one parameter and the number of steps taken.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamWState {
    first: Vec<f32>,
    second: Vec<f32>,
    n_steps: u32,
}

/// Parameter, gradient and state must have one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("AdamW: parameter of length {parameter}, gradient of length {gradient}, state of length {state}")]
pub struct LengthError {
    /// Length of the parameter.
    pub parameter: usize,
    /// Length of the gradient.
    pub gradient: usize,
    /// Length of the moments.
    pub state: usize,
}

impl AdamWState {
    /// Zero moments for a parameter of `len` elements.
    pub fn new(len: usize) -> Self {
        Self { first: vec![0.0; len], second: vec![0.0; len], n_steps: 0 }
    }

    /// Number of steps taken.
    pub fn n_steps(&self) -> u32 {
        self.n_steps
    }
}

impl AdamW {
    /// One step: updates the moments and the parameter in place.
    ///
    /// # Errors
    /// [`LengthError`] if the slices differ in length; nothing is changed then.
    ///
    /// # Examples
    /// ```
    /// use fwd_linalg::{AdamW, AdamWState};
    /// let mut state = AdamWState::new(2);
    /// let mut p = [1.0, -1.0];
    /// AdamW { lr: 0.1, ..AdamW::default() }.step(&mut state, &mut p, &[3.0, -0.5])?;
    /// // The first step moves every coordinate by lr against the sign of its gradient.
    /// assert!((p[0] - 0.9).abs() < 1e-6 && (p[1] + 0.9).abs() < 1e-6);
    /// # Ok::<(), fwd_linalg::LengthError>(())
    /// ```
    pub fn step(
        &self,
        state: &mut AdamWState,
        parameter: &mut [f32],
        gradient: &[f32],
    ) -> Result<(), LengthError> {
        let n = parameter.len();
        if gradient.len() != n || state.first.len() != n {
            return Err(LengthError { parameter: n, gradient: gradient.len(), state: state.first.len() });
        }
        state.n_steps += 1;
        let t = f64::from(state.n_steps);
        // The corrections are folded into two factors, in f64: 1 − β₂ᵗ is small in the first steps.
        let step = (self.lr / (1.0 - self.beta1.powf(t))) as f32;
        let root = (1.0 - self.beta2.powf(t)).sqrt().recip() as f32;
        let (b1, b2, eps) = (self.beta1 as f32, self.beta2 as f32, self.eps as f32);
        let (a1, a2) = ((1.0 - self.beta1) as f32, (1.0 - self.beta2) as f32);
        let keep = (1.0 - self.lr * self.weight_decay) as f32;
        for (((p, &g), m), v) in
            parameter.iter_mut().zip(gradient).zip(&mut state.first).zip(&mut state.second)
        {
            *m = b1 * *m + a1 * g;
            *v = b2 * *v + a2 * g * g;
            *p = *p * keep - step * *m / (v.sqrt() * root + eps);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimises_a_quadratic_and_counts_steps() {
        let optimiser = AdamW { lr: 0.05, ..AdamW::default() };
        let mut state = AdamWState::new(3);
        let target = [1.0f32, -2.0, 0.5];
        let mut p = [0.0f32; 3];
        for _ in 0..500 {
            let gradient: Vec<f32> = p.iter().zip(target).map(|(p, t)| p - t).collect();
            optimiser.step(&mut state, &mut p, &gradient).unwrap();
        }
        assert_eq!(state.n_steps(), 500);
        assert!(p.iter().zip(target).all(|(p, t)| (p - t).abs() < 1e-3), "{p:?}");
    }

    #[test]
    fn a_wrong_length_changes_nothing() {
        let mut state = AdamWState::new(2);
        let mut p = [1.0f32; 3];
        let error = AdamW::default().step(&mut state, &mut p, &[0.0; 3]).unwrap_err();
        assert_eq!(error, LengthError { parameter: 3, gradient: 3, state: 2 });
        assert_eq!((p, state.n_steps()), ([1.0; 3], 0));
    }

    #[test]
    fn weight_decay_is_decoupled_from_the_gradient() {
        let mut state = AdamWState::new(1);
        let mut p = [2.0f32];
        AdamW { lr: 0.1, weight_decay: 0.5, ..AdamW::default() }.step(&mut state, &mut p, &[0.0]).unwrap();
        assert!((p[0] - 1.9).abs() < 1e-6);
    }
}
