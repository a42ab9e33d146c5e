#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod activation;
mod attention;
mod backward;
mod bias;
mod compute;
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
mod matrix;
mod norm;
mod rotary;
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
pub use compute::{Compute, UnknownCompute};
pub use conv::{InvertedResidual, InvertedResidualWeights, StemConv, linear_relu6};
pub use cpu::stored::{Format, Unfit};
pub use cross_entropy::{IGNORE_INDEX, cross_entropy, token_nll};
pub use embedding::{Embedding, embedding};
#[cfg(feature = "emulate")]
pub use emulation::emulated;
pub use error::{OpError, Result};
pub use feed_forward::{FeedForwardSublayer, FeedForwardWeights};
pub use gpu::cuda_device;
pub use linear::{Additions, Linear, LowRank, MapChange, Observer};
pub use matrix::{Matrix, Weight};
pub use norm::Norm;
pub use rotary::Rotary;
pub use softmax::softmax;
