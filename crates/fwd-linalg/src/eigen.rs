//! Symmetric eigendecomposition and thin SVD, single and batched, over faer (LAPACK-class algorithms in Rust).
//!
//! `C = V Λ Vᵀ` by Householder tridiagonalisation and divide and conquer; only the eigenvectors that are asked for are
//! transformed back. faer answers NaN for NaN without an error, so everything is checked for finiteness first.

use crate::error::{LinalgError, Result, ensure_finite, ensure_shape};
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::tridiag::tridiag_in_place;
use faer::linalg::evd::{
    ComputeEigenvectors, SelfAdjointEvdParams, self_adjoint_evd_scratch, tridiagonal_self_adjoint_evd,
};
use faer::linalg::householder::apply_block_householder_sequence_on_the_left_in_place_with_conj;
use faer::linalg::qr::no_pivoting::factor::recommended_block_size;
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Auto, Conj, Mat, MatRef, Par, Spec};
use rayon::prelude::*;

/// The element type of a decomposition, which is also its arithmetic: f32 or f64.
pub trait Real: faer::traits::RealField + Copy + Into<f64> + sealed::Sealed {
    #[doc(hidden)]
    fn of(value: f64) -> Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f64 {}
    impl Sealed for f32 {}
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }
}

/// Eigenvalues and eigenvectors of a symmetric matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Eigen<E> {
    /// The d eigenvalues, largest first.
    pub values: Vec<E>,
    /// `(d, d)` row-major: row i is the unit eigenvector of value i. Its sign is arbitrary.
    pub vectors: Vec<E>,
}

/// The thin singular value decomposition `Z = U Σ Vᵀ` of a matrix `(n, d)`, with `k = min(n, d)` singular values.
#[derive(Debug, Clone, PartialEq)]
pub struct Svd<E> {
    /// The k singular values, largest first.
    pub singular_values: Vec<E>,
    /// `(k, n)` row-major: row i is the left singular vector `uᵢ`.
    pub left: Vec<E>,
    /// `(k, d)` row-major: row i is the right singular vector `vᵢ`.
    pub right: Vec<E>,
}

/// The eigendecomposition `C = V Λ Vᵀ`; only the lower triangle (row-major) is read.
///
/// # Shapes
/// `matrix (d, d)`. About 9·d³ operations.
///
/// # Errors
/// [`LinalgError::Shape`], [`LinalgError::NotFinite`], [`LinalgError::NoConvergence`].
///
/// # Examples
/// ```
/// let eigen = fwd_linalg::symmetric_eigen(&[2.0f64, 1.0, 1.0, 2.0], 2)?;
/// assert!((eigen.values[0] - 3.0).abs() < 1e-14 && (eigen.values[1] - 1.0).abs() < 1e-14);
/// # Ok::<(), fwd_linalg::LinalgError>(())
/// ```
pub fn symmetric_eigen<E: Real>(matrix: &[E], dim: usize) -> Result<Eigen<E>> {
    eigen_of(matrix, dim, Par::rayon(0), 0)
}

/// [`symmetric_eigen`] of each matrix of `(n, d, d)`, one thread a matrix.
///
/// # Errors
/// As [`symmetric_eigen`]; [`LinalgError::NoConvergence`] names the matrix, and so does `row / d` of
/// [`LinalgError::NotFinite`].
pub fn symmetric_eigen_batched<E: Real>(matrices: &[E], dim: usize) -> Result<Vec<Eigen<E>>> {
    let op = "symmetric_eigen_batched";
    let area = dim * dim;
    ensure_shape(area > 0 && matrices.len().is_multiple_of(area), op, || {
        format!("{} elements are not matrices of {dim}x{dim}", matrices.len())
    })?;
    ensure_finite(matrices, dim, op)?;
    matrices.par_chunks(area).enumerate().map(|(i, matrix)| eigen_of(matrix, dim, Par::Seq, i)).collect()
}

fn eigen_of<E: Real>(matrix: &[E], dim: usize, par: Par, index: usize) -> Result<Eigen<E>> {
    let op = "symmetric_eigen";
    ensure_shape(matrix.len() == dim * dim, op, || format!("{} elements are not {dim}x{dim}", matrix.len()))?;
    ensure_finite(matrix, dim, op)?;
    let lower = MatRef::from_row_major_slice(matrix, dim, dim).to_owned();
    let (values, vectors) = leading_eigen(lower, par, index, |_| dim)?;
    Ok(Eigen { values, vectors: columns(vectors.as_ref()) })
}

