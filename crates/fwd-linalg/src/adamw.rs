//! AdamW (Loshchilov & Hutter 2019, algorithm 2), bias correction on, alone and with a projection before and after it.
//!
//! ```text
//! m ← β₁·m + (1−β₁)·Π(g)      v ← β₂·v + (1−β₂)·Π(g)²
//! u = Π( m/(1−β₁ᵗ) / (sqrt(v/(1−β₂ᵗ)) + eps) + w·p )        p ← p − η·u
//! ```
//! Projecting the gradient alone is not enough: dividing by `sqrt(v)` rescales every coordinate by its own factor and so leads
//! back out of the allowed space (58 % of the change lay in the protected space after 200 steps in a peer). The *update* must be
//! projected. Without Π both are plain AdamW, where PyTorch writes the decay as `p·(1 − η·w)`.

use crate::error::{Result, ensure_finite, ensure_rows, ensure_shape};
use crate::projection::Projection;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The hyper-parameters of AdamW. The defaults are PyTorch's, except that `weight_decay` is 0: a prompt is not
/// shrunk.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// Step size η, which multiplies the whole update.
    pub lr: f64,
    /// Decay β₁ of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay β₂ of the second moment, in [0, 1).
    pub beta2: f64,
    /// What is added to the root of the second moment, so that nothing is divided by 0.
    pub eps: f64,
    /// Decoupled weight decay w: a step shrinks the parameter by the share `η·w`.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

/// How many elements one task of the thread pool takes.
const PIECE: usize = 64 * 1024;

/// The moments of one parameter and the number of steps taken.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamWState {
    first: Vec<f32>,
    second: Vec<f32>,
    n_steps: u32,
}

impl AdamWState {
    /// Zero moments for a parameter of `len` elements.
    pub fn new(len: usize) -> Self {
        Self { first: vec![0.0; len], second: vec![0.0; len], n_steps: 0 }
    }

    /// Takes up a state that was saved: both moments, one element for each of the parameter, and the number of steps.
    ///
    /// # Errors
    /// [`LinalgError::Shape`](crate::LinalgError::Shape) if the two differ in length.
    pub fn from_moments(first: Vec<f32>, second: Vec<f32>, n_steps: u32) -> Result<Self> {
        let (a, b) = (first.len(), second.len());
        ensure_shape(a == b, "AdamWState", || format!("moments of {a} and {b} elements"))?;
        Ok(Self { first, second, n_steps })
    }

    /// The first and the second moment, each as long as the parameter.
    pub fn moments(&self) -> (&[f32], &[f32]) {
        (&self.first, &self.second)
    }

    /// Number of steps taken.
    pub fn n_steps(&self) -> u32 {
        self.n_steps
    }
}

/// Which parts of an AdamW step are projected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProjectAt {
    /// `u = Π(adamw(Π(g)))`: the moments see the projected gradient, and the update is projected again. Nothing leaks.
    #[default]
    Both,
    /// `u = Π(adamw(g))`: half the work. Nothing leaks, but the second moment also counts what is projected away.
    Update,
    /// `u = adamw(Π(g))`, as in published implementations of gradient projection. The update leaks into the forbidden space, so this is
    /// for comparison only.
    Gradient,
}

/// AdamW whose gradient and update are projected, in one pass over the parameter.
///
/// # Examples
/// ```
/// use fwd_linalg::{AdamW, AdamWState, Basis, ProjectAt, ProjectedAdamW, Projection};
/// let forbidden = Basis::from_orthonormal(2, vec![0.6, 0.8])?;
/// let projection = Projection::new(2, true, &[(&forbidden, -1.0)])?;
/// let step = ProjectedAdamW {
///     optimiser: AdamW { lr: 0.1, ..AdamW::default() },
///     projection: &projection,
///     at: ProjectAt::Both,
///     gradient_scale: 1.0,
/// };
/// let (mut state, mut p) = (AdamWState::new(2), [0.0f32, 0.0]);
/// for _ in 0..10 {
///     step.step(&mut state, &mut p, &[1.0, 5.0])?;
/// }
/// assert!(p[0] != 0.0 && (0.6 * p[0] + 0.8 * p[1]).abs() < 1e-6); // it moved, and not in the forbidden direction
/// # Ok::<(), fwd_linalg::LinalgError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ProjectedAdamW<'a> {
    /// The hyper-parameters. Weight decay pulls `p` to 0 inside the allowed space only.
    pub optimiser: AdamW,
    /// The projection Π; its [`dim`](Projection::dim) is the width of a row of the parameter.
    pub projection: &'a Projection,
    /// Whether Π is applied to the gradient, to the update or to both.
    pub at: ProjectAt,
    /// The gradient is multiplied by this first: the factor of gradient clipping, see [`clip_factor`].
    pub gradient_scale: f64,
}

