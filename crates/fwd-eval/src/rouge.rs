//! ROUGE-L: how long a sequence of words prediction and reference share, in order but not necessarily side by side.
//!
//! `P = max_r LCS(c, r)/|c|`, `R = max_r LCS(c, r)/|r|`, `F = (1 + β²)·P·R / (R + β²·P)`, β = 1.2, where P and R may come from
//! different references.
//!
//! Source: Lin, *ROUGE: A Package for Automatic Evaluation of Summaries*, 2004, equations 2–4, in the form of the COCO caption
//! evaluation (Chen et al., arXiv 1504.00325; pycocoevalcap).

use rapidfuzz::distance::lcs_seq;
use std::collections::HashMap;

/// Weight of recall.
const BETA: f64 = 1.2;

/// ROUGE-L of a caption, between 0 and 1; words as [`tokenise`](crate::tokenise()) gives them. Cost: the product of the lengths.
///
/// A caption without words scores 0, and references without words are passed over.
///
/// # Examples
/// ```
/// use fwd_eval::rouge_l;
/// let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
/// // Three of four words in order: P = R = 3/4.
/// let score = rouge_l(&words("a dog runs home"), &[words("a dog went home")]);
/// assert!((score - 0.75).abs() < 1e-12);
/// ```
pub fn rouge_l(candidate: &[String], references: &[Vec<String>]) -> f64 {
    let (mut precision, mut recall) = (0.0_f64, 0.0_f64);
    for reference in references.iter().filter(|reference| !reference.is_empty()) {
        let common = longest_common_subsequence(candidate, reference);
        if common > 0 {
            precision = precision.max(common as f64 / candidate.len() as f64);
            recall = recall.max(common as f64 / reference.len() as f64);
        }
    }
    if precision == 0.0 {
        return 0.0;
    }
    (1.0 + BETA * BETA) * precision * recall / (recall + BETA * BETA * precision)
}

fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    // The library compares numbers: each word gets one.
    let mut numbers: HashMap<&str, u64> = HashMap::new();
    lcs_seq::similarity(number(a, &mut numbers), number(b, &mut numbers))
}

fn number<'w>(words: &'w [String], numbers: &mut HashMap<&'w str, u64>) -> Vec<u64> {
    let number = |word: &'w String| {
        let next = numbers.len() as u64;
        *numbers.entry(word).or_insert(next)
    };
    words.iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::rouge_l;

    #[test]
    fn nothing_scores_nothing() {
        let dog = vec!["dog".to_owned()];
        assert_eq!(rouge_l(&[], &[dog.clone(), Vec::new()]), 0.0);
        assert_eq!(rouge_l(&dog, &[Vec::new()]), 0.0);
        assert_eq!(rouge_l(&dog, &[]), 0.0);
        assert_eq!(rouge_l(&dog, std::slice::from_ref(&dog)), 1.0);
    }
}
