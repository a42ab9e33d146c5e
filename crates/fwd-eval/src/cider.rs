//! CIDEr-D: how well a caption agrees with its references in the n-grams that set its image apart from the other images.
//!
//! For n = 1…4 a caption c is the vector `g_n(c)` of its n-grams, weighted by `tf · idf`, with `idf = ln(N / max(1, df))` and df
//! the number of the N samples whose references have the n-gram. With `l` a caption's length and σ = 6,
//!
//! `CIDErD(c, S) = 10 · mean_{s ∈ S} mean_n  min(g_n(c), g_n(s))·g_n(s) / (‖g_n(c)‖ ‖g_n(s)‖) · exp(−(l_c − l_s)² / 2σ²)`
//!
//! Source: Vedantam, Zitnick, Parikh, *CIDEr: Consensus-based Image Description Evaluation*, CVPR 2015, section 7, in the form of
//! the COCO caption evaluation (pycocoevalcap), which takes the number of bigrams for the length.

use crate::corpus::check_corpus;
use crate::error::Result;
use std::collections::HashMap;

const MAX_ORDER: usize = 4;
const SIGMA: f64 = 6.0;

/// CIDEr-D of each caption of a corpus, between 0 and 10; words as [`tokenise`](crate::tokenise()) gives them.
///
/// The weights come from the references of the whole corpus. A score therefore belongs to its corpus, and a corpus of one sample
/// scores 0. A missing prediction is an empty caption and scores 0. The usual figure is the mean times 100: captions that equal their
/// only references have 1000.
///
/// # Errors
/// [`EvalError::LengthMismatch`](crate::EvalError::LengthMismatch) unless there is a caption for each sample, [`EvalError::NoAnswer`](crate::EvalError::NoAnswer)
/// naming the sample without references.
///
/// # Examples
/// ```
/// use fwd_eval::cider_d;
/// let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
/// let references = [vec![words("a red bus stops here")], vec![words("two dogs play with sticks")]];
/// let scores = cider_d(&[words("a red bus stops here"), words("a red bus stops here")], &references)?;
/// assert!((scores[0] - 10.0).abs() < 1e-9);
/// assert_eq!(scores[1], 0.0);
/// # Ok::<(), fwd_eval::EvalError>(())
/// ```
pub fn cider_d(candidates: &[Vec<String>], references: &[Vec<Vec<String>>]) -> Result<Vec<f64>> {
    check_corpus(candidates, references)?;
    let mut ids = Ids::default();
    let references: Vec<Vec<Counts>> = references
        .iter()
        .map(|references| references.iter().map(|reference| ids.count(reference)).collect())
        .collect();
    let candidates: Vec<Counts> = candidates.iter().map(|candidate| ids.count(candidate)).collect();
    let idf = inverse_document_frequency(&references, ids.n_grams.len());
    let score = |(candidate, references): (&Counts, &Vec<Counts>)| {
        let candidate = Weighted::new(candidate, &idf);
        let total: f64 =
            references.iter().map(|reference| candidate.similarity(&Weighted::new(reference, &idf))).sum();
        10.0 * total / (references.len() * MAX_ORDER) as f64
    };
    Ok(candidates.iter().zip(&references).map(score).collect())
}

/// Numbers for words and n-grams, in the order in which they appear.
#[derive(Default)]
struct Ids<'a> {
    words: HashMap<&'a str, u32>,
    /// By the number of the n-gram without its last word (none for a single word) and that word.
    n_grams: HashMap<(Option<u32>, u32), u32>,
}

/// The n-grams of a caption with their counts, sorted by number, and the caption's length.
struct Counts {
    orders: [Vec<(u32, f64)>; MAX_ORDER],
    length: f64,
}

impl<'a> Ids<'a> {
    fn count(&mut self, caption: &'a [String]) -> Counts {
        let mut word_ids = Vec::with_capacity(caption.len());
        for word in caption {
            let next = self.words.len() as u32;
            word_ids.push(*self.words.entry(word).or_insert(next));
        }
        // The n-grams of one order, by place; those of the next order are each one word longer.
        let mut n_grams = vec![None; word_ids.len()];
        let orders = std::array::from_fn(|order| {
            let last_words = word_ids.iter().skip(order);
            let mut ids: Vec<u32> =
                n_grams.iter().zip(last_words).map(|(&start, &word)| self.n_gram(start, word)).collect();
            n_grams = ids.iter().copied().map(Some).collect();
            ids.sort_unstable();
            ids.chunk_by(|a, b| a == b).map(|equal| (equal[0], equal.len() as f64)).collect()
        });
        Counts { orders, length: caption.len().saturating_sub(1) as f64 }
    }