impl ProjectedAdamW<'_> {
    /// One step: updates the moments and the parameter in place.
    ///
    /// # Shapes
    /// `parameter, gradient (n, d)` row-major. Two products of `n·d·r` multiply-adds for each Π; a scratch of `n·d`.
    ///
    /// # Errors
    /// [`LinalgError::Shape`](crate::LinalgError::Shape) if lengths differ or are no multiple of d, [`LinalgError::NotFinite`](crate::LinalgError::NotFinite) for a NaN or infinity in the
    /// gradient; nothing is changed then.
    pub fn step(&self, state: &mut AdamWState, parameter: &mut [f32], gradient: &[f32]) -> Result<()> {
        let dim = self.projection.dim();
        check_lengths(state, parameter, gradient)?;
        ensure_rows(parameter.len(), dim, "ProjectedAdamW")?;
        ensure_finite(gradient, dim, "AdamW, gradient")?;
        let mut rows = gradient.to_vec();
        let scale = self.gradient_scale as f32;
        if scale != 1.0 {
            rows.par_chunks_mut(PIECE).for_each(|rows| rows.iter_mut().for_each(|x| *x *= scale));
        }
        if self.at != ProjectAt::Update {
            self.projection.apply_unchecked(&mut rows);
            // Finite numbers can overflow in the products.
            ensure_finite(&rows, dim, "AdamW, projected gradient")?;
        }
        let arithmetic = Arithmetic::next(&self.optimiser, state);
        let pieces = rows.par_chunks_mut(PIECE).zip(parameter.par_chunks(PIECE));
        let moments = state.first.par_chunks_mut(PIECE).zip(state.second.par_chunks_mut(PIECE));
        pieces.zip(moments).for_each(|((rows, p), (m, v))| arithmetic.direction(rows, m, v, p));
        if self.at != ProjectAt::Gradient {
            self.projection.apply_unchecked(&mut rows);
        }
        let pieces = parameter.par_chunks_mut(PIECE).zip(rows.par_chunks(PIECE));
        pieces.for_each(|(p, rows)| arithmetic.apply(p, rows));
        Ok(())
    }
}

impl AdamW {
    /// One step without a projection: updates the moments and the parameter in place.
    ///
    /// # Errors
    /// [`LinalgError::Shape`](crate::LinalgError::Shape) if the slices differ in length, [`LinalgError::NotFinite`](crate::LinalgError::NotFinite) for a NaN or infinity in the gradient;
    /// nothing is changed then.
    ///
    /// # Examples
    /// ```
    /// use fwd_linalg::{AdamW, AdamWState};
    /// let mut state = AdamWState::new(2);
    /// let mut p = [1.0, -1.0];
    /// AdamW { lr: 0.1, ..AdamW::default() }.step(&mut state, &mut p, &[3.0, -0.5])?;
    /// // The first step moves every coordinate by lr against the sign of its gradient.
    /// assert!((p[0] - 0.9).abs() < 1e-6 && (p[1] + 0.9).abs() < 1e-6);
    /// # Ok::<(), fwd_linalg::LinalgError>(())
    /// ```
    pub fn step(&self, state: &mut AdamWState, parameter: &mut [f32], gradient: &[f32]) -> Result<()> {
        let projection = Projection::identity(parameter.len().max(1));
        let at = ProjectAt::Both;
        ProjectedAdamW { optimiser: *self, projection: &projection, at, gradient_scale: 1.0 }
            .step(state, parameter, gradient)
    }
}

/// The factor that brings a gradient to at most `max_norm` in Euclidean length (global-norm clipping, Pascanu et al. 2013), and the
/// length itself. The sum is taken in f64.
///
/// # Examples
/// ```
/// assert_eq!(fwd_linalg::clip_factor(&[3.0, 4.0], 1.0), (0.2, 5.0));
/// assert_eq!(fwd_linalg::clip_factor(&[3.0, 4.0], 10.0), (1.0, 5.0));
/// ```
pub fn clip_factor(gradient: &[f32], max_norm: f64) -> (f64, f64) {
    let norm = gradient.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    (if norm > max_norm { max_norm / norm } else { 1.0 }, norm)
}

fn check_lengths(state: &AdamWState, parameter: &[f32], gradient: &[f32]) -> Result<()> {
    let (p, g, s) = (parameter.len(), gradient.len(), state.first.len());
    ensure_shape(p == g && p == s, "AdamW", || {
        format!("parameter of length {p}, gradient of length {g}, state of length {s}")
    })
}

/// The constants of one step.
struct Arithmetic {
    beta1: f32,
    beta2: f32,
    rest1: f32,
    rest2: f32,
    /// The step size with the bias correction of the first moment, `η / (1 − β₁ᵗ)`.
    step: f32,
    root: f32,
    eps: f32,
    /// The share by which weight decay shrinks the parameter, `η·w`.
    decay: f32,
}

