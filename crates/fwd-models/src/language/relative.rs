//! T5's relative-position buckets (Raffel et al. 2020): exact for near positions, logarithmic for far ones.
//!
//! For a distance `n` from `max_exact` on: `max_exact + ⌊ln(n/max_exact) / ln(max_distance/max_exact)·(n_buckets − max_exact)⌋`,
//! at most `n_buckets − 1`. The encoder splits the buckets between both directions, the decoder looks back only.

/// Which positions a query may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Before and after (encoder).
    Both,
    /// Before only (decoder); later positions fall into bucket 0.
    Back,
}

/// The bucket of `relative = key position − query position`.
///
/// # Examples
/// ```
/// use fwd_models::relative::{Direction, bucket};
/// assert_eq!(bucket(-3, Direction::Back, 32, 128), 3);
/// assert_eq!(bucket(3, Direction::Both, 32, 128), 16 + 3);
/// assert_eq!(bucket(-1000, Direction::Back, 32, 128), 31);
/// ```
pub fn bucket(relative: i64, direction: Direction, n_buckets: usize, max_distance: usize) -> u32 {
    let (n_buckets, offset, distance) = match direction {
        Direction::Both => {
            let half = n_buckets / 2;
            (half, if relative > 0 { half } else { 0 }, relative.unsigned_abs())
        }
        Direction::Back => (n_buckets, 0, relative.min(0).unsigned_abs()),
    };
    let max_exact = n_buckets / 2;
    let bucket = if distance < max_exact as u64 {
        distance as usize
    } else {
        let ratio = (distance as f64 / max_exact as f64).ln() / (max_distance as f64 / max_exact as f64).ln();
        (max_exact + (ratio * (n_buckets - max_exact) as f64) as usize).min(n_buckets - 1)
    };
    (offset + bucket) as u32
}

/// Buckets of `n_query` queries, the first at position `first_query`, over keys `0..n_key`, row-major.
pub fn buckets(
    first_query: usize,
    n_query: usize,
    n_key: usize,
    direction: Direction,
    n_buckets: usize,
    max_distance: usize,
) -> Vec<u32> {
    let of = |query: usize, key: usize| bucket(key as i64 - query as i64, direction, n_buckets, max_distance);
    (first_query..first_query + n_query).flat_map(|query| (0..n_key).map(move |key| of(query, key))).collect()
}
