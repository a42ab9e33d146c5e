//! BLEU-1 to BLEU-4: how many of a caption's n-grams stand in a reference, with a penalty for captions that are too short.
//!
//! With `g_k` the number of k-grams of the captions, `m_k` those of them that a reference has (each counted no more often than in
//! the reference that has it most often), `c` the length of the captions and `r` that of the references,
//!
//! `BLEU-n = (Π_{k ≤ n} (m_k + 10⁻¹⁵) / (g_k + 10⁻⁹))^(1/n) · exp(min(0, 1 − 1/ρ))`, `ρ = (c + 10⁻¹⁵) / (r + 10⁻⁹)`.
//!
//! `r` takes for each caption the reference nearest in length, the shorter one of two. A corpus has the sums of `g`, `m`, `c` and
//! `r`: its BLEU is not the mean over its captions.
//!
//! Source: Papineni et al., *BLEU: a Method for Automatic Evaluation of Machine Translation*, ACL 2002, in the form of the COCO
//! caption evaluation (pycocoevalcap, `closest`), whose small constants stand in for zeros.

use crate::corpus::check_corpus;
use crate::error::Result;
use std::collections::HashMap;

const MAX_ORDER: usize = 4;
/// Stands for no n-gram in common.
const TINY: f64 = 1e-15;
/// Stands for no n-gram at all.
const SMALL: f64 = 1e-9;

/// BLEU-1 to BLEU-4 of a corpus and of each caption, between 0 and 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Bleu {
    /// BLEU-n of the whole corpus at `n − 1`.
    pub corpus: [f64; 4],
    /// BLEU-n of each caption at `n − 1`.
    pub captions: Vec<[f64; 4]>,
}

/// BLEU-1 to BLEU-4 of a corpus; words as [`tokenise`](crate::tokenise()) gives them. Cost: linear in the words.
///
/// A missing prediction is an empty caption: it scores 0 and makes the corpus shorter than its references. The constants of the
/// reference implementation are kept: a perfect caption has `1 − 10⁻⁹` or so, one of fewer than n words has next to no BLEU-n.
///
/// # Errors
/// [`EvalError::LengthMismatch`](crate::EvalError::LengthMismatch) unless there is a caption for each sample,
/// [`EvalError::NoAnswer`](crate::EvalError::NoAnswer) naming the sample without references.
///
/// # Examples
/// ```
/// use fwd_eval::bleu;
/// let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
/// let scores = bleu(&[words("a dog runs home")], &[vec![words("a dog went home")]])?;
/// assert!((scores.corpus[0] - 0.75).abs() < 1e-6);                        // three of four words
/// assert!((scores.corpus[1] - (0.75_f64 / 3.0).sqrt()).abs() < 1e-6);     // and one of three bigrams
/// # Ok::<(), fwd_eval::EvalError>(())
/// ```
pub fn bleu(candidates: &[Vec<String>], references: &[Vec<Vec<String>>]) -> Result<Bleu> {
    check_corpus(candidates, references)?;
    let mut total = Counts::default();
    let mut captions = Vec::with_capacity(candidates.len());
    for (candidate, references) in candidates.iter().zip(references) {
        let counts = Counts::of(candidate, references);
        captions.push(counts.bleu());
        total.add(&counts);
    }
    Ok(Bleu { corpus: total.bleu(), captions })
}

/// BLEU-1 to BLEU-4 of one caption; 0 without references.
pub(crate) fn caption_bleu(candidate: &[String], references: &[Vec<String>]) -> [f64; 4] {
    if references.is_empty() { [0.0; 4] } else { Counts::of(candidate, references).bleu() }
}

/// What the captions so far have of each order, and their lengths.
#[derive(Default)]
struct Counts {
    n_grams: [usize; MAX_ORDER],
    matches: [usize; MAX_ORDER],
    length: usize,
    reference_length: usize,
}

