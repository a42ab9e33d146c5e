//! A linear map of the model's input under the same rules as prompts. This is ours, not the paper's.
//!
//! ```text
//! x ↦ x + A x                            for every input embedding x ∈ R^d of every sample, learnt task or not
//! full        A ← A + ΔA                 the rows of ΔA under Π:  ΔA ← ΔA − η·Π(adamw(Π(dL/dA)))
//! low-rank    A ← A + Uᵀ D               a task's own D, U ∈ R^{r×d}; the rows of D begin under Π and move under Π, U begins at 0
//! ```
//! A prompt acts through attention, so that a change of it changes the answers to old samples whatever subspace it lies in. A map does
//! not: **where a rule forbids the subspace V_s, `(A + ΔA) x = A x` for every x in V_s**, whatever the size and the number of steps.
//! What of an old sample lies outside of the subspaces, a share of at most 1 − ε of its energy, is not protected.

use crate::error::{PromptError, Result};
use crate::model::{Embeddings, FrozenModel};
use fwd_continual::{Failure, NotFinite, Section, SectionError, normal, stream};
use fwd_linalg::{
    AdamW, AdamWState, LinalgError, ProjectAt, ProjectedAdamW, Projection, clip_factor, times_transposed,
    transposed_times,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Deref;

/// A map of the input embeddings, `x ↦ x + A x`, that all tasks train beside their prompts, under the same rule
/// ([`InputMap`]). Ours, not the paper's. A pool without prompts ([`Allocation`](crate::Allocation) of 0) leaves the map alone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MapConfig {
    /// Whether there is a map, and which numbers A is made of.
    pub form: MapForm,
    /// r: rank of what a task adds to A, under [`MapForm::LowRank`].
    pub rank: usize,
    /// AdamW of the map. The gradient is clipped by itself, to the same norm as that of the prompts.
    pub optimiser: AdamW,
}

/// What the matrix A of a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapForm {
    /// There is no map.
    #[default]
    None,
    /// d×d numbers, which every task trains on.
    Full,
    /// A product of two factors for each task, which the next one leaves as they are.
    LowRank,
}

impl Default for MapConfig {
    fn default() -> Self {
        let optimiser = AdamW { lr: 1e-3, ..AdamW::default() };
        Self { form: MapForm::None, rank: 8, optimiser }
    }
}

impl MapConfig {
    /// Whether there is no map.
    pub fn is_none(&self) -> bool {
        self.form == MapForm::None
    }
}

/// The matrix A of a map of input embeddings, `x ↦ x + A x`.
///
/// # Examples
/// ```
/// use fwd_prompt::{Embeddings, InputMap, MapConfig, MapForm};
/// let config = MapConfig { form: MapForm::Full, ..MapConfig::default() };
/// let map = InputMap::new(2, &config).expect("a form that is a map");
/// let own = Embeddings { image: vec![1.0, 2.0].into(), text: vec![].into() };
/// assert_eq!(map.apply(&own)?, own); // A is 0 until something is learnt
/// # Ok::<(), fwd_prompt::PromptError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct InputMap {
    dim: usize,
    matrix: Matrix,
}

#[derive(Debug, Clone, PartialEq)]
enum Matrix {
    /// A, `(d, d)` row-major: row i is what is added to element i.
    Full(Vec<f32>),
    /// `A = Uᵀ D`, both `(r, d)` row-major with the rows of one task behind those of another.
    Factors { down: Vec<f32>, up: Vec<f32> },
}

impl InputMap {
    /// The map that changes nothing, for embeddings of `dim` elements; none for [`MapForm::None`].
    pub fn new(dim: usize, config: &MapConfig) -> Option<Self> {
        let matrix = match config.form {
            MapForm::None => return None,
            MapForm::Full => Matrix::Full(vec![0.0; dim * dim]),
            MapForm::LowRank => Matrix::Factors { down: Vec::new(), up: Vec::new() },
        };
        Some(Self { dim, matrix })
    }

    /// The numbers that were trained.
    pub fn n_parameters(&self) -> usize {
        match &self.matrix {
            Matrix::Full(values) => values.len(),
            Matrix::Factors { down, up } => down.len() + up.len(),
        }
    }

