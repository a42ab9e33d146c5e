//! Subspaces of row space: how many leading directions carry the energy, what a new task adds to the older ones, and the angles
//! between two subspaces.
//!
//! With `C = ZᵀZ = V Λ Vᵀ` the energy of the first k directions is `Σ_{i≤k} λ_i` of `tr C`. A later task is decomposed in
//! the residual of the basis `B` of the older ones, `R C R` with `R = I − B Bᵀ`, and what `B` captures already counts
//! (Saha et al. 2021, Gradient Projection Memory, eq. 8–9).

use crate::eigen::{Real, leading_eigen};
use crate::error::{LinalgError, Result, ensure_rows, ensure_shape};
use crate::gram::Gram;
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Orthonormal vectors of one length, kept in f32.
///
/// `B ∈ R^{d×k}` with `BᵀB = I`; the vectors lie one after another, `(k, d)` row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Basis {
    dim: usize,
    vectors: Vec<f32>,
}

/// What decides how many directions a task takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubspaceConfig {
    /// ε: the share of the energy `tr C` to capture, in (0, 1].
    pub energy: f64,
    /// The most directions that are taken, whatever energy they carry; no limit if none.
    pub max_rank: Option<usize>,
    /// How the number of directions that capture the share is counted.
    pub convention: RankConvention,
    /// The arithmetic of the decomposition; the basis is f32 in any case.
    pub precision: Precision,
}

impl Default for SubspaceConfig {
    /// ε = 0.95, no limit, the fewest sufficient directions, f32.
    fn default() -> Self {
        let (convention, precision) = (RankConvention::Fewest, Precision::Single);
        Self { energy: 0.95, max_rank: None, convention, precision }
    }
}

/// Which number of directions captures a share of the energy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RankConvention {
    /// The fewest directions with at least that energy.
    Fewest,
    /// As GPM's published code counts: for the first task it takes the directions whose cumulated energy stays *below* the
    /// threshold, which is one too few. For comparison only.
    Gpm,
}

/// The arithmetic of a decomposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// f32: twice as fast; eigenvalues below about `1e-6·λ₁` are noise.
    Single,
    /// f64: half as fast, for eigenvalues below about `1e-6·λ₁`.
    Double,
}

/// What one task adds to the older ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Subspace {
    /// The new directions `V_t (d, k_t)`, orthogonal to the older basis.
    pub basis: Basis,
    /// All eigenvalues of the residual `R C R`, largest first, in the units of `C` (squares of the embeddings' unit).
    pub eigenvalues: Vec<f64>,
    /// `tr C`, the energy of the task.
    pub energy: f64,
    /// `tr(Bᵀ C B) / tr C`: the share that the older basis captures; 0 without energy.
    pub captured_before: f64,
    /// The share that the older basis and the new directions capture together.
    pub captured: f64,
}

impl Basis {
    /// A basis without vectors, in rows of `dim` elements.
    pub fn empty(dim: usize) -> Self {
        Self { dim, vectors: Vec::new() }
    }

    /// Makes a basis of vectors that are orthonormal already, `(k, d)` row-major.
    ///
    /// # Errors
    /// [`LinalgError::Shape`] if their length is no multiple of `dim`, or if they are not orthonormal to 1e-4. (Damage on disk shows so: what
    /// [`residual_subspace`] makes is orthonormal to 1e-5.)
    pub fn from_orthonormal(dim: usize, vectors: Vec<f32>) -> Result<Self> {
        let op = "Basis::from_orthonormal";
        ensure_rows(vectors.len(), dim, op)?;
        let basis = Self { dim, vectors };
        let error = basis.orthonormality_error();
        ensure_shape(error <= 1e-4, op, || format!("max |BᵀB − I| is {error:.1e}, at most 1e-4 is allowed"))?;
        Ok(basis)
    }

    /// Length d of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number k of vectors.
    pub fn len(&self) -> usize {
        self.vectors.len().checked_div(self.dim).unwrap_or(0)
    }

    /// Whether there is no vector.
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// The vectors one after another, `(k, d)` row-major.
    pub fn vectors(&self) -> &[f32] {
        &self.vectors
    }

    /// The vectors without a copy of them, `(k, d)` row-major.
    pub fn into_vectors(self) -> Vec<f32> {
        self.vectors
    }

