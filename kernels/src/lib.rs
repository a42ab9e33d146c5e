#![doc = include_str!("../README.md")]
//!
//! # Operations
//!
//! An operation is planned first, by a pure function that needs no GPU: which kernels, which grid, which buffers of which length. A
//! [`Plan`] then runs on a GPU ([`Device`], feature `cuda`) or, for tests, on the CPU (`Emulator`, feature `emulate`), through the same
//! kernel source.
//!
//! | operation | plan |
//! |---|---|
//! | signed low-rank update of rows | [`plan_projection`] |
//! | AdamW with projected gradient and update | [`plan_adamw`] |
//! | Gram matrix of a stream of rows | [`plan_gram`], [`plan_gram_mirror`] |
//! | batched SVD, eigenvalues | [`plan_svd`], [`plan_eigen`], run by [`Solver`] |
//! | prompt selection | [`plan_selection`] |
//! | layer norm, RMS norm | [`plan_norm_forward`], [`plan_norm_backward`], [`plan_norm_weight_gradient`] |
//! | sum over rows | [`plan_sum_rows`] |
//! | softmax with bias and masks | [`plan_softmax_forward`], [`plan_softmax_backward`] |
//! | GELU, ReLU | [`plan_activation_forward`], [`plan_activation_backward`] |
//! | gated GELU, gated ReLU | [`plan_gated_forward`], [`plan_gated_backward`] |
//! | rotary positions | [`plan_rotary`] |
//! | cross entropy | [`plan_cross_entropy_forward`], [`plan_cross_entropy_backward`] |
//! | embedding | [`plan_embedding_forward`], [`plan_embedding_backward`] |
//!
//! The crate builds everywhere. Without the feature, without a driver or without a GPU, [`Device::open`] answers
//! [`KernelError::CudaUnavailable`] with the reason.
//!
//! | variable | |
//! |---|---|
//! | `FWD_NVCC` | at build time: the compiler that makes the kernels part of the program, for compute capability 8.0, 9.0, 10.0 and newer |
//! | `FWD_KERNEL_CACHE` | where code is kept that NVRTC compiled because there was no such compiler; else a folder of the user's cache |
//! | `FWD_GPU`, `FWD_NVRTC` | `1` for tests: there is a GPU, or a run-time compiler, and a test that does not find it fails |

mod activation;
mod adamw;
mod cross_entropy;
mod data;
mod embedding;
#[cfg(feature = "emulate")]
mod emulator;
mod error;
mod gram;
mod info;
mod norm;
mod plan;
mod projection;
mod rotary;
mod selection;
mod softmax;
mod solver;
mod source;

#[cfg_attr(feature = "cuda", path = "cuda/mod.rs")]
#[cfg_attr(not(feature = "cuda"), path = "no_cuda.rs")]
mod device;

pub use activation::{
    ActivationKind, GatedShape, plan_activation_backward, plan_activation_forward, plan_gated_backward,
    plan_gated_forward,
};
pub use adamw::{AdamWShape, AdamWStep, ProjectAt, plan_adamw};
pub use cross_entropy::{CrossEntropyShape, plan_cross_entropy_backward, plan_cross_entropy_forward};
#[cfg(feature = "cuda")]
pub use cudarc;
pub use data::{DType, Data};
#[cfg(feature = "cuda")]
pub use device::{Binding, Element, Real, Svd, compile};
pub use device::{Device, Solver};
pub use embedding::{EmbeddingShape, plan_embedding_backward, plan_embedding_forward};
#[cfg(feature = "emulate")]
pub use emulator::Emulator;
pub use error::{KernelError, Result};
pub use gram::{GramShape, plan_gram, plan_gram_mirror};
pub use info::DeviceInfo;
pub use norm::{
    NormKind, NormShape, plan_norm_backward, plan_norm_forward, plan_norm_weight_gradient, plan_sum_rows,
};
pub use plan::{Arg, Buffer, Executor, Launch, Plan, Role, Target};
pub use projection::{ProjectionShape, plan_projection};
pub use rotary::{RotaryShape, plan_rotary};
pub use selection::{SelectionShape, plan_selection};
pub use softmax::{Order, Place, SoftmaxShape, plan_softmax_backward, plan_softmax_forward};
pub use solver::{
    Accuracy, EigenPlan, EigenRoute, EigenShape, Layout, SvdPlan, SvdRoute, SvdShape, plan_convert,
    plan_eigen, plan_from_eigen, plan_nonfinite, plan_svd,
};
pub use source::{File, source};
