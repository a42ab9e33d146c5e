//! Rotary positions of one row of heads: pair `(x_i, x_{i + d/2})` of a head turns by the angle of its token (Su et al. 2021, in the
//! half-split order of GPT-NeoX and LLaMA).

use super::elem::Elem;

/// Cosines and sines of tokens, `(tokens, d_head/2)` each.
#[derive(Clone, Copy)]
pub(crate) struct RotaryRef<'a, E> {
    pub(crate) cos: &'a [E],
    pub(crate) sin: &'a [E],
    /// `d_head/2`.
    pub(crate) half: usize,
}

impl<'a, E: Elem> RotaryRef<'a, E> {
    /// The tokens from `first` on.
    pub(crate) fn starting_at(&self, first: usize) -> Self {
        let at = first * self.half;
        Self { cos: &self.cos[at..], sin: &self.sin[at..], half: self.half }
    }

    /// Turns the first `n_heads` heads of each row of `rows (tokens, width)` in place; back again with `inverse`, which is also the
    /// gradient.
    #[inline(always)]
    pub(crate) fn turn(&self, rows: &mut [E], width: usize, n_heads: usize, inverse: bool) {
        let half = self.half;
        let tokens = self.cos.chunks_exact(half).zip(self.sin.chunks_exact(half));
        for (row, (cos, sin)) in rows.chunks_exact_mut(width).zip(tokens) {
            for head in row[..n_heads * 2 * half].chunks_exact_mut(2 * half) {
                let (left, right) = head.split_at_mut(half);
                for i in 0..half {
                    let sin = if inverse { -sin[i] } else { sin[i] };
                    let (x, y) = (left[i], right[i]);
                    left[i] = x * cos[i] - y * sin;
                    right[i] = y * cos[i] + x * sin;
                }
            }
        }
    }
}
