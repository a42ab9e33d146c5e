//! Figures as other code bases compute them, beside the right ones, so that numbers in the literature can be told apart.
//!
//! Deviations from the official scorers that were found in Prism (LAMDA-CL) and MCITlib by running and reading them:
//!
//! 1. on ImageNet a prediction counts as right if it is a part of the answer or the answer a part of it, so that an empty one, or
//!    "e", is right;
//! 2. the mean is over the predictions there are, not over the annotations: one right answer to four questions is 100 %;
//! 3. ANLS has no threshold: "xat" for "cot" gives 1/3 in place of 0;
//! 4. VQAv2 and VizWiz are scored by exact match with one answer in place of soft accuracy over ten, as all of UCIT's, TriGap's and
//!    MLLM-DCL's short answers are, without any normalisation but that of case;
//! 5. ScienceQA knows three spellings of a letter only.
//!
//! Source: `backbone/shared/eval` of Prism, as its release for CRAM (Tang et al., EMNLP 2026) has it, and `llava/eval` of MCITlib and
//! CoIN. None of their code is here.

use crate::anls::similarity;
use crate::corpus::check_corpus;
use crate::error::{EvalError, Result};
use crate::metric::{Metric, corpus_percent, mean_percent};
use serde::Serialize;
use std::fmt::{self, Display};

/// How a peer scores a prediction. The mean is over the predictions there are, except for [`PeerRule::Letter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerRule {
    /// The metric's own score: only the denominator is wrong.
    OverPredictions,
    /// 1 if the prediction is a part of the first answer, or the other way round: [`substring`].
    Substring,
    /// ANLS that forgives any number of wrong characters: [`anls_without_threshold`].
    AnlsWithoutThreshold,
    /// 1 if the prediction is the first answer: [`exact_first`].
    ExactFirst,
    /// 1 if the prediction spells the letter that the first answer is, over all annotations: [`letter`].
    Letter,
}

impl PeerRule {
    /// The rule by which Prism and MCITlib score a task of this name, whose right metric is `metric`.
    ///
    /// # Examples
    /// ```
    /// use fwd_eval::{Metric, peer_compat::PeerRule};
    /// assert_eq!(PeerRule::of("imagenet", Metric::Exact), PeerRule::Substring);
    /// assert_eq!(PeerRule::of("arxivqa", Metric::MultipleChoice), PeerRule::ExactFirst);
    /// assert_eq!(PeerRule::of("gqa", Metric::Gqa), PeerRule::OverPredictions);
    /// ```
    pub fn of(task: &str, metric: Metric) -> Self {
        match (task.to_ascii_lowercase().as_str(), metric) {
            ("imagenet", _) => Self::Substring,
            ("scienceqa", _) => Self::Letter,
            (_, Metric::Anls) => Self::AnlsWithoutThreshold,
            (_, Metric::Exact | Metric::VqaSoft | Metric::MultipleChoice) => Self::ExactFirst,
            _ => Self::OverPredictions,
        }
    }
}

impl Display for PeerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OverPredictions => "mean over the predictions",
            Self::Substring => "part of the answer, mean over the predictions",
            Self::AnlsWithoutThreshold => "ANLS without threshold, mean over the predictions",
            Self::ExactFirst => "exact match with one answer, mean over the predictions",
            Self::Letter => "one of three spellings of a letter",
        })
    }
}

/// A corpus scored both ways, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Comparison {
    /// The right figure, over the annotations.
    pub ours: f64,
    /// The peer's figure; none if there are no predictions.
    pub peer: Option<f64>,
}

impl Comparison {
    /// By how many points the peer's figure is too high.
    pub fn difference(self) -> Option<f64> {
        self.peer.map(|peer| peer - self.ours)
    }
}

impl Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "{:.2}, peer {peer:.2} ({:+.2})", self.ours, peer - self.ours),
            None => write!(f, "{:.2}, peer none", self.ours),
        }
    }
}

