//! What the rest of the crate asks of a language model.

use super::input::LanguageInput;
use super::prefix::Prefix;
use crate::config::SpecialTokens;
use crate::error::{ModelError, Result};
use crate::tap::Tap;
use crate::weights::Weights;
use candle_core::{DType, Device, Tensor};
use fwd_ops::MapChange;
use std::fmt::Debug;
use std::sync::Arc;

/// Logits and loss of a batch with teacher forcing.
#[derive(Debug, Clone)]
pub struct Scored {
    /// `(batch, label tokens, vocab)`: row `j` is what the model says of label `j`, knowing the input and the labels before it.
    pub logits: Tensor,
    /// The mean negative log-likelihood, in nats, of all labels that are not −100; a scalar.
    pub loss: Tensor,
}

impl Scored {
    /// What the model says of the first labels of each sample, `n_labels` of them: log-probabilities over the vocabulary, in nats.
    ///
    /// # Shapes
    /// For each sample `(labels, vocab)` row-major, f32.
    ///
    /// # Errors
    /// An error of candle.
    pub fn log_probs(&self, n_labels: &[usize]) -> Result<Vec<Vec<f32>>> {
        let logits = self.logits.to_dtype(DType::F32)?.to_vec3::<f32>()?;
        let of_samples = logits.iter().zip(n_labels);
        Ok(of_samples
            .map(|(rows, &n)| rows.iter().take(n).flat_map(|row| log_softmax(row)).collect())
            .collect())
    }
}

/// `x − log Σ exp(x)`, summed in f64 with the largest logit taken out.
fn log_softmax(logits: &[f32]) -> impl Iterator<Item = f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - largest).exp()).sum();
    let log_sum = f64::from(largest) + sum.ln();
    logits.iter().map(move |x| (f64::from(*x) - log_sum) as f32)
}

/// A language model that reads embeddings, so that soft prompts and visual tokens can stand among those of words.
///
/// Activations have the dtype of the input's embeddings: f32, or f64 where a gradient is checked. Every method but [`Self::start`]
/// records gradients to whatever of its arguments and parameters is tracked.
///
/// # Examples
/// An implementation that lies outside of this crate, a small decoder-only transformer with its cache, is in
/// `tests/decoder_only.rs`.
pub trait LanguageModel: Debug + Send + Sync {
    /// The width of an embedding.
    fn d_model(&self) -> usize;

    /// The number of token ids, and of logits for each token.
    fn vocab_size(&self) -> usize;

    /// Where the parameters are, and where embeddings must be.
    fn device(&self) -> &Device;

    /// Whether an encoder reads the input and a decoder writes a sequence of its own (T5). A decoder-only model goes on writing where
    /// the input ends.
    fn is_encoder_decoder(&self) -> bool;

    /// The most tokens that an input and its answer may have together; `None` if there is no limit.
    fn max_tokens(&self) -> Option<usize> {
        None
    }

    /// The embeddings of token ids.
    ///
    /// # Shapes
    /// `ids (…)`, an integer type, best kept on the CPU -> `(…, d_model)` on the device of the parameters, f32.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    fn embed(&self, ids: &Tensor) -> Result<Tensor>;

