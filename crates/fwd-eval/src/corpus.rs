//! What all measures of a whole corpus share: the check that predictions and answers fit together, and the words of many texts.

use crate::error::{EvalError, Result};
use crate::tokenise::tokenise;

/// Checks that there is one prediction for each sample, and that each sample has an answer.
///
/// # Errors
/// [`EvalError::LengthMismatch`] or [`EvalError::NoAnswer`].
pub(crate) fn check_corpus<P, S>(predictions: &[P], answers: &[Vec<S>]) -> Result<()> {
    if predictions.len() != answers.len() {
        return Err(EvalError::LengthMismatch { predictions: predictions.len(), annotations: answers.len() });
    }
    match answers.iter().position(Vec::is_empty) {
        Some(sample) => Err(EvalError::NoAnswer { sample }),
        None => Ok(()),
    }
}

/// The words of each text, as [`tokenise`] gives them.
pub(crate) fn tokenise_all<S: AsRef<str>>(texts: &[S]) -> Vec<Vec<String>> {
    texts.iter().map(|text| tokenise(text.as_ref())).collect()
}