/// All eigenvalues, largest first, and as many leading eigenvectors (columns) as `choose` says when it sees the values.
/// The lower triangle of `matrix` is read; it must be finite.
pub(crate) fn leading_eigen<E: Real>(
    matrix: Mat<E>,
    par: Par,
    index: usize,
    choose: impl FnOnce(&[E]) -> usize,
) -> Result<(Vec<E>, Mat<E>)> {
    let n = matrix.nrows();
    if n == 0 {
        return Ok((Vec::new(), matrix));
    }
    let mut params = <SelfAdjointEvdParams as Auto<E>>::auto();
    // Measured on two cores: below 1,024 columns the threads wait longer for each other than they work.
    params.tridiag.par_threshold = 1024 * 1024 / 2;
    let params: Spec<SelfAdjointEvdParams, E> = params.into();
    let mut reduced = matrix;
    let block = recommended_block_size::<E>(n, n);
    let mut factors = Mat::<E>::zeros(block, n - 1);
    let scratch = self_adjoint_evd_scratch::<E>(n, ComputeEigenvectors::Yes, par, params);
    let mut buffer = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut buffer);
    tridiag_in_place(reduced.as_mut(), factors.as_mut(), par, stack, params.config.tridiag.into());
    let mut diagonal = Diag::<E>::zeros(n);
    let mut below = Diag::<E>::zeros(n);
    for i in 0..n {
        diagonal[i] = reduced[(i, i)];
        if i + 1 < n {
            below[i] = reduced[(i + 1, i)];
        }
    }
    let mut ascending = Diag::<E>::zeros(n);
    let mut vectors = Mat::<E>::zeros(n, n);
    tridiagonal_self_adjoint_evd(
        diagonal.as_ref(),
        below.as_ref(),
        ascending.as_mut(),
        Some(vectors.as_mut()),
        par,
        stack,
        params,
    )
    .map_err(|_| LinalgError::NoConvergence { index, rows: n, columns: n })?;
    let values: Vec<E> = (0..n).rev().map(|i| ascending[i]).collect();
    let k = choose(&values).min(n);
    if n > 1 {
        apply_block_householder_sequence_on_the_left_in_place_with_conj(
            reduced.submatrix(1, 0, n - 1, n - 1),
            factors.as_ref(),
            Conj::No,
            vectors.as_mut().submatrix_mut(1, n - k, n - 1, k),
            par,
            stack,
        );
    }
    let leading = vectors.as_ref().subcols(n - k, k).reverse_cols().to_owned();
    Ok((values, leading))
}

/// The thin SVD of the rows themselves: the reference route for few rows, where `ZᵀZ` would square the condition number.
///
/// # Shapes
/// `rows (n, d)` row-major.
///
/// # Errors
/// As [`symmetric_eigen`].
///
/// # Examples
/// ```
/// let svd = fwd_linalg::thin_svd(&[3.0f64, 0.0, 0.0, 0.0, 2.0, 0.0], 3)?;
/// assert!((svd.singular_values[0] - 3.0).abs() < 1e-14 && (svd.singular_values[1] - 2.0).abs() < 1e-14);
/// assert_eq!((svd.left.len(), svd.right.len()), (2 * 2, 2 * 3));
/// # Ok::<(), fwd_linalg::LinalgError>(())
/// ```
pub fn thin_svd<E: Real>(rows: &[E], dim: usize) -> Result<Svd<E>> {
    let op = "thin_svd";
    ensure_shape(dim > 0 && rows.len().is_multiple_of(dim), op, || {
        format!("{} elements are not rows of {dim}", rows.len())
    })?;
    ensure_finite(rows, dim, op)?;
    let n = rows.len() / dim;
    svd_of(rows, n, dim, Par::rayon(0), 0)
}

/// [`thin_svd`] of each matrix of `(batch, n, d)`, one thread a matrix.
///
/// # Errors
/// As [`symmetric_eigen_batched`].
pub fn thin_svd_batched<E: Real>(matrices: &[E], n: usize, dim: usize) -> Result<Vec<Svd<E>>> {
    let op = "thin_svd_batched";
    ensure_shape(n * dim > 0 && matrices.len().is_multiple_of(n * dim), op, || {
        format!("{} elements are not matrices of {n}x{dim}", matrices.len())
    })?;
    ensure_finite(matrices, dim, op)?;
    matrices.par_chunks(n * dim).enumerate().map(|(i, rows)| svd_of(rows, n, dim, Par::Seq, i)).collect()
}

fn svd_of<E: Real>(rows: &[E], n: usize, dim: usize, par: Par, index: usize) -> Result<Svd<E>> {
    let k = n.min(dim);
    if k == 0 {
        return Ok(Svd { singular_values: Vec::new(), left: Vec::new(), right: Vec::new() });
    }
    let (mut sigma, mut left, mut right) = (Diag::zeros(k), Mat::zeros(n, k), Mat::zeros(dim, k));
    let params = Spec::default();
    let thin = ComputeSvdVectors::Thin;
    let mut buffer = MemBuffer::new(svd_scratch::<E>(n, dim, thin, thin, par, params));
    svd(
        MatRef::from_row_major_slice(rows, n, dim),
        sigma.as_mut(),
        Some(left.as_mut()),
        Some(right.as_mut()),
        par,
        MemStack::new(&mut buffer),
        params,
    )
    .map_err(|_| LinalgError::NoConvergence { index, rows: n, columns: dim })?;
    Ok(Svd {
        singular_values: (0..k).map(|i| sigma[i]).collect(),
        left: columns(left.as_ref()),
        right: columns(right.as_ref()),
    })
}

