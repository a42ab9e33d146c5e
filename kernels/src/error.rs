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
        /// The operation.
        op: &'static str,
        /// Which sizes, and what is expected.
        message: String,
    },
    /// A buffer that is not what the plan asks for.
    #[error("{op}: buffer {index} ({name}) must be {expected}, not {found}")]
    Buffer {
        /// The operation.
        op: &'static str,
        /// Its place in the plan's list.
        index: usize,
        /// Its name.
        name: &'static str,
        /// Type and length that the plan asks for.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The emulator stopped a kernel.
    #[error("{kernel}: {message}")]
    Emulation {
        /// The kernel.
        kernel: String,
        /// What it did.
        message: String,
    },
    /// A kernel's source did not compile.
    #[error("{file}.cu does not compile: {log}")]
    Compile {
        /// The file.
        file: &'static str,
        /// The compiler's words.
        log: String,
    },
    /// The driver or a CUDA library refused a call.
    #[error("{call}: {code}")]
    Cuda {
        /// What was called.
        call: &'static str,
        /// The code it answered.
        code: String,
    },
    /// A matrix with NaN or infinity in it.
    #[error("{op}: matrix {index} of the batch has numbers that are not finite")]
    NonFinite {
        /// The operation.
        op: &'static str,
        /// Which matrix.
        index: usize,
    },
    /// cuSOLVER did not converge.
    #[error("{routine}: matrix {index} of the batch did not converge (info {info})")]
    NoConvergence {
        /// The routine of cuSOLVER.
        routine: &'static str,
        /// Which matrix.
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
