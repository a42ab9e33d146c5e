//! Cosines between the rows of two matrices, `C[i][j] = qᵢᵀkⱼ / (‖qᵢ‖ ‖kⱼ‖)`, as one product that reads each key once for a block of
//! queries.
//!
//! The product of two f32 is exact in f64, and each cosine is summed in the same order of [`LANES`] sums wherever it stands in a batch
//! and whatever the processor's vectors are: it depends on nothing but its two rows.

use crate::error::{Result, ensure_shape};
use rayon::prelude::*;

/// Sums of one scalar product that run side by side.
const LANES: usize = 8;
/// Keys that a query is multiplied with at a time: one load of the query serves all.
const KEYS: usize = 4;
/// Bytes of the keys that stay in the cache while all queries pass.
const BLOCK: usize = 1 << 18;
/// Multiplications from which on a product is worth another thread.
const PARALLEL: usize = 1 << 20;

/// The cosines between all queries and all keys; 0 where one has no length.
///
/// # Shapes
/// `queries (n, d)` and `keys (m, d)` row-major; `(n, m)` row-major, summed in f64. 2·n·m·d operations. All are 0 if d is 0, where the
/// slices do not tell n and m.
///
/// # Errors
/// [`LinalgError::Shape`](crate::LinalgError::Shape) if a slice does not have the length that `shape = (n, m)` and `dim` ask for.
///
/// # Examples
/// ```
/// let cosines = fwd_linalg::cosines(&[3.0, 4.0], &[1.0, 0.0, 0.0, 2.0, 0.0, 0.0], (1, 3), 2)?;
/// assert_eq!(cosines, [0.6, 0.8, 0.0]);
/// # Ok::<(), fwd_linalg::LinalgError>(())
/// ```
pub fn cosines(queries: &[f32], keys: &[f32], shape: (usize, usize), dim: usize) -> Result<Vec<f64>> {
    let (n, m) = shape;
    for (slice, rows) in [(queries, n), (keys, m)] {
        ensure_shape(slice.len() == rows * dim, "cosines", || {
            format!("{} elements for {rows} rows of {dim}", slice.len())
        })?;
    }
    let mut out = vec![0.0; n * m];
    if n * m * dim == 0 {
        return Ok(out);
    }
    let squares: Vec<f64> = queries.chunks_exact(dim).map(|query| dot(query, query)).collect();
    let n_keys = (BLOCK / (4 * dim)).max(1).next_multiple_of(KEYS);
    // A column of blocks, (m, n): its pieces lie one after another, whatever thread fills them.
    let mut columns = vec![0.0; n * m];
    let fill = |(columns, keys): (&mut [f64], &[f32])| {
        fwd_simd::vectorize(
            #[inline(always)]
            || block(queries, &squares, keys, dim, columns),
        );
    };
    if n * m * dim < PARALLEL {
        columns.chunks_mut(n_keys * n).zip(keys.chunks(n_keys * dim)).for_each(fill);
    } else {
        columns.par_chunks_mut(n_keys * n).zip(keys.par_chunks(n_keys * dim)).for_each(fill);
    }
    for (j, column) in columns.chunks_exact(n).enumerate() {
        column.iter().enumerate().for_each(|(i, &cosine)| out[i * m + j] = cosine);
    }
    Ok(out)
}

/// The scalar product of two vectors of one length, in f64.
///
/// # Examples
/// ```
/// assert_eq!(fwd_linalg::dot(&[1.0, 2.0], &[3.0, 4.0]), 11.0);
/// ```
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    let n = a.len().min(b.len());
    fwd_simd::vectorize(
        #[inline(always)]
        || dots(&a[..n], [&b[..n]])[0],
    )
}

/// The cosines of some keys with all queries, key by key.
#[inline(always)]
fn block(queries: &[f32], squares: &[f64], keys: &[f32], dim: usize, columns: &mut [f64]) {
    let n = squares.len();
    for (columns, keys) in columns.chunks_mut(KEYS * n).zip(keys.chunks(KEYS * dim)) {
        match keys.len() / dim {
            KEYS => {
                let keys: [&[f32]; KEYS] = std::array::from_fn(|k| &keys[k * dim..(k + 1) * dim]);
                let lengths = keys.map(|key| dots(key, [key])[0]);
                for (i, (query, &square)) in queries.chunks_exact(dim).zip(squares).enumerate() {
                    let products = dots(query, keys);
                    for k in 0..KEYS {
                        columns[k * n + i] = scaled(products[k], square, lengths[k]);
                    }
                }
            }
            _ => {
                for (column, key) in columns.chunks_exact_mut(n).zip(keys.chunks_exact(dim)) {
                    let length = dots(key, [key])[0];
                    for ((out, query), &square) in
                        column.iter_mut().zip(queries.chunks_exact(dim)).zip(squares)
                    {
                        *out = scaled(dots(query, [key])[0], square, length);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn scaled(product: f64, a: f64, b: f64) -> f64 {
    let scale = (a * b).sqrt();
    if scale == 0.0 { 0.0 } else { product / scale }
}

#[inline(always)]
fn dots<const N: usize>(a: &[f32], b: [&[f32]; N]) -> [f64; N] {
    let mut sums = [[0f64; LANES]; N];
    let (whole, rest) = a.as_chunks::<LANES>();
    let others = b.map(|b| {
        let (whole_of_b, rest_of_b) = b.as_chunks::<LANES>();
        (&whole_of_b[..whole.len()], &rest_of_b[..rest.len()])
    });
    for (i, a) in whole.iter().enumerate() {
        for (sums, (b, _)) in sums.iter_mut().zip(&others) {
            for lane in 0..LANES {
                sums[lane] += f64::from(a[lane]) * f64::from(b[i][lane]);
            }
        }
    }
    for (sums, (_, b)) in sums.iter_mut().zip(&others) {
        for (lane, (&a, &b)) in rest.iter().zip(*b).enumerate() {
            sums[lane] += f64::from(a) * f64::from(b);
        }
    }
    sums.map(|sums| sums.iter().sum())
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

    #[test]
    fn a_cosine_depends_on_its_two_rows_alone() {
        for (n, m, dim) in [(1, 1, 1), (3, 9, 7), (5, 70, 33), (40, 200, 260)] {
            let (queries, mut keys) = (rows(n, dim, 1), rows(m, dim, 2));
            keys[..dim].fill(0.0);
            let all = cosines(&queries, &keys, (n, m), dim).unwrap();
            for (i, query) in queries.chunks_exact(dim).enumerate() {
                for (j, key) in keys.chunks_exact(dim).enumerate() {
                    let alone = cosines(query, key, (1, 1), dim).unwrap()[0];
                    assert_eq!(all[i * m + j].to_bits(), alone.to_bits(), "{n} {m} {dim}: {i} {j}");
                    let sum = |a: &[f32], b: &[f32]| -> f64 {
                        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
                    };
                    let scale = (sum(query, query) * sum(key, key)).sqrt();
                    let expected = if j == 0 { 0.0 } else { sum(query, key) / scale };
                    // The rounding of d additions, and of norms and quotient.
                    assert!((alone - expected).abs() <= (dim as f64 + 4.0) * f64::EPSILON);
                }
            }
        }
    }

    #[test]
    fn nothing_has_no_cosines() {
        assert_eq!(cosines(&[], &[], (2, 3), 0).unwrap(), [0.0; 6]);
        assert_eq!(cosines(&[], &[1.0, 2.0], (0, 2), 1).unwrap(), []);
        assert!(cosines(&[1.0], &[1.0], (1, 2), 1).is_err());
    }
}
