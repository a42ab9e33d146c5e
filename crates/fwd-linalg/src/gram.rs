//! The Gram matrix `C = ZᵀZ` of a stream of rows `z ∈ R^d`, in O(d²) memory, uncentred as in GPM (Saha et al. 2021).
//!
//! Rows wait in a block of fixed height. A full block is multiplied in f32 and the product is added to an f64 sum, so the
//! rounding error is that of one block however long the stream; f64 rows are multiplied in f64. Blocks are cut by
//! row number, not by call: how the rows are batched changes no bit of the result, nor does the number of threads.

use crate::eigen::Real;
use crate::error::{LinalgError, Result, ensure_finite, ensure_rows, ensure_shape};
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use fwd_simd::{Cpu, Lhs, PANEL, multiply_panels, pack_panel};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use std::borrow::Cow;

/// How many rows are multiplied in one piece.
const BLOCK: usize = 2048;
/// First bytes of a serialised Gram matrix.
const MAGIC: &[u8; 8] = b"FWDGRAM1";

/// An element type of the rows of a [`Gram`]: f64, f32, bf16 or f16.
pub trait Element: Copy + Into<f64> + Send + Sync + sealed::Sealed {
    #[doc(hidden)]
    fn append(rows: &[Self], pending: &mut Pending);
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f64 {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
    impl Sealed for half::f16 {}
}

impl Element for f64 {
    fn append(rows: &[Self], pending: &mut Pending) {
        pending.double.extend_from_slice(rows);
    }
}

impl Element for f32 {
    fn append(rows: &[Self], pending: &mut Pending) {
        pending.single.extend_from_slice(rows);
    }
}

impl Element for bf16 {
    fn append(rows: &[Self], pending: &mut Pending) {
        widen(rows, pending, |rows, out| rows.convert_to_f32_slice(out));
    }
}

impl Element for f16 {
    fn append(rows: &[Self], pending: &mut Pending) {
        widen(rows, pending, |rows, out| rows.convert_to_f32_slice(out));
    }
}

fn widen<E>(rows: &[E], pending: &mut Pending, convert: impl Fn(&[E], &mut [f32])) {
    let start = pending.single.len();
    pending.single.resize(start + rows.len(), 0.0);
    convert(rows, &mut pending.single[start..]);
}

/// Rows that are not multiplied yet.
#[doc(hidden)]
#[derive(Debug, Clone, Default)]
pub struct Pending {
    single: Vec<f32>,
    double: Vec<f64>,
}

/// The sum of the outer products `z zᵀ` of all rows seen, and their number.
///
/// `C ∈ R^{d×d}` is kept in f64 (8·d² bytes) beside at most one block of 2048 rows, of which there are copies while it is multiplied.
///
/// # Examples
/// ```
/// use fwd_linalg::Gram;
/// let mut gram = Gram::new(2);
/// gram.push(&[1.0f32, 2.0, 3.0, 4.0])?; // two rows: (1, 2) and (3, 4)
/// assert_eq!(gram.n_rows(), 2);
/// assert_eq!(gram.matrix(), [10.0, 14.0, 14.0, 20.0]);
/// assert_eq!(gram.trace(), 30.0); // the energy: the sum of the squared row lengths
/// # Ok::<(), fwd_linalg::LinalgError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Gram {
    dim: usize,
    n_rows: u64,
    /// The matrix `C`, of which only the lower triangle is kept up to date.
    sum: Mat<f64>,
    pending: Pending,
    /// Whether all rows so far were f64.
    is_double: bool,
}

impl Gram {
    /// A stream that has seen no rows yet; its rows have `dim` elements.
    pub fn new(dim: usize) -> Self {
        Self { dim, n_rows: 0, sum: Mat::zeros(dim, dim), pending: Pending::default(), is_double: true }
    }

    /// Length d of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number N of rows seen.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Adds rows: `C ← C + Σ z zᵀ`.
    ///
    /// # Shapes
    /// `rows (n, d)` row-major; n may be 0. A row costs about `d²/2` multiply-adds, for one triangle of `C`.
    ///
    /// # Errors
    /// [`LinalgError::Shape`] if the length is no multiple of d, [`LinalgError::NotFinite`] with the row and column of the first
    /// NaN or infinity. Nothing is added then.
    pub fn push<E: Element>(&mut self, rows: &[E]) -> Result<()> {
        self.check(rows)?;
        self.add(rows);
        Ok(())
    }

