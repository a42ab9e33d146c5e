//! Scores of answers and captions, equal to the official scorers of the field: exact match and soft accuracy after the VQA
//! evaluator's normalisation, ROUGE-L, CIDEr-D and ANLS.
//!
//! ```
//! use fwd_eval::{Metric, mean_percent, score};
//! let scores = [
//!     score(Metric::Exact, "The two dogs.", &["2 dogs"]),      // normalised alike
//!     score(Metric::Exact, "", &["a cat"]),                    // an empty prediction never scores
//! ];
//! // Four annotations, two predictions: what is missing counts as 0.
//! assert_eq!(mean_percent(&scores, 4)?, 25.0);
//! # Ok::<(), fwd_eval::EvalError>(())
//! ```

#![forbid(unsafe_code)]

mod anls;
mod cider;
mod error;
mod exact;
mod metric;
mod normalise;
mod rouge;
mod tokenise;
mod vqa;

pub use anls::anls;
pub use cider::cider_d;
pub use error::{EvalError, Result};
pub use exact::exact_match;
pub use metric::{Metric, mean_percent, score, score_all};
pub use normalise::normalise;
pub use rouge::rouge_l;
pub use tokenise::tokenise;
pub use vqa::vqa_soft;
