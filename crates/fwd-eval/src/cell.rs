//! What stands in a cell of a table of scores: a number in any usual spelling, the mark of a missing one, what was to be a number, or
//! text.

/// What a cell holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell {
    /// Nothing, or a mark of what is missing: `NA`, `nan`, `None`, `-`.
    Missing,
    /// A finite number.
    Score(Score),
    /// Almost a number: `9O`, `1e`, `85 (3)`, `inf`. Nobody calls a task so.
    NearlyScore,
    /// Anything else, such as the name of a task.
    Text,
}

/// A number and how it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Score {
    pub(crate) value: f64,
    /// Whether a percent sign follows it.
    pub(crate) is_percent: bool,
    /// The mark between whole and fraction, if it has one.
    pub(crate) decimal: Option<char>,
}

/// How tools and people write that there is no number: pandas, NumPy, R, Excel, masked arrays, JSON.
const MISSING: [&str; 14] =
    ["na", "n/a", "nan", "<na>", "null", "none", "-", "–", "—", "--", "---", "#n/a", "nil", "missing"];

impl Cell {
    pub(crate) fn of(text: &str) -> Self {
        let text = text.trim();
        let lower = text.to_lowercase();
        if text.is_empty() || MISSING.contains(&lower.as_str()) {
            return Self::Missing;
        }
        if let Some(score) = score(text) {
            return if score.value.is_finite() { Self::Score(score) } else { Self::NearlyScore };
        }
        let is_infinite = matches!(lower.trim_start_matches(['+', '-']), "inf" | "infinity" | "∞");
        if is_infinite || begins_as_number(text) || has_look_alikes(text) {
            return Self::NearlyScore;
        }
        Self::Text
    }

    pub(crate) fn is_text(text: &str) -> bool {
        Self::of(text) == Self::Text
    }
}

/// A number: `90`, `-8.5`, `.5`, `9e+01`, `8,5`, `90 %`. NaN and infinity are none.
fn score(text: &str) -> Option<Score> {
    let (plain, is_percent) = match text.strip_suffix('%') {
        Some(rest) => (rest.trim_end(), true),
        None => (text, false),
    };
    let mut plain = plain.replace('−', "-");
    let decimal = ['.', ','].into_iter().find(|mark| plain.contains(*mark));
    if decimal == Some(',') {
        // A comma stands between digits, or it separates.
        let (whole, fraction) = plain.split_once(',')?;
        if !whole.ends_with(|c: char| c.is_ascii_digit())
            || !fraction.starts_with(|c: char| c.is_ascii_digit())
        {
            return None;
        }
        plain = plain.replacen(',', ".", 1);
    }
    let is_plain = plain.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    let value = plain.parse().ok().filter(|_| is_plain)?;
    Some(Score { value, is_percent, decimal })
}

/// Whether the first thing that is no mark is a digit.
fn begins_as_number(text: &str) -> bool {
    text.trim_start_matches(|c: char| !c.is_alphanumeric()).starts_with(|c: char| c.is_ascii_digit())
}

/// Whether letters that look like digits make a number of it: `O9`, `l0`.
fn has_look_alikes(text: &str) -> bool {
    let digits: String = text
        .chars()
        .map(|c| {
            if "oO".contains(c) {
                '0'
            } else if "lI".contains(c) {
                '1'
            } else {
                c
            }
        })
        .collect();
    text.contains(|c: char| c.is_ascii_digit()) && score(&digits).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_in_many_spellings() {
        for (text, expected) in [
            ("90", 90.0),
            (" 8.5 ", 8.5),
            ("90.", 90.0),
            (".5", 0.5),
            ("−1", -1.0),
            ("+1", 1.0),
            ("9.0e+01", 90.0),
            ("8,5", 8.5),
            ("90%", 90.0),
            ("90,5 %", 90.5),
        ] {
            assert!(matches!(Cell::of(text), Cell::Score(score) if score.value == expected), "{text}");
        }
        for text in ["", " ", "NA", "nan", "NaN", "None", "null", "-", "–", "--", "<NA>", "N/A"] {
            assert_eq!(Cell::of(text), Cell::Missing, "{text}");
        }
    }

    #[test]
    fn what_is_nearly_a_number_is_no_name() {
        for text in [
            "9O",
            "1e",
            "O9",
            "l0",
            "8,5,1",
            "1.234,5",
            "85 (3)",
            "85±2",
            "~85",
            "**85**",
            "$5",
            "5%%",
            "inf",
            "-inf",
            "1e999",
            "90 points",
            "8 5",
            "90;",
            "(85)",
            "1,",
        ] {
            assert_eq!(Cell::of(text), Cell::NearlyScore, "{text}");
        }
        for text in ["vqa", "task1", "T1", "VQAv2", "after 2", "a,b", "GPT-4o", "i", "OO"] {
            assert_eq!(Cell::of(text), Cell::Text, "{text}");
        }
    }
}