    /// Adds the rows of a padded batch whose mask is not 0.
    ///
    /// # Shapes
    /// `rows (n, d)` row-major, `mask (n)`.
    ///
    /// # Errors
    /// As [`Self::push`]; padding may hold anything.
    pub fn push_masked<E: Element>(&mut self, rows: &[E], mask: &[f32]) -> Result<()> {
        ensure_shape(rows.len() == mask.len() * self.dim, "Gram::push_masked", || {
            format!("{} elements are not {} rows of {}", rows.len(), mask.len(), self.dim)
        })?;
        let dim = self.dim;
        let kept = || (0..mask.len()).filter(|&i| mask[i] != 0.0).map(|i| (i, &rows[i * dim..(i + 1) * dim]));
        for (i, row) in kept() {
            self.check(row).map_err(|error| match error {
                LinalgError::NotFinite { op, column, .. } => LinalgError::NotFinite { op, row: i, column },
                other => other,
            })?;
        }
        kept().for_each(|(_, row)| self.add(row));
        Ok(())
    }

    fn check<E: Element>(&self, rows: &[E]) -> Result<()> {
        let op = "Gram::push";
        ensure_rows(rows.len(), self.dim, op)?;
        ensure_finite(rows, self.dim, op)
    }

    fn add<E: Element>(&mut self, mut rows: &[E]) {
        if self.dim == 0 {
            return;
        }
        while !rows.is_empty() {
            let waiting = self.n_pending();
            let n = (rows.len() / self.dim).min(BLOCK - waiting);
            let (now, later) = rows.split_at(n * self.dim);
            E::append(now, &mut self.pending);
            self.n_rows += n as u64;
            if waiting + n == BLOCK {
                self.settle();
            }
            rows = later;
        }
    }

    fn n_pending(&self) -> usize {
        (self.pending.single.len() + self.pending.double.len()).checked_div(self.dim).unwrap_or(0)
    }

    /// Multiplies the rows that wait and adds the product to the sum.
    fn settle(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        self.add_product(&pending);
        // The buffers are kept for the rows to come.
        pending.single.clear();
        pending.double.clear();
        self.pending = pending;
    }

    fn add_product(&mut self, Pending { single, double }: &Pending) {
        let dim = self.dim;
        if !single.is_empty() {
            self.is_double = false;
            add_single(self.sum.as_mut(), MatRef::from_row_major_slice(single, single.len() / dim, dim));
        }
        if !double.is_empty() {
            let z = MatRef::from_row_major_slice(double, double.len() / dim, dim);
            let [lower, all] = [BlockStructure::TriangularLower, BlockStructure::Rectangular];
            let sum = self.sum.as_mut();
            triangular::matmul(sum, lower, Accum::Add, z.transpose(), all, z, all, 1.0, Par::rayon(0));
        }
    }

