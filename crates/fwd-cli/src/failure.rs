//! How an error reaches the user: one message, what to do about it where that is known, and an exit code.

use crate::{interrupt, output};
use fwd_run::is_interrupt;
use std::io::{self, ErrorKind};
use std::process::ExitCode;

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
    let message = shortened(&output::visible(&render(error)));
    tracing::debug!(target: "run", "failed: {message}");
    eprintln!("error: {message}");
    if let Some(hint) = hint(error) {
        eprintln!("help: {hint}");
    }
    ExitCode::FAILURE
}

/// All messages of the chain, from the outermost to the first cause.
fn render(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A message of bounded length: the middle of a longer one is left out, and its length said.
fn shortened(message: &str) -> String {
    const MOST: usize = 3000;
    let n = message.chars().count();
    if n <= MOST {
        return message.to_owned();
    }
    let part = |skip: usize, take: usize| message.chars().skip(skip).take(take).collect::<String>();
    let (head, tail) = (MOST * 2 / 3, MOST / 3);
    format!("{} … ({} characters left out) … {}", part(0, head), n - head - tail, part(n - tail, tail))
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

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use fwd_data::DataError;

    #[test]
    fn no_message_is_said_twice() {
        let source = io::Error::new(ErrorKind::StorageFull, "no space left");
        let error = DataError::Io { path: "a/b".into(), source };
        let error = Err::<(), _>(error).context("the run stopped").unwrap_err();
        assert_eq!(render(&error), "the run stopped: a/b: no space left");
        assert!(hint(&error).unwrap().contains("free some"));
    }

    #[test]
    fn no_message_fills_the_screen() {
        assert_eq!(shortened("a: b"), "a: b");
        let long = shortened(&format!("first {} last", "ä".repeat(100_000)));
        assert!(long.starts_with("first ä") && long.ends_with("ä last"), "{long}");
        assert!(long.contains("97011 characters left out") && long.chars().count() < 3100, "{long}");
    }
}
