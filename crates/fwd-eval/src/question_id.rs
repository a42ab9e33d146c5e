//! The id of a sample: text, whatever kind of value the file has.

use serde::{Serialize, Serializer};
use std::fmt::{self, Display};

/// The id of a sample, written as a number or as a string in JSON; `17`, `17.0` and `"17"` are one id. A number may have any digits:
/// it is kept as text.
#[derive(Debug, Clone)]
pub struct QuestionId {
    text: String,
    /// Whether the JSON has the id as a number.
    number: bool,
}

impl QuestionId {
    /// An id that is written as this number; none if it is not whole.
    pub(crate) fn of_number(written: &str) -> Option<Self> {
        whole_digits(written).map(|text| Self { text, number: true })
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<&str> for QuestionId {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), number: false }
    }
}

impl From<u64> for QuestionId {
    fn from(number: u64) -> Self {
        Self { text: number.to_string(), number: true }
    }
}

impl PartialEq for QuestionId {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for QuestionId {}

impl Display for QuestionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for QuestionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        // What has more than 64 bits becomes a string, which is the same id.
        match (self.number, self.text.parse::<u64>(), self.text.parse::<i64>()) {
            (true, Ok(number), _) => serializer.serialize_u64(number),
            (true, _, Ok(number)) => serializer.serialize_i64(number),
            _ => serializer.serialize_str(&self.text),
        }
    }
}

/// An id without the fraction `.0` that tables give whole numbers.
pub(crate) fn whole(id: &str) -> &str {
    match id.split_once('.') {
        Some((digits, zeros)) => {
            let is_number = digits.strip_prefix('-').unwrap_or(digits).chars().all(|c| c.is_ascii_digit());
            let is_whole = !digits.is_empty() && !zeros.is_empty() && zeros.chars().all(|c| c == '0');
            if is_number && is_whole { digits } else { id }
        }
        None => id,
    }
}

/// The digits of a number as JSON writes it, if it is whole: `17`, `17.0`, `1.7e1`.
fn whole_digits(number: &str) -> Option<String> {
    let lower = number.to_ascii_lowercase();
    let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
    let exponent: i32 = exponent.parse().ok().filter(|e: &i32| e.abs() <= 64)?;
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (before, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{before}{fraction}");
    let shift = exponent - i32::try_from(fraction.len()).ok()?;
    if shift >= 0 {
        digits.push_str(&"0".repeat(usize::try_from(shift).ok()?));
    } else {
        let cut = digits.len().checked_sub(usize::try_from(-shift).ok()?)?;
        if digits.split_off(cut).contains(|c| c != '0') {
            return None;
        }
    }
    let digits = digits.trim_start_matches('0');
    Some(if digits.is_empty() { "0".to_owned() } else { format!("{sign}{digits}") })
}
