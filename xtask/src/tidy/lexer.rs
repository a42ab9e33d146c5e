//! The words of a Rust file: comments are dropped, and a string is one word, so that nothing inside either is taken for code.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name or a keyword.
    Ident,
    /// A string of any sort; its text is what stands between the quotes.
    Str,
    /// `::` or a single character.
    Punct,
    /// A number, a character or a lifetime.
    Other,
}

/// A word of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    /// The number of the line, from 1.
    pub(super) line: usize,
}

impl Token<'_> {
    pub(super) fn is(&self, punct: &str) -> bool {
        self.kind == Kind::Punct && self.text == punct
    }

    pub(super) fn is_ident(&self) -> bool {
        self.kind == Kind::Ident
    }
}

/// All tokens of a file, in order.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut all = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let (length, token) = next(rest, first);
        if let Some((kind, text)) = token {
            all.push(Token { kind, text, line });
        }
        let (passed, left) = rest.split_at(length);
        line += passed.bytes().filter(|&byte| byte == b'\n').count();
        rest = left;
    }
    all
}

/// The length of what comes first in `rest`, in bytes, and its token if it is one.
fn next(rest: &str, first: char) -> (usize, Option<(Kind, &str)>) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), None);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), None);
    }
    if let Some((length, text)) = string(rest) {
        return (length, Some((Kind::Str, text)));
    }
    if first == '\'' {
        let length = character_or_lifetime(rest);
        return (length, Some((Kind::Other, &rest[..length])));
    }
    if first.is_alphabetic() || first == '_' {
        // A raw identifier names the same thing without its prefix.
        let prefix = if rest.starts_with("r#") { 2 } else { 0 };
        let length = prefix + word(&rest[prefix..]);
        return (length, Some((Kind::Ident, &rest[prefix..length])));
    }
    if first.is_ascii_digit() {
        let length = word(rest);
        return (length, Some((Kind::Other, &rest[..length])));
    }
    if rest.starts_with("::") {
        return (2, Some((Kind::Punct, "::")));
    }
    let length = first.len_utf8();
    (length, (!first.is_whitespace()).then_some((Kind::Punct, &rest[..length])))
}

/// The length of the letters, digits and underscores at the start.
fn word(rest: &str) -> usize {
    rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
}

/// The length of a block comment; such comments nest.
fn block_comment(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        let left = &rest.as_bytes()[at..];
        if left.starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if left.starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length and the content of a string, raw or not, of bytes or not.
fn string(rest: &str) -> Option<(usize, &str)> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let after = rest.strip_prefix(prefix).map(|after| after.trim_start_matches('#'));
        after.is_some_and(|after| after.starts_with('"'))
    })?;
    let after = &rest[prefix.len()..];
    let n_hashes = after.len() - after.trim_start_matches('#').len();
    let is_raw = prefix.ends_with('r');
    if n_hashes > 0 && !is_raw {
        return None;
    }
    let start = prefix.len() + n_hashes + 1;
    let body = &rest[start..];
    let end = if is_raw {
        body.find(&format!("\"{}", "#".repeat(n_hashes))).unwrap_or(body.len())
    } else {
        let mut escaped = false;
        let closing = body.bytes().position(|byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        });
        closing.unwrap_or(body.len())
    };
    Some(((start + end + 1 + n_hashes).min(rest.len()), &body[..end]))
}

/// The length of a character in quotes, or of a lifetime.
fn character_or_lifetime(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        // What follows the backslash may be a quote itself.
        (Some((_, '\\')), Some((at, escaped))) => {
            let from = at + escaped.len_utf8();
            rest[from..].find('\'').map_or(rest.len(), |closing| from + closing + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1 + word(&rest[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::tokens;

    fn texts(text: &str) -> Vec<&str> {
        tokens(text).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_are_no_code() {
        assert_eq!(texts("a // b\n/* c /* d */ e */ f /// g\n//! h\ni"), ["a", "f", "i"]);
    }

    #[test]
    fn a_string_is_one_token() {
        assert_eq!(
            texts(r##"f("a \" // b", r#"c"d"#, b"e", 'x', '"', '\'', '\u{1F}')"##)[..4],
            ["f", "(", r#"a \" // b"#, ","]
        );
        assert_eq!(texts(r###"r#"a"b"# ; br##"c"# d"##"###), [r#"a"b"#, ";", r##"c"# d"##]);
        assert_eq!(texts(r#"'"' a '\'' b '\\' c"#), [r#"'"'"#, "a", r"'\''", "b", r"'\\'", "c"]);
    }

    #[test]
    fn lifetimes_paths_and_raw_names() {
        assert_eq!(texts("&'a r#type::x::<'b>"), ["&", "'a", "type", "::", "x", "::", "<", "'b", ">"]);
    }

    #[test]
    fn lines_are_counted_through_strings_and_comments() {
        let lines: Vec<usize> =
            tokens("a\n/* \n */ b \"\n\n\" c\n// \nd").into_iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 3, 3, 5, 7]);
    }
}
