//! TextVQA accuracy: the soft accuracy of VQA after the normalisation of the M4C evaluator.
//!
//! `accuracy = mean_i min(1, #{j ≠ i : annotator j gave the prediction} / 3)`, i and j over the ten annotators. Before the
//! steps of the VQA evaluator the text goes into lower case, loses `,` and `?`, and `'s` becomes a word of its own; both sides
//! take all steps.
//!
//! Source: Singh et al., *Towards VQA Models That Can Read*, CVPR 2019, and the evaluator of Hu et al., *Iterative Answer
//! Prediction with Pointer-Augmented Multimodal Transformers for TextVQA*, CVPR 2020 (`TextVQAAccuracyEvaluator` of
//! <https://github.com/facebookresearch/mmf>, formerly Pythia), which LLaVA uses too.

use crate::normalise::{without_punctuation, words};
use crate::vqa::leave_one_out;

/// The normal form of an answer in the M4C evaluator; empty if nothing but articles and punctuation was there.
///
/// # Examples
/// ```
/// use fwd_eval::{normalise, normalise_m4c};
/// assert_eq!(normalise_m4c("The dog's 1,000"), "dog 's 1000");
/// assert_eq!(normalise("The dog's 1,000"), "dog's 1000");
/// ```
pub fn normalise_m4c(text: &str) -> String {
    words(&without_punctuation(&first_steps(text)), true)
}

/// Soft accuracy of a prediction, between 0 and 1, from the answers of all annotators, one entry for each.
///
/// As in the official evaluator, all answers of which the normalisation leaves nothing ("A", "the", "?") are equal. It differs in two
/// ways: any number of annotators will do, where the official one insists on ten, and a blank prediction scores 0, where the official one
/// lets it equal those.
///
/// # Examples
/// ```
/// use fwd_eval::text_vqa;
/// let answers = ["stop", "stop", "stop", "Stop.", "halt", "halt", "stop!", "go", "", "the stop"];
/// assert_eq!(text_vqa("STOP", &answers), 1.0);
/// assert!((text_vqa("halt", &answers) - 0.6).abs() < 1e-12);
/// ```
pub fn text_vqa<S: AsRef<str>>(prediction: &str, answers: &[S]) -> f64 {
    if prediction.trim().is_empty() || answers.is_empty() {
        return 0.0;
    }
    let prediction = normalise_m4c(prediction);
    let n_equal = answers.iter().filter(|answer| normalise_m4c(answer.as_ref()) == prediction).count();
    leave_one_out(n_equal, answers.len())
}

fn first_steps(text: &str) -> String {
    text.to_lowercase().replace([',', '?'], "").replace("'s", " 's")
}

#[cfg(test)]
mod tests {
    use super::{normalise_m4c, text_vqa};

    #[test]
    fn the_first_steps_come_first() {
        assert_eq!(normalise_m4c("What's up?"), "what 's up");
        assert_eq!(normalise_m4c("1,5-6"), "15 6"); // no comma between digits is left, so "-" becomes a space
        assert_eq!(normalise_m4c("red,blue"), "redblue");
        assert_eq!(normalise_m4c("Two dont\n"), "2 don't");
    }

    #[test]
    fn nothing_equals_nothing_only_where_something_was_said() {
        assert_eq!(text_vqa("", &[""; 10]), 0.0);
        // The values of `TextVQAAccuracyEvaluator`.
        assert_eq!(text_vqa("the", &["a"; 10]), 1.0);
        assert_eq!(text_vqa("?", &["a"; 10]), 1.0);
        assert_eq!(text_vqa("A", &["a"; 10]), 1.0);
        assert_eq!(text_vqa("a", &[] as &[&str]), 0.0);
    }
}
