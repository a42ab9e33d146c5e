//! Activations in 8 bits.
#![allow(clippy::needless_range_loop)] // Counted loops over arrays become vector instructions.

use super::GROUP;
use crate::level::vectorize;

/// Blocks whose largest magnitude is below this count as zeros: the inverse of their step would overflow.
const SMALLEST: f32 = f32::from_bits((127 - 120) << 23);

/// 32 activations `scale·q`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Group {
    pub(super) q: [i8; GROUP],
    /// The largest magnitude over 127, or NaN.
    pub(super) scale: f32,
    /// `scale·Σ q`.
    pub(super) sum: f32,
    /// `−Σ q` of each half.
    pub(super) negated_sums: [i32; 2],
    /// The negative sum of the integers, `−Σ q`.
    pub(super) negated_sum: i32,
}

/// Rows of activations, rounded to 8 bits in blocks of 32 that share a scale, as ggml's `q8_0` (with the scale in f32).
///
/// An element becomes `s·round(x/s)` with `s = max|x|/127` of its block, so that it is off by at most `s/2`. A block with a NaN or an
/// infinity becomes NaN, so that every product with it is; one whose largest magnitude is below 2⁻¹²⁰ becomes zero.
#[derive(Debug, Default)]
pub struct Rounded {
    groups: Vec<Group>,
    n_cols: usize,
}

impl Rounded {
    /// Rounds rows of `n_cols` elements, which are whole blocks of 32.
    ///
    /// # Panics
    /// If they are not.
    pub fn new(x: &[f32], n_cols: usize) -> Self {
        let mut rounded = Self::default();
        rounded.set(x, n_cols);
        rounded
    }

    /// [`Rounded::new`] in the memory of earlier activations.
    pub fn set(&mut self, x: &[f32], n_cols: usize) {
        assert!(n_cols > 0 && n_cols.is_multiple_of(GROUP) && x.len().is_multiple_of(n_cols), "whole blocks");
        self.n_cols = n_cols;
        self.groups.clear();
        self.groups.reserve(x.len() / GROUP);
        let groups = &mut self.groups;
        vectorize(
            #[inline(always)]
            || groups.extend(x.as_chunks::<GROUP>().0.iter().map(Group::new)),
        );
    }

    /// Columns of the activations.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// Rows of activations.
    pub fn n_rows(&self) -> usize {
        self.groups.len() * GROUP / self.n_cols.max(1)
    }

    /// The groups of all rows.
    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The values that products are made with, row after row.
    pub fn values(&self) -> Vec<f32> {
        self.groups.iter().flat_map(|group| group.q.map(|q| f32::from(q) * group.scale)).collect()
    }
}

impl Group {
    #[inline(always)]
    fn new(x: &[f32; GROUP]) -> Self {
        // Magnitudes are ordered like their bits, and NaN comes after infinity.
        let mut largest = 0;
        for v in x {
            largest = largest.max(v.to_bits() & 0x7fff_ffff);
        }
        let largest = f32::from_bits(largest);
        let scale = if largest.is_finite() { largest / 127.0 } else { f32::NAN };
        let inverse = if largest < SMALLEST { 0.0 } else { 127.0 / largest };
        // Adding 1.5·2²³ rounds to an integer and leaves it in the low bits of the mantissa.
        const ROUND: f32 = 12_582_912.0;
        let mut q = [0; GROUP];
        for i in 0..GROUP {
            q[i] = (x[i] * inverse + ROUND).to_bits() as i8;
        }
        let mut sums = [0; 2];
        for i in 0..GROUP {
            sums[i / (GROUP / 2)] += i32::from(q[i]);
        }
        let sum = sums[0] + sums[1];
        Self { q, scale, sum: sum as f32 * scale, negated_sums: sums.map(|s| -s), negated_sum: -sum }
    }
}
