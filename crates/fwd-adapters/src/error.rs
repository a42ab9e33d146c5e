//! What can go wrong with an adapter.

use std::path::PathBuf;

/// What can go wrong with an adapter; what caused it is its [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// A configuration value that cannot be.
    #[error("configuration: {0}")]
    Config(String),
    /// A file that cannot be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file that was asked for.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A file that is no adapter, or one that cannot be used here.
    #[error("{}: {what}", path.display())]
    File {
        /// The file that is wrong.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: String,
    },
}

/// The result of this crate's functions.
pub type Result<T, E = AdapterError> = std::result::Result<T, E>;
