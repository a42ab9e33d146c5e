//! The error type of this crate.

/// What can go wrong when predictions are scored.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Predictions and annotations do not belong together.
    #[error(
        "{predictions} predictions for {annotations} annotations: give one for each, an empty one where it is missing"
    )]
    LengthMismatch {
        /// How many predictions there are.
        predictions: usize,
        /// How many annotated samples there are.
        annotations: usize,
    },
    /// A sample has nothing to be compared with.
    #[error("sample {sample} (from 0) has no answer: remove it, or add one")]
    NoAnswer {
        /// Its place among the samples, from 0.
        sample: usize,
    },
    /// A mean over no samples.
    #[error("there are no annotations to average over")]
    NoAnnotations,
    /// More scores than annotations: some sample was answered twice.
    #[error("{scores} scores for {annotations} annotations: keep one prediction for each sample")]
    TooManyScores {
        /// How many scores there are.
        scores: usize,
        /// How many annotated samples there are.
        annotations: usize,
    },
    /// A score is NaN or infinite, as that of CIDEr-D for a sample outside its corpus.
    #[error(
        "the score of sample {sample} (from 0) is not a number; CIDEr-D needs all samples at once (`score_all`)"
    )]
    NotFinite {
        /// Its place among the scores, from 0.
        sample: usize,
    },
}

/// Shorthand for a result with [`EvalError`].
pub type Result<T> = std::result::Result<T, EvalError>;