    /// Appends the vectors of another basis, which must be orthogonal to this one (as [`residual_subspace`] makes them).
    ///
    /// # Errors
    /// [`LinalgError::Shape`] if the lengths differ.
    pub fn extend(&mut self, other: &Self) -> Result<()> {
        ensure_shape(self.dim == other.dim, "Basis::extend", || {
            format!("vectors of {} and {}", self.dim, other.dim)
        })?;
        self.vectors.extend_from_slice(&other.vectors);
        Ok(())
    }

    /// How far the vectors are from orthonormal: `max |BᵀB − I|`, with products in f64; NaN if an element is NaN.
    pub fn orthonormality_error(&self) -> f64 {
        let matrix = self.matrix();
        let product = gram_of(matrix.as_ref(), matrix.as_ref());
        let mut worst = 0f64;
        for j in 0..self.len() {
            for i in 0..self.len() {
                let error = (product[(i, j)] - f64::from(u8::from(i == j))).abs();
                worst = if error > worst || error.is_nan() { error } else { worst };
            }
        }
        worst
    }

    /// The vectors as the columns of a matrix `(d, k)` in f64.
    fn matrix(&self) -> Mat<f64> {
        self.matrix_of()
    }

    fn matrix_of<E: Real>(&self) -> Mat<E> {
        Mat::from_fn(self.dim, self.len(), |i, j| E::of(f64::from(self.vectors[j * self.dim + i])))
    }
}

/// The product `AᵀB`, whose entry `(i, j)` is the scalar product of column i of A and column j of B.
fn gram_of<E: Real>(a: MatRef<'_, E>, b: MatRef<'_, E>) -> Mat<E> {
    let mut product = Mat::zeros(a.ncols(), b.ncols());
    matmul(product.as_mut(), Accum::Replace, a.transpose(), b, E::of(1.0), Par::rayon(0));
    product
}

/// Chooses the number k of directions to take: the fewest leading ones with `captured + Σ_{i≤k} λ_i ≥ ε·total`. It is at most the
/// number of positive eigenvalues and at most [`SubspaceConfig::max_rank`].
///
/// # Shapes
/// `eigenvalues` come largest first, `captured` and `total` in the same unit. The result is 0 if there is no energy.
///
/// # Examples
/// ```
/// use fwd_linalg::{RankConvention, SubspaceConfig, choose_rank};
/// let config = SubspaceConfig { energy: 0.9, ..SubspaceConfig::default() };
/// assert_eq!(choose_rank(&[6.0, 3.0, 1.0], 0.0, 10.0, &config), 2);
/// assert_eq!(choose_rank(&[3.0, 1.0], 6.0, 10.0, &config), 1); // 6 of 10 were captured before
/// assert_eq!(choose_rank(&[1.0], 9.5, 10.5, &config), 0);      // 9.5 of 10.5 are enough already
/// let gpm = SubspaceConfig { convention: RankConvention::Gpm, ..config };
/// assert_eq!(choose_rank(&[6.0, 3.0, 1.0], 0.0, 10.0, &gpm), 1);
/// ```
pub fn choose_rank(eigenvalues: &[f64], captured: f64, total: f64, config: &SubspaceConfig) -> usize {
    let goal = config.energy * total;
    let (mut sum, mut k) = (captured, 0);
    while k < eigenvalues.len()
        && k < config.max_rank.unwrap_or(usize::MAX)
        && sum < goal
        && eigenvalues[k] > 0.0
    {
        sum += eigenvalues[k];
        k += 1;
    }
    match config.convention {
        // GPM's first task counts the cumulated energies below the goal; its later tasks count as we do.
        RankConvention::Gpm if captured == 0.0 && sum >= goal => k.saturating_sub(1),
        _ => k,
    }
}

/// The subspace of a first set of rows: [`residual_subspace`] with nothing captured before.
///
/// # Errors
/// As [`residual_subspace`].
///
/// # Examples
/// ```
/// use fwd_linalg::{Gram, SubspaceConfig, subspace};
/// let mut gram = Gram::new(3);
/// gram.push(&[0.0f32, 3.0, 0.0, 0.0, 0.0, 1.0])?;
/// let task = subspace(&gram, &SubspaceConfig { energy: 0.8, ..SubspaceConfig::default() })?;
/// assert_eq!(task.basis.len(), 1); // the y axis alone carries 9 of 10
/// assert!((task.basis.vectors()[1].abs() - 1.0).abs() < 1e-6);
/// assert!((task.captured - 0.9).abs() < 1e-6);
/// # Ok::<(), fwd_linalg::LinalgError>(())
/// ```
pub fn subspace(gram: &Gram, config: &SubspaceConfig) -> Result<Subspace> {
    residual_subspace(gram, &Basis::empty(gram.dim()), config)
}

