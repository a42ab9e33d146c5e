//! VQA soft accuracy: an answer is right as far as annotators agree with it.
//!
//! `accuracy = mean_i min(1, #{j ≠ i : annotator j gave the prediction} / 3)`, i and j over the (ten) annotators.
//!
//! Source: Antol et al., *VQA: Visual Question Answering*, ICCV 2015, and its evaluator (<https://visualqa.org/evaluation.html>).
//! The evaluator applies only the punctuation step to the annotators' answers, and not even that where all agree, for the
//! published annotations have been normalised already. Here both sides are normalised, so that answers as they were typed score as
//! they should; on published annotations the two are equal.

use crate::normalise::comparable;

/// Annotators that must agree for a full score.
const AGREEMENT: f64 = 3.0;

/// Soft accuracy of a prediction, between 0 and 1, from the answers of all annotators, one entry for each.
///
/// The measure is meant for ten annotators and computed for any number; as each is left out in turn, full accuracy takes four equal
/// answers, and a lone annotator gives 0.
///
/// # Examples
/// ```
/// use fwd_eval::vqa_soft;
/// let answers = ["red", "red", "red", "pink", "pink", "rose", "rose", "rose", "rose", "rose"];
/// assert_eq!(vqa_soft("Rose", &answers), 1.0);
/// assert!((vqa_soft("red", &answers) - 0.9).abs() < 1e-12);
/// assert!((vqa_soft("pink", &answers) - 0.6).abs() < 1e-12);
/// ```
pub fn vqa_soft<S: AsRef<str>>(prediction: &str, answers: &[S]) -> f64 {
    let prediction = comparable(prediction);
    if prediction.is_empty() || answers.is_empty() {
        return 0.0;
    }
    let n_equal = answers.iter().filter(|answer| comparable(answer.as_ref()) == prediction).count();
    leave_one_out(n_equal, answers.len())
}

/// Mean accuracy over the annotators, each left out in turn, if `n_equal` of `n_answers` (at least one) gave the prediction.
pub(crate) fn leave_one_out(n_equal: usize, n_answers: usize) -> f64 {
    let (n_equal, n_answers) = (n_equal as f64, n_answers as f64);
    let accuracy = |n: f64| (n / AGREEMENT).clamp(0.0, 1.0);
    // Leaving out one who agrees leaves one less; the others change nothing.
    (n_equal * accuracy(n_equal - 1.0) + (n_answers - n_equal) * accuracy(n_equal)) / n_answers
}