impl Counts {
    fn of(candidate: &[String], references: &[Vec<String>]) -> Self {
        let length = candidate.len();
        let nearest = references.iter().map(|r| (r.len().abs_diff(length), r.len())).min();
        Self {
            n_grams: std::array::from_fn(|k| length.saturating_sub(k)),
            matches: std::array::from_fn(|k| matches(candidate, references, k + 1)),
            length,
            reference_length: nearest.map_or(0, |(_, length)| length),
        }
    }

    fn add(&mut self, other: &Self) {
        for k in 0..MAX_ORDER {
            self.n_grams[k] += other.n_grams[k];
            self.matches[k] += other.matches[k];
        }
        self.length += other.length;
        self.reference_length += other.reference_length;
    }

    fn bleu(&self) -> [f64; 4] {
        let ratio = (self.length as f64 + TINY) / (self.reference_length as f64 + SMALL);
        let penalty = (1.0 - 1.0 / ratio).min(0.0).exp();
        let mut product = 1.0;
        std::array::from_fn(|k| {
            product *= (self.matches[k] as f64 + TINY) / (self.n_grams[k] as f64 + SMALL);
            product.powf(1.0 / (k + 1) as f64) * penalty
        })
    }
}

/// How many n-grams of the caption a reference has, none counted more often than one reference has it.
fn matches(candidate: &[String], references: &[Vec<String>], order: usize) -> usize {
    // By n-gram: how often in the caption, in the reference at hand, and in the reference that has it most often.
    let mut counts: HashMap<&[String], [usize; 3]> = HashMap::new();
    for n_gram in candidate.windows(order) {
        counts.entry(n_gram).or_default()[0] += 1;
    }
    for reference in references {
        for n_gram in reference.windows(order) {
            if let Some([_, here, most]) = counts.get_mut(n_gram) {
                *here += 1;
                *most = (*most).max(*here);
            }
        }
        counts.values_mut().for_each(|[_, here, _]| *here = 0);
    }
    counts.values().map(|[n, _, most]| n.min(most)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::EvalError;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn the_textbook_case_is_clipped() {
        // Papineni et al., example 2: "the" counts twice, as often as in the first reference.
        let references = [words("the cat is on the mat"), words("there is a cat on the mat")];
        let scores = caption_bleu(&words("the the the the the the the"), &references);
        assert!((scores[0] - 2.0 / 7.0).abs() < 1e-9);
        assert!(scores[1] < 1e-6);
    }

    #[test]
    fn short_captions_are_penalised() {
        let scores = caption_bleu(&words("a dog"), &[words("a dog runs home")]);
        assert!((scores[0] - (-1.0_f64).exp()).abs() < 1e-8);
        // The nearest references have 1 and 3 words; the shorter one counts and there is no penalty.
        let scores = caption_bleu(&words("a dog"), &[words("a dog runs"), words("dog")]);
        assert!((scores[0] - 1.0).abs() < 1e-8);
    }

    #[test]
    fn nothing_scores_nothing() {
        assert_eq!(caption_bleu(&[], &[words("a dog"), vec![]]), [0.0; 4]);
        assert_eq!(caption_bleu(&[], &[vec![]]), [0.0; 4]);
        assert_eq!(caption_bleu(&words("a"), &[]), [0.0; 4]);
        let empty = bleu(&[], &[]).unwrap();
        assert_eq!((empty.corpus, empty.captions.len()), ([0.0; 4], 0));
        assert_eq!(bleu(&[words("a")], &[vec![]]), Err(EvalError::NoAnswer { sample: 0 }));
    }

    #[test]
    fn a_corpus_sums_before_it_divides() {
        let references = [vec![words("a dog")], vec![words("b c d e f g")]];
        let scores = bleu(&[words("a dog"), words("x c d e f g")], &references).unwrap();
        assert!((scores.corpus[0] - 7.0 / 8.0).abs() < 1e-9);
        assert!((scores.captions[1][0] - 5.0 / 6.0).abs() < 1e-9);
    }
}