    /// Adds another stream of the same width: `C ← C + C'`, `N ← N + N'`.
    ///
    /// The result agrees with that of one stream to the rounding of a block (about 1e-7 of the trace). For more than two shards,
    /// [`Self::merged`] is the form that does not depend on their order.
    ///
    /// # Errors
    /// [`LinalgError::Shape`] if the widths differ.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        ensure_shape(self.dim == other.dim, "Gram::merge", || {
            format!("rows of {} and rows of {}", self.dim, other.dim)
        })?;
        let other = other.settled();
        self.settle();
        self.sum += &other.sum;
        self.n_rows += other.n_rows;
        self.is_double &= other.is_double;
        Ok(())
    }

    /// The sum over shards. Floating-point sums depend on their order, so the shards are put in an order of their own (by
    /// content) first: whichever worker finishes first, the result has the same bits.
    ///
    /// # Errors
    /// [`LinalgError::Shape`] if a shard's rows do not have `dim` elements.
    pub fn merged(dim: usize, mut shards: Vec<Self>) -> Result<Self> {
        for shard in &mut shards {
            shard.settle();
        }
        shards.sort_by(|a, b| {
            let bits = |gram: &Self| gram.lower().map(f64::to_bits).collect::<Vec<_>>();
            a.n_rows.cmp(&b.n_rows).then_with(|| bits(a).cmp(&bits(b)))
        });
        let mut sum = Self::new(dim);
        for shard in &shards {
            sum.merge(shard)?;
        }
        Ok(sum)
    }

    /// The energy `tr C = Σ ‖z‖²`.
    pub fn trace(&self) -> f64 {
        self.settled().sum.diagonal().column_vector().iter().sum()
    }

    /// The whole matrix `C`, `(d, d)`. It is symmetric, so that row-major and column-major are the same.
    pub fn matrix(&self) -> Vec<f64> {
        let mut full = vec![0.0; self.dim * self.dim];
        self.each_lower(|i, j, x| {
            full[i * self.dim + j] = x;
            full[j * self.dim + i] = x;
        });
        full
    }

    /// The rounding error of one entry of `C` relative to its largest: the unit roundoff of the narrowest rows seen.
    pub(crate) fn roundoff(&self) -> f64 {
        if self.is_double { f64::EPSILON } else { f64::from(f32::EPSILON) }
    }

    /// Calls `put(i, j, C[i][j])` for each entry of the lower triangle, i ≥ j.
    fn each_lower(&self, mut put: impl FnMut(usize, usize, f64)) {
        for (j, column) in self.settled().sum.col_iter().enumerate() {
            for (i, &x) in column.iter().enumerate().skip(j) {
                put(i, j, x);
            }
        }
    }

    /// The lower triangle with each entry divided by `scale`, and whether all are finite; rows that wait are not in them.
    pub(crate) fn scaled<E: Real>(&self, scale: f64) -> (Mat<E>, bool) {
        let mut matrix = Mat::<E>::zeros(self.dim, self.dim);
        let columns = matrix.par_col_iter_mut().zip(self.sum.par_col_iter()).enumerate();
        let is_finite = columns.map(|(j, (out, sum))| {
            let entries = out.iter_mut().zip(sum.iter()).skip(j);
            entries.fold(true, |all, (out, &x)| {
                *out = E::of(x / scale);
                all & x.is_finite()
            })
        });
        let is_finite = is_finite.reduce(|| true, |a, b| a & b);
        (matrix, is_finite)
    }

    /// The entries of the lower triangle, column by column; rows that wait are not in them.
    fn lower(&self) -> impl Iterator<Item = f64> {
        self.sum
            .col_iter()
            .enumerate()
            .flat_map(|(j, column)| column.subrows(j, column.nrows() - j).iter().copied())
    }

    /// The same Gram matrix with all rows multiplied, so that none wait.
    pub(crate) fn settled(&self) -> Cow<'_, Self> {
        if self.n_pending() == 0 {
            return Cow::Borrowed(self);
        }
        let mut settled = Self { sum: self.sum.clone(), pending: Pending::default(), ..*self };
        settled.add_product(&self.pending);
        Cow::Owned(settled)
    }

    /// The whole state as bytes, with the rows that wait. [`Self::from_bytes`] makes a stream of it that goes on as this one would.
    pub fn to_bytes(&self) -> Vec<u8> {
        let sizes = [self.dim, self.pending.single.len(), self.pending.double.len()];
        let mut bytes = MAGIC.to_vec();
        bytes.extend(sizes.iter().flat_map(|&n| (n as u64).to_le_bytes()));
        bytes.extend(self.n_rows.to_le_bytes());
        bytes.push(u8::from(self.is_double));
        bytes.extend(self.lower().flat_map(f64::to_le_bytes));
        bytes.extend(self.pending.single.iter().flat_map(|x| x.to_le_bytes()));
        bytes.extend(self.pending.double.iter().flat_map(|x| x.to_le_bytes()));
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`LinalgError::Damaged`] if the bytes are cut short, too long or not a Gram matrix.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = |what: &str| LinalgError::Damaged(what.to_owned());
        let header = MAGIC.len() + 4 * 8 + 1;
        if bytes.len() < header || !bytes.starts_with(MAGIC) {
            return Err(damaged("it does not begin with the header of one"));
        }
        let word = |i: usize| u64::from_le_bytes(bytes8(&bytes[MAGIC.len() + 8 * i..]));
        let [dim, n_single, n_double] = [0, 1, 2].map(|i| usize::try_from(word(i)).unwrap_or(usize::MAX));
        // Checked arithmetic: the sizes of a damaged header may be anything.
        let expected = dim
            .checked_mul(dim)
            .and_then(|area| area.checked_add(dim)?.checked_mul(4)) // half of them, 8 bytes each
            .and_then(|n| n.checked_add(n_single.checked_mul(4)?))
            .and_then(|n| n.checked_add(n_double.checked_mul(8)?))
            .and_then(|n| n.checked_add(header));
        if expected != Some(bytes.len()) {
            return Err(damaged(&format!("{} bytes do not fit rows of {dim}", bytes.len())));
        }
        let mut gram = Self { n_rows: word(3), is_double: bytes[header - 1] == 1, ..Self::new(dim) };
        let mut rest = &bytes[header..];
        for (j, column) in gram.sum.col_iter_mut().enumerate() {
            for x in column.iter_mut().skip(j) {
                *x = f64::from_le_bytes(bytes8(rest));
                rest = &rest[8..];
            }
        }
        let (single, double) = rest.split_at(4 * n_single);
        gram.pending.single =
            single.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        gram.pending.double = double.chunks_exact(8).map(|b| f64::from_le_bytes(bytes8(b))).collect();
        let fits = |n: usize| n.checked_rem(dim).unwrap_or(n) == 0;
        if gram.n_pending() >= BLOCK || !fits(n_single) || !fits(n_double) || bytes[header - 1] > 1 {
            return Err(damaged("the rows that wait do not form a block"));
        }
        Ok(gram)
    }
}

