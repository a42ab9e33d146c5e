//! EfficientNet-Lite0, a convolutional image encoder without squeeze-and-excitation and with ReLU6, small enough for a CPU.
//!
//! A 3×3 stem, sixteen inverted residual blocks in seven stages, a 1×1 head; `SAME` padding as in TensorFlow. Batch norms
//! are folded into the convolutions when the weights are loaded. Inference only, and on the CPU, whatever device the rest of a model is on.
//!
//! # Source
//! Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019; the Lite variant is Google's
//! (tensorflow/tpu, 2020). Tensor names are those of the PyTorch port (`_blocks.3._expand_conv.weight` …).

use crate::error::{ModelError, Result};
use crate::weights::{Checkpoint, Scope, WeightDtype};
use candle_core::{Device, Tensor};
use fwd_ops::{InvertedResidual, InvertedResidualWeights, Linear, StemConv, in_pool, linear_relu6};
use rayon::prelude::*;
use std::path::Path;

/// Stages of blocks: kernel, number of blocks, stride of the first, expansion, channels.
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (3, 1, 1, 1, 16),
    (3, 2, 2, 6, 24),
    (5, 2, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (5, 3, 1, 6, 112),
    (5, 4, 2, 6, 192),
    (3, 1, 1, 6, 320),
];
const STEM_CHANNELS: usize = 32;
const HEAD_CHANNELS: usize = 1280;
/// The last block of stride 16: the next one steps to 32.
const MID_BLOCK: usize = 10;
const BATCH_NORM_EPS: f64 = 1e-3;

/// A frozen EfficientNet-Lite0 without its classifier.
#[derive(Debug, Clone)]
pub struct EfficientNetLite0 {
    stem: StemConv,
    blocks: Vec<InvertedResidual>,
    head: Linear,
}

/// Two maps of each image, their cells row by row.
#[derive(Debug, Clone)]
pub struct Lite0Features {
    /// `(batch, ceil(h/16)·ceil(w/16), 112)`: the last block of stride 16, linear.
    pub mid: Tensor,
    /// `(batch, ceil(h/32)·ceil(w/32), 1280)`: after the head and its ReLU6.
    pub last: Tensor,
}

impl Lite0Features {
    /// The mean of the last map over its cells, which the ImageNet classifier reads: `(batch, 1280)`.
    ///
    /// # Errors
    /// An error of candle.
    pub fn pooled(&self) -> Result<Tensor> {
        Ok(self.last.mean(1)?)
    }
}

impl EfficientNetLite0 {
    /// Channels of [`Lite0Features::mid`].
    pub const MID_CHANNELS: usize = STAGES[4].4;
    /// Channels of [`Lite0Features::last`].
    pub const LAST_CHANNELS: usize = HEAD_CHANNELS;

    /// Reads a safetensors file that holds the encoder and nothing else.
    ///
    /// # Errors
    /// [`ModelError::Io`] or [`ModelError::WeightFile`] if the file cannot be read or holds a negative variance,
    /// [`ModelError::Tensors`] if tensors are missing, left over, misshapen or not finite.
    pub fn load(path: &Path) -> Result<Self> {
        let mut checkpoint = Checkpoint::open_file(path, WeightDtype::F32, &Device::Cpu)?;
        let model = Self::new(Scope::new(&mut checkpoint, "")).map_err(|error| match error {
            ModelError::Config { origin, what } => {
                ModelError::WeightFile { path: path.into(), what: format!("{origin}: {what}") }
            }
            other => other,
        })?;
        checkpoint.finish(|_| None)?;
        Ok(model)
    }

    pub(crate) fn new(mut weights: Scope<'_>) -> Result<Self> {
        let (weight, bias) = convolution(&mut weights, "_conv_stem", "_bn0", [STEM_CHANNELS, 3, 3, 3])?;
        let stem = StemConv::new(&weight, bias, 2)?;
        let mut blocks = Vec::new();
        let mut n_in = STEM_CHANNELS;
        for (kernel, n_blocks, first_stride, expansion, n_out) in STAGES {
            for i in 0..n_blocks {
                let mut block = weights.at(&format!("_blocks.{}", blocks.len()));
                let channels = n_in * expansion;
                let expand = match expansion {
                    1 => None,
                    _ => Some(pointwise(&mut block, "_expand_conv", "_bn0", channels, n_in)?),
                };
                let shape = [channels, 1, kernel, kernel];
                let (depthwise_weight, depthwise_bias) =
                    convolution(&mut block, "_depthwise_conv", "_bn1", shape)?;
                let project = pointwise(&mut block, "_project_conv", "_bn2", n_out, channels)?;
                let stride = if i == 0 { first_stride } else { 1 };
                blocks.push(InvertedResidual::new(InvertedResidualWeights {
                    expand,
                    depthwise_weight,
                    depthwise_bias,
                    stride,
                    project,
                })?);
                n_in = n_out;
            }
        }
        let head = pointwise(&mut weights, "_conv_head", "_bn1", HEAD_CHANNELS, n_in)?;
        Ok(Self { stem, blocks, head })
    }

