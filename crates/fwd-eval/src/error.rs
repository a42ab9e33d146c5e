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
    /// A line is not valid JSON.
    #[error("{file}, line {line}, byte {byte}: {message}")]
    Json {
        /// The name that the caller gave the file.
        file: String,
        /// The number of the line, from 1.
        line: usize,
        /// The place in the line, in bytes from 1.
        byte: usize,
        /// The message of the JSON parser.
        message: String,
    },
    /// A line lacks a key.
    #[error("{file}, line {line}: the key `{key}` is missing")]
    MissingKey {
        /// The name that the caller gave the file.
        file: String,
        /// The number of the line, from 1.
        line: usize,
        /// The key that must be there.
        key: &'static str,
    },
    /// A value has the wrong type.
    #[error("{file}, line {line}: {} must be {expected}, not {found}", what(.key))]
    WrongType {
        /// The name that the caller gave the file.
        file: String,
        /// The number of the line, from 1.
        line: usize,
        /// The key whose value is meant; empty if it is the whole line.
        key: &'static str,
        /// What must stand there, such as `a string`.
        expected: &'static str,
        /// What stands there instead.
        found: &'static str,
    },
    /// A sample was predicted twice.
    #[error("{file}, line {line}: `question_id` {id} is in line {first_line} already")]
    DuplicatePrediction {
        /// The name that the caller gave the file.
        file: String,
        /// The number of the line, from 1.
        line: usize,
        /// The number of the line that has it first, from 1.
        first_line: usize,
        /// The `question_id` as text.
        id: String,
    },
    /// A prediction for a sample that is not annotated.
    #[error("{file}, line {line}: no annotation has the `question_id` {id}")]
    UnknownPrediction {
        /// The name that the caller gave the file.
        file: String,
        /// The number of the line, from 1.
        line: usize,
        /// The `question_id` as text.
        id: String,
    },
    /// A prediction for an id that several samples share, with a prompt that none of them has.
    #[error(
        "{file}, line {line}: several annotations have the `question_id` {id}, none of them this `prompt`"
    )]
    UnknownQuestion {
        /// The name that the caller gave the file.
        file: String,
        /// The number of the line, from 1.
        line: usize,
        /// The `question_id` as text.
        id: String,
    },
    /// Two annotations with one id and one question.
    #[error("two annotations have the id {id} and the same question")]
    DuplicateAnnotation {
        /// The `question_id` as text.
        id: String,
    },
    /// Predictions cannot be written.
    #[error("the prediction for {id} cannot be written: {message}")]
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
    #[error("{file}, line {line}, column {column}: `{found}` is no score")]
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
    /// A cell is empty that must not be.
    #[error("{file}, line {line}, column {column}: a score is missing")]
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

fn what(key: &str) -> String {
    if key.is_empty() { "the line".to_owned() } else { format!("`{key}`") }
}

/// Shorthand for a result with [`EvalError`].
pub type Result<T> = std::result::Result<T, EvalError>;
