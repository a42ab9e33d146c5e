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
    /// An image pack is damaged.
    #[error("{}: {what}", path.display())]
    Pack {
        /// The pack.
        path: PathBuf,
        /// What is wrong, with the key of the image where it is known.
        what: String,
    },
    /// A record of a task cannot be used.
    #[error("{}, line {line}: {what}", path.display())]
    Record {
        /// The file of the task.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The benchmark has no task of this name.
    #[error("the benchmark has no task `{name}`{}", suggestion.as_ref().map_or_else(String::new, |s| format!("; did you mean `{s}`?")))]
    UnknownTask {
        /// The name asked for.
        name: String,
        /// The task with the most similar name, if one is similar.
        suggestion: Option<String>,
    },
    /// The benchmark has no image of this key.
    #[error("no pack of the benchmark holds the image `{key}`; keys read `folder/name`")]
    UnknownImage {
        /// The key asked for.
        key: String,
    },
}

/// Shorthand for a result with [`DataError`].
pub type Result<T> = std::result::Result<T, DataError>;
