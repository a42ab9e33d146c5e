//! VQA soft accuracy: an answer is right as far as annotators agree with it.
//!
//! `accuracy = mean_i min(1, #{j ≠ i : annotator j gave the prediction} / 3)`, i and j over the (ten) annotators.
//!
//! Source: Antol et al., *VQA: Visual Question Answering*, ICCV 2015, and its evaluator (<https://visualqa.org/evaluation.html>).
//! As there, the prediction takes all steps of the normalisation and an annotator's answer the punctuation step alone, and not even that
//! where all annotators agree, for the published annotations have been normalised already. So a published answer that is no normal form
//! ("two", "a", "Stop", "answering does not require reading text in the image") is out of reach for every prediction. The
//! evaluator on GitHub is followed as it stood in 2019 (`PythonEvaluationTools/vqaEvaluation/vqaEval.py`); VizWiz uses the same.

use crate::normalise::{normalise, punctuation_step};

/// Annotators that must agree for a full score.
const AGREEMENT: f64 = 3.0;

/// Soft accuracy of a prediction, between 0 and 1, from the answers of all annotators, one entry for each.
///
/// The measure is meant for ten annotators and computed for any number; as each is left out in turn, full accuracy takes four equal
/// answers, and a lone annotator gives 0. A blank prediction scores 0; in the official evaluator it equals a blank annotation.
///
/// # Examples
/// ```
/// use fwd_eval::vqa_soft;
/// let answers = ["red", "red", "red", "pink", "pink", "rose", "rose", "rose", "rose", "rose"];
/// assert_eq!(vqa_soft("Rose", &answers), 1.0);
/// assert!((vqa_soft("red", &answers) - 0.9).abs() < 1e-12);
/// assert!((vqa_soft("pink", &answers) - 0.6).abs() < 1e-12);
/// // The prediction becomes "2", the annotations stay.
/// assert_eq!(vqa_soft("two", &["two"; 10]), 0.0);
/// ```
pub fn vqa_soft<S: AsRef<str>>(prediction: &str, answers: &[S]) -> f64 {
    let Some(first) = answers.first().filter(|_| !prediction.trim().is_empty()) else { return 0.0 };
    let prediction = normalise(prediction);
    let n_equal = if answers.iter().all(|answer| answer.as_ref() == first.as_ref()) {
        if first.as_ref() == prediction { answers.len() } else { 0 }
    } else {
        answers.iter().filter(|answer| punctuation_step(answer.as_ref()) == prediction).count()
    };
    leave_one_out(n_equal, answers.len())
}

/// Mean accuracy over the annotators, each left out in turn, if `n_equal` of `n_answers` (at least one) gave the prediction.
pub(crate) fn leave_one_out(n_equal: usize, n_answers: usize) -> f64 {
    let (n_equal, n_answers) = (n_equal as f64, n_answers as f64);
    let accuracy = |n: f64| (n / AGREEMENT).clamp(0.0, 1.0);
    // Leaving out one who agrees leaves one less; the others change nothing.
    (n_equal * accuracy(n_equal - 1.0) + (n_answers - n_equal) * accuracy(n_equal)) / n_answers
}

#[cfg(test)]
mod tests {
    use super::vqa_soft;

    /// The values are those of `vqaEval.py`.
    #[test]
    fn annotations_that_are_no_normal_form_score_as_in_the_official_evaluator() {
        let both = |a: &'static str, n: usize, b: &'static str| [vec![a; n], vec![b; 10 - n]].concat();
        let reading = "answering does not require reading text in the image";
        for (prediction, answers, expected) in [
            ("a", vec!["a"; 10], 0.0),
            ("A", vec!["a"; 10], 0.0),
            ("the", vec!["the"; 10], 0.0),
            ("?", vec!["?"; 10], 0.0),
            ("two", vec!["two"; 10], 0.0),
            ("Stop", vec!["Stop"; 10], 0.0),
            ("t-shirt", vec!["t-shirt"; 10], 0.0),
            (reading, vec![reading; 10], 0.0),
            ("yes", vec!["yes"; 10], 1.0),
            ("none", both("none", 5, "0"), 1.0),
            ("t-shirt", both("t-shirt", 9, "tshirt"), 1.0),
            ("red,blue", both("red,blue", 5, "red blue"), 1.0),
            ("", vec![""; 10], 0.0),
            ("yes", vec![], 0.0),
        ] {
            assert_eq!(vqa_soft(prediction, &answers), expected, "{prediction} {answers:?}");
        }
    }
}
