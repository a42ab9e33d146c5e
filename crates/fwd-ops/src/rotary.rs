//! Rotary position embeddings (Su et al. 2021): queries and keys are turned by angles that grow with their position, so that a score
//! depends on the distance of two tokens alone.
//!
//! ```text
//! angle(p, i) = p·f_i                                       f_i: one frequency for each pair, usually theta^(−2i/d_head)
//! (x_i, x_{i+d/2}) -> (x_i·cos − x_{i+d/2}·sin, x_{i+d/2}·cos + x_i·sin)              d = d_head, i < d/2
//! ```
//! The pairs are those of GPT-NeoX and Hugging Face's LLaMA (half-split), not neighbours as in the paper.

use crate::cpu::rotary::RotaryRef;
use crate::cpu::{Elem, rows_per_task, simd};
use crate::dispatch::{Read, apply1};
use crate::embedding::int_values;
use crate::error::{OpError, Result};
use crate::gpu::{Arg, GpuStorage};
use crate::kernel::{Kernel, View};
use candle_core::{DType, Device, Shape, Tensor};
use fwd_kernels::{RotaryShape, plan_rotary};
use rayon::prelude::*;
use std::borrow::Cow;

/// Cosines and sines of the positions of a batch, which all layers of a model share. Cloning it copies no values.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// `(batch, tokens, d_head/2)`.
    cos: Tensor,
    /// The sines, of the shape of the cosines.
    sin: Tensor,
}

impl Rotary {
    /// The angles of positions, for heads of width `2·frequencies.len()`.
    ///
    /// In f32 they are computed as Hugging Face does it, with a frequency and a product that are rounded to f32; in f64 from their
    /// definition.
    ///
    /// # Shapes
    /// `positions (batch, tokens)`, an integer type, best kept on the CPU; `dtype` is that of the activations, f32 or f64.
    ///
    /// # Errors
    /// [`OpError::Shape`] without frequencies or for positions of another rank, [`OpError::DType`] for positions that are no integers or
    /// another `dtype`.
    ///
    /// # Examples
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use std::f32::consts::FRAC_1_SQRT_2;
    ///
    /// // One head of width 2 at position 1 turns by 45°.
    /// let positions = Tensor::new(&[[0i64, 1]], &Device::Cpu)?;
    /// let rotary = fwd_ops::Rotary::new(&[std::f64::consts::FRAC_PI_4], &positions, DType::F32, &Device::Cpu)?;
    /// let x = Tensor::new(&[[[1f32, 0.0], [1.0, 0.0]]], &Device::Cpu)?;
    /// let y = rotary.forward(&x, 1)?.to_vec3::<f32>()?;
    /// assert_eq!(y[0][0], [1.0, 0.0]);
    /// assert!((y[0][1][0] - FRAC_1_SQRT_2).abs() < 1e-6 && (y[0][1][1] - FRAC_1_SQRT_2).abs() < 1e-6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(frequencies: &[f64], positions: &Tensor, dtype: DType, device: &Device) -> Result<Self> {
        const OP: &str = "rotary";
        let &[batch, tokens] = positions.dims() else {
            let what = format!("positions must be (batch, tokens), got {:?}", positions.shape());
            return Err(OpError::shape(OP, what));
        };
        if frequencies.is_empty() {
            return Err(OpError::shape(OP, "there is no frequency"));
        }
        let positions = int_values(OP, positions)?;
        let shape = (batch, tokens, frequencies.len());
        let angles = |f: &dyn Fn(i64, f64) -> f64| -> Vec<f64> {
            positions.iter().flat_map(|&p| frequencies.iter().map(move |&w| f(p, w))).collect()
        };
        let (cos, sin) = match dtype {
            DType::F32 => {
                let angles = angles(&|p, w| f64::from(p as f32 * w as f32));
                let of = |f: fn(f32) -> f32| -> Vec<f32> { angles.iter().map(|&a| f(a as f32)).collect() };
                (
                    Tensor::from_vec(of(f32::cos), shape, device)?,
                    Tensor::from_vec(of(f32::sin), shape, device)?,
                )
            }
            DType::F64 => {
                let angles = angles(&|p, w| p as f64 * w);
                let of = |f: fn(f64) -> f64| -> Vec<f64> { angles.iter().map(|&a| f(a)).collect() };
                (
                    Tensor::from_vec(of(f64::cos), shape, device)?,
                    Tensor::from_vec(of(f64::sin), shape, device)?,
                )
            }
            dtype => return Err(OpError::DType { op: OP, dtype, supported: "activations are f32 or f64" }),
        };
        Ok(Self { cos, sin })
    }

    /// The cosines, `(batch, tokens, d_head/2)`.
    pub fn cos(&self) -> &Tensor {
        &self.cos
    }

    /// The sines, `(batch, tokens, d_head/2)`.
    pub fn sin(&self) -> &Tensor {
        &self.sin
    }

    /// Turns the first `n_heads` heads of every token; what lies behind them stays as it is, so that a packed projection `[q ; k ; v]`
    /// need not be taken apart.
    ///
    /// # Shapes
    /// `x (batch, tokens, width)` with `width ≥ n_heads·d_head` -> the same.
    ///
    /// # Errors
    /// [`OpError::Shape`] if batch, tokens or width do not fit.
    pub fn forward(&self, x: &Tensor, n_heads: usize) -> Result<Tensor> {
        let (batch, tokens, half) = self.cos.dims3()?;
        let fits = matches!(x.dims(), &[b, t, w] if (b, t) == (batch, tokens) && w >= n_heads * 2 * half);
        if !fits {
            let what = format!(
                "{n_heads} heads of width {} at {batch}x{tokens} positions do not fit {:?}",
                2 * half,
                x.shape()
            );
            return Err(OpError::shape("rotary", what));
        }
        apply1(Turn { rotary: self.clone(), n_heads, inverse: false }, x)
    }

    /// [`OpError::Shape`] unless it is for `batch·tokens` tokens with heads of width `d_head`.
    pub(crate) fn check(&self, op: &'static str, batch: usize, tokens: usize, d_head: usize) -> Result<()> {
        if self.cos.dims() == [batch, tokens, d_head / 2] && d_head.is_multiple_of(2) {
            return Ok(());
        }
        let what = format!(
            "rotary positions must be ({batch}, {tokens}, {}), got {:?}",
            d_head as f64 / 2.0,
            self.cos.shape()
        );
        Err(OpError::shape(op, what))
    }

    pub(crate) fn read(&self) -> RotaryRead<'_> {
        let half = self.cos.dims()[2];
        RotaryRead { cos: Read::new(&self.cos), sin: Read::new(&self.sin), half }
    }
}

