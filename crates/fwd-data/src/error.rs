//! The error type of this crate.

use std::path::PathBuf;

/// What can go wrong when an image or a text is read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// An image is damaged, of an unknown format or too large.
    #[error("{origin}: {what}")]
    Image {
        /// The file or record it came from.
        origin: String,
        /// What is wrong.
        what: String,
    },
    /// A configuration file is damaged or asks for something unknown.
    #[error("{}: {what}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A tokenizer file is damaged, or a text cannot be encoded.
    #[error("{origin}: {what}")]
    Tokenizer {
        /// The file or text.
        origin: String,
        /// What is wrong.
        what: String,
    },
}

/// Shorthand for a result with [`DataError`].
pub type Result<T> = std::result::Result<T, DataError>;
