//! The weights of an attention sublayer.

use crate::error::{OpError, Result};
use crate::linear::Linear;
use crate::norm::Norm;

/// The weights of an attention sublayer over activations of width `d`, and how its scores are formed.
#[derive(Debug, Clone)]
pub struct AttentionWeights {
    /// Applied to the input before the projection.
    pub pre: Norm,
    /// Self-attention: `((n_heads + 2·n_kv_heads)·d_head, d)`, rows `[q ; k ; v]`. Cross-attention: `(n_heads·d_head, d)`, the queries.
    pub projection: Linear,
    /// Maps the heads' contexts back to the width of the input: `(d, n_heads·d_head)`.
    pub output: Linear,
    /// Applied to the sum of input and attention.
    pub post: Norm,
    /// Number of heads; it divides the width of the contexts.
    pub n_heads: usize,
    /// Number of heads of keys and values. It divides the number of heads: `n_heads / n_kv_heads` heads in a row read the same keys and
    /// values (grouped-query attention, Ainslie et al. 2023). As many as `n_heads` for an ordinary attention.
    pub n_kv_heads: usize,
    /// Factor of the scores: `1/sqrt(d_head)`, or 1 for T5.
    pub scale: f64,
}

impl AttentionWeights {
    /// [`OpError::Shape`] unless the widths fit together.
    pub(super) fn check(&self) -> Result<()> {
        let (d, width) = (self.projection.n_in(), self.output.n_in());
        let fits = self.n_heads > 0
            && self.n_kv_heads > 0
            && width % self.n_heads == 0
            && self.n_heads.is_multiple_of(self.n_kv_heads)
            && (self.projection.n_out() == width + 2 * self.kv_width() || self.projection.n_out() == width)
            && self.output.n_out() == d
            && self.pre.width().is_none_or(|w| w == d)
            && self.post.width().is_none_or(|w| w == d);
        if fits {
            return Ok(());
        }
        let what = format!(
            "projection {}x{}, output {}x{}, {} heads, {} of keys and values do not fit together",
            self.projection.n_out(),
            d,
            self.output.n_out(),
            width,
            self.n_heads,
            self.n_kv_heads
        );
        Err(OpError::shape("attention_sublayer", what))
    }

    /// Width of a head.
    pub(super) fn d_head(&self) -> usize {
        self.output.n_in() / self.n_heads
    }

    /// Width of a row of keys or of values.
    pub fn kv_width(&self) -> usize {
        self.n_kv_heads * self.d_head()
    }
}
