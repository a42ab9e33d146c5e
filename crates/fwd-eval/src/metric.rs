//! The measures by name, one sample or a whole corpus at a time, and their mean over the annotations.

use crate::error::{EvalError, Result};
use crate::{anls, cider_d, exact_match, rouge_l, tokenise, vqa_soft};
use serde::{Deserialize, Serialize};

/// A measure of predictions against answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Equal to one of the answers after normalisation: [`exact_match`].
    Exact,
    /// VQA accuracy over ten annotators: [`vqa_soft`].
    VqaSoft,
    /// Longest common subsequence with the references: [`rouge_l`].
    RougeL,
    /// Weighted n-grams in common with the references, 0 to 10, for a whole corpus only: [`cider_d`].
    CiderD,
    /// Normalised edit distance to the nearest answer: [`anls()`].
    Anls,
}

/// The score of one prediction, between 0 and 1; 0 for an empty one.
///
/// NaN for [`Metric::CiderD`], which no sample has outside its corpus: [`score_all`] computes it, and [`mean_percent`] refuses NaN.
///
/// # Examples
/// ```
/// use fwd_eval::{Metric, score};
/// assert_eq!(score(Metric::RougeL, "A man's dog.", &["a man 's dog"]), 1.0);
/// assert_eq!(score(Metric::Anls, "", &["stop"]), 0.0);
/// ```
pub fn score<S: AsRef<str>>(metric: Metric, prediction: &str, answers: &[S]) -> f64 {
    match metric {
        Metric::Exact => exact_match(prediction, answers),
        Metric::VqaSoft => vqa_soft(prediction, answers),
        Metric::RougeL => rouge_l(&tokenise(prediction), &tokenise_all(answers)),
        Metric::CiderD => f64::NAN,
        Metric::Anls => anls(prediction, answers),
    }
}

/// The scores of a corpus, one for each sample: between 0 and 1, for [`Metric::CiderD`] between 0 and 10. A missing prediction is
/// an empty one.
///
/// # Errors
/// [`EvalError::LengthMismatch`] unless there is a prediction for each sample, [`EvalError::NoAnswer`] naming a sample without
/// answers.
///
/// # Examples
/// ```
/// use fwd_eval::{Metric, score_all};
/// let answers = [vec!["yes"], vec!["two", "2"]];
/// assert_eq!(score_all(Metric::Exact, &["Yes.", "3"], &answers)?, [1.0, 0.0]);
/// # Ok::<(), fwd_eval::EvalError>(())
/// ```
pub fn score_all<P: AsRef<str>, S: AsRef<str>>(
    metric: Metric,
    predictions: &[P],
    answers: &[Vec<S>],
) -> Result<Vec<f64>> {
    if predictions.len() != answers.len() {
        return Err(EvalError::LengthMismatch { predictions: predictions.len(), annotations: answers.len() });
    }
    if let Some(sample) = answers.iter().position(Vec::is_empty) {
        return Err(EvalError::NoAnswer { sample });
    }
    if metric == Metric::CiderD {
        let references: Vec<_> = answers.iter().map(|answers| tokenise_all(answers)).collect();
        return cider_d(&tokenise_all(predictions), &references);
    }
    Ok(predictions.iter().zip(answers).map(|(p, answers)| score(metric, p.as_ref(), answers)).collect())
}

/// The mean score times 100, over all annotations: a sample without a score counts as 0.
///
/// # Errors
/// [`EvalError::NoAnnotations`], [`EvalError::TooManyScores`], [`EvalError::NotFinite`] naming the sample.
///
/// # Examples
/// ```
/// assert_eq!(fwd_eval::mean_percent(&[1.0], 4)?, 25.0);
/// # Ok::<(), fwd_eval::EvalError>(())
/// ```
pub fn mean_percent(scores: &[f64], n_annotations: usize) -> Result<f64> {
    if n_annotations == 0 {
        return Err(EvalError::NoAnnotations);
    }
    if scores.len() > n_annotations {
        return Err(EvalError::TooManyScores { scores: scores.len(), annotations: n_annotations });
    }
    if let Some(sample) = scores.iter().position(|score| !score.is_finite()) {
        return Err(EvalError::NotFinite { sample });
    }
    Ok(100.0 * scores.iter().sum::<f64>() / n_annotations as f64)
}

fn tokenise_all<S: AsRef<str>>(texts: &[S]) -> Vec<Vec<String>> {
    texts.iter().map(|text| tokenise(text.as_ref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_denominator_is_the_annotations() {
        assert_eq!(mean_percent(&[], 2), Ok(0.0));
        assert_eq!(mean_percent(&[1.0, 0.5], 2), Ok(75.0));
        assert_eq!(mean_percent(&[], 0), Err(EvalError::NoAnnotations));
        assert_eq!(mean_percent(&[1.0, 1.0], 1), Err(EvalError::TooManyScores { scores: 2, annotations: 1 }));
        let alone = score(Metric::CiderD, "a dog", &["a dog"]);
        assert_eq!(mean_percent(&[1.0, alone], 2), Err(EvalError::NotFinite { sample: 1 }));
    }

    #[test]
    fn a_corpus_that_does_not_fit_is_an_error() {
        assert!(matches!(
            score_all(Metric::Exact, &["a"], &[vec!["a"], vec!["b"]]),
            Err(EvalError::LengthMismatch { predictions: 1, annotations: 2 })
        ));
        let none: Vec<&str> = Vec::new();
        assert_eq!(score_all(Metric::Anls, &["a"], &[none]), Err(EvalError::NoAnswer { sample: 0 }));
    }
}
