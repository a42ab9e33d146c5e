//! The error type of this crate.

use fwd_linalg::LinalgError;
use std::path::PathBuf;

/// What can go wrong in a continual run.
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
        /// Which vector is wrong, with the expected and the found size.
        what: String,
    },
    /// A sample whose embeddings or queries cannot be used, as with a NaN.
    #[error("task `{task}`, sample {sample}: {source}")]
    Sample {
        /// The task.
        task: String,
        /// The position of the sample in its task.
        sample: usize,
        /// What is wrong with it.
        source: LinalgError,
    },
    /// A decomposition or a step that failed.
    #[error("task `{task}`, {at}: {source}")]
    Linalg {
        /// The task.
        task: String,
        /// The step or phase.
        at: String,
        /// What failed.
        source: LinalgError,
    },
    /// The model failed.
    #[error("task `{task}`, {at}: {source}")]
    Model {
        /// The task.
        task: String,
        /// The sample, step or evaluation.
        at: String,
        /// The model's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A loss, gradient or score that is not a finite number; nothing was changed by it.
    #[error("task `{task}`, {at}: {what} is not a finite number")]
    NotFinite {
        /// The task.
        task: String,
        /// The step or the evaluation.
        at: String,
        /// The quantity.
        what: &'static str,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A saved state that is damaged or belongs to another run.
    #[error("{}: {what}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, PromptError>;

pub(crate) fn model_error(
    task: &str,
    at: &str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> PromptError {
    PromptError::Model { task: task.to_owned(), at: at.to_owned(), source: Box::new(source) }
}

pub(crate) fn linalg_error(task: &str, at: &str, source: LinalgError) -> PromptError {
    PromptError::Linalg { task: task.to_owned(), at: at.to_owned(), source }
}
