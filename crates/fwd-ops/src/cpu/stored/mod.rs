//! Frozen matrices as they lie in a file, and the products with them.
//!
//! Nothing here widens a whole matrix: [`product`] widens one tile at a time into working memory of a thread, and reads the stored bytes
//! directly where the activations have few rows.

mod check;
pub(crate) mod product;

use crate::compute::Compute;
pub(crate) use check::first_non_finite_row;
use fwd_simd::Cpu;
pub use fwd_simd::{Format, Unfit};

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

    /// The bytes of some rows.
    fn rows(&self, first: usize, n: usize) -> &'a [u8] {
        let row_bytes = self.row_bytes();
        &self.bytes[first * row_bytes..][..n * row_bytes]
    }

    /// One row of them.
    pub(crate) fn only(&self, row: usize) -> Self {
        Self { n_rows: 1, bytes: self.rows(row, 1), ..*self }
    }

    /// Widens columns `from..from + out.len()` of a row; in a format of blocks, `from` and the length are multiples of 32.
    pub(crate) fn widen(&self, row: usize, from: usize, out: &mut [f32]) {
        fwd_simd::decode(Cpu::current(), self.format, self.rows(row, 1), from, out);
    }
}