/// What a task with Gram matrix `C` adds to an older basis `B`: the fewest leading eigenvectors of `R C R`, `R = I − B Bᵀ`,
/// with `tr(BᵀCB) + Σ_{i≤k} λ_i ≥ ε·tr C`.
///
/// Eigenvalues below `√d·u·λ₁(C)` (u: the unit roundoff of rows or decomposition, whichever is coarser) are rounding noise and
/// count as 0: a rank-deficient `C` gives no more directions than it has, at ε = 1 too. The new directions are orthogonalised
/// against `B` while `max |BᵀV| > 1e-6`, which takes one or two passes (Parlett 1998, "twice is enough").
///
/// # Shapes
/// `C (d, d)`, `B (d, r)` -> `V (d, k)`, k ≤ d − r. About `5·d³ + 4·d²·r` operations.
///
/// # Errors
/// [`LinalgError::Range`] for ε outside (0, 1], [`LinalgError::Shape`] for another width, [`LinalgError::Overflow`],
/// [`LinalgError::NoConvergence`].
pub fn residual_subspace(gram: &Gram, older: &Basis, config: &SubspaceConfig) -> Result<Subspace> {
    let op = "residual_subspace";
    if !(config.energy > 0.0 && config.energy <= 1.0) {
        return Err(LinalgError::Range {
            op,
            what: format!("energy is {}, must be in (0, 1]", config.energy),
        });
    }
    ensure_shape(gram.dim() == older.dim, op, || {
        format!("rows of {} and a basis of {}", gram.dim(), older.dim)
    })?;
    match config.precision {
        Precision::Single => decompose::<f32>(gram, older, config),
        Precision::Double => decompose::<f64>(gram, older, config),
    }
}

fn decompose<E: Real>(gram: &Gram, older: &Basis, config: &SubspaceConfig) -> Result<Subspace> {
    let op = "residual_subspace";
    let dim = gram.dim();
    let gram = gram.settled();
    let energy = gram.trace();
    if !energy.is_finite() {
        return Err(LinalgError::Overflow { op });
    }
    let nothing = |captured| Subspace {
        basis: Basis::empty(dim),
        eigenvalues: vec![0.0; dim],
        energy,
        captured_before: captured,
        captured,
    };
    if energy == 0.0 {
        return Ok(nothing(0.0));
    }
    if older.len() >= dim {
        return Ok(nothing(1.0));
    }
    // Scaled to trace 1, so that f32 neither overflows nor underflows.
    let (mut matrix, is_finite) = gram.scaled::<E>(energy);
    if !is_finite {
        return Err(LinalgError::Overflow { op });
    }
    let b = older.matrix_of::<E>();
    let (captured_before, largest_before) =
        if older.is_empty() { (0.0, 0.0) } else { remove(&mut matrix, b.as_ref()) };
    let unit = gram.roundoff().max(E::epsilon_impl().into());
    let room = dim - older.len();
    let mut eigenvalues = Vec::new();
    let (_, mut vectors) = leading_eigen(matrix, Par::rayon(0), 0, |values| {
        let largest = values.first().map_or(0.0, |&x| x.into()).max(largest_before);
        let noise = (dim as f64).sqrt() * unit * largest;
        eigenvalues =
            values.iter().map(|&x| x.into()).map(|x: f64| if x > noise { x } else { 0.0 }).collect();
        choose_rank(&eigenvalues, captured_before, 1.0, config).min(room)
    })?;
    if !older.is_empty() {
        orthogonalise(&mut vectors, b.as_ref());
    }
    let taken: f64 = eigenvalues[..vectors.ncols()].iter().sum();
    let vectors = unit_columns(vectors.as_ref());
    Ok(Subspace {
        basis: Basis { dim, vectors },
        eigenvalues: eigenvalues.into_iter().map(|x| x * energy).collect(),
        energy,
        captured_before,
        captured: (captured_before + taken).min(1.0),
    })
}