/// Scores a corpus by `metric`, and again as a peer does. `predictions` has one entry for each sample, none if it was not answered.
///
/// # Errors
/// Those of [`corpus_percent`].
///
/// # Examples
/// ```
/// use fwd_eval::Metric;
/// use fwd_eval::peer_compat::{PeerRule, compare};
/// let answers = [vec!["n01 cat"], vec!["n02 dog"], vec!["n03 bus"], vec!["n04 elephant"]];
/// // One empty answer to four questions.
/// let both = compare(Metric::Exact, PeerRule::Substring, &[Some(""), None, None, None], &answers)?;
/// assert_eq!((both.ours, both.peer, both.difference()), (0.0, Some(100.0), Some(100.0)));
/// assert_eq!(both.to_string(), "0.00, peer 100.00 (+100.00)");
/// # Ok::<(), fwd_eval::EvalError>(())
/// ```
pub fn compare<P: AsRef<str>, S: AsRef<str>>(
    metric: Metric,
    rule: PeerRule,
    predictions: &[Option<P>],
    answers: &[Vec<S>],
) -> Result<Comparison> {
    check_corpus(predictions, answers)?;
    let texts: Vec<&str> = predictions.iter().map(|text| text.as_ref().map_or("", AsRef::as_ref)).collect();
    let ours = corpus_percent(metric, &texts, answers)?;
    let (answered, their_answers): (Vec<&str>, Vec<Vec<&str>>) = predictions
        .iter()
        .zip(answers)
        .filter_map(|(text, answers)| {
            Some((text.as_ref()?.as_ref(), answers.iter().map(AsRef::as_ref).collect()))
        })
        .unzip();
    let n_annotations = if rule == PeerRule::Letter { answers.len() } else { answered.len() };
    let peer = match peer_percent(metric, rule, (&answered, &their_answers), n_annotations) {
        Err(EvalError::NoAnnotations) => None,
        other => Some(other?),
    };
    Ok(Comparison { ours, peer })
}

fn peer_percent(
    metric: Metric,
    rule: PeerRule,
    (predictions, answers): (&[&str], &[Vec<&str>]),
    n_annotations: usize,
) -> Result<f64> {
    let score = |(text, answers): (&&str, &Vec<&str>)| match rule {
        PeerRule::OverPredictions => None,
        PeerRule::Substring => Some(substring(text, answers)),
        PeerRule::AnlsWithoutThreshold => Some(anls_without_threshold(text, answers)),
        PeerRule::ExactFirst => Some(exact_first(text, answers)),
        PeerRule::Letter => Some(letter(text, answers)),
    };
    match predictions.iter().zip(answers).map(score).collect::<Option<Vec<f64>>>() {
        Some(scores) => mean_percent(&scores, n_annotations),
        None => corpus_percent(metric, predictions, answers),
    }
}

/// 1 if the prediction is a part of the first answer or the answer a part of it, without any normalisation. An empty prediction always
/// scores 1.
///
/// # Examples
/// ```
/// use fwd_eval::peer_compat::substring;
/// assert_eq!(substring("", &["elephant"]), 1.0);
/// assert_eq!(substring("e", &["elephant"]), 1.0);
/// assert_eq!(substring("elephants or cats", &["elephant"]), 1.0);
/// assert_eq!(substring("Elephant", &["elephant"]), 0.0);
/// ```
pub fn substring<S: AsRef<str>>(prediction: &str, answers: &[S]) -> f64 {
    let is_part = |answer: &str| answer.contains(prediction) || prediction.contains(answer);
    f64::from(u8::from(answers.first().is_some_and(|answer| is_part(answer.as_ref()))))
}

/// ANLS without the threshold at one half.
///
/// Lower case, lengths and the nearest of several answers are as in [`anls()`](crate::anls()).
///
/// # Examples
/// ```
/// use fwd_eval::{anls, peer_compat::anls_without_threshold};
/// assert!((anls_without_threshold("xat", &["cot"]) - 1.0 / 3.0).abs() < 1e-12);
/// assert_eq!(anls("xat", &["cot"]), 0.0);
/// ```
pub fn anls_without_threshold<S: AsRef<str>>(prediction: &str, answers: &[S]) -> f64 {
    similarity(prediction, answers, f64::INFINITY)
}

