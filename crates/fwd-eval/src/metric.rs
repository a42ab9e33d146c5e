//! The measures by name, one sample or a whole corpus at a time, and their mean over the annotations.

use crate::anls::anls;
use crate::bleu::{bleu, caption_bleu};
use crate::choice::multiple_choice;
use crate::cider::cider_d;
use crate::corpus::{check_corpus, tokenise_all};
use crate::error::{EvalError, Result};
use crate::exact::exact_match;
use crate::gqa::gqa;
use crate::grounding::grounding;
use crate::rouge::rouge_l;
use crate::textvqa::text_vqa;
use crate::tokenise::tokenise;
use crate::vqa::vqa_soft;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A measure of predictions against answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Equal to one of the answers after normalisation: [`exact_match`].
    Exact,
    /// VQA accuracy over ten annotators: [`vqa_soft`].
    VqaSoft,
    /// The same with the M4C evaluator's normalisation: [`text_vqa`].
    TextVqa,
    /// The letter or the text of the right option: [`multiple_choice`].
    MultipleChoice,
    /// The short answer itself: [`gqa()`].
    Gqa,
    /// A box that overlaps the gold box by half or more, both in one unit: [`grounding()`].
    Grounding,
    /// Words in common with the references: [`bleu()`].
    Bleu1,
    /// N-grams up to bigrams in common with the references: [`bleu()`].
    Bleu2,
    /// N-grams up to three words: [`bleu()`].
    Bleu3,
    /// N-grams up to four words: [`bleu()`].
    Bleu4,
    /// Longest common subsequence with the references: [`rouge_l`].
    RougeL,
    /// Weighted n-grams in common with the references, 0 to 10, for a whole corpus only: [`cider_d`].
    CiderD,
    /// Normalised edit distance to the nearest answer: [`anls()`].
    Anls,
}

impl Metric {
    /// The number of right answers that each scored record must have; none if any number will do.
    pub fn answers_due(self) -> Option<usize> {
        matches!(self, Self::VqaSoft | Self::TextVqa).then_some(10)
    }

    /// Whether the metric scores captions: sentences that may differ in their words and still be right.
    pub fn is_of_captions(self) -> bool {
        use Metric::{Bleu1, Bleu2, Bleu3, Bleu4, CiderD, RougeL};
        matches!(self, Bleu1 | Bleu2 | Bleu3 | Bleu4 | RougeL | CiderD)
    }

    /// n − 1 for BLEU-n.
    fn bleu_place(self) -> Option<usize> {
        [Self::Bleu1, Self::Bleu2, Self::Bleu3, Self::Bleu4].iter().position(|metric| *metric == self)
    }
}

/// The name in the field.
impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact match",
            Self::VqaSoft => "VQA accuracy",
            Self::TextVqa => "TextVQA accuracy",
            Self::MultipleChoice => "multiple choice",
            Self::Gqa => "GQA accuracy",
            Self::Grounding => "IoU ≥ 0.5",
            Self::Bleu1 => "BLEU-1",
            Self::Bleu2 => "BLEU-2",
            Self::Bleu3 => "BLEU-3",
            Self::Bleu4 => "BLEU-4",
            Self::RougeL => "ROUGE-L",
            Self::CiderD => "CIDEr-D",
            Self::Anls => "ANLS",
        })
    }
}

/// The score of one prediction, between 0 and 1; 0 for an empty one.
///
/// For [`Metric::CiderD`] the result is NaN, because a sample has no CIDEr-D outside of its corpus: [`score_all`] computes it.
/// [`mean_percent`] refuses NaN.
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
        Metric::TextVqa => text_vqa(prediction, answers),
        Metric::MultipleChoice => multiple_choice(prediction, answers),
        Metric::Gqa => gqa(prediction, answers),
        Metric::Grounding => grounding(prediction, answers),
        Metric::Bleu1 | Metric::Bleu2 | Metric::Bleu3 | Metric::Bleu4 => {
            let scores = caption_bleu(&tokenise(prediction), &tokenise_all(answers));
            metric.bleu_place().map_or(f64::NAN, |place| scores[place])
        }
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
    check_corpus(predictions, answers)?;
    if metric == Metric::CiderD {
        let references: Vec<_> = answers.iter().map(|answers| tokenise_all(answers)).collect();
        return cider_d(&tokenise_all(predictions), &references);
    }
    Ok(predictions.iter().zip(answers).map(|(p, answers)| score(metric, p.as_ref(), answers)).collect())
}

/// The figure of a corpus in percent: the mean of [`score_all`] times 100. For BLEU it is the BLEU of the whole corpus, which is not
/// the mean over its captions. CIDEr-D reaches 1000. A missing prediction is an empty one.
///
/// # Errors
/// Those of [`score_all`], and [`EvalError::NoAnnotations`].
///
/// # Examples
/// ```
/// use fwd_eval::{Metric, corpus_percent};
/// let answers = [vec!["yes"], vec!["two", "2"]];
/// assert_eq!(corpus_percent(Metric::Gqa, &["Yes.", ""], &answers)?, 50.0);
/// # Ok::<(), fwd_eval::EvalError>(())
/// ```
pub fn corpus_percent<P: AsRef<str>, S: AsRef<str>>(
    metric: Metric,
    predictions: &[P],
    answers: &[Vec<S>],
) -> Result<f64> {
    if let Some(place) = metric.bleu_place().filter(|_| !answers.is_empty()) {
        check_corpus(predictions, answers)?;
        let references: Vec<_> = answers.iter().map(|answers| tokenise_all(answers)).collect();
        return Ok(100.0 * bleu(&tokenise_all(predictions), &references)?.corpus[place]);
    }
    mean_percent(&score_all(metric, predictions, answers)?, answers.len())
}

/// The mean score over all annotations, times 100; a sample without a score counts as 0.
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
    fn bleu_of_a_corpus_is_no_mean() {
        let answers = [vec!["a dog"], vec!["b c d e f g"]];
        let percent = corpus_percent(Metric::Bleu1, &["a dog", "x c d e f g"], &answers).unwrap();
        assert!((percent - 87.5).abs() < 1e-6);
        let none: &[Vec<&str>] = &[];
        assert_eq!(corpus_percent(Metric::Bleu4, &[] as &[&str], none), Err(EvalError::NoAnnotations));
    }

    #[test]
    fn names_are_what_they_were_and_stay() {
        let names = [Metric::VqaSoft, Metric::TextVqa, Metric::Bleu4, Metric::MultipleChoice, Metric::CiderD];
        let json = serde_json::to_string(&names).unwrap();
        assert_eq!(json, r#"["vqa-soft","text-vqa","bleu4","multiple-choice","cider-d"]"#);
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