    fn n_gram(&mut self, start: Option<u32>, word: u32) -> u32 {
        let next = self.n_grams.len() as u32;
        *self.n_grams.entry((start, word)).or_insert(next)
    }
}

/// `ln(N / max(1, df))` by n-gram number.
fn inverse_document_frequency(references: &[Vec<Counts>], n_grams: usize) -> Vec<f64> {
    let mut frequency = vec![0_u32; n_grams];
    let mut seen_in = vec![usize::MAX; n_grams];
    for (sample, references) in references.iter().enumerate() {
        for &(id, _) in references.iter().flat_map(|counts| counts.orders.iter().flatten()) {
            let id = id as usize;
            frequency[id] += u32::from(seen_in[id] != sample);
            seen_in[id] = sample;
        }
    }
    let log_n = (references.len() as f64).ln();
    frequency.into_iter().map(|df| log_n - f64::from(df.max(1)).ln()).collect()
}

/// A caption's vectors `g_n` and their norms.
struct Weighted {
    orders: [Vec<(u32, f64)>; MAX_ORDER],
    norms: [f64; MAX_ORDER],
    length: f64,
}

impl Weighted {
    fn new(counts: &Counts, idf: &[f64]) -> Self {
        let orders: [Vec<(u32, f64)>; MAX_ORDER] = std::array::from_fn(|n| {
            counts.orders[n].iter().map(|&(id, tf)| (id, tf * idf[id as usize])).collect()
        });
        let norms =
            std::array::from_fn(|n| orders[n].iter().map(|(_, weight)| weight * weight).sum::<f64>().sqrt());
        Self { orders, norms, length: counts.length }
    }

    /// The sum over n of the clipped cosines, with the penalty for another length.
    fn similarity(&self, reference: &Self) -> f64 {
        let delta = self.length - reference.length;
        let penalty = (-delta * delta / (2.0 * SIGMA * SIGMA)).exp();
        let cosine = |n: usize| {
            let norms = self.norms[n] * reference.norms[n];
            if norms == 0.0 { 0.0 } else { clipped_product(&self.orders[n], &reference.orders[n]) / norms }
        };
        penalty * (0..MAX_ORDER).map(cosine).sum::<f64>()
    }
}

/// `Σ min(a, b)·b` over the n-grams of both, which are sorted by number.
fn clipped_product(a: &[(u32, f64)], b: &[(u32, f64)]) -> f64 {
    let mut rest = b.iter().peekable();
    let mut sum = 0.0;
    for &(id, weight) in a {
        while rest.next_if(|(other, _)| *other < id).is_some() {}
        if let Some(&(_, other)) = rest.next_if(|(other, _)| *other == id) {
            sum += weight.min(other) * other;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::cider_d;
    use crate::error::EvalError;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn what_cannot_be_scored_is_an_error() {
        let mismatch = cider_d(&[], &[vec![words("a dog")]]);
        assert_eq!(mismatch, Err(EvalError::LengthMismatch { predictions: 0, annotations: 1 }));
        let no_answer = cider_d(&[words("a"), words("b")], &[vec![words("a")], vec![]]);
        assert_eq!(no_answer, Err(EvalError::NoAnswer { sample: 1 }));
        assert_eq!(cider_d(&[], &[]), Ok(vec![]));
    }

    #[test]
    fn what_every_reference_says_is_worth_nothing() {
        let references = [vec![words("a dog")], vec![words("a cat")]];
        let scores = cider_d(&[words("a"), words("")], &references);
        assert_eq!(scores, Ok(vec![0.0, 0.0]));
    }

    #[test]
    fn two_samples_by_hand() {
        // Sample 0: "dog" has idf ln 2, "a" 0; the bigram "a dog" idf ln 2. Cosine 1 for n = 1 and 2, nothing for 3 and 4.
        let references = [vec![words("a dog")], vec![words("a cat")]];
        let scores = cider_d(&[words("a dog"), words("cat")], &references).unwrap();
        assert!((scores[0] - 5.0).abs() < 1e-12);
        // Sample 1: the unigram alone, and one bigram less: exp(−1/72).
        assert!((scores[1] - 2.5 * (-1.0_f64 / 72.0).exp()).abs() < 1e-12);
    }
}