/// The columns one after another in f32, each of length 1: in f32 the decomposition leaves them orthogonal to 6e-6, but up to 2e-5 too
/// long or too short.
fn unit_columns<E: Real>(vectors: MatRef<'_, E>) -> Vec<f32> {
    let mut out = vec![0.0; vectors.nrows() * vectors.ncols()];
    out.par_chunks_mut(vectors.nrows().max(1)).zip(vectors.par_col_iter()).for_each(|(out, column)| {
        let length = column.iter().map(|&x| x.into().powi(2)).sum::<f64>().sqrt();
        out.iter_mut().zip(column.iter()).for_each(|(out, &x)| *out = (x.into() / length) as f32);
    });
    out
}

/// `S ← R S R` in the lower triangle; gives `tr(BᵀSB)` and `‖BᵀSB‖_F`, which is no less than its largest eigenvalue.
///
/// With `K = S B` and `W = K − ½ B (BᵀK)`: `R S R = S − W Bᵀ − B Wᵀ`.
fn remove<E: Real>(matrix: &mut Mat<E>, b: MatRef<'_, E>) -> (f64, f64) {
    let (dim, par, one) = (matrix.nrows(), Par::rayon(0), E::of(1.0));
    for j in 0..dim {
        for i in 0..j {
            matrix[(i, j)] = matrix[(j, i)];
        }
    }
    let mut w = Mat::zeros(dim, b.ncols());
    matmul(w.as_mut(), Accum::Replace, matrix.as_ref(), b, one, par);
    let inner = gram_of(b, w.as_ref());
    matmul(w.as_mut(), Accum::Add, b, inner.as_ref(), E::of(-0.5), par);
    let [lower, all] = [BlockStructure::TriangularLower, BlockStructure::Rectangular];
    for (left, right) in [(w.as_ref(), b), (b, w.as_ref())] {
        triangular::matmul(
            matrix.as_mut(),
            lower,
            Accum::Add,
            left,
            all,
            right.transpose(),
            all,
            E::of(-1.0),
            par,
        );
    }
    let trace: f64 = (0..inner.ncols()).map(|i| inner[(i, i)].into()).sum();
    (trace.clamp(0.0, 1.0), inner.norm_l2().into())
}

/// `V ← orthonormal basis of (I − B Bᵀ) V`, repeated until `max |BᵀV| ≤ 1e-6`.
fn orthogonalise<E: Real>(vectors: &mut Mat<E>, b: MatRef<'_, E>) {
    // Eigenvectors of small eigenvalues lean a little on the null directions of the residual, which B spans.
    const PASSES: usize = 3;
    for _ in 0..PASSES {
        let inner = gram_of(b, vectors.as_ref());
        let leaning =
            inner.col_iter().flat_map(|c| c.iter()).fold(0f64, |worst, &x| worst.max(x.into().abs()));
        if leaning <= 1e-6 {
            break;
        }
        matmul(vectors.as_mut(), Accum::Add, b, inner.as_ref(), E::of(-1.0), Par::rayon(0));
        *vectors = vectors.qr().compute_thin_Q();
    }
}

/// The share of some rows that lies in a subspace: `‖X B‖_F / ‖X‖_F`, in [0, 1], with products in f64. It is 0 if all rows are 0.
///
/// This is the *interference leakage* if `X` is the change of a prompt and `B` a subspace that must not be touched.
///
/// # Shapes
/// `rows (n, d)` row-major.
///
/// # Errors
/// [`LinalgError::Shape`] if the length is no multiple of d.
///
/// # Examples
/// ```
/// let x = fwd_linalg::Basis::from_orthonormal(2, vec![1.0, 0.0])?;
/// assert!((fwd_linalg::share_within(&[3.0, 4.0], &x)? - 0.6).abs() < 1e-12);
/// # Ok::<(), fwd_linalg::LinalgError>(())
/// ```
pub fn share_within(rows: &[f32], basis: &Basis) -> Result<f64> {
    Ok(shares_within(rows, basis.dim, &[basis])?[0])
}

