//! Multiple choice: which of the options A, B, C … a free text names.
//!
//! The rule is in the documentation of [`chosen_option`].
//!
//! Source: the accuracy of Lu et al., *Learn to Explain: Multimodal Reasoning via Thought Chains for Science Question Answering*,
//! NeurIPS 2022. The field's scripts read letters each in their own way and some guess at random where they find none; this rule
//! is the project's own and never guesses.

use crate::normalise::comparable;

/// What may stand in front of the answer, in lower case.
const LEADS: [&str; 6] =
    ["the correct answer is", "correct answer is", "the answer is", "answer is", "answer:", "the answer:"];
/// Characters around a letter that are looked at.
const NEAR: usize = 24;
/// What a letter follows that is meant as the answer.
const CUES: [&str; 6] = ["answer", "answer is", "option", "option is", "choice", "choice is"];

/// The place of the option that the text names, from 0, or none.
///
/// The rule; the first step that applies decides:
///
/// 1. The text is the letter of an option, with marks around it or none: `B`, `b`, `(B)`, `B.`, `**B**`.
/// 2. The text, without "(the) (correct) answer is" or "(the) answer:" in front, equals an option after the VQA evaluator's
///    normalisation. If it equals two, there is no choice.
/// 3. Exactly one letter is marked: in brackets (`(b)`); or a capital with a blank, a quotation mark, `*` or `:` before it that
///    has `.`, `)`, `:` or `,` and the end of the word behind it (`B. the dog`), ends a line (`I think B`), or follows "answer",
///    "option" or "choice", with "is" or without (`the answer is B because …`). The article in `A dog` is not marked.
///
/// Two different marked letters (`(A) (B)`), capitals joined by "or", "and", `/` or `&` (`A or B`), a letter beyond the options and
/// a text without letter or option are no choice. In step 3 the letter counts whatever text follows it. A part of an option's text
/// is not enough.
///
/// # Examples
/// ```
/// use fwd_eval::chosen_option;
/// let options = ["cat", "a dog", "vitamin A"];
/// assert_eq!(chosen_option("(B)", &options), Some(1));
/// assert_eq!(chosen_option("The answer is B, a dog.", &options), Some(1));
/// assert_eq!(chosen_option("vitamin A", &options), Some(2));
/// assert_eq!(chosen_option("A or B.", &options), None);
/// assert_eq!(chosen_option("D", &options), None);
/// ```
pub fn chosen_option<S: AsRef<str>>(prediction: &str, options: &[S]) -> Option<usize> {
    let place = |letter: char| Some(letter as usize - 'A' as usize).filter(|&place| place < options.len());
    if let Some(place) = bare_letter(prediction).and_then(place) {
        return Some(place);
    }
    let text = comparable(without_lead(&prediction.to_lowercase()));
    if !text.is_empty() {
        let mut equal = (0..options.len()).filter(|&i| comparable(options[i].as_ref()) == text);
        if let Some(first) = equal.next() {
            return equal.next().is_none().then_some(first);
        }
    }
    marked_letter(prediction).and_then(place)
}

/// 1 if the prediction names the gold option, else 0; a blank or ambiguous prediction scores 0.
///
/// Each of `answers` is a spelling of the gold option: its letter (`B`, `(B)`, `B. the dog`), its text, or both as two entries. The
/// other options are not known here, so that an option's text counts only if it is among the answers;
/// [`option_answers`](crate::option_answers) adds what the prompt tells.
///
/// # Examples
/// ```
/// use fwd_eval::multiple_choice;
/// for text in ["B", "(B)", "B.", "The answer is B", "b", "B. the dog", "the dog"] {
///     assert_eq!(multiple_choice(text, &["B", "dog"]), 1.0, "{text}");
/// }
/// for text in ["", "A", "A or B.", "cat", "dogs", "Because"] {
///     assert_eq!(multiple_choice(text, &["B", "dog"]), 0.0, "{text}");
/// }
/// ```
pub fn multiple_choice<S: AsRef<str>>(prediction: &str, answers: &[S]) -> f64 {
    let text = comparable(without_lead(&prediction.to_lowercase()));
    let whole = comparable(prediction);
    let letter = bare_letter(prediction).or_else(|| marked_letter(prediction));
    let names = |answer: &S| {
        let answer = answer.as_ref();
        let equal = [&text, &whole].into_iter().any(|text| *text == comparable(answer));
        equal || (letter.is_some() && gold_letter(answer) == letter)
    };
    f64::from(u8::from(!whole.is_empty() && answers.iter().any(names)))
}

/// The letter that is all there is but for marks, as a capital.
fn bare_letter(text: &str) -> Option<char> {
    let core = text.trim_matches(|c: char| !c.is_alphanumeric());
    let mut chars = core.chars();
    let letter = chars.next().filter(char::is_ascii_alphabetic)?;
    chars.next().is_none().then_some(letter.to_ascii_uppercase())
}

/// The letter of an annotation: alone, or in front of the option's text with a mark that parts them.
pub(crate) fn gold_letter(answer: &str) -> Option<char> {
    let chars: Vec<char> = answer.trim().chars().collect();
    bare_letter(answer).or_else(|| match chars.as_slice() {
        ['(' | '[', letter, ')' | ']', ..] if letter.is_ascii_alphabetic() => {
            Some(letter.to_ascii_uppercase())
        }
        [letter, '.' | ')' | ':', after, ..] if letter.is_ascii_uppercase() && after.is_whitespace() => {
            Some(*letter)
        }
        _ => None,
    })
}

