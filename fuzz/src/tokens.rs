//! Damage to texts (JSON, TOML, CSV) that leaves them readable as far as possible: other numbers, types, keys, depths and lengths.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

const NUMBERS: [&str; 22] = [
    "0",
    "-1",
    "1",
    "-0",
    "0.5",
    "-1.5",
    "1e-400",
    "1e308",
    "-1e308",
    "1e999",
    "NaN",
    "nan",
    "inf",
    "Infinity",
    "65536",
    "2147483647",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "99999999999999999999999999",
];

const VALUES: [&str; 22] = [
    "null",
    "true",
    "false",
    "\"\"",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    "\" \"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"\\u001b[31m\"",
    "\"\u{202e}\u{fffd}\u{1f600}\"",
    "\"..\"",
    "\"../../../../etc/passwd\"",
    "\"/dev/zero\"",
    "\"/\"",
    "\"0\"",
    "\"-1\"",
    "\"1e999\"",
    "[0.1, 2, -3]",
    "{\"a\": 1}",
];

const DEPTHS: [usize; 5] = [1, 16, 127, 128, 20_000];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Quoted,
    Number,
    Word,
    Mark(u8),
}

#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    range: Range<usize>,
}

/// One change.
pub(crate) fn change(rng: &mut ChaCha8Rng, text: &[u8]) -> Vec<u8> {
    let tokens = split(text);
    if tokens.is_empty() {
        return VALUES[rng.random_range(0..VALUES.len())].into();
    }
    let i = rng.random_range(0..tokens.len());
    let value = || text[span(&tokens, i)].to_vec();
    match rng.random_range(0..12) {
        0 | 1 => {
            let numbers: Vec<&Token> = tokens.iter().filter(|token| token.kind == Kind::Number).collect();
            let at =
                if numbers.is_empty() { &tokens[i] } else { numbers[rng.random_range(0..numbers.len())] };
            replaced(text, at.range.clone(), NUMBERS[rng.random_range(0..NUMBERS.len())])
        }
        2 | 3 => replaced(text, span(&tokens, i), VALUES[rng.random_range(0..VALUES.len())]),
        4 => {
            let other = span(&tokens, rng.random_range(0..tokens.len()));
            replaced(text, span(&tokens, i), &text[other])
        }
        5 => replaced(text, member(&tokens, i), ""),
        6 => {
            let member = member(&tokens, i);
            let twice = [&text[member.clone()], b", ", &text[member.clone()]].concat();
            replaced(text, member, twice)
        }
        7 => {
            let depth = DEPTHS[rng.random_range(0..DEPTHS.len())];
            let (open, close) = if rng.random() { ("[", "]") } else { ("{\"a\":", "}") };
            let nested = [open.repeat(depth).as_bytes(), &value(), close.repeat(depth).as_bytes()].concat();
            replaced(text, span(&tokens, i), nested)
        }
        8 => {
            let part = [&value()[..], b","].concat();
            let n = rng.random_range(2..200).min((1 << 18) / part.len().max(1)).max(1);
            replaced(text, span(&tokens, i), [b"[", &part.repeat(n)[..], &value()[..], b"]"].concat())
        }
        9 => {
            let n = [100, 300, 5_000, 70_000][rng.random_range(0..4)];
            replaced(
                text,
                span(&tokens, i),
                format!("\"{}\"", ["x", "é", "a b ", "\\n"][rng.random_range(0..4)].repeat(n)),
            )
        }
        10 => lines(rng, text),
        _ => replaced(text, tokens[i].range.clone(), ""),
    }
}

fn replaced(text: &[u8], range: Range<usize>, new: impl AsRef<[u8]>) -> Vec<u8> {
    [&text[..range.start], new.as_ref(), &text[range.end..]].concat()
}

/// Drops, repeats or moves a line.
fn lines(rng: &mut ChaCha8Rng, text: &[u8]) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
    let (i, j) = (rng.random_range(0..lines.len()), rng.random_range(0..lines.len()));
    match rng.random_range(0..3) {
        0 => drop(lines.remove(i)),
        1 => lines.insert(j, lines[i]),
        _ => lines.swap(i, j),
    }
    lines.concat()
}

/// The value that begins at a token: up to the closing bracket, if it is an opening one.
fn span(tokens: &[Token], i: usize) -> Range<usize> {
    let mut depth = 0usize;
    for token in &tokens[i..] {
        match token.kind {
            Kind::Mark(b'[' | b'{' | b'(') => depth += 1,
            Kind::Mark(b']' | b'}' | b')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return tokens[i].range.start..token.range.end;
        }
    }
    tokens[i].range.clone()
}

/// The key and its value that begin at or before a token, as far as they are some.
fn member(tokens: &[Token], i: usize) -> Range<usize> {
    let is_sign = |j: usize| matches!(tokens.get(j).map(|t| t.kind), Some(Kind::Mark(b':' | b'=')));
    let key = if is_sign(i + 1) {
        i
    } else if i >= 2 && is_sign(i - 1) {
        i - 2
    } else {
        return span(tokens, i);
    };
    match tokens.get(key + 2) {
        Some(_) => tokens[key].range.start..span(tokens, key + 2).end,
        None => tokens[key].range.clone(),
    }
}

fn split(text: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&first) = text.get(at) {
        let rest = &text[at..];
        let taken = |is_part: fn(u8) -> bool| rest.iter().take_while(|&&byte| is_part(byte)).count();
        let (kind, len) = match first {
            b'"' => (Kind::Quoted, quoted(rest)),
            b'0'..=b'9' | b'-' => (Kind::Number, taken(|b| b.is_ascii_digit() || b"+-.eE_".contains(&b))),
            b if is_letter(b) => (Kind::Word, taken(|b| is_letter(b) || b.is_ascii_digit())),
            b if b.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b => (Kind::Mark(b), 1),
        };
        tokens.push(Token { kind, range: at..at + len });
        at += len;
    }
    tokens
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// The length of a quoted text, its quotes included.
fn quoted(text: &[u8]) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_members_are_found() {
        let text = br#"{"a": [1, {"b": -2.5e3}], "c\"": x}"#;
        let tokens = split(text);
        let of = |range: Range<usize>| std::str::from_utf8(&text[range]).unwrap().to_owned();
        assert_eq!(of(span(&tokens, 0)), std::str::from_utf8(text).unwrap());
        assert_eq!(of(span(&tokens, 3)), r#"[1, {"b": -2.5e3}]"#);
        assert_eq!(of(member(&tokens, 1)), r#""a": [1, {"b": -2.5e3}]"#);
        assert_eq!(of(member(&tokens, tokens.len() - 2)), r#""c\"": x"#);
        assert_eq!(of(span(&tokens, 9)), "-2.5e3");
    }
}
