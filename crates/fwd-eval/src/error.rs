//! The error type of this crate.

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
        /// Its place among the samples, from 0.
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
        /// Its place among the scores, from 0.
        sample: usize,
    },
    /// The file cannot be read on.
    #[error("{file}, line {line}: {message}")]
    Read {
        /// The file.
        file: String,
        /// The line that was to be read.
        line: usize,
        /// What the system says.
        message: String,
    },
    /// A line is no UTF-8.
    #[error("{file}, line {line}: not UTF-8: save the file in that encoding")]
    Encoding {
        /// The file.
        file: String,
        /// The line.
        line: usize,
    },
    /// A line is longer than any prediction.
    #[error("{file}, line {line}: longer than {limit} bytes: one JSON object belongs in each line")]
    LongLine {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A line is no JSON.
    #[error("{file}, line {line}, byte {byte}: {message}")]
    Json {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// The byte of the line.
        byte: usize,
        /// What is wrong there.
        message: String,
    },
    /// A line lacks a key.
    #[error("{file}, line {line}: the key `{key}` is missing")]
    MissingKey {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// The key.
        key: &'static str,
    },
    /// A value has the wrong type.
    #[error("{file}, line {line}: {} must be {expected}, not {found}", what(.key))]
    WrongType {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// The key; empty for the whole line.
        key: &'static str,
        /// What is needed.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A sample was predicted twice.
    #[error("{file}, line {line}: `question_id` {id} is in line {first_line} already")]
    DuplicatePrediction {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// The line that has it first.
        first_line: usize,
        /// The id.
        id: String,
    },
    /// A prediction for a sample that is not annotated.
    #[error("{file}, line {line}: no annotation has the `question_id` {id}")]
    UnknownPrediction {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// The id.
        id: String,
    },
    /// A prediction for an id that several samples share, with a prompt that none of them has.
    #[error(
        "{file}, line {line}: several annotations have the `question_id` {id}, none of them this `prompt`"
    )]
    UnknownQuestion {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// The id.
        id: String,
    },
    /// Two annotations with one id and one question.
    #[error("two annotations have the id {id} and the same question")]
    DuplicateAnnotation {
        /// The id.
        id: String,
    },
    /// Predictions cannot be written.
    #[error("the prediction for {id} cannot be written: {message}")]
    Write {
        /// The id of the prediction.
        id: String,
        /// What the system says.
        message: String,
    },
    /// A score table without scores.
    #[error("{file}: there are no scores")]
    EmptyTable {
        /// The file.
        file: String,
    },
    /// A cell is no finite number.
    #[error("{file}, line {line}, column {column}: `{found}` is no score")]
    NotAScore {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
        /// What is there.
        found: String,
    },
    /// A cell is empty that must not be.
    #[error("{file}, line {line}, column {column}: a score is missing")]
    MissingScore {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// A row is longer than the header.
    #[error("{file}, line {line}, column {column}: the header names no such column")]
    NoSuchColumn {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// The first column too many.
        column: usize,
    },
    /// A quoted cell does not end, or something follows its end.
    #[error(
        "{file}, line {line}, column {column}: the quotation marks are not closed, or not at the end of the cell"
    )]
    Quotes {
        /// The file.
        file: String,
        /// The line in which the cell begins.
        line: usize,
        /// The column.
        column: usize,
    },
}

fn what(key: &str) -> String {
    if key.is_empty() { "the line".to_owned() } else { format!("`{key}`") }
}

/// Shorthand for a result with [`EvalError`].
pub type Result<T> = std::result::Result<T, EvalError>;