/// What follows "the answer is" and the like at the front of a text in lower case, or the text.
fn without_lead(text: &str) -> &str {
    let text = text.trim();
    LEADS
        .iter()
        .find_map(|lead| text.strip_prefix(lead))
        .filter(|rest| !rest.trim().is_empty())
        .unwrap_or(text)
}

/// The one letter that is marked; none if there are two different ones.
fn marked_letter(text: &str) -> Option<char> {
    let chars: Vec<char> = text.trim().chars().collect();
    let mut marked = None;
    if (0..chars.len()).any(|i| joins_another(&chars, i)) {
        return None;
    }
    for i in (0..chars.len()).filter(|&i| is_marked(&chars, i)) {
        let letter = chars[i].to_ascii_uppercase();
        if marked.is_some_and(|other| other != letter) {
            return None;
        }
        marked = Some(letter);
    }
    marked
}

fn is_marked(chars: &[char], i: usize) -> bool {
    let before = i.checked_sub(1).map(|i| chars[i]);
    let after = chars.get(i + 1).copied();
    if !chars[i].is_ascii_alphabetic() {
        return false;
    }
    if matches!(before, Some('(' | '[')) && matches!(after, Some(')' | ']')) {
        return true;
    }
    let opens = before.is_none_or(|c| c.is_whitespace() || matches!(c, '*' | '"' | '\'' | ':'));
    if !chars[i].is_ascii_uppercase() || !opens {
        return false;
    }
    let ends_word = |c: Option<&char>| c.is_none_or(|c| c.is_whitespace() || matches!(c, '*' | '"' | '\''));
    match after {
        None | Some('\n' | '\r') => true,
        Some('.' | ')' | ':' | ',') => ends_word(chars.get(i + 2)),
        Some(c) if c.is_alphanumeric() || matches!(c, '\'' | '’' | '-') => false,
        Some(_) => follows_cue(&chars[..i]),
    }
}

/// Whether the letter at `i` is a capital of its own that "or", "and", "/" or "&" joins to another one: "A or B", "A/B".
fn joins_another(chars: &[char], i: usize) -> bool {
    let alone = i == 0 || !chars[i - 1].is_alphanumeric();
    let rest: String = chars[i + 1..].iter().take(NEAR).collect();
    let parted = rest.starts_with(|c: char| c.is_whitespace() || matches!(c, '/' | '&'));
    let joined = ["or ", "and ", "/", "&"].iter().find_map(|joint| rest.trim_start().strip_prefix(joint));
    let mut after = joined.unwrap_or_default().trim_start().chars();
    let (other, next) = (after.next(), after.next());
    // "B and I think" names one letter.
    let article = matches!(other, Some('A' | 'I')) && next == Some(' ');
    let capital = |c: char| c.is_ascii_uppercase();
    let both = capital(chars[i]) && other.is_some_and(capital) && other != Some(chars[i]);
    alone && parted && both && !article && !next.is_some_and(char::is_alphanumeric)
}

/// Whether the text ends in "answer", "option is" and the like, whatever marks come after.
fn follows_cue(before: &[char]) -> bool {
    let near = &before[before.len().saturating_sub(NEAR)..];
    let before = near.iter().collect::<String>().to_lowercase();
    let before = before.trim_end_matches(|c: char| !c.is_alphanumeric());
    CUES.iter().any(|cue| {
        before.strip_suffix(cue).is_some_and(|rest| !rest.ends_with(|c: char| c.is_alphanumeric()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: [&str; 3] = ["cat", "dog", "U.S. flag"];

    #[test]
    fn letters_in_every_spelling() {
        let spellings = "B|b|(B)|(b)|[B]|B.|B)|B:|**B**|\"B\"|B. dog|(B) dog|B) it is|answer: B|The answer is B|\
            The answer is (B).|The correct answer is B because A dog barks|Option B is right|I think B|It is\nB\nas shown|\
            Answer: **B**|B. cat|B, and I think so";
        for text in spellings.split('|') {
            assert_eq!(chosen_option(text, &OPTIONS), Some(1), "{text}");
        }
    }

    #[test]
    fn texts_of_options() {
        assert_eq!(chosen_option("The dog.", &OPTIONS), Some(1));
        assert_eq!(chosen_option("The answer is the dog", &OPTIONS), Some(1));
        assert_eq!(chosen_option("u.s. Flag", &OPTIONS), Some(2));
        assert_eq!(chosen_option("B", &["B", "A"]), Some(1)); // the letter, not the text
        assert_eq!(chosen_option("dog", &["dog", "a dog"]), None);
    }

    #[test]
    fn what_names_no_option_is_no_choice() {
        let texts = "||  |A or B.|A/B|C and A|B & C are right|(A) (B)|A, B|The answer is B, not A.|D|A horse|hot dog|do|\
            the U.S. team|e|?|A's|B-side|ABC|答";
        for text in texts.split('|') {
            assert_eq!(chosen_option(text, &OPTIONS), None, "{text}");
        }
        assert_eq!(chosen_option("B", &[] as &[&str]), None);
    }

    #[test]
    fn annotations_in_every_spelling() {
        for gold in ["B", "(B)", "B.", "B. dog", "(B) dog", "b"] {
            assert_eq!(multiple_choice("The answer is B.", &[gold]), 1.0, "{gold}");
            assert_eq!(multiple_choice("A", &[gold]), 0.0, "{gold}");
        }
        assert_eq!(multiple_choice("A", &["vitamin A"]), 0.0);
        assert_eq!(multiple_choice("A, C", &["A, C"]), 1.0);
        assert_eq!(multiple_choice(" ", &[" ", ""]), 0.0);
    }
}
