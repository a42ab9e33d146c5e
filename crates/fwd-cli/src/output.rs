//! Results on standard output. A reader that has gone away (`| head`) is no error.
//!
//! Answers, names and messages may hold text of a data set or a model. A control character in it could move the cursor, change the
//! colours or the title of a terminal, or hide what was printed, so none reaches a terminal as it is ([`visible`], [`one_line`]).

use anyhow::{Context, Result};
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, ErrorKind, Write};

/// Prints a text, with a line end if it has none.
///
/// # Errors
/// If standard output cannot be written.
pub(crate) fn print(text: &str) -> Result<()> {
    write_out(&visible(text))
}

/// Prints a value as JSON, in which control characters are escaped.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    // serde_json escapes what JSON demands, U+0000 to U+001F. The others can only stand inside strings.
    write_out(&replaced(&text, |c| c != '\n', |c| format!("\\u{:04x}", u32::from(c))))
}

/// A text of several lines for a terminal: control characters but line feeds are spelt out, as in `\u{1b}`.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    replaced(text, |c| c != '\n', spelt_out)
}

/// A text for one line of a terminal: control characters, line feeds among them, are spelt out, as in `\n` and `\u{1b}`.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    replaced(text, |_| true, spelt_out)
}

fn spelt_out(c: char) -> String {
    c.escape_default().to_string()
}

/// A text whose control characters (U+0000 to U+001F, U+007F to U+009F) are replaced where `is_meant` says so.
fn replaced(text: &str, is_meant: impl Fn(char) -> bool, by: impl Fn(char) -> String) -> Cow<'_, str> {
    let is_replaced = |c: char| c.is_control() && is_meant(c);
    if !text.contains(is_replaced) {
        return Cow::Borrowed(text);
    }
    let parts = text.chars().map(|c| if is_replaced(c) { by(c) } else { c.to_string() });
    Cow::Owned(parts.collect())
}

fn write_out(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{end}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write the result"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_is_left_as_it_is() {
        let text = "a\u{1b}]0;title\u{7}\tb\nc\u{9b}31m\u{7f}ä";
        assert_eq!(visible(text), "a\\u{1b}]0;title\\u{7}\\tb\nc\\u{9b}31m\\u{7f}ä");
        assert_eq!(one_line("a\r\nb"), "a\\r\\nb");
        assert!(matches!(one_line("plain – text"), Cow::Borrowed(_)));
        for c in (0..=0x9f).filter_map(char::from_u32).filter(|c| c.is_control()) {
            let text = one_line(c.encode_utf8(&mut [0; 4])).into_owned();
            assert!(text.starts_with('\\') && !text.contains(char::is_control), "{text}");
        }
    }
}
