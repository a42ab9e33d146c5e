//! How the VQA evaluator makes two spellings of one answer equal: punctuation goes, number words become digits, articles are
//! dropped, contractions get their apostrophe back, all in lower case.
//!
//! Source: the rules and tables of the official evaluator, `vqaEval.py` of <https://github.com/GT-Vision-Lab/VQA> (Antol et al.,
//! *VQA: Visual Question Answering*, ICCV 2015; <https://visualqa.org/evaluation.html>).

use std::collections::HashMap;
use std::iter::once;
use std::sync::LazyLock;

/// Punctuation that is removed or becomes a space. The apostrophe, the colon and the full stop are not among it.
const PUNCTUATION: &str = ";/[]\"{}()=+\\_-><@`,?!";

/// The evaluator removes no more full stops than this from one answer (it passes a flag of that value as the count).
const MAX_FULL_STOPS: usize = 32;

const ARTICLES: [&str; 3] = ["a", "an", "the"];

/// Words for numbers; "none" counts as one.
const NUMBERS: [(&str, &str); 12] = [
    ("none", "0"),
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
];

/// Contractions that are recognised with one apostrophe missing.
const CONTRACTIONS: &str = "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't \
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't \
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll \
    somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've \
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's \
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't \
    wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've";

/// The normal form of an answer; empty if nothing but articles and punctuation was there.
///
/// Digits are the ASCII ones.
///
/// # Examples
/// ```
/// use fwd_eval::normalise;
/// assert_eq!(normalise("The two dogs, dont bark!"), "2 dogs don't bark");
/// assert_eq!(normalise("black-white"), "black white");
/// assert_eq!(normalise("1,000.50"), "1000.50");
/// ```
pub fn normalise(text: &str) -> String {
    words(&without_punctuation(text), true)
}

/// The normal form for comparing: as [`normalise`], but an answer of which nothing would be left (the choice "A", the sign "?")
/// keeps its articles or, if there are none, stays as it is. Empty only for a blank text.
pub(crate) fn comparable(text: &str) -> String {
    let plain = without_punctuation(text);
    let steps = [words(&plain, true), words(&plain, false), text.trim().to_lowercase()];
    steps.into_iter().find(|step| !step.is_empty()).unwrap_or_default()
}

/// The step [`punctuation_step`] on a text in one line, without blanks at its ends.
pub(crate) fn without_punctuation(text: &str) -> String {
    punctuation_step(&text.trim().replace(['\n', '\t'], " "))
}

/// Removes a mark if it stands beside a space anywhere in the text, or if the text has a comma between digits ("1,000");
/// otherwise the mark becomes a space. Then full stops go, except before a digit.
pub(crate) fn punctuation_step(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let digit_comma = chars.windows(3).any(|w| w[0].is_ascii_digit() && w[1] == ',' && w[2].is_ascii_digit());
    let beside_space =
        |mark: char| chars.windows(2).any(|w| (w[0] == mark && w[1] == ' ') || (w[0] == ' ' && w[1] == mark));
    let removed: Vec<char> = PUNCTUATION.chars().filter(|&mark| digit_comma || beside_space(mark)).collect();
    let marks_done: Vec<char> = chars
        .into_iter()
        .filter(|c| !removed.contains(c))
        .map(|c| if PUNCTUATION.contains(c) { ' ' } else { c })
        .collect();
    let mut full_stops = 0;
    let next = marks_done.iter().skip(1).map(Some).chain(once(None));
    let kept = marks_done.iter().zip(next).filter(|&(&c, next)| {
        let goes = c == '.' && !next.is_some_and(char::is_ascii_digit) && full_stops < MAX_FULL_STOPS;
        full_stops += usize::from(goes);
        !goes
    });
    kept.map(|(&c, _)| c).collect()
}

/// Lower case, digits for number words, no articles (if asked), apostrophes, single spaces.
pub(crate) fn words(text: &str, drop_articles: bool) -> String {
    let text = text.to_lowercase();
    let words = text
        .split_whitespace()
        .map(|word| NUMBERS.iter().find(|(name, _)| *name == word).map_or(word, |(_, digits)| digits))
        .filter(|word| !(drop_articles && ARTICLES.contains(word)))
        .map(with_apostrophe);
    words.collect::<Vec<_>>().join(" ")
}

/// The contractions by what they are without one of their apostrophes; the first one in the table counts.
static WITHOUT_APOSTROPHE: LazyLock<HashMap<String, &str>> = LazyLock::new(|| {
    let mut all = HashMap::new();
    for full in CONTRACTIONS.split_whitespace() {
        for (i, _) in full.match_indices('\'') {
            all.entry([&full[..i], &full[i + 1..]].concat()).or_insert(full);
        }
    }
    all
});

/// The contraction that the word is but for one apostrophe, or the word itself.
fn with_apostrophe(word: &str) -> &str {
    // The one entry of the official table that takes an apostrophe away.
    if word == "somebody'd" {
        return "somebodyd";
    }
    WITHOUT_APOSTROPHE.get(word).copied().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::{comparable, normalise};

    #[test]
    fn marks_go_or_become_spaces() {
        assert_eq!(normalise("red/white"), "red white");
        assert_eq!(normalise("red / white"), "red white");
        assert_eq!(normalise("in (red) park"), "in red park"); // "(" touches a space and goes, so does ")"
        assert_eq!(normalise("a-b 1,000-d"), "ab 1000d"); // a comma between digits removes every mark
        assert_eq!(normalise("4.5 p.m."), "4.5 pm");
        assert_eq!(normalise("1:30\n"), "1:30");
        assert_eq!(normalise(&".".repeat(40)), ".".repeat(8));
    }

    #[test]
    fn words_are_mapped() {
        assert_eq!(normalise("None"), "0");
        assert_eq!(normalise("couldn'tve"), "couldn't've");
        assert_eq!(normalise("couldntve"), "couldntve"); // two are missing: not in the table
        assert_eq!(normalise("somebody'd"), "somebodyd");
        assert_eq!(normalise("The"), "");
    }

    #[test]
    fn an_answer_is_never_compared_as_nothing() {
        assert_eq!(comparable("A."), "a");
        assert_eq!(comparable("a"), "a");
        assert_eq!(comparable(" ? "), "?");
        assert_eq!(comparable("The dog"), "dog");
        assert_eq!(comparable(" \n"), "");
    }
}
