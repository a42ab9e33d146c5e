//! The signed low-rank update that all projection rules are written as:
//!
//! ```text
//! Π(G) = δ·G + ((G B) ⊙ c) Bᵀ        G ∈ R^{n×d},  B ∈ R^{d×r} orthonormal,  c ∈ R^r,  δ ∈ {0, 1}
//! ```
//! `δ = 1, c = −1` keeps the complement of `B`, `δ = 0, c = 1` keeps `B`, `δ = 1, c = 0` keeps everything. The d×d matrix of Π is
//! never formed: 4·n·d·r operations instead of 2·n·d².

use crate::error::{Result, ensure_rows, ensure_shape};
use crate::subspace::Basis;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// The map Π with its vectors and coefficients, ready to be applied to rows.
///
/// # Examples
/// ```
/// use fwd_linalg::{Basis, Projection};
/// let x = Basis::from_orthonormal(3, vec![1.0, 0.0, 0.0])?;
/// let mut gradient = [1.0, 2.0, 3.0];
/// Projection::new(3, true, &[(&x, -1.0)])?.apply(&mut gradient)?;
/// assert_eq!(gradient, [0.0, 2.0, 3.0]);
/// # Ok::<(), fwd_linalg::LinalgError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    dim: usize,
    keeps_rest: bool,
    /// `(r, d)` row-major, without the vectors whose coefficient is 0.
    vectors: Vec<f32>,
    coefficients: Vec<f32>,
}

impl Projection {
    /// The projection that changes nothing, `Π(G) = G`, for rows of `dim` elements.
    pub fn identity(dim: usize) -> Self {
        Self { dim, keeps_rest: true, vectors: Vec::new(), coefficients: Vec::new() }
    }

    /// Builds Π from δ (`keeps_rest`: 1 if true, 0 if false) and pieces of the basis `B`, each with its coefficient in `c`. Pieces with
    /// coefficient 0 are left out and cost nothing.
    ///
    /// The pieces must be orthogonal to one another; Π is a projection (idempotent) if moreover c ∈ {0, −1} with δ = 1, or
    /// c ∈ {0, 1} with δ = 0. It is symmetric and linear in any case.
    ///
    /// # Errors
    /// [`LinalgError::Shape`](crate::LinalgError::Shape) if a piece has vectors of another length.
    pub fn new(dim: usize, keeps_rest: bool, pieces: &[(&Basis, f32)]) -> Result<Self> {
        let mut projection = Self { dim, keeps_rest, vectors: Vec::new(), coefficients: Vec::new() };
        for &(piece, coefficient) in pieces {
            ensure_shape(piece.dim() == dim, "Projection::new", || {
                format!("a piece has vectors of {}, expected {dim}", piece.dim())
            })?;
            if coefficient != 0.0 {
                projection.vectors.extend_from_slice(piece.vectors());
                projection.coefficients.extend(std::iter::repeat_n(coefficient, piece.len()));
            }
        }
        Ok(projection)
    }

    /// Length d of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number r of vectors that take part.
    pub fn rank(&self) -> usize {
        self.coefficients.len()
    }

    /// Whether Π changes nothing.
    pub fn is_identity(&self) -> bool {
        self.keeps_rest && self.coefficients.is_empty()
    }

    /// Whether Π maps everything to 0 (as `fwd-strict` does when there is no subspace to stay in).
    pub fn is_zero(&self) -> bool {
        !self.keeps_rest && self.coefficients.is_empty()
    }

    /// Replaces every row by its projection: `G ← Π(G)`.
    ///
    /// # Shapes
    /// `rows (n, d)` row-major f32. 4·n·d·r operations, a scratch of `n·(r + d)` elements at most.
    ///
    /// # Errors
    /// [`LinalgError::Shape`](crate::LinalgError::Shape) if the length is no multiple of d.
    pub fn apply(&self, rows: &mut [f32]) -> Result<()> {
        ensure_rows(rows.len(), self.dim, "Projection::apply")?;
        self.apply_with(rows, &mut Vec::new());
        Ok(())
    }

    /// Does the work of [`Self::apply`] without checking the length; `scratch` is memory that later calls use again.
    pub(crate) fn apply_with(&self, rows: &mut [f32], scratch: &mut Vec<f32>) {
        if self.is_identity() || rows.is_empty() {
            return;
        }
        self.coefficients_of(rows, scratch);
        if !self.keeps_rest {
            rows.fill(0.0);
        }
        self.expand(scratch, rows);
    }

    /// Computes the scaled coefficients `A = (G B) ⊙ c`, `(n, r)` row-major, into the front of `out`.
    pub(crate) fn coefficients_of(&self, rows: &[f32], out: &mut Vec<f32>) {
        let (n, r) = (rows.len() / self.dim, self.rank());
        if out.len() < n * r {
            out.resize(n * r, 0.0);
        }
        let out = &mut out[..n * r];
        if r == 0 {
            return;
        }
        let b = MatRef::from_column_major_slice(&self.vectors, self.dim, r);
        let g = MatRef::from_row_major_slice(rows, n, self.dim);
        matmul(rows_mut(out, n, r), Accum::Replace, g, b, 1.0, Par::rayon(0));
        for row in out.chunks_exact_mut(r) {
            for (x, c) in row.iter_mut().zip(&self.coefficients) {
                *x *= c;
            }
        }
    }

    /// Adds the rows that the coefficients `A (n, r)` stand for: `out += A Bᵀ`.
    pub(crate) fn expand(&self, coefficients: &[f32], out: &mut [f32]) {
        let (n, r) = (out.len() / self.dim, self.rank());
        if r > 0 {
            let b = MatRef::from_row_major_slice(&self.vectors, r, self.dim);
            let a = MatRef::from_row_major_slice(&coefficients[..n * r], n, r);
            matmul(rows_mut(out, n, self.dim), Accum::Add, a, b, 1.0, Par::rayon(0));
        }
    }
}

/// A mutable row-major view, built as the transpose of a column-major one: faer 0.24.4's own constructor swaps the strides.
fn rows_mut(slice: &mut [f32], rows: usize, columns: usize) -> MatMut<'_, f32> {
    MatMut::from_column_major_slice_mut(slice, columns, rows).transpose_mut()
}
