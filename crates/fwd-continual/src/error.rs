//! The errors of the loop. An error prints what it knows itself; what caused it is its [`source`](std::error::Error::source), and
//! [`chain`] prints all of it.

use crate::curriculum::Moment;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;

/// The place in the work on a task at which something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// A sample of the task, by its position from 0.
    Sample(usize),
    /// A training step, counted from 1.
    Step(usize),
    /// What is computed of the task before its first step.
    Begin,
    /// What is computed after the last step.
    End,
    /// The score at a moment.
    Evaluation(Moment),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sample(i) => write!(f, "sample {i}"),
            Self::Step(step) => write!(f, "step {step}"),
            Self::Begin => f.write_str("before the first step"),
            Self::End => f.write_str("after the last step"),
            Self::Evaluation(moment) => write!(f, "evaluation after {} tasks", moment.n_learnt()),
        }
    }
}

/// What failed in a [`Learner`](crate::Learner) or a [`Method`](crate::Method). The loop adds the name of the task.
#[derive(Debug)]
pub struct Failure {
    /// Where; nowhere in particular for a failure that the loop can place better.
    pub at: Option<Place>,
    /// What failed. It is the source of the error that reaches the caller.
    pub source: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// A failure at a place that the learner knows.
    pub fn at(place: Place, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { at: Some(place), source: source.into() }
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(source: E) -> Self {
        Self { at: None, source: source.into() }
    }
}

/// A quantity that must be a finite number and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a finite number")]
pub struct NotFinite(pub &'static str);

/// What can go wrong in a continual run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContinualError {
    /// A configuration value that cannot be.
    #[error("configuration: {0}")]
    Config(String),
    /// The learner, the method or the scoring failed; the state is that before the failed unit of work.
    #[error("task `{task}`, {at}")]
    Task {
        /// The name of the task.
        task: String,
        /// Where in the work on it.
        at: Place,
        /// What failed in the learner, the method or the scoring.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A loss, a gradient or an updated parameter is not a finite number; the state is that before the step.
    #[error(
        "task `{task}`: training diverged at step {step}; a lower learning rate or a bound on the norm of the gradient may help"
    )]
    Diverged {
        /// The name of the task.
        task: String,
        /// The step, counted from 1.
        step: usize,
        /// Which quantity it is.
        source: NotFinite,
    },
    /// A file that cannot be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A saved state that is damaged, of another version, or of another run.
    #[error("{}: {what}", path.display())]
    State {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
}

/// The result of this crate's functions.
pub type Result<T, E = ContinualError> = std::result::Result<T, E>;

impl ContinualError {
    pub(crate) fn of(task: &str, otherwise: Place, failure: Failure) -> Self {
        Self::Task { task: task.to_owned(), at: failure.at.unwrap_or(otherwise), source: failure.source }
    }

    /// What failed in a step that is counted from 1; a quantity that is not finite says that training has diverged.
    pub(crate) fn of_step(task: &str, step: usize, failure: Failure) -> Self {
        match failure.source.downcast::<NotFinite>() {
            Ok(quantity) => Self::Diverged { task: task.to_owned(), step, source: *quantity },
            Err(source) => Self::of(task, Place::Step(step), Failure { source, ..failure }),
        }
    }
}

/// An error with all its causes, as `outermost: …: innermost`.
///
/// # Examples
/// ```
/// use fwd_continual::{Failure, NotFinite, chain};
/// let error = std::io::Error::other(NotFinite("the loss"));
/// assert_eq!(chain(&error), "the loss is not a finite number");
/// ```
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
