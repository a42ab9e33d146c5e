//! Differentiable tensor operations for transformers, frozen or trained, over [candle](candle_core).
//!
//! candle's own norms, softmax and rotary embeddings record no backward, and its matrix product always computes the
//! gradient of the weight. This crate has the operations that prompt tuning needs, each with an exact backward to its
//! *input*, and to those of its parameters that are tracked (given as a `Var` or computed from one); frozen ones cost nothing:
//!
//! | operation | forward |
//! |---|---|
//! | [`Linear`] | `x·Wᵀ + b`, weights in f32, bf16 or f16 |
//! | [`Norm`] | layer norm, RMS norm |
//! | [`Activation`] | GELU (erf, tanh), ReLU, gated or not |
//! | [`softmax()`], [`attention()`] | with position bias, padding mask, causal mask, any scale |
//! | [`AttentionSublayer`], [`FeedForwardSublayer`] | norm, attention or feed-forward, residual sum in one operation |
//! | [`embedding()`], [`cross_entropy()`] | checked ids, ignore index −100 |
//! | [`StemConv`], [`InvertedResidual`], [`linear_relu6()`] | convolutional image encoders, inference only |
//!
//! [`backward()`] walks the graph and refuses to lose a gradient silently. Activations are f32; everything also runs in f64,
//! where the tests check each gradient against finite differences.
//!
//! # Devices
//!
//! Everything runs where its tensors are. On an NVIDIA GPU (feature `cuda`, [`cuda_device`]), in f32 alone:
//!
//! | on a GPU | by |
//! |---|---|
//! | norms, activations, softmax, cross entropy, forward and backward; the gradients of tables and biases | kernels of `fwd-kernels` |
//! | [`Linear`], both products of [`attention()`] | cuBLAS in full f32; weights in half precision are kept so, and widened for each product |
//! | the rows of [`embedding()`] | candle's kernel |
//! | [`AttentionSublayer`], [`FeedForwardSublayer`] | the operations above, one by one, whether trained or frozen |
//! | [`StemConv`], [`InvertedResidual`] | the CPU: pixels or activations are copied to the host, and the result back |
//!
//! Ids and labels are checked on the CPU; where they are there already, a GPU is not waited for. Every operation meets candle in one
//! place, the private `dispatch` module. The feature `emulate` has `emulated`, which computes CPU tensors as a GPU would, for tests.

#![forbid(unsafe_code)]

mod activation;
mod attention;
mod backward;
mod bias;
mod conv;
mod cpu;
mod cross_entropy;
mod dispatch;
mod embedding;
#[cfg_attr(not(feature = "emulate"), path = "no_emulation.rs")]
mod emulation;
mod error;
mod feed_forward;
mod gpu;
mod kernel;
mod linear;
mod norm;
mod softmax;

/// Runs `body` on a thread of rayon's pool: the global one, or the one that is installed.
///
/// Every operation here shares its work out to the pool. Called from outside, each one wakes the pool up and puts the
/// calling thread to sleep, which costs more than a small operation itself; called from inside, it starts at once. A model
/// wraps its forward pass in this (a third of the generation time of a small one was waiting). [`backward()`] does not:
/// candle's walk over the graph recurses, and threads of a pool have small stacks.
pub fn in_pool<R: Send>(body: impl FnOnce() -> R + Send) -> R {
    // The emulation is one of this thread.
    if emulation::is_on() { body() } else { rayon::scope(|_| body()) }
}

pub use activation::Activation;
pub use attention::{AttentionSublayer, AttentionWeights, KvCache, attention};
pub use backward::backward;
pub use bias::{AttentionBias, position_bias};
#[doc(hidden)] // The old name, until its users have the new one.
pub use conv::InvertedResidualWeights as InvertedResidualConfig;
pub use conv::{InvertedResidual, InvertedResidualWeights, StemConv, linear_relu6};
pub use cross_entropy::{IGNORE_INDEX, cross_entropy, token_nll};
pub use embedding::embedding;
#[cfg(feature = "emulate")]
pub use emulation::emulated;
pub use error::{OpError, Result};
pub use feed_forward::{FeedForwardSublayer, FeedForwardWeights};
pub use gpu::cuda_device;
pub use linear::Linear;
pub use norm::Norm;
pub use softmax::softmax;