/// A [`Rotary`] locked for reading.
pub(crate) struct RotaryRead<'a> {
    cos: Read<'a>,
    sin: Read<'a>,
    half: usize,
}

/// The values of a [`Rotary`] in one element type.
pub(crate) struct RotaryValues<'a, E: Clone> {
    cos: Cow<'a, [E]>,
    sin: Cow<'a, [E]>,
    half: usize,
}

impl RotaryRead<'_> {
    pub(crate) fn values<E: Elem>(&self) -> candle_core::Result<RotaryValues<'_, E>> {
        Ok(RotaryValues { cos: self.cos.values()?, sin: self.sin.values()?, half: self.half })
    }
}

impl<E: Elem> RotaryValues<'_, E> {
    pub(crate) fn as_ref(&self) -> RotaryRef<'_, E> {
        RotaryRef { cos: &self.cos, sin: &self.sin, half: self.half }
    }
}

struct Turn {
    rotary: Rotary,
    n_heads: usize,
    inverse: bool,
}

impl Kernel<1> for Turn {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu<E: Elem>(&self, [x]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let read = self.rotary.read();
        let values = read.values::<E>()?;
        let (rotary, width) = (values.as_ref(), x.last_dim());
        let mut y = x.data.to_vec();
        if let Some(n_rows) = y.len().checked_div(width) {
            let rows = rows_per_task(n_rows);
            y.par_chunks_mut(rows * width).enumerate().for_each(|(i, y)| {
                let rotary = rotary.starting_at(i * rows);
                simd(
                    #[inline(always)]
                    || rotary.turn(y, width, self.n_heads, self.inverse),
                );
            });
        }
        Ok((y, Shape::from_dims(x.dims)))
    }

    fn gpu<S: GpuStorage>(&self, [x]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        let read = self.rotary.read();
        let (cos, sin) = (read.cos.on_gpu::<S>()?, read.sin.on_gpu::<S>()?);
        let shape = RotaryShape {
            rows: x.rows(),
            width: x.last_dim(),
            n_heads: self.n_heads,
            d_head: 2 * read.half,
            inverse: self.inverse,
            dtype: fwd_kernels::DType::F32,
        };
        let plan = plan_rotary(&shape, &x.storage.target()?);
        Ok((x.launch_one(plan, &[x, cos.arg(), sin.arg()])?, Shape::from_dims(x.dims())))
    }

    fn backward(&self, _: [&Tensor; 1], _: &Tensor, dy: &Tensor) -> candle_core::Result<[Option<Tensor>; 1]> {
        let back = Self { rotary: self.rotary.clone(), n_heads: self.n_heads, inverse: !self.inverse };
        Ok([Some(apply1(back, dy)?)])
    }
}
