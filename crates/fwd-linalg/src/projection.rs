//! The signed low-rank update that all projection rules are written as:
//!
//! ```text
//! Π(G) = δ·G + ((G B) ⊙ c) Bᵀ        G ∈ R^{n×d},  B ∈ R^{d×r} orthonormal,  c ∈ R^r,  δ ∈ {0, 1}
//! ```
//! `δ = 1, c = −1` keeps the complement of `B`, `δ = 0, c = 1` keeps `B`, `δ = 1, c = 0` keeps everything. The d×d matrix of Π is
//! never formed: 4·n·d·r operations instead of 2·n·d².

use crate::error::{Result, ensure_rows, ensure_shape};
use crate::subspace::Basis;
use faer::{Accum, MatMut, MatRef};
use fwd_simd::{Cpu, Lhs, PANEL, Panels, multiply_panels};
use rayon::prelude::*;

/// Rows that a thread projects at a time, at most: as many as stay in the second-level cache beside a panel.
const ROWS: usize = 256;
/// Multiply-adds below which one thread does it all: starting others takes longer.
const MIN_PARALLEL_WORK: usize = 64 * 64 * 64;

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
#[derive(Debug, Clone)]
pub struct Projection {
    dim: usize,
    keeps_rest: bool,
    /// `Bᵀ (r, d)` for `G B`, without the vectors whose coefficient is 0.
    vectors: Panels<f32>,
    /// `B (d, r)` with column i times `c_i`, for the product with `Bᵀ`.
    scaled: Panels<f32>,
}

impl Projection {
    /// The projection that changes nothing, `Π(G) = G`, for rows of `dim` elements.
    pub fn identity(dim: usize) -> Self {
        Self::packed(dim, true, &[], &[])
    }

    /// Packs the vectors, `(r, d)` row-major, and their coefficients.
    fn packed(dim: usize, keeps_rest: bool, vectors: &[f32], coefficients: &[f32]) -> Self {
        let (cpu, r) = (Cpu::current(), coefficients.len());
        let row = |i: usize, out: &mut [f32]| out.copy_from_slice(&vectors[i * dim..][..dim]);
        let column = |j: usize, out: &mut [f32]| {
            let pairs = vectors.chunks_exact(dim).zip(coefficients);
            out.iter_mut().zip(pairs).for_each(|(out, (vector, c))| *out = vector[j] * c);
        };
        // Without vectors nothing is multiplied.
        let n_columns = if r == 0 { 0 } else { dim };
        Self {
            dim,
            keeps_rest,
            vectors: Panels::pack(cpu, r, dim, row),
            scaled: Panels::pack(cpu, n_columns, r, column),
        }
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
        let (mut vectors, mut coefficients) = (Vec::new(), Vec::new());
        for &(piece, coefficient) in pieces {
            ensure_shape(piece.dim() == dim, "Projection::new", || {
                format!("a piece has vectors of {}, expected {dim}", piece.dim())
            })?;
            if coefficient != 0.0 {
                vectors.extend_from_slice(piece.vectors());
                coefficients.extend(std::iter::repeat_n(coefficient, piece.len()));
            }
        }
        Ok(Self::packed(dim, keeps_rest, &vectors, &coefficients))
    }

    /// Length d of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number r of vectors that take part.
    pub fn rank(&self) -> usize {
        self.vectors.n_rows()
    }

    /// Whether Π changes nothing.
    pub fn is_identity(&self) -> bool {
        self.keeps_rest && self.rank() == 0
    }

    /// Whether Π maps everything to 0 (as `fwd-strict` does when there is no subspace to stay in).
    pub fn is_zero(&self) -> bool {
        !self.keeps_rest && self.rank() == 0
    }

    /// Replaces every row by its projection: `G ← Π(G)`.
    ///
    /// # Shapes
    /// `rows (n, d)` row-major f32. 4·n·d·r operations; a thread needs a scratch of `256·(d + 2·r)` elements at most.
    ///
    /// # Errors
    /// [`LinalgError::Shape`](crate::LinalgError::Shape) if the length is no multiple of d.
    pub fn apply(&self, rows: &mut [f32]) -> Result<()> {
        ensure_rows(rows.len(), self.dim, "Projection::apply")?;
        self.apply_unchecked(rows);
        Ok(())
    }

    /// Does the work of [`Self::apply`] without checking the length.
    pub(crate) fn apply_unchecked(&self, rows: &mut [f32]) {
        if self.is_identity() || rows.is_empty() {
            return;
        }
        if self.is_zero() {
            return rows.fill(0.0);
        }
        let n = rows.len() / self.dim;
        let threads = rayon::current_num_threads();
        if threads == 1 || n * self.dim * self.rank() < MIN_PARALLEL_WORK {
            rows.chunks_mut(ROWS * self.dim).for_each(|rows| self.apply_block(rows, &mut Vec::new()));
        } else {
            // The same number of blocks for each thread, of about the same height.
            let n_blocks = n.div_ceil(ROWS).next_multiple_of(threads);
            let height = n.div_ceil(n_blocks);
            rows.par_chunks_mut(height * self.dim)
                .for_each_init(Vec::new, |inner, rows| self.apply_block(rows, inner));
        }
    }

    /// Projects some rows; `inner` is memory for `G B`.
    fn apply_block(&self, rows: &mut [f32], inner: &mut Vec<f32>) {
        let (cpu, n, r) = (Cpu::current(), rows.len() / self.dim, self.rank());
        inner.resize(n * r, 0.0);
        let g = Lhs::<f32>::pack(cpu, MatRef::from_row_major_slice(rows, n, self.dim), 1.0);
        product(&g, &self.vectors, rows_mut(inner, n, r), Accum::Replace);
        let inner = Lhs::<f32>::pack(cpu, MatRef::from_row_major_slice(inner, n, r), 1.0);
        let accum = if self.keeps_rest { Accum::Add } else { Accum::Replace };
        product(&inner, &self.scaled, rows_mut(rows, n, self.dim), accum);
    }
}

/// `y = x·Wᵀ`, or `y += …`.
fn product(x: &Lhs<f32>, w: &Panels<f32>, y: MatMut<'_, f32>, accum: Accum) {
    let mut rest = y;
    let mut panels = Vec::with_capacity(w.n_panels());
    for i in 0..w.n_panels() {
        let n = PANEL.min(rest.ncols());
        let (columns, other) = rest.split_at_col_mut(n);
        panels.push((w.panel(i), columns));
        rest = other;
    }
    multiply_panels(x, 0, &mut panels, accum);
}

/// A mutable row-major view, built as the transpose of a column-major one: faer 0.24.4's own constructor swaps the strides.
fn rows_mut(slice: &mut [f32], rows: usize, columns: usize) -> MatMut<'_, f32> {
    MatMut::from_column_major_slice_mut(slice, columns, rows).transpose_mut()
}
