//! What can go wrong, from planning to launching.

/// Results of this crate.
pub type Result<T, E = KernelError> = std::result::Result<T, E>;

/// An operation that was not planned, or a plan that did not run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// There is no GPU to run on.
    #[error("CUDA is not available: {reason}")]
    CudaUnavailable {
        /// Why, and what would help.
        reason: String,
    },
    /// Sizes that do not belong together, or that the kernel has no launch for.
    #[error("{op}: {message}")]
    Shape {
        /// The operation that was planned or run.
        op: &'static str,
        /// Which sizes, and what is expected.
        message: String,
    },
    /// A buffer that is not what the plan asks for.
    #[error("{op}: buffer {index} ({name}) must be {expected}, not {found}")]
    Buffer {
        /// The operation that was planned or run.
        op: &'static str,
        /// Its place in the plan's list.
        index: usize,
        /// The plan's name of it.
        name: &'static str,
        /// Type and length that the plan asks for.
        expected: String,
        /// Type and length that were given.
        found: String,
    },
    /// The emulator stopped a kernel.
    #[error("{kernel}: {message}")]
    Emulation {
        /// The name of the kernel, with its type.
        kernel: String,
        /// What it did, and where the emulator knows it, in which block and thread.
        message: String,
    },
    /// A kernel's source did not compile.
    #[error("{file}.cu does not compile: {log}")]
    Compile {
        /// Its file in `cuda/`, without the ending.
        file: &'static str,
        /// The compiler's words.
        log: String,
    },
    /// The driver or a CUDA library refused a call.
    #[error("{call}: {code}")]
    Cuda {
        /// The function that was called.
        call: &'static str,
        /// The code it answered.
        code: String,
    },
    /// A matrix with NaN or infinity in it.
    #[error("{op}: matrix {index} of the batch has numbers that are not finite")]
    NonFinite {
        /// The operation that was planned or run.
        op: &'static str,
        /// The place of the matrix in its batch, from 0 on.
        index: usize,
    },
    /// cuSOLVER did not converge.
    #[error("{routine}: matrix {index} of the batch did not converge (info {info})")]
    NoConvergence {
        /// The routine of cuSOLVER.
        routine: &'static str,
        /// The place of the matrix in its batch, from 0 on.
        index: usize,
        /// Its word for how far it came.
        info: i32,
    },
}

impl KernelError {
    pub(crate) fn shape(op: &'static str, message: impl Into<String>) -> Self {
        Self::Shape { op, message: message.into() }
    }
}
