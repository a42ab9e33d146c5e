//! How an error reaches the user: one message, what to do about it where that is known, and an exit code.

use crate::interrupt::{self, Interrupted};
use std::error::Error;
use std::io::{self, ErrorKind};
use std::process::ExitCode;

/// An error of this program where a library wants a type that implements [`Error`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(#[source] pub(crate) anyhow::Error);

/// Prints an error and returns the exit code: 130 after an interrupt, else 1.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    crate::progress::clear();
    if is_interrupt(error) {
        crate::progress::note(
            "interrupted; everything up to the last step is kept. The same command goes on from here:",
        );
        crate::progress::note(&format!("  {}", command_line()));
        return ExitCode::from(interrupt::EXIT_CODE);
    }
    let message = render(error);
    tracing::debug!(target: "run", "failed: {message}");
    eprintln!("error: {message}");
    if let Some(hint) = hint(error) {
        eprintln!("help: {hint}");
    }
    ExitCode::FAILURE
}

/// Whether the work was asked to stop, however deep the error lies.
pub(crate) fn is_interrupt(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<Interrupted>())
}

/// All messages of the chain; many errors repeat their source's, and are not said twice.
pub(crate) fn render(error: &anyhow::Error) -> String {
    let mut out = String::new();
    for cause in error.chain() {
        let message = cause.to_string();
        if !out.contains(&message) {
            if !out.is_empty() {
                out.push_str(": ");
            }
            out.push_str(&message);
        }
    }
    out
}

/// What to do about an error of the system.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>().map(io::Error::kind));
    for kind in kinds {
        match kind {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                return Some(
                    "there is no room for the file: free some and start the same command again, it goes on from what was saved last",
                );
            }
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
                return Some("choose a folder that you may write to, or change its permissions");
            }
            _ => {}
        }
    }
    None
}

/// The command that was typed, for a shell to read.
fn command_line() -> String {
    let quoted = |word: String| {
        let is_plain =
            !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "-_./=,:@+".contains(c));
        if is_plain { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    let words = std::env::args_os().map(|word| quoted(word.to_string_lossy().into_owned()));
    words.collect::<Vec<_>>().join(" ")
}

/// Makes an error of this program one that implements [`Error`].
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self(error)
    }
}

/// For results of libraries inside functions that return [`Failure`].
pub(crate) fn fail(error: impl Error + Send + Sync + 'static) -> Failure {
    Failure(anyhow::Error::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_interrupt_is_found_through_all_layers() {
        let inner = anyhow::Error::from(Interrupted).context("task `a`");
        let error = anyhow::Error::new(Failure(inner)).context("training");
        assert!(is_interrupt(&error));
        assert!(!is_interrupt(&anyhow::anyhow!("interrupted")));
    }

    #[test]
    fn no_message_is_said_twice() {
        let io = io::Error::new(ErrorKind::StorageFull, "no space left");
        let wrapped = Err::<(), _>(io).context("a/b: no space left").context("the run stopped");
        let error = wrapped.unwrap_err();
        assert_eq!(render(&error), "the run stopped: a/b: no space left");
        assert!(hint(&error).unwrap().contains("free some"));
    }
}
