//! Frozen image encoders of the MobileNet family (EfficientNet-Lite), inference only: a dense stem over `NCHW` pixels,
//! inverted residual blocks over `NHWC` activations, ReLU6, TensorFlow's `SAME` padding.
//!
//! There is no backward: such an encoder stands in front of everything that is trained, and asking for a gradient through
//! it is an error.
//!
//! The convolutions run on the CPU: their parameters are kept there, and an input on a GPU is copied to the host and the result back.
//! What such an encoder computes of an image is computed once and kept.
//!
//! # Source
//! Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018; Tan and Le, "EfficientNet", 2019.

use crate::cpu::Elem;
use crate::cpu::conv::{
    Geometry, InvertedResidualRef, LANES, dense_relu6, linear_relu6 as linear_relu6_rows,
};
use crate::dispatch::{Read, apply1};
use crate::error::{OpError, Result};
use crate::gpu::{Arg, GpuStorage};
use crate::kernel::{Kernel, View, on_host};
use crate::linear::{Linear, check_last_dim, frozen_dtype, with_last_dim};
use candle_core::{Device, Layout, Shape, Tensor, op};

/// The first layer of an image encoder: a square convolution with `SAME` padding, then ReLU6.
#[derive(Debug, Clone)]
pub struct StemConv {
    /// The filters as rows `(channels · k · k)`.
    linear: Linear,
    channels: usize,
    kernel: usize,
    stride: usize,
}

impl StemConv {
    /// Takes `weight (n_out, channels, k, k)` and `bias (n_out)`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the shapes do not fit or the stride is not in `1..=k`, [`OpError::DType`] if a tensor is not of
    /// a float type.
    pub fn new(weight: &Tensor, bias: Tensor, stride: usize) -> Result<Self> {
        match *weight.dims() {
            [n_out, channels, k, k2] if k == k2 && (1..=k).contains(&stride) => {
                let linear = Linear::new(weight.reshape((n_out, channels * k * k))?, Some(bias))?;
                Ok(Self { linear: linear.frozen_on(&Device::Cpu)?, channels, kernel: k, stride })
            }
            _ => {
                let what = format!(
                    "weight {:?}, stride {stride}: (n_out, c, k, k) and a stride in 1..=k needed",
                    weight.shape()
                );
                Err(OpError::shape("stem_conv", what))
            }
        }
    }

    /// `relu6(conv(x) + b)`.
    ///
    /// # Shapes
    /// `x (batch, channels, h, w)` in f32 or f64 -> `(batch, ceil(h / stride), ceil(w / stride), n_out)`: the channels come
    /// last.
    ///
    /// # Errors
    /// [`OpError::Shape`] if `x` has other channels or no pixel.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match *x.dims() {
            [_, c, h, w] if c == self.channels && h > 0 && w > 0 => apply1(Stem(self.clone()), x),
            _ => Err(OpError::shape(
                "stem_conv",
                format!("x must be (b, {}, h, w), got {:?}", self.channels, x.shape()),
            )),
        }
    }
}

/// The weights of an [`InvertedResidual`] block, batch norms folded in, and its stride.
#[derive(Debug, Clone)]
pub struct InvertedResidualWeights {
    /// `n_in -> channels` with ReLU6; without it the block filters its input.
    pub expand: Option<Linear>,
    /// One filter a channel, `(channels, 1, k, k)`, with ReLU6 and `SAME` padding.
    pub depthwise_weight: Tensor,
    /// Added to the filtered channels, `(channels)`.
    pub depthwise_bias: Tensor,
    /// Step of the filters, in `1..=k`.
    pub stride: usize,
    /// `channels -> n_out`, linear.
    pub project: Linear,
}

/// `y = project(relu6(depthwise(relu6(expand(x)))))`, plus `x` where the stride is 1 and the widths agree.
#[derive(Debug, Clone)]
pub struct InvertedResidual {
    expand: Option<Linear>,
    /// `(planes, k·k, LANES)`: the filters of `LANES` channels next to one another.
    taps: Tensor,
    /// `(planes, LANES)`.
    bias: Tensor,
    kernel: usize,
    stride: usize,
    project: Linear,
}

impl InvertedResidual {
    /// Puts the weights together.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the shapes do not fit or the stride is not in `1..=k`, [`OpError::DType`] if a tensor is not of
    /// a float type.
    pub fn new(weights: InvertedResidualWeights) -> Result<Self> {
        let InvertedResidualWeights { expand, depthwise_weight, depthwise_bias, stride, project } = weights;
        let channels = project.n_in();
        let kernel = match *depthwise_weight.dims() {
            [c, 1, k, k2] if c == channels && k == k2 && (1..=k).contains(&stride) => k,
            _ => 0,
        };
        let widths_fit = expand.as_ref().is_none_or(|e| e.n_out() == channels);
        if kernel == 0 || !widths_fit || depthwise_bias.dims() != [channels] {
            let what = format!(
                "expand -> {:?}, depthwise {:?} and {:?}, stride {stride}, project {channels} ->: \
                 (c, 1, k, k), (c), one width and a stride in 1..=k needed",
                expand.as_ref().map(Linear::n_out),
                depthwise_weight.shape(),
                depthwise_bias.shape()
            );
            return Err(OpError::shape("inverted_residual", what));
        }
        for tensor in [&depthwise_weight, &depthwise_bias] {
            frozen_dtype("inverted_residual", tensor)?;
        }
        let n_planes = channels.div_ceil(LANES);
        let missing = n_planes * LANES - channels;
        let taps = depthwise_weight
            .detach()
            .pad_with_zeros(0, 0, missing)?
            .reshape((n_planes, LANES, kernel * kernel))?
            .transpose(1, 2)?
            .contiguous()?;
        let bias = depthwise_bias.detach().pad_with_zeros(0, 0, missing)?.contiguous()?;
        Ok(Self {
            expand: expand.map(|e| e.frozen_on(&Device::Cpu)).transpose()?,
            taps: taps.to_device(&Device::Cpu)?,
            bias: bias.to_device(&Device::Cpu)?,
            kernel,
            stride,
            project: project.frozen_on(&Device::Cpu)?,
        })
    }