fn bytes8(bytes: &[u8]) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[..8]);
    out
}

/// Columns of the product that a thread takes at a time: more would compute more of the upper triangle, fewer would repack more often.
const COLUMNS: usize = 4 * PANEL;

/// Adds the lower triangle of `ZᵀZ`, multiplied in f32. An entry is summed row by row, whichever thread computes it.
fn add_single(sum: MatMut<'_, f64>, z: MatRef<'_, f32>) {
    let (cpu, n, zt) = (Cpu::current(), z.nrows(), z.transpose());
    let pack = |first: usize| {
        let mut panel = vec![<f32 as fwd_simd::Element>::ZERO; n];
        pack_panel::<f32>(cpu, zt.subrows(first, PANEL.min(zt.nrows() - first)), &mut panel);
        panel
    };
    let n_panels = zt.nrows().div_ceil(PANEL);
    let panels: Vec<_> = (0..n_panels).into_par_iter().map(|i| pack(i * PANEL)).collect();
    let chunks = sum.par_col_chunks_mut(COLUMNS).enumerate().with_max_len(1);
    chunks.for_each_init(Vec::new, |product, (chunk, mut sum)| {
        let (first, columns) = (chunk * COLUMNS, sum.ncols());
        let x = Lhs::<f32>::pack(cpu, zt.subrows(first, columns), 1.0);
        let below = zt.nrows() - first;
        product.resize(columns * below, 0.0);
        // Row j of the product is column `first + j` of the triangle, from row `first` on.
        let mut rest = MatMut::from_column_major_slice_mut(product, below, columns).transpose_mut();
        let mut wanted = Vec::new();
        for panel in &panels[first / PANEL..] {
            let width = PANEL.min(rest.ncols());
            let (columns, other) = rest.split_at_col_mut(width);
            wanted.push((panel.as_slice(), columns));
            rest = other;
        }
        multiply_panels(&x, 0, &mut wanted, Accum::Replace);
        for (j, product) in product.chunks_exact(below).enumerate() {
            // Column-major: this is a slice, and the loop is vectorised.
            if let Some(sum) = sum.as_mut().col_mut(j).try_as_col_major_mut() {
                let sum = &mut sum.as_slice_mut()[first + j..];
                sum.iter_mut().zip(&product[j..]).for_each(|(sum, &x)| *sum += f64::from(x));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn rows(n: usize, dim: usize, seed: u64) -> Vec<f32> {
        let mut rng = StdRng::seed_from_u64(seed);
        (0..n * dim).map(|_| rng.sample::<f32, _>(rand_distr::StandardNormal)).collect()
    }

    fn gram<E: Element>(rows: &[E], dim: usize) -> Gram {
        let mut gram = Gram::new(dim);
        gram.push(rows).unwrap();
        gram
    }

    /// The definition, in f64.
    fn reference(rows: &[f32], dim: usize) -> Vec<f64> {
        let mut out = vec![0.0; dim * dim];
        for row in rows.chunks_exact(dim) {
            for i in 0..dim {
                for j in 0..dim {
                    out[i * dim + j] += f64::from(row[i]) * f64::from(row[j]);
                }
            }
        }
        out
    }

    fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn equals_the_definition_across_blocks() {
        for (n, dim) in [(0, 3), (1, 1), (5, 7), (2 * BLOCK + 17, 33), (60, 261)] {
            let z = rows(n, dim, 1);
            let gram = gram(&z, dim);
            let trace = gram.trace();
            assert!(largest_difference(&gram.matrix(), &reference(&z, dim)) <= 2e-7 * trace, "{n} {dim}");
            assert!((trace - z.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()).abs() <= 1e-7 * trace);
            assert_eq!(gram.n_rows(), n as u64);
        }
    }

    #[test]
    fn batches_and_threads_change_no_bit() {
        let dim = 265;
        let z = rows(BLOCK + 300, dim, 2);
        let whole = gram(&z, dim).matrix();
        let mut parts = Gram::new(dim);
        for part in z.chunks(37 * dim) {
            parts.push(part).unwrap();
        }
        assert_eq!(parts.matrix(), whole);
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one.install(|| gram(&z, dim).matrix()), whole);
    }

    #[test]
    fn shards_merge_to_the_same_bits_in_any_order() {
        let dim = 20;
        let z = rows(900, dim, 3);
        let shards = || z.chunks(100 * dim).map(|part| gram(part, dim)).collect::<Vec<_>>();
        let forward = Gram::merged(dim, shards()).unwrap();
        let mut backward = shards();
        backward.reverse();
        backward.swap(1, 5);
        assert_eq!(forward.matrix(), Gram::merged(dim, backward).unwrap().matrix());
        let whole = gram(&z, dim);
        assert!(largest_difference(&forward.matrix(), &whole.matrix()) <= 1e-6 * whole.trace() / dim as f64);
        assert_eq!(forward.n_rows(), 900);
        assert!(matches!(Gram::new(3).merge(&Gram::new(4)), Err(LinalgError::Shape { .. })));
    }

    #[test]
    fn a_merged_shard_of_f32_rows_is_known_to_be_no_better_than_f32() {
        let mut sum = Gram::new(4);
        sum.merge(&gram(&rows(3, 4, 9), 4)).unwrap();
        assert_eq!(sum.roundoff(), f64::from(f32::EPSILON));
    }

    #[test]
    fn half_and_double_rows() {
        let dim = 12;
        let z = rows(50, dim, 4);
        let wide: Vec<f64> = z.iter().map(|&x| f64::from(x)).collect();
        let double = gram(&wide, dim);
        assert!(largest_difference(&double.matrix(), &reference(&z, dim)) <= 1e-14 * double.trace());
        let brain: Vec<bf16> = z.iter().map(|&x| bf16::from_f32(x)).collect();
        let exact: Vec<f32> = brain.iter().map(|x| x.to_f32()).collect();
        assert_eq!(gram(&brain, dim).matrix(), gram(&exact, dim).matrix());
        let half: Vec<f16> = z.iter().map(|&x| f16::from_f32(x)).collect();
        let exact: Vec<f32> = half.iter().map(|x| x.to_f32()).collect();
        assert_eq!(gram(&half, dim).matrix(), gram(&exact, dim).matrix());
    }

    #[test]
    fn a_bad_element_is_named_and_nothing_is_added() {
        let mut gram = Gram::new(3);
        gram.push(&[1.0f32; 3]).unwrap();
        let before = gram.matrix();
        let error = gram.push(&[0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0]).unwrap_err();
        assert_eq!(error, LinalgError::NotFinite { op: "Gram::push", row: 1, column: 1 });
        let error =
            gram.push_masked(&[f32::NAN, 0.0, 0.0, 0.0, 0.0, f32::INFINITY], &[0.0, 1.0]).unwrap_err();
        assert_eq!(error, LinalgError::NotFinite { op: "Gram::push", row: 1, column: 2 });
        assert!(matches!(gram.push(&[1.0f32; 4]), Err(LinalgError::Shape { .. })));
        assert_eq!((gram.matrix(), gram.n_rows()), (before, 1));
    }

    #[test]
    fn masked_rows_are_left_out() {
        let mut masked = Gram::new(2);
        masked.push_masked(&[1.0f32, 2.0, f32::NAN, 9.0, 3.0, 4.0], &[1.0, 0.0, 1.0]).unwrap();
        assert_eq!(masked.matrix(), gram(&[1.0f32, 2.0, 3.0, 4.0], 2).matrix());
    }

    #[test]
    fn bytes_carry_everything_on() {
        let dim = 9;
        let z = rows(BLOCK + 100, dim, 5);
        let (first, second) = z.split_at(1300 * dim);
        let mut gram = gram(first, dim);
        let mut copy = Gram::from_bytes(&gram.to_bytes()).unwrap();
        gram.push(second).unwrap();
        copy.push(second).unwrap();
        assert_eq!(copy.matrix(), gram.matrix());
        let bytes = gram.to_bytes();
        assert_eq!(Gram::from_bytes(&bytes).unwrap().to_bytes(), bytes);
        for damaged in [&bytes[..bytes.len() - 1], &bytes[..10], b"FWDGRAM0", &[]] {
            assert!(matches!(Gram::from_bytes(damaged), Err(LinalgError::Damaged(_))));
        }
        for byte in 8..32 {
            let mut damaged = bytes.clone();
            damaged[byte] ^= 0x80;
            assert!(matches!(Gram::from_bytes(&damaged), Err(LinalgError::Damaged(_))), "byte {byte}");
        }
    }
}
