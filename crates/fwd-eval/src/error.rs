//! The error type of this crate.

use std::fmt;

/// What can go wrong when predictions and score tables are read and scored. Lines, columns and bytes count from 1.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Predictions and annotations do not belong together.
    #[error(
        "{predictions} predictions for {annotations} annotations: give one for each, an empty one where it is missing"
    )]
    LengthMismatch {
        /// How many predictions there are.
        predictions: usize,
        /// How many annotated samples there are.
        annotations: usize,
    },
    /// A sample has nothing to be compared with.
    #[error("sample {sample} (from 0) has no answer: remove it, or add one")]
    NoAnswer {
        /// The place of the sample in the corpus, from 0.
        sample: usize,
    },
    /// A mean over no samples.
    #[error("there are no annotations to average over")]
    NoAnnotations,
    /// More scores than annotations: some sample was answered twice.
    #[error("{scores} scores for {annotations} annotations: keep one prediction for each sample")]
    TooManyScores {
        /// How many scores there are.
        scores: usize,
        /// How many annotated samples there are.
        annotations: usize,
    },
    /// A score is NaN or infinite, as that of CIDEr-D for a sample outside its corpus.
    #[error(
        "the score of sample {sample} (from 0) is not a number; CIDEr-D needs all samples at once (`score_all`)"
    )]
    NotFinite {
        /// The place of the score in the corpus, from 0.
        sample: usize,
    },
    /// The file cannot be read on.
    #[error("{file}, line {line}: {message}")]
    Read {
        /// The name that the caller gave the file.
        file: String,
        /// The number of the line that was to be read, from 1.
        line: usize,
        /// The message of the system.
        message: String,
    },
    /// A line is not valid UTF-8.
    #[error("{file}, line {line}: not UTF-8: save the file in that encoding")]
    Encoding {
        /// The name that the caller gave the file.
        file: String,
        /// The number of the line, from 1.
        line: usize,
    },
    /// A line is longer than any prediction.
    #[error("{file}, line {line}: longer than {limit} bytes: one JSON object belongs in each line")]
    LongLine {
        /// The name that the caller gave the file.
        file: String,
        /// The number of the line, from 1.
        line: usize,
        /// The most bytes that a line may have.
        limit: usize,
    },
    /// A record is not valid JSON.
    #[error("{file}, {place}, byte {byte}: {message}")]
    Json {
        /// The name that the caller gave the file.
        file: String,
        /// Which record it is.
        place: Place,
        /// The place in the record, in bytes from 1.
        byte: usize,
        /// The message of the JSON parser.
        message: String,
    },
    /// A record lacks a key.
    #[error("{file}, {place}: the key `{key}` is missing")]
    MissingKey {
        /// The name that the caller gave the file.
        file: String,
        /// Which record it is.
        place: Place,
        /// The key that must be there.
        key: &'static str,
    },
    /// A value has the wrong type.
    #[error("{file}, {place}: {} must be {expected}, not {found}", what(.key))]
    WrongType {
        /// The name that the caller gave the file.
        file: String,
        /// Which record it is.
        place: Place,
        /// The key whose value is meant; empty if it is the whole record.
        key: &'static str,
        /// What must stand there, such as `a string`.
        expected: &'static str,
        /// What stands there instead.
        found: &'static str,
    },
    /// A sample was predicted twice.
    #[error("{file}, {place}: `question_id` {} is in {first} already", shown(.id))]
    DuplicatePrediction {
        /// The name that the caller gave the file.
        file: String,
        /// Which record it is.
        place: Place,
        /// The record that has it first.
        first: Place,
        /// The `question_id` as text.
        id: String,
    },
    /// Predictions of which none is for a sample that is annotated.
    #[error("{file}, {place}: no annotation has the `question_id` {}", shown(.id))]
    UnknownPrediction {
        /// The name that the caller gave the file.
        file: String,
        /// The first such record.
        place: Place,
        /// The `question_id` as text.
        id: String,
    },
    /// A prediction for an id that several samples share, with a prompt that none of them has.
    #[error(
        "{file}, {place}: several annotations have the `question_id` {}, none of them this `prompt`", shown(.id)
    )]
    UnknownQuestion {
        /// The name that the caller gave the file.
        file: String,
        /// Which record it is.
        place: Place,
        /// The `question_id` as text.
        id: String,
    },
    /// Two annotations with one id and one question.
    #[error("two annotations have the id {} and the same question", shown(.id))]
    DuplicateAnnotation {
        /// The `question_id` as text.
        id: String,
    },
    /// Predictions cannot be written.
    #[error("the prediction for {} cannot be written: {message}", shown(.id))]
    Write {
        /// The id of the prediction.
        id: String,
        /// The message of the system.
        message: String,
    },
    /// A score table without scores.
    #[error("{file}: there are no scores")]
    EmptyTable {
        /// The name that the caller gave the file.
        file: String,
    },
    /// A cell is no finite number.
    #[error("{file}, line {line}, column {column}: `{}` is no score", shown(.found))]
    NotAScore {
        /// The name that the caller gave the file.
        file: String,
        /// The number of the line, from 1.
        line: usize,
        /// The number of the column, from 1.
        column: usize,
        /// What stands there instead.
        found: String,
    },
    /// A score is missing on or below the diagonal.
    #[error(
        "{file}, line {line}, column {column}: a score is missing; rows are moments and columns are tasks, so that only what lies above the diagonal may be"
    )]
    MissingScore {
        /// The name that the caller gave the file.
        file: String,
        /// The number of the line, from 1.
        line: usize,
        /// The number of the column, from 1.
        column: usize,
    },
    /// A row is longer than the header.
    #[error("{file}, line {line}, column {column}: the header names no such column")]
    NoSuchColumn {
        /// The name that the caller gave the file.
        file: String,
        /// The number of the line, from 1.
        line: usize,
        /// The number of the first column too many, from 1.
        column: usize,
    },
    /// The rows make no matrix of moments and tasks.
    #[error("{file}, line {line}, column {column}: {what}")]
    NotATable {
        /// The name that the caller gave the file.
        file: String,
        /// The number of the line, from 1.
        line: usize,
        /// The number of the column, from 1.
        column: usize,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A quoted cell does not end, or something follows its end.
    #[error(
        "{file}, line {line}, column {column}: the quotation marks are not closed, or not at the end of the cell"
    )]
    Quotes {
        /// The name that the caller gave the file.
        file: String,
        /// The number of the line in which the cell begins, from 1.
        line: usize,
        /// The number of the column, from 1.
        column: usize,
    },
}

/// Where a record of a file of predictions stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// In JSON lines, the line, from 1.
    Line(usize),
    /// In a JSON array, the number of the record, from 0.
    Record(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Record(number) => write!(f, "record {number}"),
        }
    }
}

/// Characters of a foreign text that a message shows.
const SHOWN: usize = 60;

/// A text of somebody else's for a message: one line of bounded length.
pub(crate) fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(SHOWN).flat_map(|c| {
        // What moves the cursor or hides text is written as its code.
        let is_plain = !c.is_control() && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if is_plain { c.to_string().chars().collect::<Vec<_>>() } else { c.escape_default().collect() }
    }).collect();
    let n_more = chars.count();
    if n_more == 0 { start } else { format!("{start}… ({n_more} characters more)") }
}

fn what(key: &str) -> String {
    if key.is_empty() { "the record".to_owned() } else { format!("`{key}`") }
}

/// Shorthand for a result with [`EvalError`].
pub type Result<T> = std::result::Result<T, EvalError>;
