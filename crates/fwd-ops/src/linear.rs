//! Frozen linear maps: `y = x·Wᵀ + b` with `dx = dy·W`, and nothing for `W` or `b`.
//!
//! candle's `Op::Matmul` computes and keeps the weight's gradient whether it is frozen or not; here the weight is part of
//! the operation, not an argument, so that gradient cannot come into being.

use crate::cpu::Elem;
use crate::cpu::gemm::{LinearRef, Threads, is_weight_dtype};
use crate::dispatch::{Kernel, Read, View, apply1};
use crate::error::{OpError, Result};
use candle_core::{DType, Shape, Tensor};
use faer::Accum;
use std::borrow::Cow;

/// A linear map whose weight and bias never get a gradient.
///
/// Weights may be stored in f32, bf16 or f16, which are widened exactly to the type of the activations (f32 or f64), or in
/// f64 for f64 activations.
#[derive(Debug, Clone)]
pub struct FrozenLinear {
    /// `Wᵀ (n_in, n_out)`: the product of few rows (decoding) reads it in order, up to 1.7 times as fast.
    transposed: Tensor,
    bias: Option<Tensor>,
    n_in: usize,
    n_out: usize,
}

impl FrozenLinear {
    /// Takes `weight (n_out, n_in)` and `bias (n_out)`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the shapes do not fit or a width is 0, [`OpError::DType`] if a tensor is not of a float type.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let &[n_out, n_in] = weight.dims() else {
            return Err(OpError::shape(
                "frozen_linear",
                format!("weight must be (n_out, n_in), got {:?}", weight.shape()),
            ));
        };
        if n_out == 0 || n_in == 0 {
            return Err(OpError::shape("frozen_linear", format!("weight {:?} is empty", weight.shape())));
        }
        if let Some(bias) = &bias
            && bias.dims() != [n_out]
        {
            return Err(OpError::shape(
                "frozen_linear",
                format!("bias must be ({n_out}), got {:?}", bias.shape()),
            ));
        }
        for tensor in bias.iter().chain([&weight]) {
            frozen_dtype("frozen_linear", tensor)?;
        }
        let bias = bias.map(|b| b.detach().contiguous()).transpose()?;
        Ok(Self { transposed: weight.detach().t()?.contiguous()?, bias, n_in, n_out })
    }

    /// Stacks maps that read the same input into one: rows `[W_1 ; W_2 ; …]`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if there is none, the input widths differ or only some have a bias.
    pub fn stacked(parts: &[&FrozenLinear]) -> Result<Self> {
        if parts.is_empty() {
            return Err(OpError::shape("frozen_linear", "nothing to stack"));
        }
        let n_biases = parts.iter().filter(|p| p.bias.is_some()).count();
        if parts.iter().any(|p| p.n_in != parts[0].n_in) || (n_biases != 0 && n_biases != parts.len()) {
            return Err(OpError::shape(
                "frozen_linear",
                "stacked maps must read one width, and all or none have a bias",
            ));
        }
        let transposed: Vec<_> = parts.iter().map(|p| &p.transposed).collect();
        let biases: Vec<_> = parts.iter().filter_map(|p| p.bias.as_ref()).collect();
        Ok(Self {
            transposed: Tensor::cat(&transposed, 1)?.contiguous()?,
            bias: if biases.is_empty() { None } else { Some(Tensor::cat(&biases, 0)?) },
            n_in: parts[0].n_in,
            n_out: parts.iter().map(|p| p.n_out).sum(),
        })
    }

    /// Width of the input.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Width of the output.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// `y = x·Wᵀ + b`.
    ///
    /// # Shapes
    /// `x (…, n_in)` in f32 or f64 -> `(…, n_out)` in the same type.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the last dimension of `x` is not `n_in`.
    ///
    /// # Examples
    /// ```
    /// use candle_core::{Device, Tensor};
    /// let w = Tensor::new(&[[1f32, 2.], [0., -1.]], &Device::Cpu)?;
    /// let x = Tensor::new(&[[3f32, 4.]], &Device::Cpu)?;
    /// let y = fwd_ops::FrozenLinear::new(w, None)?.forward(&x)?;
    /// assert_eq!(y.to_vec2::<f32>()?, [[11., -4.]]);
    /// # Ok::<(), fwd_ops::OpError>(())
    /// ```
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        check_last_dim("frozen_linear", x, self.n_in)?;
        apply1(Forward(self.clone()), x)
    }

    pub(crate) fn read(&self) -> LinearRead<'_> {
        LinearRead {
            linear: self,
            transposed: Read::new(&self.transposed),
            bias: self.bias.as_ref().map(Read::new),
        }
    }
}

