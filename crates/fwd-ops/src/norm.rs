//! Frozen layer norm and RMS norm over the last dimension.
//!
//! ```text
//! layer norm: y = w·(x − mean x)/sqrt(var x + eps) + b        RMS norm: y = w·x/sqrt(mean x² + eps)
//! ```

use crate::cpu::norm::{NormRef, norm_rows, norm_rows_backward_add};
use crate::cpu::{Elem, rows_per_task, simd};
use crate::dispatch::{Kernel, Read, View, apply1, apply2};
use crate::error::{OpError, Result};
use crate::linear::{check_last_dim, frozen_dtype};
use candle_core::{Shape, Tensor};
use rayon::prelude::*;
use std::borrow::Cow;

/// A normalisation of the last dimension with frozen weights; [`Norm::identity`] leaves the input as it is.
#[derive(Debug, Clone)]
pub struct Norm(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Identity,
    Rms { weight: Tensor, eps: f64 },
    Layer { weight: Tensor, bias: Tensor, eps: f64 },
}

impl Norm {
    /// No normalisation.
    pub fn identity() -> Self {
        Self(Kind::Identity)
    }

    /// RMS norm with `weight (d)` (Zhang & Sennrich 2019; T5's layer norm).
    ///
    /// # Errors
    /// [`OpError::Shape`] or [`OpError::DType`] if the weight is not a float vector.
    pub fn rms(weight: Tensor, eps: f64) -> Result<Self> {
        check_vector("rms_norm", &weight)?;
        Ok(Self(Kind::Rms { weight: weight.detach().contiguous()?, eps }))
    }

    /// Layer norm with `weight (d)` and `bias (d)` (Ba et al. 2016).
    ///
    /// # Errors
    /// [`OpError::Shape`] or [`OpError::DType`] if weight and bias are not float vectors of one length.
    pub fn layer(weight: Tensor, bias: Tensor, eps: f64) -> Result<Self> {
        check_vector("layer_norm", &weight)?;
        check_vector("layer_norm", &bias)?;
        if weight.dims() != bias.dims() {
            return Err(OpError::shape(
                "layer_norm",
                format!("weight {:?} and bias {:?} must have one length", weight.shape(), bias.shape()),
            ));
        }
        let (weight, bias) = (weight.detach().contiguous()?, bias.detach().contiguous()?);
        Ok(Self(Kind::Layer { weight, bias, eps }))
    }

    /// Normalises the last dimension of `x (…, d)`, f32 or f64.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the last dimension of `x` is not `d`.
    ///
    /// # Examples
    /// ```
    /// use candle_core::{Device, Tensor};
    /// let norm = fwd_ops::Norm::rms(Tensor::new(&[1f32, 2.], &Device::Cpu)?, 0.0)?;
    /// let y = norm.forward(&Tensor::new(&[[3f32, 4.]], &Device::Cpu)?)?.to_vec2::<f32>()?;
    /// let rms = 12.5f32.sqrt();
    /// assert!((y[0][0] - 3. / rms).abs() < 1e-6 && (y[0][1] - 8. / rms).abs() < 1e-6);
    /// # Ok::<(), fwd_ops::OpError>(())
    /// ```
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if let Some(width) = self.width() {
            check_last_dim(self.name(), x, width)?;
            return apply1(Forward(self.clone()), x);
        }
        Ok(x.clone())
    }

    pub(crate) fn width(&self) -> Option<usize> {
        match &self.0 {
            Kind::Identity => None,
            Kind::Rms { weight, .. } | Kind::Layer { weight, .. } => Some(weight.elem_count()),
        }
    }

    fn name(&self) -> &'static str {
        match self.0 {
            Kind::Identity => "identity",
            Kind::Rms { .. } => "rms_norm",
            Kind::Layer { .. } => "layer_norm",
        }
    }

    pub(crate) fn read(&self) -> NormRead<'_> {
        match &self.0 {
            Kind::Identity => NormRead::Identity,
            Kind::Rms { weight, eps } => NormRead::Rms(Read::new(weight), *eps),
            Kind::Layer { weight, bias, eps } => NormRead::Layer(Read::new(weight), Read::new(bias), *eps),
        }
    }
}

fn check_vector(op: &'static str, tensor: &Tensor) -> Result<()> {
    frozen_dtype(op, tensor)?;
    if tensor.rank() != 1 || tensor.elem_count() == 0 {
        return Err(OpError::shape(
            op,
            format!("parameters must be non-empty vectors, got {:?}", tensor.shape()),
        ));
    }
    Ok(())
}

/// A [`Norm`] locked for reading.
pub(crate) enum NormRead<'a> {
    Identity,
    Rms(Read<'a>, f64),
    Layer(Read<'a>, Read<'a>, f64),
}

/// The values of a [`Norm`] in one element type.
pub(crate) enum NormValues<'a, E: Clone> {
    Identity,
    Rms(Cow<'a, [E]>, f64),
    Layer(Cow<'a, [E]>, Cow<'a, [E]>, f64),
}

impl NormRead<'_> {
    pub(crate) fn values<E: Elem>(&self) -> candle_core::Result<NormValues<'_, E>> {
        Ok(match self {
            Self::Identity => NormValues::Identity,
            Self::Rms(weight, eps) => NormValues::Rms(weight.values()?, *eps),
            Self::Layer(weight, bias, eps) => NormValues::Layer(weight.values()?, bias.values()?, *eps),
        })
    }
}

impl<E: Elem> NormValues<'_, E> {
    pub(crate) fn as_ref(&self) -> NormRef<'_, E> {
        match self {
            Self::Identity => NormRef::Identity,
            Self::Rms(weight, eps) => NormRef::Rms { weight, eps: *eps },
            Self::Layer(weight, bias, eps) => NormRef::Layer { weight, bias, eps: *eps },
        }
    }
}

struct Forward(Norm);
struct Backward(Norm);

impl Kernel<1> for Forward {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu<E: Elem>(&self, [x]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let read = self.0.read();
        let values = read.values()?;
        let (norm, d) = (values.as_ref(), x.last_dim());
        let mut y = vec![E::zero(); x.data.len()];
        let step = rows_per_task(x.data.len() / d) * d;
        x.data.par_chunks(step).zip(y.par_chunks_mut(step)).for_each(|(x, y)| {
            simd(
                #[inline(always)]
                || norm_rows(norm, x, d, y),
            )
        });
        Ok((y, Shape::from_dims(x.dims)))
    }

    fn backward(
        &self,
        [x]: [&Tensor; 1],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 1]> {
        Ok([Some(apply2(Backward(self.0.clone()), x, dy)?)])
    }
}

impl Kernel<2> for Backward {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu<E: Elem>(&self, [x, dy]: [View<'_, E>; 2]) -> candle_core::Result<(Vec<E>, Shape)> {
        let read = self.0.read();
        let values = read.values()?;
        let (norm, d) = (values.as_ref(), x.last_dim());
        let mut dx = vec![E::zero(); x.data.len()];
        let step = rows_per_task(x.data.len() / d) * d;
        x.data.par_chunks(step).zip(dy.data.par_chunks(step)).zip(dx.par_chunks_mut(step)).for_each(
            |((x, dy), dx)| {
                simd(
                    #[inline(always)]
                    || norm_rows_backward_add(norm, x, d, dy, dx),
                )
            },
        );
        Ok((dx, Shape::from_dims(x.dims)))
    }
}