    /// Channels of the input.
    pub fn n_in(&self) -> usize {
        self.expand.as_ref().unwrap_or(&self.project).n_in()
    }

    /// Channels of the output.
    pub fn n_out(&self) -> usize {
        self.project.n_out()
    }

    /// Runs the block.
    ///
    /// # Shapes
    /// `x (batch, h, w, n_in)` in f32 or f64 -> `(batch, ceil(h / stride), ceil(w / stride), n_out)`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if `x` has other channels or no pixel.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match *x.dims() {
            [_, h, w, c] if c == self.n_in() && h > 0 && w > 0 => apply1(Block(self.clone()), x),
            _ => Err(OpError::shape(
                "inverted_residual",
                format!("x must be (b, h, w, {}), got {:?}", self.n_in(), x.shape()),
            )),
        }
    }
}

/// `relu6(x·Wᵀ + b)`: a pointwise convolution over `NHWC` activations. Inference only.
///
/// # Shapes
/// `x (…, n_in)` in f32 or f64 -> `(…, n_out)`.
///
/// # Errors
/// [`OpError::Shape`] if the last dimension of `x` is not `n_in`.
pub fn linear_relu6(linear: &Linear, x: &Tensor) -> Result<Tensor> {
    check_last_dim("linear_relu6", x, linear.n_in())?;
    apply1(Pointwise(linear.clone()), x)
}

struct Stem(StemConv);
struct Block(InvertedResidual);
struct Pointwise(Linear);

impl Kernel<1> for Stem {
    fn name(&self) -> &'static str {
        "stem_conv"
    }

    fn cpu<E: Elem>(&self, [x]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let StemConv { linear, channels, kernel, stride } = &self.0;
        let geometry = Geometry::same(*kernel, *stride, [x.dims[2], x.dims[3]]);
        let [h, w] = geometry.out_hw;
        let mut y = vec![E::zero(); x.dims[0] * h * w * linear.n_out()];
        dense_relu6(geometry, *channels, linear.read().values()?.as_ref(), x.data, &mut y);
        Ok((y, Shape::from((x.dims[0], h, w, linear.n_out()))))
    }

    fn gpu<S: GpuStorage>(&self, [x]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        on_host(self, x)
    }
}

impl Kernel<1> for Block {
    fn name(&self) -> &'static str {
        "inverted_residual"
    }

    fn cpu<E: Elem>(&self, [x]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let block = &self.0;
        let geometry = Geometry::same(block.kernel, block.stride, [x.dims[1], x.dims[2]]);
        let [h, w] = geometry.out_hw;
        let mut y = vec![E::zero(); x.dims[0] * h * w * block.n_out()];
        let expand = block.expand.as_ref().map(Linear::read);
        let expand = expand.as_ref().map(|e| e.values::<E>()).transpose()?;
        let project = block.project.read();
        let project = project.values::<E>()?;
        let (taps, bias) = (Read::new(&block.taps), Read::new(&block.bias));
        let (taps, bias) = (taps.values::<E>()?, bias.values::<E>()?);
        let parts = InvertedResidualRef {
            geometry,
            expand: expand.as_ref().map(|e| e.as_ref()),
            taps: taps.as_chunks().0,
            bias: bias.as_chunks().0,
            project: project.as_ref(),
            residual: block.stride == 1 && block.n_in() == block.n_out(),
        };
        parts.forward(x.data, &mut y);
        Ok((y, Shape::from((x.dims[0], h, w, block.n_out()))))
    }

    fn gpu<S: GpuStorage>(&self, [x]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        on_host(self, x)
    }
}

impl Kernel<1> for Pointwise {
    fn name(&self) -> &'static str {
        "linear_relu6"
    }

    fn cpu<E: Elem>(&self, [x]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let mut y = vec![E::zero(); x.data.len() / self.0.n_in() * self.0.n_out()];
        linear_relu6_rows(self.0.read().values()?.as_ref(), x.data, &mut y);
        Ok((y, with_last_dim(x.dims, self.0.n_out())))
    }

    fn gpu<S: GpuStorage>(&self, [x]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        let y = self.0.forward_on_gpu(x)?;
        let shape = with_last_dim(x.dims(), self.0.n_out());
        if shape.elem_count() == 0 {
            return Ok((y, shape));
        }
        let (here, flat) = (Layout::contiguous(&shape), Shape::from(shape.elem_count()));
        let six = x.upload(&[6f32])?;
        let y = y.unary_impl::<op::Relu>(&here)?;
        let y = y.binary_impl::<op::Minimum>(
            &six,
            &Layout::contiguous(&flat),
            &Layout::new(flat.clone(), vec![0], 0),
        )?;
        Ok((y, shape))
    }
}
