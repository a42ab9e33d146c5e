//! The error type of this crate's own calls; the loop's is [`ContinualError`](fwd_continual::ContinualError).

use fwd_linalg::LinalgError;
use std::error::Error;

/// What can go wrong with a pool, a ledger or an analysis. What caused it is its [`source`](Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// A configuration value that cannot be.
    #[error("configuration: {0}")]
    Config(String),
    /// Vectors that do not fit the model or the pool.
    #[error("{op}: {what}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Which vector is wrong, with the expected and the actual size.
        what: String,
    },
    /// A sample that the model cannot embed, or whose embeddings cannot be used, as with a NaN.
    #[error("task `{task}`, sample {sample}")]
    Sample {
        /// The name of its task.
        task: String,
        /// The position of the sample among those that were given.
        sample: usize,
        /// The error of the model or of the arithmetic.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A sample that the model cannot embed, or not in the place of its own embeddings.
    #[error("the embeddings of a sample")]
    Embeddings {
        /// The error of the model.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A decomposition that failed.
    #[error("task `{task}`, {during}")]
    Linalg {
        /// The name of the task.
        task: String,
        /// What was computed.
        during: &'static str,
        /// What failed.
        source: LinalgError,
    },
}

/// The result of this crate's functions.
pub type Result<T, E = PromptError> = std::result::Result<T, E>;

pub(crate) fn linalg_error(task: &str, during: &'static str, source: LinalgError) -> PromptError {
    PromptError::Linalg { task: task.to_owned(), during, source }
}
