//! Plain products of row-major matrices.

use crate::error::{Result, ensure_shape};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// `X Wᵀ`: every row of `X` through the linear map whose matrix is `W`, as a linear layer keeps its weight.
///
/// # Shapes
/// `x (n, d)` and `w (m, d)` row-major -> `(n, m)` row-major; `shape` is `(n, m)` and `dim` is d. 2·n·m·d operations.
///
/// # Errors
/// [`LinalgError::Shape`](crate::LinalgError::Shape) if a slice does not have the length that `shape` and `dim` ask for.
///
/// # Examples
/// ```
/// let y = fwd_linalg::times_transposed(&[1.0, 2.0], &[3.0, 4.0, 5.0, 6.0], (1, 2), 2)?;
/// assert_eq!(y, [11.0, 17.0]);
/// # Ok::<(), fwd_linalg::LinalgError>(())
/// ```
pub fn times_transposed(x: &[f32], w: &[f32], shape: (usize, usize), dim: usize) -> Result<Vec<f32>> {
    let (n, m) = shape;
    check("times_transposed", [(x, n, dim), (w, m, dim)])?;
    let (x, w) = (MatRef::from_row_major_slice(x, n, dim), MatRef::from_row_major_slice(w, m, dim));
    Ok(product(x, w.transpose()))
}

/// `Aᵀ X`: the sum over all rows of the outer product of a row of `A` and the same row of `X`, as the gradient of a linear layer's weight
/// is one.
///
/// # Shapes
/// `a (n, m)` and `x (n, d)` row-major -> `(m, d)` row-major; `n` is the number of rows, `widths` is `(m, d)`. 2·n·m·d operations.
///
/// # Errors
/// As [`times_transposed`].
///
/// # Examples
/// ```
/// let sum = fwd_linalg::transposed_times(&[1.0, 2.0], &[3.0, 4.0, 5.0, 6.0], 2, (1, 2))?;
/// assert_eq!(sum, [13.0, 16.0]);
/// # Ok::<(), fwd_linalg::LinalgError>(())
/// ```
pub fn transposed_times(a: &[f32], x: &[f32], n: usize, widths: (usize, usize)) -> Result<Vec<f32>> {
    let (m, d) = widths;
    check("transposed_times", [(a, n, m), (x, n, d)])?;
    let (a, x) = (MatRef::from_row_major_slice(a, n, m), MatRef::from_row_major_slice(x, n, d));
    Ok(product(a.transpose(), x))
}

fn check(op: &'static str, factors: [(&[f32], usize, usize); 2]) -> Result<()> {
    factors.into_iter().try_for_each(|(slice, rows, columns)| {
        ensure_shape(slice.len() == rows * columns, op, || {
            format!("{} elements for {rows} rows of {columns}", slice.len())
        })
    })
}

fn product(a: MatRef<'_, f32>, b: MatRef<'_, f32>) -> Vec<f32> {
    let (n, m) = (a.nrows(), b.ncols());
    let mut out = vec![0.0; n * m];
    // A row-major view is the transpose of a column-major one; faer 0.24.4's own constructor swaps the strides.
    let view = MatMut::from_column_major_slice_mut(&mut out, m, n).transpose_mut();
    matmul(view, Accum::Replace, a, b, 1.0, Par::rayon(0));
    out
}