    /// The loss of labels behind an input, with teacher forcing. The labels are the answer and nothing else; the model shifts
    /// them itself.
    ///
    /// # Shapes
    /// `labels (batch, tokens)`, i64, best kept on the CPU, −100 where nothing is to be predicted. A decoder-only model does not read a
    /// −100, wherever it stands: a label behind one is predicted from the last token in front of both.
    ///
    /// # Errors
    /// Shapes that do not fit, labels outside the vocabulary, a batch without any label.
    fn score(&self, input: &LanguageInput, labels: &Tensor, tap: &mut Tap<'_>) -> Result<Scored>;

    /// The bytes of what [`Self::read_prefix`] keeps of so many tokens. None if the model can keep nothing: what an encoder makes of a
    /// beginning depends on the ending.
    fn prefix_bytes(&self, n_tokens: usize) -> Option<usize> {
        let _ = n_tokens;
        None
    }

    /// What the model computes of one input without prompts, so that endings can be scored behind it again and again
    /// ([`Self::score_behind`]).
    ///
    /// # Errors
    /// More than one input; shapes that do not fit; a model that keeps nothing.
    fn read_prefix(&self, input: &LanguageInput) -> Result<Prefix> {
        let _ = input;
        Err(ModelError::input("prefix", "this language model keeps no prefixes"))
    }

    /// Whether a prefix is one of this model.
    fn owns(&self, prefix: &Prefix) -> bool {
        let _ = prefix;
        false
    }

    /// The loss of labels behind prefixes, one for each sample, and an ending: that of [`Self::score`] of the whole, but only ending and
    /// labels are computed, and get gradients.
    ///
    /// # Shapes
    /// `ending (batch, tokens > 0, d_model)`; `labels` as in [`Self::score`].
    ///
    /// # Errors
    /// As [`Self::score`]; prefixes of another model; a model that keeps none.
    fn score_behind(&self, prefixes: &[Arc<Prefix>], ending: &Tensor, labels: &Tensor) -> Result<Scored> {
        let _ = (prefixes, ending, labels);
        Err(ModelError::input("score behind a prefix", "this language model keeps no prefixes"))
    }

    /// Reads an input once: gives the state to go on from, and the logits `(batch, vocab)` of the first new token. Records no
    /// gradient.
    ///
    /// An encoder-decoder starts to write from `tokens.decoder_start`; a decoder-only model has no use for them. The cache has room for
    /// `max_new_tokens`, of which it may be an estimate.
    ///
    /// # Errors
    /// Shapes that do not fit, a start token outside the vocabulary.
    fn start<'a>(
        &'a self,
        input: &LanguageInput,
        tokens: &SpecialTokens,
        max_new_tokens: usize,
    ) -> Result<(Box<dyn Decoding + 'a>, Tensor)>;

    /// The same model made anew from the parameters that `weights` has under `prefix` (`prefix.name`): tracked ones are trained.
    /// `None` if `weights` has none of them, or if this model cannot be made anew; it then stays as it is.
    ///
    /// # Errors
    /// An error of the source.
    fn with_parameters(
        &self,
        weights: &mut dyn Weights,
        prefix: &str,
    ) -> Result<Option<Arc<dyn LanguageModel>>> {
        let _ = (weights, prefix);
        Ok(None)
    }

    /// The same model with what `change` makes of its linear maps, as low-rank additions of which tracked ones are trained. Tied heads, and
    /// maps that are made of several tensors (DINOv2's behind its layer scales), have no name. `None` for a model that cannot change them.
    ///
    /// # Errors
    /// Those of `change`; a map of other widths.
    fn with_maps(&self, change: &mut MapChange<'_>) -> Result<Option<Arc<dyn LanguageModel>>> {
        let _ = change;
        Ok(None)
    }
}

/// Sequences that are being written, and all that the model has computed of them so far (its cache).
///
/// The rows of a batch are the samples at first. Beam search has several sequences of a sample, which lie next to each other.
pub trait Decoding: Send {
    /// Adds one token to every sequence, and says what the next may be.
    ///
    /// # Shapes
    /// One id for each row -> logits `(rows, vocab)`.
    ///
    /// # Errors
    /// Another number of ids, ids outside the vocabulary.
    fn step(&mut self, ids: &[u32]) -> Result<Tensor>;

    /// Says which rows are over. They are still given a token at every step, whose logits nobody reads, so that it must not fail for want
    /// of a position.
    ///
    /// # Errors
    /// Another number of rows.
    fn end(&mut self, rows: &[bool]) -> Result<()> {
        let _ = rows;
        Ok(())
    }

    /// Row `i` becomes what row `rows[i]` was; a row may be taken several times or dropped. Rows stay within their sample, so
    /// what was computed of the samples themselves need not move.
    ///
    /// # Errors
    /// A row that does not exist.
    fn reorder(&mut self, rows: &[u32]) -> Result<()>;

    /// Every row `n` times in a row: `a b` becomes `a a b b` for 2.
    ///
    /// # Errors
    /// An error of candle.
    fn repeat(&mut self, n: usize) -> Result<()>;
}