/// [`share_within`] of several subspaces: the rows are prepared once, so that many subspaces cost what all their directions together do.
///
/// # Shapes
/// `rows (n, d)` row-major, d = `dim`; a share for each of `bases`.
///
/// # Errors
/// [`LinalgError::Shape`] if the length is no multiple of d, or if a basis has vectors of another length.
pub fn shares_within(rows: &[f32], dim: usize, bases: &[&Basis]) -> Result<Vec<f64>> {
    ensure_rows(rows.len(), dim, "share_within")?;
    for basis in bases {
        ensure_shape(basis.dim == dim, "share_within", || {
            format!("rows of {dim} and a basis of {}", basis.dim)
        })?;
    }
    let length = rows.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    if length == 0.0 || bases.iter().all(|basis| basis.is_empty()) {
        return Ok(vec![0.0; bases.len()]);
    }
    let columns = Mat::from_fn(dim, rows.len() / dim, |i, j| f64::from(rows[j * dim + i]));
    let share = |basis: &&Basis| match basis.is_empty() {
        true => 0.0,
        false => gram_of(basis.matrix().as_ref(), columns.as_ref()).norm_l2() / length,
    };
    Ok(bases.iter().map(share).collect())
}

/// The cosines between two subspaces, `σ(AᵀB)`, largest first, in [0, 1].
///
/// # Errors
/// [`LinalgError::Shape`] if the lengths of the vectors differ.
fn cosines(a: &Basis, b: &Basis) -> Result<Vec<f64>> {
    ensure_shape(a.dim == b.dim, "principal angles", || format!("vectors of {} and of {}", a.dim, b.dim))?;
    if a.is_empty() || b.is_empty() {
        return Ok(Vec::new());
    }
    let product = gram_of(a.matrix().as_ref(), b.matrix().as_ref());
    let failed = |_| LinalgError::NoConvergence { index: 0, rows: a.len(), columns: b.len() };
    Ok(product.singular_values().map_err(failed)?.into_iter().map(|x| x.clamp(0.0, 1.0)).collect())
}

/// The principal angles between two subspaces, smallest first, in radians: `θ_i = arccos σ_i(AᵀB)` (Björck and Golub 1973).
///
/// # Shapes
/// `A (d, k_a)`, `B (d, k_b)` -> `min(k_a, k_b)` angles in [0, π/2]. Angles below 5e-4 are rounding (arccos near 1).
///
/// # Errors
/// [`LinalgError::Shape`] if d differs.
///
/// # Examples
/// ```
/// use fwd_linalg::{Basis, principal_angles};
/// let x = Basis::from_orthonormal(2, vec![1.0, 0.0])?;
/// let diagonal = Basis::from_orthonormal(2, vec![0.5f32.sqrt(), 0.5f32.sqrt()])?;
/// assert!((principal_angles(&x, &diagonal)?[0].to_degrees() - 45.0).abs() < 1e-4);
/// # Ok::<(), fwd_linalg::LinalgError>(())
/// ```
pub fn principal_angles(a: &Basis, b: &Basis) -> Result<Vec<f64>> {
    Ok(cosines(a, b)?.into_iter().map(f64::acos).collect())
}

/// The overlap of two subspaces, `‖AᵀB‖²_F / min(k_a, k_b)`: 0 if they are orthogonal or one is empty, 1 if one lies inside the
/// other.
///
/// # Errors
/// [`LinalgError::Shape`] if d differs.
pub fn overlap(a: &Basis, b: &Basis) -> Result<f64> {
    let cosines = cosines(a, b)?;
    Ok(cosines.iter().map(|x| x * x).sum::<f64>() / cosines.len().max(1) as f64)
}

/// The effective rank `exp(H(λ/Σλ))` with the Shannon entropy H in nats (Roy and Vetterli 2007). It lies between 1 and the rank,
/// and is 0 if all eigenvalues are 0.
///
/// # Examples
/// ```
/// assert!((fwd_linalg::effective_rank(&[2.0, 2.0, 0.0]) - 2.0).abs() < 1e-12);
/// ```
pub fn effective_rank(eigenvalues: &[f64]) -> f64 {
    let positive = || eigenvalues.iter().copied().filter(|&x| x > 0.0);
    let total: f64 = positive().sum();
    if total == 0.0 { 0.0 } else { (-positive().map(|x| x / total * (x / total).ln()).sum::<f64>()).exp() }
}

/// The energy curve: the shares of the energy, between 0 and 1, that the first 1, 2, … directions carry. All are 0 if there is no
/// energy.
pub fn energy_curve(eigenvalues: &[f64]) -> Vec<f64> {
    let total: f64 = eigenvalues.iter().sum();
    let scale = if total > 0.0 { total.recip() } else { 0.0 };
    let mut sum = 0.0;
    eigenvalues
        .iter()
        .map(|x| {
            sum += x;
            sum * scale
        })
        .collect()
}
