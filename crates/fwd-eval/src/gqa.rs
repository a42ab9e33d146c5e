//! GQA accuracy: the short answer itself, in lower case and without a full stop at the end.
//!
//! `score = 1` if `lower(strip(prediction) without trailing full stops)` is the answer, else 0. No synonyms, no number words, no
//! articles: "the dog" is not "dog".
//!
//! Source: Hudson, Manning, *GQA: A New Dataset for Real-World Visual Reasoning and Compositional Question Answering*, CVPR 2019,
//! whose `eval.py` compares strings; the trimming is that of LLaVA's converter, with which the field's figures were made.

/// 1 if the prediction is one of the answers (GQA has one), else 0; a blank prediction scores 0.
///
/// The answers take the same steps, which change nothing in the published ones.
///
/// # Examples
/// ```
/// use fwd_eval::gqa;
/// assert_eq!(gqa(" Yes.\n", &["yes"]), 1.0);
/// assert_eq!(gqa("the dog", &["dog"]), 0.0);
/// ```
pub fn gqa<S: AsRef<str>>(prediction: &str, answers: &[S]) -> f64 {
    let prediction = plain(prediction);
    let hit = !prediction.is_empty() && answers.iter().any(|answer| plain(answer.as_ref()) == prediction);
    f64::from(u8::from(hit))
}

/// Empty only for a blank text: full stops that are all there is stay.
fn plain(text: &str) -> String {
    let text = text.trim();
    let stem = text.trim_end_matches('.');
    if stem.is_empty() { text.to_owned() } else { stem.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::gqa;

    #[test]
    fn only_full_stops_at_the_end_go() {
        assert_eq!(gqa("Red...", &["red"]), 1.0);
        assert_eq!(gqa("red!", &["red"]), 0.0);
        assert_eq!(gqa("red .", &["red"]), 0.0); // the blank before the full stop stays, as there
        assert_eq!(gqa(".", &[""]), 0.0);
        assert_eq!(gqa(" ", &["", " "]), 0.0);
        assert_eq!(gqa("...", &["..."]), 1.0);
    }
}
