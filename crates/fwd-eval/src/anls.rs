//! ANLS, average normalised Levenshtein similarity: answers read from an image, forgiving a few wrong characters.
//!
//! `s = max_r s_r`, `s_r = 1 − NL_r` if `NL_r < τ`, else 0; `NL_r` = edit distance / length of the longer text, τ = 0.5, in lower
//! case with runs of white space as one space.
//!
//! Source: Biten et al., *Scene Text Visual Question Answering*, ICCV 2019, equation 1, and the script of the Robust Reading
//! Competition (PyPI: `anls`), which takes the lengths of the upper-case texts.

/// From this distance on an answer counts as wrong, not as misread.
const THRESHOLD: f64 = 0.5;

/// Similarity of a prediction to the nearest answer, between 0 and 1; a blank prediction scores 0.
///
/// # Examples
/// ```
/// use fwd_eval::anls;
/// assert!((anls("Coca Colla", &["coca cola", "pepsi"]) - 0.9).abs() < 1e-12);
/// assert_eq!(anls("xat", &["cot"]), 0.0);      // two of three characters are wrong
/// ```
pub fn anls<S: AsRef<str>>(prediction: &str, answers: &[S]) -> f64 {
    similarity(prediction, answers, THRESHOLD)
}

/// ANLS with a threshold of one's own.
pub(crate) fn similarity<S: AsRef<str>>(prediction: &str, answers: &[S], threshold: f64) -> f64 {
    let prediction = plain(prediction);
    if prediction.is_empty() {
        return 0.0;
    }
    let similarity = |answer: &S| {
        let answer = plain(answer.as_ref());
        let distance = levenshtein(&prediction, &answer) as f64;
        let normalised = distance / upper_len(&prediction).max(upper_len(&answer)) as f64;
        if normalised < threshold { 1.0 - normalised } else { 0.0 }
    };
    answers.iter().map(similarity).fold(0.0, f64::max)
}

fn plain(text: &str) -> String {
    text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn upper_len(text: &str) -> usize {
    text.to_uppercase().chars().count()
}

fn levenshtein(a: &str, b: &str) -> usize {
    rapidfuzz::distance::levenshtein::distance(a.chars(), b.chars())
}

#[cfg(test)]
mod tests {
    use super::{anls, levenshtein};

    #[test]
    fn distances_of_the_textbook() {
        assert_eq!(levenshtein("kitten", "sitting"), 3);
        assert_eq!(levenshtein("", "abc"), 3);
        assert_eq!(levenshtein("abc", ""), 3);
    }

    #[test]
    fn half_wrong_is_wrong() {
        assert_eq!(anls("ab", &["ac"]), 0.0);
        assert_eq!(anls("", &[""]), 0.0);
        assert_eq!(anls("a", &[] as &[&str]), 0.0);
    }
}
