//! Errors of this crate where another library wants the standard library's type.

use crate::observer::Interrupted;
use std::error::Error;

/// An [`anyhow::Error`] as a boxed error that keeps its causes, and by which an [`Interrupted`] can still be told.
pub(crate) fn boxed(error: anyhow::Error) -> Box<dyn Error + Send + Sync> {
    match error.downcast::<Interrupted>() {
        Ok(interrupted) => Box::new(interrupted),
        Err(error) => error.into(),
    }
}
