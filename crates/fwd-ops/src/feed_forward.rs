//! The feed-forward sublayer of a transformer, and the fused kernel that computes a frozen one as one operation on the CPU:
//! `y = post(x + W_out·act(W_in·pre(x)))`.
//!
//! As the attention sublayer: one operation keeps each block of rows in cache and leaves one edge in candle's graph, and only the
//! input gets a gradient. As soon as a parameter is tracked, and always on a GPU, the sublayer runs as the single operations that it is
//! made of, and every tracked parameter gets its gradient.

use crate::activation::Activation;
use crate::cpu::Elem;
use crate::cpu::feed_forward::{FeedForwardRef, FeedForwardSaved};
use crate::dispatch::{Read, apply1, apply2, keep, on_gpu};
use crate::error::{OpError, Result};
use crate::kernel::{Kernel, View};
use crate::linear::{Linear, MapChange, check_last_dim};
use crate::norm::Norm;
use candle_core::{Shape, Tensor};
use std::sync::{Arc, OnceLock};

/// The weights of a [`FeedForwardSublayer`] over activations of width `d`, and the function between its two maps.
#[derive(Debug, Clone)]
pub struct FeedForwardWeights {
    /// Applied to the input before the first map.
    pub pre: Norm,
    /// The first map: `(d_hidden, d)`, or `(2·d_hidden, d)` with rows `[gate ; up]` when gated.
    pub input: Linear,
    /// The function between the two maps.
    pub activation: Activation,
    /// Whether `input` holds a gate (T5 v1.1, FlanT5).
    pub gated: bool,
    /// Maps the activations back to the width of the input: `(d, d_hidden)`.
    pub output: Linear,
    /// Applied to the sum of input and result.
    pub post: Norm,
}

/// A feed-forward sublayer with its norms and residual connection.
#[derive(Debug, Clone)]
pub struct FeedForwardSublayer(Arc<FeedForwardWeights>);

impl FeedForwardSublayer {
    /// Puts the weights together.
    ///
    /// # Errors
    /// [`OpError::Shape`] if their widths do not fit.
    pub fn new(weights: FeedForwardWeights) -> Result<Self> {
        let d = weights.input.n_in();
        let hidden = weights.output.n_in() * if weights.gated { 2 } else { 1 };
        let fits = weights.input.n_out() == hidden
            && weights.output.n_out() == d
            && weights.pre.width().is_none_or(|w| w == d)
            && weights.post.width().is_none_or(|w| w == d);
        if fits {
            return Ok(Self(Arc::new(weights)));
        }
        let what = format!(
            "input {}x{d} and output {}x{} (gated: {}) do not fit together",
            weights.input.n_out(),
            weights.output.n_out(),
            weights.output.n_in(),
            weights.gated
        );
        Err(OpError::shape("feed_forward", what))
    }

    /// The same sublayer with what `change` makes of its linear maps, as [`Linear::adapted`].
    ///
    /// # Errors
    /// Those of `change`; [`OpError::Shape`] if a map has other widths then.
    pub fn with_maps(&self, change: &mut MapChange<'_>) -> Result<Self> {
        let weights = &*self.0;
        let (input, output) = (change(&weights.input)?, change(&weights.output)?);
        Self::new(FeedForwardWeights { input, output, ..weights.clone() })
    }

    /// `y = post(x + W_out·act(W_in·pre(x)))`.
    ///
    /// # Shapes
    /// `x (…, d)`, f32 or f64 -> the same.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the last dimension of `x` is not `d`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        check_last_dim("feed_forward", x, self.0.input.n_in())?;
        let weights = &*self.0;
        let norms = weights.pre.is_trained() || weights.post.is_trained();
        if on_gpu(x) || norms || weights.input.is_apart() || weights.output.is_apart() {
            let hidden = weights.input.forward(&weights.pre.forward(x)?)?;
            let active = if weights.gated {
                weights.activation.forward_gated(&hidden)?
            } else {
                weights.activation.forward(&hidden)?
            };
            return weights.post.forward(&(x + weights.output.forward(&active)?)?);
        }
        let kernel =
            FusedFeedForward { weights: Arc::clone(&self.0), keep: x.track_op(), saved: OnceLock::new() };
        apply1(kernel, x)
    }
}

/// Calls `$body` with `$parts` bound to the sublayer's parameters as `FeedForwardRef<E>`.
macro_rules! with_parts {
    ($weights:expr, $E:ty, $parts:ident => $body:expr) => {{
        let weights = &*$weights;
        let read = (weights.pre.read(), weights.input.read(), weights.output.read(), weights.post.read());
        let values =
            (read.0.values::<$E>()?, read.1.values::<$E>()?, read.2.values::<$E>()?, read.3.values::<$E>()?);
        let $parts = FeedForwardRef {
            pre: values.0.as_ref(),
            w_in: values.1.as_ref(),
            activation: weights.activation,
            gated: weights.gated,
            w_out: values.2.as_ref(),
            post: values.3.as_ref(),
        };
        $body
    }};
}

struct FusedFeedForward {
    weights: Arc<FeedForwardWeights>,
    /// Whether a backward pass may follow.
    keep: bool,
    saved: OnceLock<[Tensor; 2]>,
}

struct FusedFeedForwardBackward {
    weights: Arc<FeedForwardWeights>,
    /// The result of the first map, and the sum before the post-norm (empty if there is none).
    saved: [Tensor; 2],
}

impl Kernel<1> for FusedFeedForward {
    fn name(&self) -> &'static str {
        "feed_forward"
    }

    fn cpu<E: Elem>(&self, [x]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let (y, saved) = with_parts!(self.weights, E, parts => parts.forward(x.data, self.keep));
        if let Some(FeedForwardSaved { hidden, sum }) = saved {
            let _ = self.saved.set([keep(hidden)?, keep(sum)?]);
        }
        Ok((y, Shape::from_dims(x.dims)))
    }

    fn backward(
        &self,
        [x]: [&Tensor; 1],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 1]> {
        let Some(saved) = self.saved.get().cloned() else {
            candle_core::bail!("feed_forward: nothing was saved")
        };
        let kernel = FusedFeedForwardBackward { weights: Arc::clone(&self.weights), saved };
        Ok([Some(apply2(kernel, x, dy)?)])
    }
}

impl Kernel<2> for FusedFeedForwardBackward {
    fn name(&self) -> &'static str {
        "feed_forward_backward"
    }

    fn cpu<E: Elem>(&self, [x, dy]: [View<'_, E>; 2]) -> candle_core::Result<(Vec<E>, Shape)> {
        let read = (Read::new(&self.saved[0]), Read::new(&self.saved[1]));
        let (hidden, sum) = (read.0.values::<E>()?, read.1.values::<E>()?);
        let dx = with_parts!(self.weights, E, parts => parts.backward(x.data, &hidden, &sum, dy.data));
        Ok((dx, Shape::from_dims(x.dims)))
    }
}
