//! The CUDA side of Fwd-Prompt: kernels, the plans of their launches, and two ways to run a plan.
//!
//! An operation is planned first, by a pure function that needs no GPU ([`plan_norm_forward`] …): which kernels, which grid, which
//! buffers of which length. A [`Plan`] then runs on a GPU ([`Device`], feature `cuda`) or, for tests, on the CPU ([`Emulator`],
//! feature `emulate`), through the same kernel source (`cuda/*.cu`).
//!
//! | operation | plan |
//! |---|---|
//! | layer norm, RMS norm | [`plan_norm_forward`], [`plan_norm_backward`], [`plan_norm_weight_gradient`] |
//! | sum over rows | [`plan_sum_rows`] |
//! | softmax with bias and masks | [`plan_softmax_forward`], [`plan_softmax_backward`] |
//! | GELU, ReLU | [`plan_activation_forward`], [`plan_activation_backward`] |
//! | gated GELU, gated ReLU | [`plan_gated_forward`], [`plan_gated_backward`] |
//! | cross entropy | [`plan_cross_entropy_forward`], [`plan_cross_entropy_backward`] |
//!
//! The crate builds everywhere. Without the feature, without a driver or without a GPU, [`Device::open`] answers
//! [`KernelError::CudaUnavailable`] with the reason.

mod activation;
mod cross_entropy;
mod data;
#[cfg(feature = "emulate")]
mod emulator;
mod error;
mod norm;
mod plan;
mod softmax;
mod source;

#[cfg_attr(feature = "cuda", path = "cuda/mod.rs")]
#[cfg_attr(not(feature = "cuda"), path = "no_cuda.rs")]
mod device;

pub use activation::{
    ActivationKind, GatedShape, plan_activation_backward, plan_activation_forward, plan_gated_backward,
    plan_gated_forward,
};
pub use cross_entropy::{CrossEntropyShape, plan_cross_entropy_backward, plan_cross_entropy_forward};
pub use data::{DType, Data};
pub use device::Device;
#[cfg(feature = "emulate")]
pub use emulator::Emulator;
pub use error::{KernelError, Result};
pub use norm::{
    NormKind, NormShape, plan_norm_backward, plan_norm_forward, plan_norm_weight_gradient, plan_sum_rows,
};
pub use plan::{Arg, Buffer, Executor, Launch, Plan, Role, Target};
pub use softmax::{Order, Place, SoftmaxShape, plan_softmax_backward, plan_softmax_forward};
pub use source::{File, source};