    /// The embeddings of a sample after the map.
    ///
    /// # Errors
    /// [`PromptError::Shape`] if they have another width.
    pub fn apply(&self, embeddings: &Embeddings<'_>) -> Result<Embeddings<'static>> {
        let both = |rows: &[f32]| Ok(self.rows(rows)?.into());
        Ok(Embeddings { image: both(&embeddings.image)?, text: both(&embeddings.text)? })
    }

    /// `X + X Aᵀ` of rows `(n, d)`.
    fn rows(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let (n, d) = (rows.len() / self.dim, self.dim);
        let added = match &self.matrix {
            Matrix::Full(values) => times_transposed(rows, values, (n, d), d),
            Matrix::Factors { down, up } => {
                let r = down.len() / d;
                times_transposed(rows, down, (n, r), d).and_then(|inner| {
                    // (n, r)·(r, d): the transpose of `up` is what stands on the right.
                    times_transposed(&inner, &transposed(up, r, d), (n, d), r)
                })
            }
        };
        let added = added.map_err(|error| unfit(&error))?;
        Ok(rows.iter().zip(added).map(|(x, added)| x + added).collect())
    }

    /// The map after a change that a task has learnt.
    pub(crate) fn moved(&self, training: &MapTraining) -> Self {
        let matrix = match &self.matrix {
            Matrix::Full(values) => {
                Matrix::Full(values.iter().zip(&training.change).map(|(a, change)| a + change).collect())
            }
            Matrix::Factors { down, up } => {
                let [of_down, of_up] = training.factors();
                Matrix::Factors { down: [&down[..], &of_down].concat(), up: [&up[..], &of_up].concat() }
            }
        };
        Self { dim: self.dim, matrix }
    }

    /// The rows by which `after` differs from this map, as they act on an embedding: for two maps that differ by one task, the rows of ΔA,
    /// or of D.
    pub(crate) fn rows_changed(&self, after: &Self) -> Vec<f32> {
        match (&self.matrix, &after.matrix) {
            (Matrix::Full(before), Matrix::Full(after)) => {
                after.iter().zip(before).map(|(after, before)| after - before).collect()
            }
            (Matrix::Factors { down: before, .. }, Matrix::Factors { down: after, .. }) => {
                after[before.len().min(after.len())..].to_vec()
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn write(&self, section: &mut Section) {
        let d = self.dim;
        match &self.matrix {
            Matrix::Full(values) => section.put_f32("map.matrix", &[d, d], values),
            Matrix::Factors { down, up } => {
                section.put_f32("map.down", &[down.len() / d, d], down);
                section.put_f32("map.up", &[up.len() / d, d], up);
            }
        }
    }

    /// What [`Self::write`] wrote, of a form that `self` has.
    pub(crate) fn read(&self, section: &Section) -> Result<Self, SectionError> {
        let d = self.dim;
        let matrix = match &self.matrix {
            Matrix::Full(_) => Matrix::Full(section.f32("map.matrix", &[d, d])?),
            Matrix::Factors { .. } => {
                let r =
                    section.shape("map.down").and_then(|shape| shape.first().copied()).unwrap_or_default();
                Matrix::Factors {
                    down: section.f32("map.down", &[r, d])?,
                    up: section.f32("map.up", &[r, d])?,
                }
            }
        };
        Ok(Self { dim: d, matrix })
    }
}

/// A sample as a model reads it: as it is, or after a map.
#[derive(Debug)]
pub enum Reading<'s, F> {
    /// Without a map.
    Own(&'s F),
    /// With the embeddings that a map has made.
    Mapped(F),
}

impl<F> Deref for Reading<'_, F> {
    type Target = F;

    fn deref(&self) -> &F {
        match self {
            Self::Own(own) => own,
            Self::Mapped(mapped) => mapped,
        }
    }
}

/// A sample after a map.
///
/// # Errors
/// The model's own as [`PromptError::Embeddings`]; [`PromptError::Config`] if it takes no embeddings but its own.
pub(crate) fn mapped<M: FrozenModel + ?Sized>(
    map: &InputMap,
    model: &M,
    sample: &M::Features,
) -> Result<M::Features> {
    let failed = |source: M::Error| PromptError::Embeddings { source: source.into() };
    let rows = map.apply(&model.embeddings(sample).map_err(failed)?)?;
    model.with_embeddings(sample, &rows).map_err(failed)?.ok_or_else(unsupported)
}

pub(crate) fn unsupported() -> PromptError {
    let what =
        "map.form asks for a map of the input embeddings, and the model takes none but its own".to_owned();
    PromptError::Config(what)
}

/// What a map learns while a task is learnt: `ΔA`, or `D − D_start` and then `U`.
#[derive(Debug, Clone)]
pub(crate) struct MapTraining {
    dim: usize,
    /// Rows of D as the task began with them; none for a full map.
    start: Vec<f32>,
    /// Everything that is trained, flat; the first `projected` numbers are under Π.
    pub(crate) change: Vec<f32>,
    projected: usize,
    states: [AdamWState; 2],
}

impl MapTraining {
    /// Nothing learnt yet of task `task` (from 1).
    pub(crate) fn new(
        map: &InputMap,
        config: &MapConfig,
        seed: u64,
        task: usize,
        projection: &Projection,
    ) -> Self {
        let d = map.dim;
        let (start, projected, rest) = match &map.matrix {
            Matrix::Full(_) => (Vec::new(), d * d, 0),
            Matrix::Factors { .. } => {
                let rng = &mut stream(seed, "map", [task as u64, 0]);
                let std = (d.max(1) as f64).sqrt().recip() as f32;
                let mut start = normal(rng, config.rank * d, std);
                // Both have rows of d.
                let _ = projection.apply(&mut start);
                (start, config.rank * d, config.rank * d)
            }
        };
        let states = [AdamWState::new(projected), AdamWState::new(rest)];
        Self { dim: d, start, change: vec![0.0; projected + rest], projected, states }
    }

    /// How many numbers are trained.
    pub(crate) fn len(&self) -> usize {
        self.change.len()
    }

    /// D and U as they stand.
    fn factors(&self) -> [Cow<'_, [f32]>; 2] {
        let (down, up) = self.change.split_at(self.projected);
        let down = self.start.iter().zip(down).map(|(start, change)| start + change);
        [down.collect::<Vec<f32>>().into(), up.into()]
    }

    /// The gradient of what is trained, from the gradient with respect to the mapped embeddings of some samples.
    pub(crate) fn gradient(
        &self,
        own: &[Embeddings<'_>],
        of_mapped: &[Embeddings<'_>],
    ) -> Result<Vec<f32>, Failure> {
        let d = self.dim;
        let all = |all: &[Embeddings<'_>]| -> Vec<f32> {
            all.iter().flat_map(|rows| rows.image.iter().chain(&*rows.text)).copied().collect()
        };
        let (x, g) = (all(own), all(of_mapped));
        if x.len() != g.len() {
            let what = format!("a gradient of {} elements for embeddings of {}", g.len(), x.len());
            return Err(PromptError::Shape { op: "input_gradient", what }.into());
        }
        let n = x.len() / d;
        let gradient = if self.start.is_empty() {
            transposed_times(&g, &x, n, (d, d))?
        } else {
            let r = self.start.len() / d;
            let [down, up] = self.factors();
            let of_inner = times_transposed(&g, &up, (n, r), d)?;
            let inner = times_transposed(&x, &down, (n, r), d)?;
            let mut gradient = transposed_times(&of_inner, &x, n, (r, d))?;
            gradient.extend(transposed_times(&inner, &g, n, (r, d))?);
            gradient
        };
        if gradient.iter().all(|x| x.is_finite()) {
            Ok(gradient)
        } else {
            Err(NotFinite("the gradient of the map").into())
        }
    }

    /// One step; returns the norm of the gradient before it is clipped.
    pub(crate) fn step(
        &mut self,
        gradient: &[f32],
        optimiser: AdamW,
        max_norm: f64,
        (projection, at): (&Projection, ProjectAt),
    ) -> Result<f64, Failure> {
        let (gradient_scale, norm) = clip_factor(gradient, max_norm);
        let identity = Projection::identity(self.dim);
        let [first, second] = &mut self.states;
        let (projected, free) = self.change.split_at_mut(self.projected);
        let (of_projected, of_free) = gradient.split_at(self.projected);
        for (projection, state, change, gradient) in
            [(projection, first, projected, of_projected), (&identity, second, free, of_free)]
        {
            let step = ProjectedAdamW { optimiser, projection, at, gradient_scale };
            step.step(state, change, gradient).map_err(|error| match error {
                LinalgError::NotFinite { .. } | LinalgError::Overflow { .. } => {
                    NotFinite("the step of the map").into()
                }
                other => Failure::from(other),
            })?;
        }
        // Embeddings are multiplied with it, and subspaces are made of its squares.
        if !self.change.iter().all(|x| (x * x).is_finite()) {
            return Err(NotFinite("the square of the updated map").into());
        }
        Ok(norm)
    }

    pub(crate) fn write(&self, section: &mut Section) {
        let d = self.dim;
        section.put_f32("training.map.start", &[self.start.len() / d, d], &self.start);
        section.put_f32("training.map.change", &[self.change.len() / d, d], &self.change);
        for (name, state) in ["projected", "free"].into_iter().zip(&self.states) {
            let (first, second) = state.moments();
            for (part, values) in [("first", first), ("second", second)] {
                section.put_f32(&format!("training.map.{name}.{part}"), &[values.len() / d, d], values);
            }
        }
    }

    /// What [`Self::write`] wrote, of a training like this one that has taken no step.
    pub(crate) fn read(&self, section: &Section, n_steps: u32) -> Result<Self, SectionError> {
        let d = self.dim;
        let read = |name: &str, len: usize| section.f32(&format!("training.map.{name}"), &[len / d, d]);
        let state = |name: &str, len: usize| {
            let [first, second] = ["first", "second"].map(|part| read(&format!("{name}.{part}"), len));
            AdamWState::from_moments(first?, second?, n_steps).map_err(|e| SectionError(e.to_string()))
        };
        Ok(Self {
            start: read("start", self.start.len())?,
            change: read("change", self.change.len())?,
            states: [state("projected", self.projected)?, state("free", self.change.len() - self.projected)?],
            ..*self
        })
    }
}

fn unfit(error: &LinalgError) -> PromptError {
    PromptError::Shape { op: "InputMap::apply", what: error.to_string() }
}

/// `(r, d)` as `(d, r)`.
fn transposed(rows: &[f32], r: usize, d: usize) -> Vec<f32> {
    (0..d).flat_map(|j| (0..r).map(move |i| rows[i * d + j])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Rule, SubspaceLedger};
    use fwd_linalg::{Gram, SubspaceConfig};
    use proptest::prelude::*;
    use rand::Rng;

    fn numbers(seed: u64, n: usize) -> Vec<f32> {
        let rng = &mut stream(seed, "test", [0, 0]);
        (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    fn config(form: MapForm) -> MapConfig {
        MapConfig { form, rank: 3, ..MapConfig::default() }
    }

    fn only_text(rows: &[f32]) -> Embeddings<'_> {
        Embeddings { image: Vec::new().into(), text: rows.into() }
    }

    /// A map that two tasks have trained already, and the training of a third that stands somewhere.
    fn trained(form: MapForm, d: usize) -> (InputMap, MapTraining) {
        let (config, identity) = (config(form), Projection::identity(d));
        let mut map = InputMap::new(d, &config).unwrap();
        for task in 1..=3 {
            let mut training = MapTraining::new(&map, &config, 0, task, &identity);
            training.change = numbers(task as u64, training.len()).iter().map(|x| 0.3 * x).collect();
            if task == 3 {
                return (map, training);
            }
            map = map.moved(&training);
        }
        unreachable!()
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        for form in [MapForm::Full, MapForm::LowRank] {
            let (d, n) = (5, 7);
            let (map, training) = trained(form, d);
            let (rows, target) = (numbers(11, n * d), numbers(12, n * d));
            let own = Embeddings { image: rows[..2 * d].into(), text: rows[2 * d..].into() };
            // The loss is half the squared distance of the mapped rows to their targets.
            let off = |training: &MapTraining| {
                let mapped = map.moved(training).apply(&own).unwrap();
                let mapped = mapped.image.iter().chain(&*mapped.text);
                mapped.zip(&target).map(|(y, t)| y - t).collect::<Vec<f32>>()
            };
            let loss = |training: &MapTraining| {
                off(training).iter().map(|x| 0.5 * f64::from(*x).powi(2)).sum::<f64>()
            };
            let gradient =
                training.gradient(std::slice::from_ref(&own), &[only_text(&off(&training))]).unwrap();
            assert_eq!(gradient.len(), training.len());
            let h = 1e-2;
            for (i, found) in gradient.iter().enumerate() {
                let nudged = |h: f32| {
                    let mut training = training.clone();
                    training.change[i] += h;
                    loss(&training)
                };
                let expected = (nudged(h) - nudged(-h)) / f64::from(2.0 * h);
                assert!((f64::from(*found) - expected).abs() < 2e-3, "{form:?} {i}: {found} {expected}");
            }
            assert!(gradient.iter().any(|g| g.abs() > 0.1));
            let wrong = training.gradient(&[own], &[only_text(&rows[..d])]).unwrap_err();
            assert!(wrong.source.to_string().contains("a gradient of 5 elements for embeddings of 35"));
        }
    }

    #[test]
    fn a_map_is_the_definition() {
        let d = 4;
        for form in [MapForm::Full, MapForm::LowRank] {
            let (map, _) = trained(form, d);
            let matrix = match &map.matrix {
                Matrix::Full(values) => values.clone(),
                Matrix::Factors { down, up } => {
                    assert_eq!((down.len(), up.len()), (2 * 3 * d, 2 * 3 * d));
                    let element = |i: usize, j: usize| (0..6).map(|k| up[k * d + i] * down[k * d + j]).sum();
                    (0..d * d).map(|at| element(at / d, at % d)).collect::<Vec<f32>>()
                }
            };
            let x = numbers(5, d);
            let y = map.apply(&only_text(&x)).unwrap().text;
            for i in 0..d {
                let expected = x[i] + (0..d).map(|j| matrix[i * d + j] * x[j]).sum::<f32>();
                assert!((y[i] - expected).abs() < 1e-5, "{form:?}: {} {expected}", y[i]);
            }
            assert!(y.iter().zip(&x).any(|(y, x)| (y - x).abs() > 0.05));
        }
        assert_eq!(InputMap::new(d, &config(MapForm::None)), None);
    }

    /// A ledger of pre-training and two tasks whose embeddings have few directions.
    fn ledger(seed: u64, d: usize) -> SubspaceLedger {
        let mut ledger = SubspaceLedger::new(d);
        for t in 0..3 {
            let mut gram = Gram::new(d);
            gram.push(&numbers(seed + t, 3 * d)).unwrap();
            let options = SubspaceConfig { energy: 1.0, ..SubspaceConfig::default() };
            ledger.add(&format!("{t}"), &gram, &options).unwrap();
        }
        ledger
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// What a rule forbids is not moved by a step of any size: the outputs for inputs of an older task are the same to rounding.
        #[test]
        fn outputs_inside_a_protected_span_stay(
            seed in 0u64..1000,
            d in 12usize..24,
            log_lr in -4f64..2.0,
            n_steps in 1usize..20,
            is_full in any::<bool>(),
            rule in prop::sample::select(vec![
                Rule::None, Rule::Residual, Rule::Fwd, Rule::FwdStrict, Rule::FwdWeighted(0.3)
            ]),
        ) {
            let form = if is_full { MapForm::Full } else { MapForm::LowRank };
            let (ledger, config) = (ledger(seed, d), config(form));
            let now = 2;
            let projection = ledger.projection(rule, now);
            let optimiser = AdamW { lr: 10f64.powf(log_lr), ..AdamW::default() };
            let before = trained(form, d).0;
            let mut training = MapTraining::new(&before, &config, seed, now, &projection);
            for step in 0..n_steps {
                let gradient = numbers(seed + 100 + step as u64, training.len());
                training.step(&gradient, optimiser, 1.0, (&projection, ProjectAt::Both)).unwrap();
            }
            let after = before.moved(&training);
            let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            // How far the map has moved any input at all.
            let moved = |x: &[f32]| {
                let [a, b] = [&before, &after].map(|map| map.apply(&only_text(x)).unwrap().text.into_owned());
                let change: Vec<f32> = a.iter().zip(&b).map(|(a, b)| b - a).collect();
                (norm(&change), norm(&a))
            };
            let anywhere = (0..8).map(|i| moved(&numbers(seed + 300 + i, d)).0).fold(0.0, f64::max);
            prop_assert!(anywhere > 1e-9, "nothing was learnt");
            for (of, entry) in ledger.entries().iter().enumerate() {
                let vectors = entry.basis.vectors();
                let mix = numbers(seed + 200 + of as u64, entry.basis.len());
                let x: Vec<f32> = (0..d)
                    .map(|i| mix.iter().enumerate().map(|(k, c)| c * vectors[k * d + i]).sum())
                    .collect();
                let (change, length) = moved(&x);
                let bound = 1e-5 * anywhere * (1.0 + norm(&x)) + 1e-6 * (length + norm(&x));
                if rule.forbids(of, now) {
                    prop_assert!(change <= bound, "{:?} {:?}: {} of {}", form, rule, change, bound);
                } else if rule == Rule::None {
                    prop_assert!(change > bound, "{:?}: the bound holds for anything: {}", form, change);
                }
            }
        }
    }
}
