//! The error of this crate where another library wants a type that implements [`Error`].

use std::error::Error;

/// An [`anyhow::Error`] as a type that implements [`Error`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(#[source] pub anyhow::Error);

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self(error)
    }
}

/// For results of other libraries inside functions that return [`Failure`].
pub(crate) fn fail(error: impl Error + Send + Sync + 'static) -> Failure {
    Failure(anyhow::Error::new(error))
}
