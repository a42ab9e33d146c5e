//! The CUDA side of Fwd-Prompt: kernels, the plans of their launches, and two ways to run a plan.
//!
//! An operation is planned first, by a pure function that needs no GPU ([`plan_norm_forward`] …): which kernels, which grid, which
//! buffers of which length. A [`Plan`] then runs on a GPU ([`Device`], feature `cuda`) or, for tests, on the CPU ([`Emulator`],
//! feature `emulate`), through the same kernel source (`cuda/*.cu`).
//!
//! | operation | plan |
//! |---|---|
//! | Gram matrix of a stream of rows | [`plan_gram`], [`plan_gram_mirror`] |
//! | layer norm, RMS norm | [`plan_norm_forward`], [`plan_norm_backward`] |
//! | prompt selection | [`plan_selection`] |
//!
//! The crate builds everywhere. Without the feature, without a driver or without a GPU, [`Device::open`] answers
//! [`KernelError::CudaUnavailable`] with the reason.

mod data;
#[cfg(feature = "emulate")]
mod emulator;
mod error;
mod gram;
mod norm;
mod plan;
mod selection;
mod source;

#[cfg_attr(feature = "cuda", path = "cuda/mod.rs")]
#[cfg_attr(not(feature = "cuda"), path = "no_cuda.rs")]
mod device;

pub use data::{DType, Data};
pub use device::Device;
#[cfg(feature = "emulate")]
pub use emulator::Emulator;
pub use error::{KernelError, Result};
pub use gram::{GramShape, plan_gram, plan_gram_mirror};
pub use norm::{NormKind, NormShape, plan_norm_backward, plan_norm_forward};
pub use plan::{Arg, Buffer, Executor, Launch, Plan, Role, Target};
pub use selection::{SelectionShape, plan_selection};
pub use source::{File, source};
