//! The error type of this crate.

use candle_core::DType;

/// What can go wrong in a tensor operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// The arguments of an operation do not fit together.
    #[error("{op}: {what}")]
    Shape {
        /// The name of the operation that was called.
        op: &'static str,
        /// Which argument is wrong, with the expected and the found shape.
        what: String,
    },
    /// The operation does not exist for this element type.
    #[error("{op}: dtype {dtype:?} is not supported, {supported}")]
    DType {
        /// The name of the operation that was called.
        op: &'static str,
        /// The element type that was given.
        dtype: DType,
        /// What would have been accepted.
        supported: &'static str,
    },
    /// A label or token id lies outside its table.
    #[error("{op}: id {id} at position {position} is outside 0..{limit}")]
    IdOutOfRange {
        /// The name of the operation that was called.
        op: &'static str,
        /// The id that is not in `0..limit`.
        id: i64,
        /// Its flat position in the id tensor.
        position: usize,
        /// The first id that is too large.
        limit: usize,
    },
    /// A frozen weight holds NaN or an infinity, so nothing computed with it would mean anything.
    #[error(
        "tensor {tensor}: row {row} holds NaN or an infinity: the file is damaged, or the values do not fit its type"
    )]
    NonFiniteWeight {
        /// The name of the tensor.
        tensor: String,
        /// Its first row with such an element.
        row: usize,
    },
    /// A frozen weight cannot be stored as it was asked for.
    #[error("tensor {tensor}: {what}")]
    Weight {
        /// The name of the tensor.
        tensor: String,
        /// What does not fit, and what to do.
        what: String,
    },
    /// The loss is NaN or infinite, so its gradient would mean nothing.
    #[error("the loss is {value}, not a finite number")]
    NonFiniteLoss {
        /// What the loss is: NaN or an infinity.
        value: f64,
    },
    /// Some parameters got no gradient, or one with NaN or infinite entries.
    #[error("backward: no gradient for [{}], non-finite gradient for [{}]", missing.join(", "), non_finite.join(", "))]
    Gradients {
        /// Names of the parameters that the loss does not depend on, or whose path has an operation without backward.
        missing: Vec<String>,
        /// Names of the parameters whose gradient holds NaN or an infinity.
        non_finite: Vec<String>,
    },
    /// There is no GPU, or it cannot run the operation.
    #[error(transparent)]
    Kernel(#[from] fwd_kernels::KernelError),
    /// An error of candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl OpError {
    pub(crate) fn shape(op: &'static str, what: impl Into<String>) -> Self {
        Self::Shape { op, what: what.into() }
    }

    pub(crate) fn weight(tensor: &str, what: impl Into<String>) -> Self {
        Self::Weight { tensor: tensor.into(), what: what.into() }
    }
}

impl From<OpError> for candle_core::Error {
    fn from(error: OpError) -> Self {
        match error {
            OpError::Candle(inner) => inner,
            other => candle_core::Error::wrap(other),
        }
    }
}

/// Shorthand for a result with [`OpError`].
pub type Result<T> = std::result::Result<T, OpError>;
