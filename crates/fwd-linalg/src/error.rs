//! The error type of this crate.

/// What can go wrong in a decomposition or a step.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LinalgError {
    /// The arguments do not fit together.
    #[error("{op}: {what}")]
    Shape {
        /// The function that refused, such as `Gram::push`.
        op: &'static str,
        /// Which argument is wrong, with the size that it has and the one it should have.
        what: String,
    },
    /// A row has a NaN or an infinity.
    #[error("{op}: element {column} of row {row} is not a finite number")]
    NotFinite {
        /// The function that refused, such as `Gram::push`.
        op: &'static str,
        /// The row, counted from the first of the slice that was given.
        row: usize,
        /// The position in the row.
        column: usize,
    },
    /// A sum of products of finite numbers left the range of the arithmetic.
    #[error("{op}: the products overflow; scale the rows down")]
    Overflow {
        /// The function that refused, such as `Gram::push`.
        op: &'static str,
    },
    /// A hyper-parameter outside its range.
    #[error("{op}: {what}")]
    Range {
        /// The function that refused, such as `Gram::push`.
        op: &'static str,
        /// The parameter, its value and its range.
        what: String,
    },
    /// The eigenvalue or singular value iteration did not converge.
    #[error("the decomposition of matrix {index} ({rows}x{columns}) did not converge")]
    NoConvergence {
        /// The position in the batch, 0 for a single matrix.
        index: usize,
        /// How many rows the matrix has.
        rows: usize,
        /// How many columns the matrix has.
        columns: usize,
    },
    /// Serialised bytes that are not what [`Gram::to_bytes`](crate::Gram::to_bytes) wrote.
    #[error("the serialised Gram matrix is damaged: {0}")]
    Damaged(String),
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, LinalgError>;

/// A [`LinalgError::Shape`] unless `len` elements are rows of `dim`.
pub(crate) fn ensure_rows(len: usize, dim: usize, op: &'static str) -> Result<()> {
    ensure_shape(len.checked_rem(dim).unwrap_or(len) == 0, op, || {
        format!("{len} elements are not rows of {dim}")
    })
}

/// A [`LinalgError::NotFinite`] if an element is NaN or infinite.
pub(crate) fn ensure_finite<E: Copy + Into<f64>>(values: &[E], dim: usize, op: &'static str) -> Result<()> {
    // Without an early exit the test of a piece is vectorised.
    const PIECE: usize = 4096;
    let is_bad = |piece: &[E]| piece.iter().fold(false, |bad, &x| bad | !x.into().is_finite());
    let at = values.chunks(PIECE).position(is_bad).and_then(|piece| {
        let start = piece * PIECE;
        values[start..].iter().position(|&x| !x.into().is_finite()).map(|at| start + at)
    });
    match at {
        Some(at) => Err(LinalgError::NotFinite { op, row: at / dim, column: at % dim }),
        None => Ok(()),
    }
}

/// A [`LinalgError::Shape`] unless the condition holds.
pub(crate) fn ensure_shape(holds: bool, op: &'static str, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(LinalgError::Shape { op, what: what() }) }
}
