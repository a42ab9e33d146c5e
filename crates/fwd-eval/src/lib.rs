//! Scores of answers, captions and boxes, equal to the official scorers of the field, and the files that scores come from.
//!
#![doc = include_str!("../README.md")]
//!
//! # Where to begin
//!
//! - Answers: [`exact_match`], [`vqa_soft`], [`text_vqa`], [`gqa()`], [`multiple_choice`], [`anls()`].
//! - Captions: [`bleu()`], [`rouge_l`], [`cider_d`], with words from [`tokenise()`].
//! - Boxes: [`grounding()`].
//! - Options that a prompt lists: [`listed_options`], [`option_answers`].
//! - By name, one sample or a corpus at a time: [`Metric`], [`score`], [`score_all`], [`corpus_percent`].
//! - Files: [`Predictions`] (JSON lines, or an array), [`ScoreTable`] (CSV and what pandas and NumPy print).
//! - The figures that other code bases print, beside the right ones: [`peer_compat`].

#![forbid(unsafe_code)]

mod anls;
mod array;
mod bleu;
mod cell;
mod choice;
mod cider;
mod corners;
mod corpus;
mod error;
mod exact;
mod gqa;
mod grid;
mod grounding;
mod lines;
mod metric;
mod normalise;
mod options;
pub mod peer_compat;
mod predictions;
mod question_id;
mod rouge;
mod run_table;
mod table;
mod textvqa;
mod tokenise;
mod vqa;

pub use anls::anls;
pub use bleu::{Bleu, bleu};
pub use choice::{chosen_option, multiple_choice};
pub use cider::cider_d;
pub use error::{EvalError, Place, Result};
pub use exact::exact_match;
pub use gqa::gqa;
pub use grounding::{BBox, BoxUnit, grounding, grounding_in};
pub use metric::{Metric, corpus_percent, mean_percent, score, score_all};
pub use normalise::normalise;
pub use options::{listed_options, option_answers};
pub use predictions::{Joined, Prediction, Predictions, Sample};
pub use question_id::QuestionId;
pub use rouge::rouge_l;
pub use table::{FirstRow, ScoreTable};
pub use textvqa::{normalise_m4c, text_vqa};
pub use tokenise::tokenise;
pub use vqa::vqa_soft;
