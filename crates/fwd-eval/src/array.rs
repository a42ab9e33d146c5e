//! The elements of a JSON array and the spelling of their numbers, as they stand in the text.

/// What is wrong with an array, and how many whole elements come before that.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BrokenArray {
    pub(crate) n_before: usize,
    pub(crate) message: &'static str,
}

/// The texts of the elements. A comma behind the last one is passed over.
pub(crate) fn elements(text: &str) -> Result<Vec<&str>, BrokenArray> {
    let bytes = text.as_bytes();
    let broken = |elements: &Vec<&str>, message| BrokenArray { n_before: elements.len(), message };
    let mut elements = Vec::new();
    let Some(mut at) = text.find('[').map(|at| at + 1) else {
        return Err(broken(&elements, "no array begins here"));
    };
    loop {
        at += blanks(&bytes[at..]);
        if bytes.get(at) == Some(&b']') {
            let is_end = text[at + 1..].trim().is_empty();
            return if is_end {
                Ok(elements)
            } else {
                Err(broken(&elements, "something follows the end of the array"))
            };
        }
        let len = value_len(&bytes[at..])
            .ok_or_else(|| broken(&elements, "the array is not closed: the file is cut"))?;
        if len == 0 {
            return Err(broken(&elements, "a record is missing between two commas"));
        }
        elements.push(text[at..at + len].trim_end());
        at += len;
        match bytes.get(at) {
            Some(b',') => at += 1,
            Some(b']') => {}
            _ => return Err(broken(&elements, "a comma is missing behind the record")),
        }
    }
}

/// How the number is written that a key of an object has; none if it has none.
pub(crate) fn number_of<'a>(object: &'a str, key: &str) -> Option<&'a str> {
    let bytes = object.as_bytes();
    let mut at = object.find('{')? + 1;
    loop {
        at += blanks(&bytes[at..]);
        let name_len = string_len(&bytes[at..])?;
        let name = object.get(at + 1..at + name_len - 1)?;
        at += name_len;
        at += blanks(&bytes[at..]);
        at += usize::from(bytes.get(at) == Some(&b':'));
        let len = value_len(&bytes[at..])?;
        if name == key {
            return object.get(at..at + len).map(str::trim);
        }
        at += len + 1;
    }
}

fn blanks(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// The bytes of a string with its quotation marks; none if it does not end or is none.
fn string_len(bytes: &[u8]) -> Option<usize> {
    let mut is_escaped = false;
    let inner = bytes.strip_prefix(b"\"")?;
    let end = inner.iter().position(|&byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })?;
    Some(end + 2)
}

/// The bytes up to the comma or bracket that ends a value; none if the text ends first.
fn value_len(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match bytes.get(at)? {
            b'"' => at += string_len(&bytes[at..])? - 1,
            b'[' | b'{' => depth += 1,
            b']' | b'}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1 + blanks(&bytes[at + 1..]));
                }
            }
            b',' | b']' | b'}' if depth == 0 => return Some(at),
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_fall_into_their_elements() {
        let text = " [{\"a\": \"]},\\\"\", \"b\": [1, {}]} ,\n 7,\n \"x\",]\n";
        assert_eq!(elements(text).unwrap(), ["{\"a\": \"]},\\\"\", \"b\": [1, {}]}", "7", "\"x\""]);
        assert_eq!(elements("[]").unwrap(), [""; 0]);
        let broken = |text: &str| {
            elements(text).map(|_| ()).map_err(|error| (error.n_before, error.message)).unwrap_err()
        };
        assert_eq!(broken("[{}, {\"a\": 1"), (1, "the array is not closed: the file is cut"));
        assert_eq!(broken("[{}, {}"), (2, "a comma is missing behind the record"));
        assert_eq!(broken("[{} {}]"), (1, "a comma is missing behind the record"));
        assert_eq!(broken("[{}] x"), (1, "something follows the end of the array"));
        assert_eq!(broken("[{},,{}]"), (1, "a record is missing between two commas"));
    }

    #[test]
    fn numbers_keep_their_spelling() {
        let text = r#" {"a": {"id": 1}, "s": "\"id\": 2", "id" : 123456789012345678901234567890.0 , "z": 1}"#;
        assert_eq!(number_of(text, "id"), Some("123456789012345678901234567890.0"));
        assert_eq!(number_of(text, "missing"), None);
    }
}
