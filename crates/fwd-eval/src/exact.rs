//! Exact match: 1 if the prediction equals one of the answers after normalisation, else 0.
//!
//! The normalisation is the VQA evaluator's (see [`normalise`](crate::normalise())). Some scorers look for the
//! prediction inside of the answer; here a part of an answer does not count, and neither does an empty prediction.

use crate::normalise::comparable;

/// 1 if the prediction equals one of the answers after normalisation, else 0; a blank prediction scores 0.
///
/// An answer of which the normalisation leaves nothing (the choice "A") is compared with its articles.
///
/// # Examples
/// ```
/// use fwd_eval::exact_match;
/// assert_eq!(exact_match("A dog.", &["cat", "Dog"]), 1.0);
/// assert_eq!(exact_match("e", &["elephant"]), 0.0);
/// ```
pub fn exact_match<S: AsRef<str>>(prediction: &str, answers: &[S]) -> f64 {
    let prediction = comparable(prediction);
    let hit =
        !prediction.is_empty() && answers.iter().any(|answer| comparable(answer.as_ref()) == prediction);
    f64::from(u8::from(hit))
}

#[cfg(test)]
mod tests {
    use super::exact_match;

    #[test]
    fn nothing_equals_nothing_only_where_something_was_said() {
        assert_eq!(exact_match("", &["n03124170", ""]), 0.0);
        assert_eq!(exact_match("the", &["A"]), 0.0);
        assert_eq!(exact_match("A.", &["A"]), 1.0);
        assert_eq!(exact_match("!", &["?"]), 0.0);
    }
}