impl Arithmetic {
    /// Counts the step and folds its corrections into factors, in f64: 1 − β₂ᵗ is small in the first steps.
    fn next(optimiser: &AdamW, state: &mut AdamWState) -> Self {
        state.n_steps += 1;
        let t = f64::from(state.n_steps);
        Self {
            beta1: optimiser.beta1 as f32,
            beta2: optimiser.beta2 as f32,
            rest1: (1.0 - optimiser.beta1) as f32,
            rest2: (1.0 - optimiser.beta2) as f32,
            step: (optimiser.lr / (1.0 - optimiser.beta1.powf(t))) as f32,
            root: (1.0 - optimiser.beta2.powf(t)).sqrt().recip() as f32,
            eps: optimiser.eps as f32,
            decay: (optimiser.lr * optimiser.weight_decay) as f32,
        }
    }

    /// Turns gradients into updates, η included, and moves the moments.
    fn direction(&self, rows: &mut [f32], m: &mut [f32], v: &mut [f32], p: &[f32]) {
        fwd_simd::vectorize(
            #[inline(always)]
            || {
                for (((g, m), v), p) in rows.iter_mut().zip(m).zip(v).zip(p) {
                    *m = self.beta1 * *m + self.rest1 * *g;
                    *v = self.beta2 * *v + self.rest2 * *g * *g;
                    *g = self.step * *m / (v.sqrt() * self.root + self.eps) + self.decay * p;
                }
            },
        );
    }

    /// Takes the update off the parameter, `p ← p − u`.
    fn apply(&self, p: &mut [f32], update: &[f32]) {
        fwd_simd::vectorize(
            #[inline(always)]
            || {
                for (p, u) in p.iter_mut().zip(update) {
                    *p -= u;
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::LinalgError;
    use crate::subspace::Basis;

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
    fn a_bad_argument_changes_nothing() {
        let mut state = AdamWState::new(4);
        let mut p = [1.0f32; 4];
        let projection = Projection::identity(3);
        let projected = |dim: &Projection, state: &mut AdamWState, p: &mut [f32], g: &[f32]| {
            let at = ProjectAt::Both;
            ProjectedAdamW { optimiser: AdamW::default(), projection: dim, at, gradient_scale: 1.0 }
                .step(state, p, g)
        };
        assert!(matches!(
            AdamW::default().step(&mut state, &mut p, &[0.0; 3]),
            Err(LinalgError::Shape { .. })
        ));
        assert!(matches!(
            projected(&projection, &mut state, &mut p, &[0.0; 4]),
            Err(LinalgError::Shape { .. })
        ));
        let error =
            projected(&Projection::identity(2), &mut state, &mut p, &[0.0, 0.0, f32::NAN, 0.0]).unwrap_err();
        assert_eq!(error, LinalgError::NotFinite { op: "AdamW, gradient", row: 1, column: 0 });
        assert!(AdamW::default().step(&mut state, &mut p, &[f32::INFINITY; 4]).is_err());
        assert_eq!((p, state), ([1.0; 4], AdamWState::new(4)));
    }

    #[test]
    fn weight_decay_is_decoupled_from_the_gradient_and_projected() {
        let optimiser = AdamW { lr: 0.1, weight_decay: 0.5, ..AdamW::default() };
        let mut state = AdamWState::new(1);
        let mut p = [2.0f32];
        optimiser.step(&mut state, &mut p, &[0.0]).unwrap();
        assert!((p[0] - 1.9).abs() < 1e-6);
        let x = Basis::from_orthonormal(2, vec![1.0, 0.0]).unwrap();
        let projection = Projection::new(2, true, &[(&x, -1.0)]).unwrap();
        let mut state = AdamWState::new(2);
        let mut p = [2.0f32, 2.0];
        ProjectedAdamW { optimiser, projection: &projection, at: ProjectAt::Both, gradient_scale: 1.0 }
            .step(&mut state, &mut p, &[0.0; 2])
            .unwrap();
        assert!(p[0] == 2.0 && (p[1] - 1.9).abs() < 1e-6);
    }

    #[test]
    fn without_a_projection_it_is_plain_adamw() {
        let gradient: Vec<f32> = (0..3 * 700).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
        let (mut a, mut b) = (gradient.clone(), gradient.clone());
        let (mut sa, mut sb) = (AdamWState::new(a.len()), AdamWState::new(a.len()));
        let identity = Projection::identity(700);
        let optimiser = AdamW { weight_decay: 0.1, ..AdamW::default() };
        let at = ProjectAt::Both;
        let projected = ProjectedAdamW { optimiser, projection: &identity, at, gradient_scale: 0.5 };
        let halved: Vec<f32> = gradient.iter().map(|x| x * 0.5).collect();
        for _ in 0..3 {
            optimiser.step(&mut sa, &mut a, &halved).unwrap();
            projected.step(&mut sb, &mut b, &gradient).unwrap();
        }
        assert_eq!((a, sa), (b, sb));
    }
}
