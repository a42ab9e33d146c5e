//! Frozen convolutions for image encoders (MobileNet / EfficientNet): depthwise `k×k` and pointwise `1×1`, `NCHW`.

use crate::cpu::Elem;
use crate::cpu::conv::{DepthwiseShape, depthwise, depthwise_backward, pointwise, pointwise_backward};
use crate::dispatch::{Kernel, Read, View, apply1};
use crate::error::{OpError, Result};
use crate::linear::{FrozenLinear, frozen_dtype};
use candle_core::{Shape, Tensor};

/// A depthwise convolution with frozen weights: every channel has its own filter.
#[derive(Debug, Clone)]
pub struct DepthwiseConv {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: usize,
    padding: Padding,
}

/// How a convolution treats the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// The same number of zero rows and columns on every side (PyTorch).
    Symmetric(usize),
    /// `ceil(size/stride)` outputs; an odd surplus goes below and to the right (TensorFlow's `SAME`).
    Same,
}

impl DepthwiseConv {
    /// Takes `weight (channels, 1, k_h, k_w)` and `bias (channels)`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the shapes do not fit or the stride is 0, [`OpError::DType`] if a tensor is not of a float type.
    pub fn new(weight: Tensor, bias: Option<Tensor>, stride: usize, padding: Padding) -> Result<Self> {
        let fits = matches!(weight.dims(), &[_, 1, h, w] if h > 0 && w > 0)
            && stride > 0
            && bias.as_ref().is_none_or(|b| b.dims() == [weight.dims()[0]]);
        if !fits {
            let what = format!(
                "weight {:?}, bias {:?}, stride {stride}: (c, 1, h, w), (c) and a positive stride needed",
                weight.shape(),
                bias.as_ref().map(Tensor::shape)
            );
            return Err(OpError::shape("depthwise_conv", what));
        }
        for tensor in bias.iter().chain([&weight]) {
            frozen_dtype("depthwise_conv", tensor)?;
        }
        let bias = bias.map(|b| b.detach().contiguous()).transpose()?;
        Ok(Self { weight: weight.detach().contiguous()?, bias, stride, padding })
    }

    /// `x (batch, channels, h, w)`, f32 or f64 -> `(batch, channels, h', w')`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if `x` has other channels or is smaller than the filter.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let shape = self.shape(x)?;
        apply1(Depthwise { conv: self.clone(), shape }, x)
    }

    fn shape(&self, x: &Tensor) -> Result<DepthwiseShape> {
        let (channels, kernel_hw) = (self.weight.dims()[0], [self.weight.dims()[2], self.weight.dims()[3]]);
        let misfit = || {
            OpError::shape(
                "depthwise_conv",
                format!("x {:?} does not fit filters {:?}", x.shape(), self.weight.shape()),
            )
        };
        let &[_, c, h, w] = x.dims() else { return Err(misfit()) };
        let in_hw = [h, w];
        let (mut out_hw, mut pad_top_left) = ([0; 2], [0; 2]);
        for axis in 0..2 {
            let (n, k) = (in_hw[axis], kernel_hw[axis]);
            (out_hw[axis], pad_top_left[axis]) = match self.padding {
                Padding::Symmetric(pad) => {
                    ((n + 2 * pad).checked_sub(k).ok_or_else(misfit)? / self.stride + 1, pad)
                }
                Padding::Same => {
                    let n_out = n.div_ceil(self.stride);
                    let total = (n_out.saturating_sub(1) * self.stride + k).saturating_sub(n);
                    (n_out, total / 2)
                }
            };
        }
        if c != channels || h == 0 || w == 0 {
            return Err(misfit());
        }
        Ok(DepthwiseShape { channels, in_hw, out_hw, kernel_hw, stride: self.stride, pad_top_left })
    }
}

