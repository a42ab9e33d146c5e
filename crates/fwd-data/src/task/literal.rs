//! Lists that a table holds as text: in JSON, or as Python's `repr` writes them, which is what pandas leaves in a CSV.

use serde_json::{Number, Value};
use std::iter::Peekable;
use std::str::Chars;

/// The items of a list that is written out in full, in JSON or as a Python list of strings and numbers; none for any other text.
pub(super) fn list(text: &str) -> Option<Vec<Value>> {
    let text = text.trim();
    if !text.starts_with('[') {
        return None;
    }
    serde_json::from_str(text).ok().or_else(|| python_list(text))
}

/// Whether a text begins and ends as a list of strings does, and is none that [`list`] reads.
pub(super) fn is_broken_list(text: &str) -> bool {
    let text = text.trim();
    (text.starts_with("['") || text.starts_with("[\"")) && text.ends_with(']') && list(text).is_none()
}

fn python_list(text: &str) -> Option<Vec<Value>> {
    let mut chars = text.strip_prefix('[')?.strip_suffix(']')?.chars().peekable();
    let mut items = Vec::new();
    loop {
        skip_space(&mut chars);
        match chars.peek() {
            // A comma may stand behind the last item.
            None => return Some(items),
            Some(&quote @ ('\'' | '"')) => {
                chars.next();
                items.push(Value::String(string(&mut chars, quote)?));
            }
            Some(_) => items.push(Value::Number(number(&mut chars)?)),
        }
        skip_space(&mut chars);
        match chars.next() {
            None => return Some(items),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

fn skip_space(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
}

/// The rest of a string behind its opening quotation mark.
fn string(chars: &mut Peekable<Chars<'_>>, quote: char) -> Option<String> {
    let mut text = String::new();
    loop {
        match chars.next()? {
            '\\' => text.push(escape(chars)?),
            '\n' => return None,
            c if c == quote => return Some(text),
            c => text.push(c),
        }
    }
}

/// The character of an escape behind its back slash.
fn escape(chars: &mut Peekable<Chars<'_>>) -> Option<char> {
    let n_digits = match chars.next()? {
        c @ ('\\' | '\'' | '"') => return Some(c),
        'n' => return Some('\n'),
        't' => return Some('\t'),
        'r' => return Some('\r'),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => return None,
    };
    let code = (0..n_digits).try_fold(0u32, |code, _| Some(code << 4 | chars.next()?.to_digit(16)?))?;
    char::from_u32(code)
}

fn number(chars: &mut Peekable<Chars<'_>>) -> Option<Number> {
    let mut text = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_digit() || "+-.eE".contains(*c)) {
        text.push(c);
    }
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_are_read_as_json_and_as_python_writes_them() {
        for (text, expected) in [
            (r#"["a", "b"]"#, json!(["a", "b"])),
            ("['red', 'crimson']", json!(["red", "crimson"])),
            (r#"['it\'s', "it's", 'ü\xe9\u00e9\n']"#, json!(["it's", "it's", "üéé\n"])),
            (" [ 'a' , 3, -2.5,] ", json!(["a", 3, -2.5])),
            ("[]", json!([])),
        ] {
            assert_eq!(list(text).map(Value::Array), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_lists() {
        for text in
            ["['a' 'b']", "['a', nan]", "['a", "['a'] x", "[a]", "('a', 'b')", "['\\q']", "[None]", "a"]
        {
            assert_eq!(list(text), None, "{text}");
        }
        assert!(is_broken_list("['a' 'b']") && is_broken_list("[\"a\", None]"));
        assert!(!is_broken_list("['a']") && !is_broken_list("[1, 2") && !is_broken_list("[brackets]"));
    }
}
