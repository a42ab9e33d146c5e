//! The error type of this crate.

use std::fmt;
use std::path::PathBuf;

/// What can go wrong when a model is loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file could not be read.
    #[error("{}", path.display())]
    Io {
        /// The file that was to be read.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A JSON file does not parse, or lacks a field.
    #[error("{}", path.display())]
    Json {
        /// The JSON file.
        path: PathBuf,
        /// The reason, with line and column.
        source: serde_json::Error,
    },
    /// A configuration describes a model that this crate cannot build.
    #[error("{origin}: {what}")]
    Config {
        /// The file or structure it came from.
        origin: String,
        /// The field and why its value is impossible.
        what: String,
    },
    /// A folder is no model that can be loaded, or lacks something.
    #[error("{}: {what}", dir.display())]
    Directory {
        /// The folder.
        dir: PathBuf,
        /// What it is instead or what it lacks, and what to do.
        what: String,
    },
    /// A weight file is damaged.
    #[error("{}: {what}", path.display())]
    WeightFile {
        /// The safetensors file or its index.
        path: PathBuf,
        /// How it is damaged.
        what: String,
    },
    /// Tensors are missing, unexpected, misshapen, of a wrong type, not finite, or differ from what they should be a copy of.
    #[error("{}: {problems}", path.display())]
    Tensors {
        /// The directory or file of the checkpoint.
        path: PathBuf,
        /// All tensors with a problem, by the kind of problem.
        problems: Box<TensorProblems>,
    },
    /// The arguments of a call do not fit the model.
    #[error("{op}: {what}")]
    Input {
        /// The call or the part of the model that refused them.
        op: &'static str,
        /// The shapes or values that do not fit, and what would.
        what: String,
    },
    /// An error of a tensor operation.
    #[error(transparent)]
    Op(#[from] fwd_ops::OpError),
}

impl From<candle_core::Error> for ModelError {
    fn from(error: candle_core::Error) -> Self {
        Self::Op(error.into())
    }
}

impl ModelError {
    /// Arguments that do not fit a model: the call, and what is wrong with them.
    pub fn input(op: &'static str, what: impl Into<String>) -> Self {
        Self::Input { op, what: what.into() }
    }
}

/// Everything that is wrong with the tensors of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TensorProblems {
    /// Tensors the model needs and the files do not hold.
    pub missing: Vec<String>,
    /// Tensors the files hold and the model does not know.
    pub unexpected: Vec<String>,
    /// `name: expected shape, found shape`.
    pub misshapen: Vec<String>,
    /// `name: element type`, where it is not f32, f16 or bf16.
    pub wrong_dtype: Vec<String>,
    /// Tensors with NaN or infinite elements (after conversion to the requested type).
    pub non_finite: Vec<String>,
    /// Copies of other tensors that are not equal to them: `name (differs from name)`. Versions of transformers disagree on which of
    /// the two counts.
    pub differing: Vec<String>,
}

impl TensorProblems {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

impl fmt::Display for TensorProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 12;
        let parts = [
            ("missing", &self.missing),
            ("unexpected", &self.unexpected),
            ("misshapen", &self.misshapen),
            ("of a wrong element type", &self.wrong_dtype),
            ("not finite", &self.non_finite),
            ("that should be copies but differ (keep the one that is meant)", &self.differing),
        ];
        let mut first = true;
        for (what, names) in parts.into_iter().filter(|(_, names)| !names.is_empty()) {
            let more = names.len().saturating_sub(SHOWN);
            let shown = names[..names.len() - more].join(", ");
            write!(f, "{}{} tensors {what}: {shown}", if first { "" } else { "; " }, names.len())?;
            if more > 0 {
                write!(f, " and {more} more")?;
            }
            first = false;
        }
        Ok(())
    }
}

/// Shorthand for a result with [`ModelError`].
pub type Result<T> = std::result::Result<T, ModelError>;
