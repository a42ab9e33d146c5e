//! The options of a multiple choice, read out of the prompt: `What is it?\nA. cat\nB. dog\nAnswer with the letter.`
//!
//! Source: the prompts of ScienceQA, ArxivQA and others in CoIN and UCIT. An option begins with `A.`, `A)`, `A:` or `(A)` and
//! something blank, and they follow in the order of the alphabet, one a line or one behind another; the first may stand right behind
//! the question, as in ArxivQA: `Which one?A. cat`.

use crate::choice::{chosen_option, gold_letter};
use crate::normalise::comparable;
use std::ops::Range;

/// The letter of an option with its marks.
struct Marker {
    letter: u8,
    place: Range<usize>,
    begins_line: bool,
}

/// The texts of the options that a prompt lists, that of A first. The result is empty unless the prompt lists two or more.
///
/// Of several lists the longest counts, of equally long ones the last. The last option ends with its line.
///
/// # Examples
/// ```
/// use fwd_eval::listed_options;
/// let prompt = "Which is it?A. a cat\nB. a dog\nAnswer with the option's letter.";
/// assert_eq!(listed_options(prompt), ["a cat", "a dog"]);
/// assert_eq!(listed_options("(A) red (B) vitamin A (C) blue"), ["red", "vitamin A", "blue"]);
/// assert!(listed_options("Is it plan A or plan B?").is_empty());
/// ```
pub fn listed_options(prompt: &str) -> Vec<&str> {
    let (mut best, mut list): (Vec<Marker>, Vec<Marker>) = (Vec::new(), Vec::new());
    for marker in markers(prompt) {
        // Within options of a line each, a letter in mid-line belongs to a text.
        let has_lines = match list.as_slice() {
            [first] => first.begins_line && marker.letter == b'A',
            [_, second, ..] => second.begins_line,
            [] => false,
        };
        if has_lines && !marker.begins_line {
            continue;
        }
        if usize::from(marker.letter - b'A') == list.len() {
            list.push(marker);
        } else if marker.letter == b'A' {
            if list.len() >= best.len() {
                best = std::mem::take(&mut list);
            }
            list = vec![marker];
        }
    }
    if list.len() >= best.len() {
        best = list;
    }
    let ends = best.iter().skip(1).map(|next| next.place.start).chain([prompt.len()]);
    let text = |(marker, end): (&Marker, usize)| {
        prompt[marker.place.end..end].trim_start().lines().next().unwrap_or_default().trim()
    };
    let texts: Vec<&str> = best.iter().zip(ends).map(text).collect();
    if texts.len() < 2 || texts.iter().any(|text| text.is_empty()) { Vec::new() } else { texts }
}

/// The answers, followed by the letter and the text of the option that they name. Letter and text are added only if the prompt lists
/// the options and the answers lack them.
///
/// The text is not added if another option has it too or if it reads as a letter itself: it would not tell which option is meant.
///
/// # Examples
/// ```
/// use fwd_eval::{multiple_choice, option_answers};
/// let answers = option_answers("What?\nA. cat\nB. dog", &["B"]);
/// assert_eq!(answers, ["B", "dog"]);
/// assert_eq!(multiple_choice("a dog", &answers), 1.0);
/// assert_eq!(option_answers("What?\n(A) cat\n(B) dog", &["dog"]), ["dog", "B"]);
/// assert_eq!(option_answers("What?", &["B"]), ["B"]);
/// ```
pub fn option_answers<S: AsRef<str>>(prompt: &str, answers: &[S]) -> Vec<String> {
    let mut all: Vec<String> = answers.iter().map(|answer| answer.as_ref().to_owned()).collect();
    let options = listed_options(prompt);
    let Some(place) = all.iter().find_map(|answer| chosen_option(answer, &options)) else { return all };
    let text = options[place];
    let letter = char::from(b'A' + place as u8).to_string();
    let has =
        |all: &[String], wanted: &str| all.iter().any(|answer| comparable(answer) == comparable(wanted));
    if !all.iter().any(|answer| gold_letter(answer).is_some_and(|gold| letter.starts_with(gold))) {
        all.push(letter);
    }
    let n_equal = options.iter().filter(|option| comparable(option) == comparable(text)).count();
    if n_equal == 1 && gold_letter(text).is_none() && !comparable(text).is_empty() && !has(&all, text) {
        all.push(text.to_owned());
    }
    all
}

/// The markers of options, in the order of the text.
fn markers(text: &str) -> impl Iterator<Item = Marker> + '_ {
    let bytes = text.as_bytes();
    (0..bytes.len()).filter_map(move |at| {
        let letter = bytes[at];
        if !letter.is_ascii_uppercase() {
            return None;
        }
        let before = text[..at].chars().next_back();
        let is_bracketed = before == Some('(') && bytes.get(at + 1) == Some(&b')');
        let is_marked = matches!(bytes.get(at + 1), Some(b'.' | b')' | b':'))
            && text[at + 2..].chars().next().is_some_and(char::is_whitespace);
        // The first option may stand right behind the question.
        let is_free = before.is_none_or(|c| c.is_whitespace() || letter == b'A' && "?.:!\"".contains(c));
        if !(is_bracketed || is_marked && is_free) {
            return None;
        }
        let start = at - usize::from(is_bracketed);
        let before = text[..start].trim_end_matches([' ', '\t']);
        let begins_line = before.is_empty() || before.ends_with('\n');
        Some(Marker { letter, place: start..at + 2, begins_line })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_as_the_benchmarks_have_them() {
        for (prompt, options) in [
            ("Which?\nA. a cat\nB. a dog\n", &["a cat", "a dog"][..]),
            (
                "What peaks?A) 15 arcsec\nB) 20 arcsec\nC) 25 arcsec\n-\nRationale:B. is it.",
                &["15 arcsec", "20 arcsec", "25 arcsec"],
            ),
            ("Context: N/A\nChoices: (A) x (B) y z (C) w\nAnswer with", &["x", "y z", "w"]),
            ("A: one\r\nB: two\r\n", &["one", "two"]),
            // A list in the question, another one behind it.
            ("Say A. or B. now.\nA. left\nB. right", &["left", "right"]),
            ("A. vitamin A. C\nB. vitamin B. D\nC. none", &["vitamin A. C", "vitamin B. D", "none"]),
            ("Ü?A. ä\nB. ö", &["ä", "ö"]),
        ] {
            assert_eq!(listed_options(prompt), options, "{prompt}");
        }
        for prompt in [
            "",
            "A. only one",
            "A.cat B.dog",
            "B. first\nA. second",
            "Mr. A. and Mrs. B",
            "A. \nB. dog",
            "USA. B. x",
        ] {
            assert!(listed_options(prompt).is_empty(), "{prompt}: {:?}", listed_options(prompt));
        }
    }

    #[test]
    fn letter_and_text_belong_together() {
        let prompt = "Which?\nA. B\nB. A dog\nC. cat\nD. Cat";
        for (answer, expected) in [
            // "B" reads as the other option's letter, and two options say "cat".
            ("A", &["A"][..]),
            ("C", &["C"]),
            ("B", &["B", "A dog"]),
            ("(B) A dog", &["(B) A dog", "A dog"]),
            ("a dog", &["a dog", "B"]),
            ("horse", &["horse"]),
        ] {
            assert_eq!(option_answers(prompt, &[answer]), expected, "{answer}");
        }
    }
}
