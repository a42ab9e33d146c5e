//! The CUDA side of Fwd-Prompt: kernels, the plans of their launches, and two ways to run a plan.
//!
//! An operation is planned first, by a pure function that needs no GPU ([`plan_norm_forward`] …): which kernels, which grid, which
//! buffers of which length. A [`Plan`] then runs on a GPU ([`Device`], feature `cuda`) or, for tests, on the CPU ([`Emulator`],
//! feature `emulate`), through the same kernel source (`cuda/*.cu`).
//!
//! | operation | plan |
//! |---|---|
//! | layer norm, RMS norm | [`plan_norm_forward`], [`plan_norm_backward`] |
//! | signed low-rank update of rows | [`plan_projection`] |
//! | AdamW with projected gradient and update | [`plan_adamw`] |
//!
//! The crate builds everywhere. Without the feature, without a driver or without a GPU, [`Device::open`] answers
//! [`KernelError::CudaUnavailable`] with the reason.

mod adamw;
mod data;
#[cfg(feature = "emulate")]
mod emulator;
mod error;
mod norm;
mod plan;
mod projection;
mod source;

#[cfg_attr(feature = "cuda", path = "cuda/mod.rs")]
#[cfg_attr(not(feature = "cuda"), path = "no_cuda.rs")]
mod device;

pub use adamw::{AdamWShape, AdamWStep, ProjectAt, plan_adamw};
pub use data::{DType, Data};
pub use device::Device;
#[cfg(feature = "emulate")]
pub use emulator::Emulator;
pub use error::{KernelError, Result};
pub use norm::{NormKind, NormShape, plan_norm_backward, plan_norm_forward};
pub use plan::{Arg, Buffer, Executor, Launch, Plan, Role, Target};
pub use projection::{ProjectionShape, plan_projection};
pub use source::{File, source};
