//! Frozen matrices as they lie in a file: the element formats, how they are widened, and the products with them.
//!
//! Nothing here widens a whole matrix: [`product`] widens one tile at a time into working memory of [`product::TILE`] elements, and
//! reads the stored bytes directly where the activations have few rows.

mod blocks;
mod check;
mod few_rows;
mod format;
pub(crate) mod product;
mod quantise;

use crate::compute::Compute;
pub(crate) use check::first_non_finite_row;
pub use format::Format;
pub use quantise::Unfit;

/// Rows of the matrix in the tile of a forward product.
const FORWARD_ROWS: usize = 64;

/// Rows of a frozen matrix in one format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredRows<'a> {
    pub(crate) format: Format,
    /// How products with it are computed.
    pub(crate) compute: Compute,
    pub(crate) n_rows: usize,
    pub(crate) n_cols: usize,
    /// `n_rows` rows, one after the other.
    pub(crate) bytes: &'a [u8],
}

impl<'a> StoredRows<'a> {
    fn row_bytes(&self) -> usize {
        self.format.row_bytes(self.n_cols)
    }

    /// The bytes of one row.
    fn row(&self, row: usize) -> &'a [u8] {
        let n = self.row_bytes();
        &self.bytes[row * n..][..n]
    }

    /// One row of them.
    pub(crate) fn only(&self, row: usize) -> Self {
        Self { n_rows: 1, bytes: self.row(row), ..*self }
    }

    /// Widens columns `from..from + out.len()` of a row; `from` and the length are whole blocks.
    pub(crate) fn widen<E: super::Elem>(&self, row: usize, from: usize, out: &mut [E]) {
        let bytes = &self.row(row)[self.format.row_bytes(from)..];
        blocks::widen(self.format, bytes, out);
    }
}