/// A pointwise (`1×1`) convolution: `y[:, o, p] = Σ_c W[o, c]·x[:, c, p] + b[o]`.
///
/// # Shapes
/// `x (batch, n_in, h, w)`, f32 or f64 -> `(batch, n_out, h, w)`.
///
/// # Errors
/// [`OpError::Shape`] if `x` is not of rank 4 with `n_in` channels.
pub fn pointwise_conv(linear: &FrozenLinear, x: &Tensor) -> Result<Tensor> {
    match x.dims() {
        &[_, c, _, _] if c == linear.n_in() => apply1(Pointwise(linear.clone()), x),
        _ => Err(OpError::shape(
            "pointwise_conv",
            format!("x must be (b, {}, h, w), got {:?}", linear.n_in(), x.shape()),
        )),
    }
}

struct Depthwise {
    conv: DepthwiseConv,
    shape: DepthwiseShape,
}

struct DepthwiseBackward {
    conv: DepthwiseConv,
    shape: DepthwiseShape,
}

impl Kernel<1> for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise_conv"
    }

    fn cpu<E: Elem>(&self, [x]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let [h, w] = self.shape.out_hw;
        let mut y = vec![E::zero(); x.dims[0] * self.shape.channels * h * w];
        let (weight, bias) = (Read::new(&self.conv.weight), self.conv.bias.as_ref().map(Read::new));
        let bias = bias.as_ref().map(|b| b.values::<E>()).transpose()?;
        depthwise(self.shape, x.data, &weight.values::<E>()?, bias.as_deref(), &mut y);
        Ok((y, Shape::from((x.dims[0], self.shape.channels, h, w))))
    }

    fn backward(&self, _: [&Tensor; 1], _: &Tensor, dy: &Tensor) -> candle_core::Result<[Option<Tensor>; 1]> {
        Ok([Some(apply1(DepthwiseBackward { conv: self.conv.clone(), shape: self.shape }, dy)?)])
    }
}

impl Kernel<1> for DepthwiseBackward {
    fn name(&self) -> &'static str {
        "depthwise_conv_backward"
    }

    fn cpu<E: Elem>(&self, [dy]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let [h, w] = self.shape.in_hw;
        let mut dx = vec![E::zero(); dy.dims[0] * self.shape.channels * h * w];
        let weight = Read::new(&self.conv.weight);
        depthwise_backward(self.shape, dy.data, &weight.values::<E>()?, &mut dx);
        Ok((dx, Shape::from((dy.dims[0], self.shape.channels, h, w))))
    }
}

struct Pointwise(FrozenLinear);
struct PointwiseBackward(FrozenLinear);

impl Kernel<1> for Pointwise {
    fn name(&self) -> &'static str {
        "pointwise_conv"
    }

    fn cpu<E: Elem>(&self, [x]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let (batch, h, w) = (x.dims[0], x.dims[2], x.dims[3]);
        let mut y = vec![E::zero(); batch * self.0.n_out() * h * w];
        if !y.is_empty() {
            pointwise(self.0.read().values()?.as_ref(), h * w, x.data, &mut y);
        }
        Ok((y, Shape::from((batch, self.0.n_out(), h, w))))
    }

    fn backward(&self, _: [&Tensor; 1], _: &Tensor, dy: &Tensor) -> candle_core::Result<[Option<Tensor>; 1]> {
        Ok([Some(apply1(PointwiseBackward(self.0.clone()), dy)?)])
    }
}

impl Kernel<1> for PointwiseBackward {
    fn name(&self) -> &'static str {
        "pointwise_conv_backward"
    }

    fn cpu<E: Elem>(&self, [dy]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let (batch, h, w) = (dy.dims[0], dy.dims[2], dy.dims[3]);
        let mut dx = vec![E::zero(); batch * self.0.n_in() * h * w];
        if !dx.is_empty() {
            pointwise_backward(self.0.read().values()?.as_ref(), h * w, dy.data, &mut dx);
        }
        Ok((dx, Shape::from((batch, self.0.n_in(), h, w))))
    }
}