/// 1 if the prediction equals the first answer, in whatever case and with whatever blanks around it.
///
/// # Examples
/// ```
/// use fwd_eval::peer_compat::exact_first;
/// assert_eq!(exact_first("Red", &["red", "pink"]), 1.0);
/// assert_eq!(exact_first("pink", &["red", "pink"]), 0.0);
/// ```
pub fn exact_first<S: AsRef<str>>(prediction: &str, answers: &[S]) -> f64 {
    let first = answers.first().map(|answer| plain(answer.as_ref()));
    f64::from(u8::from(first.is_some_and(|first| first == plain(prediction))))
}

/// 1 if the prediction is the first answer, a letter from A to E: alone, as the beginning of `B. the dog`, or in one `The answer is B.`
///
/// # Examples
/// ```
/// use fwd_eval::peer_compat::letter;
/// for text in ["B", "B. the dog", "I think so. The answer is B."] {
///     assert_eq!(letter(text, &["B"]), 1.0, "{text}");
/// }
/// for text in ["b", "(B)", "B)", "The answer is B", "the dog", ""] {
///     assert_eq!(letter(text, &["B"]), 0.0, "{text}");
/// }
/// ```
pub fn letter<S: AsRef<str>>(prediction: &str, answers: &[S]) -> f64 {
    let mut chars = prediction.chars();
    let option = chars.next().filter(|first| ('A'..='E').contains(first));
    let begins = option.filter(|_| chars.as_str().is_empty() || chars.as_str().starts_with(". "));
    let mut named = prediction.split("The answer is ").skip(1).filter_map(|rest| {
        let mut chars = rest.chars();
        let capital = chars.next().filter(char::is_ascii_uppercase)?;
        chars.next().filter(|&mark| mark != '\n').map(|_| capital)
    });
    let only = named.next().filter(|_| named.next().is_none());
    let said = begins.or(only).map(|letter| letter.to_string());
    f64::from(u8::from(
        said.is_some_and(|said| answers.first().is_some_and(|answer| answer.as_ref() == said)),
    ))
}

fn plain(text: &str) -> String {
    text.trim().to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(
        metric: Metric,
        rule: PeerRule,
        predictions: &[Option<&str>],
        answers: &[Vec<&str>],
    ) -> (f64, f64) {
        let both = compare(metric, rule, predictions, answers).unwrap();
        (both.ours, both.peer.unwrap())
    }

    #[test]
    fn each_error_shows() {
        let four = [vec!["cat"], vec!["dog"], vec!["bus"], vec!["elephant"]];
        let one = [Some("cat"), None, None, None];
        assert_eq!(both(Metric::Exact, PeerRule::OverPredictions, &one, &four), (25.0, 100.0));
        let e = [Some("e"), Some(""), Some("e"), Some("e")];
        assert_eq!(both(Metric::Exact, PeerRule::Substring, &e, &four), (0.0, 50.0));
        let (ours, peer) = both(Metric::Anls, PeerRule::AnlsWithoutThreshold, &[Some("xat")], &[vec!["cot"]]);
        assert_eq!(ours, 0.0);
        assert!((peer - 100.0 / 3.0).abs() < 1e-9);
        let mut annotators = vec!["pink"];
        annotators.extend(["rose"; 9]);
        let rose = [Some("rose")];
        assert_eq!(both(Metric::VqaSoft, PeerRule::ExactFirst, &rose, &[annotators]), (100.0, 0.0));
    }

    #[test]
    fn a_letter_that_is_missing_counts() {
        let answers = [vec!["B"], vec!["A"]];
        let said = [Some("B. the dog"), None];
        assert_eq!(both(Metric::MultipleChoice, PeerRule::Letter, &said, &answers), (50.0, 50.0));
    }

    #[test]
    fn no_predictions_have_no_figure() {
        let none: [Option<&str>; 1] = [None];
        let both = compare(Metric::Gqa, PeerRule::OverPredictions, &none, &[vec!["a"]]).unwrap();
        assert_eq!((both.ours, both.peer, both.difference()), (0.0, None, None));
        let mismatch = compare(Metric::Gqa, PeerRule::Substring, &none, &[] as &[Vec<&str>]);
        assert_eq!(mismatch, Err(EvalError::LengthMismatch { predictions: 1, annotations: 0 }));
    }
}
