//! The weights of an attention sublayer.

use crate::error::{OpError, Result};
use crate::linear::Linear;
use crate::norm::Norm;

/// The weights of an attention sublayer over activations of width `d`, and how its scores are formed.
#[derive(Debug, Clone)]
pub struct AttentionWeights {
    /// Applied to the input before the projection.
    pub pre: Norm,
    /// Self-attention: `(3·n_heads·d_head, d)`, rows `[q ; k ; v]`. Cross-attention: `(n_heads·d_head, d)`, the queries.
    pub projection: Linear,
    /// Maps the heads' contexts back to the width of the input: `(d, n_heads·d_head)`.
    pub output: Linear,
    /// Applied to the sum of input and attention.
    pub post: Norm,
    /// Number of heads; it divides the width of the contexts.
    pub n_heads: usize,
    /// Factor of the scores: `1/sqrt(d_head)`, or 1 for T5.
    pub scale: f64,
}

impl AttentionWeights {
    /// [`OpError::Shape`] unless the widths fit together.
    pub(super) fn check(&self) -> Result<()> {
        let (d, width) = (self.projection.n_in(), self.output.n_in());
        let fits = self.n_heads > 0
            && width % self.n_heads == 0
            && (self.projection.n_out() == 3 * width || self.projection.n_out() == width)
            && self.output.n_out() == d
            && self.pre.width().is_none_or(|w| w == d)
            && self.post.width().is_none_or(|w| w == d);
        if fits {
            return Ok(());
        }
        let what = format!(
            "projection {}x{}, output {}x{}, {} heads do not fit together",
            self.projection.n_out(),
            d,
            self.output.n_out(),
            width,
            self.n_heads
        );
        Err(OpError::shape("attention_sublayer", what))
    }
}
