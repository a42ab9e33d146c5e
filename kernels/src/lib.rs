//! The CUDA side of Fwd-Prompt: kernels, the plans of their launches, and two ways to run a plan.
//!
//! An operation is planned first, by a pure function that needs no GPU ([`plan_norm_forward`] …): which kernels, which grid, which
//! buffers of which length. A [`Plan`] then runs on a GPU ([`Device`], feature `cuda`) or, for tests, on the CPU ([`Emulator`],
//! feature `emulate`), through the same kernel source (`cuda/*.cu`).
//!
//! | operation | plan |
//! |---|---|
//! | layer norm, RMS norm | [`plan_norm_forward`], [`plan_norm_backward`] |
//! | batched SVD, eigenvalues | [`plan_svd`], [`plan_eigen`], run by [`Solver`] |
//!
//! The crate builds everywhere. Without the feature, without a driver or without a GPU, [`Device::open`] answers
//! [`KernelError::CudaUnavailable`] with the reason.
//!
//! | variable | |
//! |---|---|
//! | `FWD_NVCC` | at build time: the compiler that makes the kernels part of the program, for compute capability 8.0, 9.0, 10.0 and newer |
//! | `FWD_KERNEL_CACHE` | where code is kept that NVRTC compiled because there was no such compiler; else a folder of the user's cache |
//! | `FWD_GPU`, `FWD_NVRTC` | `1` for tests: there is a GPU, or a run-time compiler, and a test that does not find it fails |

mod data;
#[cfg(feature = "emulate")]
mod emulator;
mod error;
mod info;
mod norm;
mod plan;
mod solver;
mod source;

#[cfg_attr(feature = "cuda", path = "cuda/mod.rs")]
#[cfg_attr(not(feature = "cuda"), path = "no_cuda.rs")]
mod device;

#[cfg(feature = "cuda")]
pub use cudarc;
pub use data::{DType, Data};
#[cfg(feature = "cuda")]
pub use device::{Binding, Element, Real, Svd, compile};
pub use device::{Device, Solver};
#[cfg(feature = "emulate")]
pub use emulator::Emulator;
pub use error::{KernelError, Result};
pub use info::DeviceInfo;
pub use norm::{NormKind, NormShape, plan_norm_backward, plan_norm_forward};
pub use plan::{Arg, Buffer, Executor, Launch, Plan, Role, Target};
pub use solver::{
    Accuracy, EigenPlan, EigenRoute, EigenShape, Order, SvdPlan, SvdRoute, SvdShape, plan_convert,
    plan_eigen, plan_from_eigen, plan_nonfinite, plan_svd,
};
pub use source::{File, source};