/// A [`FrozenLinear`] locked for reading.
pub(crate) struct LinearRead<'a> {
    linear: &'a FrozenLinear,
    transposed: Read<'a>,
    bias: Option<Read<'a>>,
}

/// The values of a [`FrozenLinear`] in one element type.
pub(crate) struct LinearValues<'a, E: Clone> {
    transposed: Cow<'a, [E]>,
    bias: Option<Cow<'a, [E]>>,
    n_in: usize,
    n_out: usize,
}

impl LinearRead<'_> {
    pub(crate) fn values<E: Elem>(&self) -> candle_core::Result<LinearValues<'_, E>> {
        Ok(LinearValues {
            transposed: self.transposed.values()?,
            bias: self.bias.as_ref().map(Read::values).transpose()?,
            n_in: self.linear.n_in,
            n_out: self.linear.n_out,
        })
    }
}

impl<E: Elem> LinearValues<'_, E> {
    pub(crate) fn as_ref(&self) -> LinearRef<'_, E> {
        LinearRef {
            transposed: &self.transposed,
            bias: self.bias.as_deref(),
            n_in: self.n_in,
            n_out: self.n_out,
        }
    }
}

/// `OpError::DType` unless the tensor may serve as a frozen parameter.
pub(crate) fn frozen_dtype(op: &'static str, tensor: &Tensor) -> Result<()> {
    let dtype = tensor.dtype();
    if is_weight_dtype(dtype) {
        return Ok(());
    }
    Err(OpError::DType { op, dtype, supported: "frozen parameters are f32, f64, bf16 or f16" })
}

/// `OpError::Shape` unless the last dimension of `x` is `width`.
pub(crate) fn check_last_dim(op: &'static str, x: &Tensor, width: usize) -> Result<()> {
    if x.dims().last() == Some(&width) {
        return Ok(());
    }
    Err(OpError::shape(op, format!("the last dimension of the input must be {width}, got {:?}", x.shape())))
}

/// `dims` with the last one replaced.
pub(crate) fn with_last_dim(dims: &[usize], last: usize) -> Shape {
    let mut dims = dims.to_vec();
    if let Some(d) = dims.last_mut() {
        *d = last;
    }
    Shape::from_dims(&dims)
}

struct Forward(FrozenLinear);
struct Backward(FrozenLinear);

impl Kernel<1> for Forward {
    fn name(&self) -> &'static str {
        "frozen_linear"
    }

    fn cpu<E: Elem>(&self, [x]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let m = x.data.len() / self.0.n_in;
        let mut y = vec![E::zero(); m * self.0.n_out];
        self.0.read().values()?.as_ref().forward(x.data, m, &mut y, Accum::Replace, Threads::Pool);
        Ok((y, with_last_dim(x.dims, self.0.n_out)))
    }

    fn backward(&self, _: [&Tensor; 1], _: &Tensor, dy: &Tensor) -> candle_core::Result<[Option<Tensor>; 1]> {
        Ok([Some(apply1(Backward(self.0.clone()), dy)?)])
    }
}

impl Kernel<1> for Backward {
    fn name(&self) -> &'static str {
        "frozen_linear_backward"
    }

    fn cpu<E: Elem>(&self, [dy]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let m = dy.data.len() / self.0.n_out;
        let mut dx = vec![E::zero(); m * self.0.n_in];
        self.0.read().values()?.as_ref().backward(dy.data, m, &mut dx, Accum::Replace, Threads::Pool);
        Ok((dx, with_last_dim(dy.dims, self.0.n_in)))
    }
}

/// Widens a frozen parameter to the type that activations have: f64 stays f64, everything else becomes f32.
pub(crate) fn activation_dtype(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}