    /// Both maps of every image of a batch.
    ///
    /// # Shapes
    /// `pixels (batch, 3, h, w)` in f32, `(byte − 127) / 128`, of any size, on any device; the maps are on the CPU.
    ///
    /// # Errors
    /// [`ModelError::Input`] for another shape or no image.
    pub fn forward(&self, pixels: &Tensor) -> Result<Lite0Features> {
        /// Images that go through all layers together: the weights are read once for them.
        const TOGETHER: usize = 16;
        let n_images = match *pixels.dims() {
            [batch, 3, h, w] if batch > 0 && h > 0 && w > 0 => batch,
            _ => {
                let what = format!("pixels must be (batch, 3, h, w) and not empty, got {:?}", pixels.shape());
                return Err(ModelError::input("EfficientNet-Lite0", what));
            }
        };
        let pixels = pixels.to_device(&Device::Cpu)?;
        let firsts: Vec<usize> = (0..n_images).step_by(TOGETHER).collect();
        let parts: Vec<Lite0Features> = in_pool(|| {
            let part = |&first: &usize| {
                self.forward_part(&pixels.narrow(0, first, TOGETHER.min(n_images - first))?)
            };
            firsts.par_iter().map(part).collect::<Result<_>>()
        })?;
        let joined = |map: fn(&Lite0Features) -> &Tensor| -> Result<Tensor> {
            Ok(Tensor::cat(&parts.iter().map(map).collect::<Vec<_>>(), 0)?)
        };
        Ok(Lite0Features { mid: joined(|p| &p.mid)?, last: joined(|p| &p.last)? })
    }

    fn forward_part(&self, pixels: &Tensor) -> Result<Lite0Features> {
        let (before, after) = self.blocks.split_at(MID_BLOCK + 1);
        let mut x = self.stem.forward(pixels)?;
        for block in before {
            x = block.forward(&x)?;
        }
        let mid = x.flatten(1, 2)?;
        for block in after {
            x = block.forward(&x)?;
        }
        Ok(Lite0Features { mid, last: linear_relu6(&self.head, &x.flatten(1, 2)?)? })
    }
}

/// A convolution without bias with its batch norm folded in: `w·s` and `β − μ·s` with `s = γ / sqrt(σ² + ε)`.
fn convolution(
    weights: &mut Scope<'_>,
    name: &str,
    norm: &str,
    shape: [usize; 4],
) -> Result<(Tensor, Tensor)> {
    let weight = weights.get(&format!("{name}.weight"), &shape)?;
    let mut vector = |part: &str| -> Result<Vec<f32>> {
        Ok(weights.get(&format!("{norm}.{part}"), &[shape[0]])?.to_vec1()?)
    };
    let (gamma, beta) = (vector("weight")?, vector("bias")?);
    let (mean, variance) = (vector("running_mean")?, vector("running_var")?);
    if let Some(bad) = variance.iter().find(|&&v| v < 0.0) {
        let origin = weights.name(&format!("{norm}.running_var"));
        return Err(ModelError::Config { origin, what: format!("a variance cannot be {bad}") });
    }
    let scale = |i: usize| f64::from(gamma[i]) / (f64::from(variance[i]) + BATCH_NORM_EPS).sqrt();
    let mut folded: Vec<f32> = weight.flatten_all()?.to_vec1()?;
    for (i, filter) in folded.chunks_exact_mut(shape[1..].iter().product()).enumerate() {
        filter.iter_mut().for_each(|w| *w = (f64::from(*w) * scale(i)) as f32);
    }
    let bias: Vec<f32> =
        (0..shape[0]).map(|i| (f64::from(beta[i]) - f64::from(mean[i]) * scale(i)) as f32).collect();
    Ok((Tensor::from_vec(folded, &shape, &Device::Cpu)?, Tensor::new(bias, &Device::Cpu)?))
}

/// A 1×1 convolution as a linear map, its batch norm folded in.
fn pointwise(weights: &mut Scope<'_>, name: &str, norm: &str, n_out: usize, n_in: usize) -> Result<Linear> {
    let (weight, bias) = convolution(weights, name, norm, [n_out, n_in, 1, 1])?;
    Ok(Linear::new(weight.reshape((n_out, n_in))?, Some(bias))?)
}
