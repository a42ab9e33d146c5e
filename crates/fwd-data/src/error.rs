//! The error type of this crate.

use crate::shown::{shown, shown_up_to};
use std::path::{Path, PathBuf};

/// What can go wrong when an image or a text is read.
///
/// Messages are one line of bounded length: what comes out of files is shortened, and its control characters are escaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder could not be read or written.
    #[error("{}", file(path))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// An image is damaged, of an unknown format or too large.
    #[error("{}: {}", note(origin), note(what))]
    Image {
        /// The file or record it came from.
        origin: String,
        /// What is wrong with the image.
        what: String,
    },
    /// A configuration file is damaged or asks for something unknown.
    #[error("{}: {}", file(path), note(what))]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong with it, with the key where it is known.
        what: String,
    },
    /// A tokenizer file is damaged, or a text cannot be encoded.
    #[error("{}: {}", note(origin), note(what))]
    Tokenizer {
        /// The tokenizer file.
        origin: String,
        /// What is wrong, with the text that cannot be encoded.
        what: String,
    },
    /// An image pack is damaged.
    #[error("{}: {}", file(path), note(what))]
    Pack {
        /// The file `images.pack`.
        path: PathBuf,
        /// What is wrong, with the key of the image where it is known.
        what: String,
    },
    /// A record of the embedded benchmark cannot be used.
    #[error("{}, line {line}: {}", file(path), note(what))]
    Record {
        /// The file of the task.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with the record.
        what: String,
    },
    /// A record of a file in one of the field's formats cannot be used.
    #[error("{}, record {index}{}: {}", file(path), key.as_ref().map_or_else(String::new, |key| format!(", key `{}`", shown(key))), note(what))]
    TaskRecord {
        /// The file of records.
        path: PathBuf,
        /// The record, counted from 0 as the files' own tools do.
        index: usize,
        /// The key or column, where one is to blame.
        key: Option<String>,
        /// What is wrong with the record.
        what: String,
    },
    /// The text of a record has the token `<image>`, which stands for an image, and the record has none.
    #[error(
        "{}, record {index}: the text has `<image>`, but the record has no image; give its path under the key `image`",
        file(path)
    )]
    TokenWithoutImage {
        /// The file of records.
        path: PathBuf,
        /// The record, counted from 0 as the files' own tools do.
        index: usize,
    },
    /// A task's file ends early, or is damaged so that the rest of it cannot be read.
    #[error("{}, byte {at}: {}", file(path), note(what))]
    TaskSyntax {
        /// The file of records.
        path: PathBuf,
        /// The byte, counted from 0.
        at: u64,
        /// What is wrong there.
        what: String,
    },
    /// The path of an image leads nowhere, or out of the image root.
    #[error("{}: the image `{}` {fault}; the image root is {}", note(origin), shown(image), file(root))]
    ImagePath {
        /// The file and record it came from.
        origin: String,
        /// The path as it stands there.
        image: String,
        /// The folder it must lie in.
        root: PathBuf,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// None of the files that a split of a task may have is there.
    #[error("task `{}`: no file for {split}; tried {}", shown(task), list(tried))]
    NoTaskFile {
        /// The name of the task.
        task: String,
        /// The split, or what else the file is for.
        split: &'static str,
        /// The files that were looked for.
        tried: Vec<PathBuf>,
    },
    /// The benchmark has no task of this name.
    #[error("the benchmark has no task `{}`{}", shown(name), suggestion.as_ref().map_or_else(String::new, |s| format!("; did you mean `{s}`?")))]
    UnknownTask {
        /// The name asked for.
        name: String,
        /// The task with the most similar name, if one is similar.
        suggestion: Option<String>,
    },
    /// A stream of tasks that cannot be made.
    #[error("task `{}`: {}", shown(task), note(what))]
    Stream {
        /// The name of the task.
        task: String,
        /// Why it cannot be part of the stream.
        what: String,
    },
    /// The benchmark has no image of this key.
    #[error("no pack of the benchmark holds the image `{}`; keys read `folder/name`", shown(key))]
    UnknownImage {
        /// The key asked for.
        key: String,
    },
}

/// Why the path of an image is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathFault {
    /// It does not begin at the image root.
    #[error("is an absolute path")]
    Absolute,
    /// It has a part `..`.
    #[error("goes up with `..`")]
    Upwards,
    /// A symbolic link on the way leads elsewhere.
    #[error("leads out of the image root by a symbolic link")]
    LinkOut,
    /// There is nothing of this name.
    #[error("is missing")]
    Missing,
    /// One of its parts is longer than the system allows.
    #[error("has a longer name than a file can have")]
    NameTooLong,
    /// The system does not let it be read.
    #[error("may not be read: permission denied")]
    Denied,
    /// It is a folder or a device.
    #[error("is no file")]
    NoFile,
}

/// An error about a task that is not among those of the given names, with the most similar of them.
pub(crate) fn unknown_task<'a>(names: impl Iterator<Item = &'a str>, name: &str) -> DataError {
    let nearest =
        names.map(|other| (strsim::jaro_winkler(other, name), other)).max_by(|a, b| a.0.total_cmp(&b.0));
    let suggestion = nearest.filter(|(similarity, _)| *similarity > 0.75).map(|(_, other)| other.to_owned());
    DataError::UnknownTask { name: name.into(), suggestion }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| file(path)).collect::<Vec<_>>().join(", ")
}

/// A path in a message.
pub(crate) fn file(path: &Path) -> String {
    shown_up_to(&path.display().to_string(), 400)
}

/// A sentence in a message, which may hold several names and values.
fn note(what: &str) -> String {
    shown_up_to(what, 1000)
}

/// Shorthand for a result with [`DataError`].
pub type Result<T> = std::result::Result<T, DataError>;

impl DataError {
    /// The error with what caused it in one text, for lists of errors; [`Display`](std::fmt::Display) leaves the cause to
    /// [`source`](std::error::Error::source).
    pub fn with_cause(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }
}
