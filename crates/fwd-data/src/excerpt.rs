//! Texts of others in messages: in one line, of bounded length.

/// The beginning of a text in quotes, for messages: at most 80 characters of it in one line, control characters escaped.
///
/// # Examples
/// ```
/// assert_eq!(fwd_data::excerpt("two\nlines"), r#""two\nlines""#);
/// assert_eq!(fwd_data::excerpt(&"a".repeat(100)).len(), 80 + "\"\"…".len());
/// ```
pub fn excerpt(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

/// A message of the library in one line of bounded length.
pub(crate) fn bounded(text: &str) -> String {
    const LONGEST: usize = 200;
    let line = |c: char| if c.is_control() { ' ' } else { c };
    let mut shown: String = text.chars().take(LONGEST).map(line).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}
