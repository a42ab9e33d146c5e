//! Text from files as messages show it: on one line, without control characters, of bounded length.
//!
//! A file may hold anything: escape sequences that move the cursor of a terminal, characters that turn the direction of writing, a
//! page of base64. The escapes are those of Rust; text without such characters stays as it is.

/// The most characters of a name or a value that are shown.
const MOST: usize = 120;

/// A name or a value.
pub(crate) fn shown(text: &str) -> String {
    shown_up_to(text, MOST)
}

/// A text of which at most `most` characters are shown: its beginning and its end, and how many there are.
pub(crate) fn shown_up_to(text: &str, most: usize) -> String {
    let n_chars = text.chars().count();
    if n_chars <= most {
        return escaped(text.chars());
    }
    let tail = most / 4;
    let head = escaped(text.chars().take(most - tail));
    format!("{head}…{} ({n_chars} characters)", escaped(text.chars().skip(n_chars - tail)))
}

fn escaped(chars: impl Iterator<Item = char>) -> String {
    let mut text = String::new();
    for c in chars {
        if is_unseen(c) { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}

/// Control characters, line separators, marks of direction and the byte-order mark.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(shown("a\u{1b}[2J\nb\u{202e}c\0"), "a\\u{1b}[2J\\nb\\u{202e}c\\u{0}");
        assert_eq!(shown("Über \"b\\c\" 日本"), "Über \"b\\c\" 日本");
    }

    #[test]
    fn long_texts_keep_their_beginning_and_their_end() {
        assert_eq!(shown_up_to("abcdefghij", 10), "abcdefghij");
        assert_eq!(shown_up_to("abcdefghijkl", 8), "abcdef…kl (12 characters)");
        assert!(shown(&"ä".repeat(1 << 20)).chars().count() < 160);
    }
}
