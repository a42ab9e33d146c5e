//! `y = x·Wᵀ` for few rows of activations (decoding): dot products with the stored bytes, without working memory.
//!
//! Reading the matrix takes longest here. A block is decoded into an array on the stack, which the compiler keeps in vector registers,
//! and multiplied with all rows of `x`.

use super::blocks::{Decode, decode_tail, for_format};
use super::product::FORWARD_ROWS;
use super::{Format, StoredRows};
use crate::cpu::{Elem, simd};
use faer::{Accum, MatMut, MatRef};

/// Partial sums of a dot product.
const LANES: usize = 32;

/// Rows `first..first + y.ncols()` of a part with at most `FEW_ROWS` rows of `x`, whose elements are adjacent.
pub(super) fn forward<E: Elem>(
    part: &StoredRows<'_>,
    first: usize,
    x: MatRef<'_, E>,
    mut y: MatMut<'_, E>,
    accum: Accum,
) {
    let n_rows = y.ncols();
    let bytes = &part.bytes[first * part.row_bytes()..][..n_rows * part.row_bytes()];
    for i in 0..x.nrows() {
        let Some(x) = x.row(i).try_as_row_major().map(|x| x.as_slice()) else { continue };
        let mut sums = [E::zero(); FORWARD_ROWS];
        let sums = &mut sums[..n_rows];
        for_format!(part.format, dots::<E>(bytes, x, sums));
        for (j, &dot) in sums.iter().enumerate() {
            match accum {
                Accum::Replace => y[(i, j)] = dot,
                Accum::Add => y[(i, j)] += dot,
            }
        }
    }
}

/// `out_i = row_i·x`.
fn dots<D: Decode<LEN, BYTES>, const LEN: usize, const BYTES: usize, E: Elem>(
    bytes: &[u8],
    x: &[E],
    out: &mut [E],
) {
    let row_bytes = bytes.len() / out.len().max(1);
    simd(
        #[inline(always)]
        || {
            for (out, row) in out.iter_mut().zip(bytes.chunks_exact(row_bytes)) {
                *out = dot::<D, LEN, BYTES, E>(row, x);
            }
        },
    );
}

#[inline(always)]
fn dot<D: Decode<LEN, BYTES>, const LEN: usize, const BYTES: usize, E: Elem>(row: &[u8], x: &[E]) -> E {
    let mut sums = [E::zero(); LANES];
    let mut values = [0f32; LEN];
    let (blocks, x_tail) = x.as_chunks::<LEN>();
    for (bytes, x) in row.as_chunks::<BYTES>().0.iter().zip(blocks) {
        D::decode(bytes, &mut values);
        add_products(&values, x, &mut sums);
    }
    if !x_tail.is_empty() {
        decode_tail::<D, LEN, BYTES>(&row[blocks.len() * BYTES..], x_tail.len(), &mut values);
        let mut x = [E::zero(); LEN];
        x[..x_tail.len()].copy_from_slice(x_tail);
        add_products(&values, &x, &mut sums);
    }
    let mut width = LANES / 2;
    while width > 0 {
        let (low, high) = sums.split_at_mut(width);
        low.iter_mut().zip(high).for_each(|(l, h)| *l += *h);
        width /= 2;
    }
    sums[0]
}

#[inline(always)]
fn add_products<const LEN: usize, E: Elem>(values: &[f32; LEN], x: &[E; LEN], sums: &mut [E; LANES]) {
    for (values, x) in values.as_chunks::<LANES>().0.iter().zip(x.as_chunks::<LANES>().0) {
        for i in 0..LANES {
            sums[i] += E::of(f64::from(values[i])) * x[i];
        }
    }
}