/// The columns of a matrix one after another.
pub(crate) fn columns<E: Real>(matrix: MatRef<'_, E>) -> Vec<E> {
    matrix.col_iter().flat_map(|column| column.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn normal(n: usize, seed: u64) -> Vec<f64> {
        let mut rng = StdRng::seed_from_u64(seed);
        (0..n).map(|_| rng.sample(rand_distr::StandardNormal)).collect()
    }

    fn symmetric(dim: usize, seed: u64) -> Vec<f64> {
        let x = normal(dim * dim, seed);
        (0..dim * dim).map(|i| x[i] + x[i % dim * dim + i / dim]).collect()
    }

    /// `max |C v − λ v|` over all pairs, relative to the largest eigenvalue.
    fn residual(matrix: &[f64], eigen: &Eigen<f64>, dim: usize) -> f64 {
        let scale = eigen.values.iter().fold(f64::MIN_POSITIVE, |a, b| a.max(b.abs()));
        let mut worst = 0f64;
        for (value, vector) in eigen.values.iter().zip(eigen.vectors.chunks_exact(dim)) {
            for (row, v) in matrix.chunks_exact(dim).zip(vector) {
                let product: f64 = row.iter().zip(vector).map(|(a, b)| a * b).sum();
                worst = worst.max((product - value * v).abs());
            }
        }
        worst / scale
    }

    #[test]
    fn eigenpairs_of_small_and_large_matrices() {
        for dim in [1, 2, 3, 16, 65, 200, 300] {
            let matrix = symmetric(dim, dim as u64);
            let eigen = symmetric_eigen(&matrix, dim).unwrap();
            assert!(residual(&matrix, &eigen, dim) <= 8.0 * f64::EPSILON * (dim as f64).sqrt(), "{dim}");
            assert!(eigen.values.windows(2).all(|w| w[0] >= w[1]));
            let trace: f64 = (0..dim).map(|i| matrix[i * dim + i]).sum();
            assert!((eigen.values.iter().sum::<f64>() - trace).abs() <= 1e-12 * dim as f64);
        }
        assert!(symmetric_eigen::<f64>(&[], 0).unwrap().values.is_empty());
    }

    #[test]
    fn repeated_and_zero_eigenvalues() {
        let dim = 140;
        let identity: Vec<f64> = (0..dim * dim).map(|i| f64::from(u8::from(i % (dim + 1) == 0))).collect();
        let eigen = symmetric_eigen(&identity, dim).unwrap();
        assert!(eigen.values.iter().all(|x| (x - 1.0).abs() < 1e-14));
        let ones = vec![1.0; dim * dim];
        let eigen = symmetric_eigen(&ones, dim).unwrap();
        assert!((eigen.values[0] - dim as f64).abs() < 1e-11);
        assert!(eigen.values[1..].iter().all(|x| x.abs() < 1e-11));
        assert!(symmetric_eigen(&[0.0f32; 9], 3).unwrap().values.iter().all(|x| *x == 0.0));
    }

    #[test]
    fn a_batch_gives_what_its_matrices_give() {
        let dim = 40;
        let matrices: Vec<f64> = (0..5).flat_map(|seed| symmetric(dim, seed)).collect();
        let batch = symmetric_eigen_batched(&matrices, dim).unwrap();
        for (matrix, eigen) in matrices.chunks_exact(dim * dim).zip(&batch) {
            assert!(residual(matrix, eigen, dim) < 1e-13);
        }
        let rows = normal(4 * 6 * 9, 7);
        let batch = thin_svd_batched(&rows, 6, 9).unwrap();
        for (rows, svd) in rows.chunks_exact(6 * 9).zip(&batch) {
            assert_eq!(svd, &thin_svd(rows, 9).unwrap());
        }
        let mut bad = matrices;
        bad[3 * dim * dim + 2] = f64::NAN;
        let error = symmetric_eigen_batched(&bad, dim).unwrap_err();
        assert_eq!(error, LinalgError::NotFinite { op: "symmetric_eigen_batched", row: 3 * dim, column: 2 });
    }

    #[test]
    fn the_svd_multiplies_back() {
        assert!(thin_svd::<f32>(&[], 3).unwrap().singular_values.is_empty());
        for (n, dim) in [(1, 5), (5, 1), (20, 30), (50, 20)] {
            let z = normal(n * dim, n as u64);
            let svd = thin_svd(&z, dim).unwrap();
            for i in 0..n {
                for j in 0..dim {
                    let sum: f64 = svd
                        .singular_values
                        .iter()
                        .enumerate()
                        .map(|(k, s)| s * svd.left[k * n + i] * svd.right[k * dim + j])
                        .sum();
                    assert!((sum - z[i * dim + j]).abs() < 1e-12, "{n} {dim}");
                }
            }
        }
    }
}
