//! Layer norm and RMS norm over the last dimension.
//!
//! ```text
//! layer norm: y = w·(x − mean x)/sqrt(var x + eps) + b        RMS norm: y = w·x/sqrt(mean x² + eps)
//! ```

use crate::cpu::norm::{NormRef, norm_rows, norm_rows_backward_add, norm_rows_weight_gradient};
use crate::cpu::{Elem, rows_per_task, simd};
use crate::dispatch::{Read, apply1, apply2, apply3};
use crate::error::{OpError, Result};
use crate::gpu::{self, Arg, GpuStorage};
use crate::kernel::{Kernel, View};
use crate::linear::{SumRows, check_last_dim, frozen_dtype};
use candle_core::{Shape, Tensor};
use fwd_kernels::{NormKind, NormShape, plan_norm_backward, plan_norm_forward, plan_norm_weight_gradient};
use rayon::prelude::*;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

/// A normalisation of the last dimension; [`Norm::identity`] leaves the input as it is. Its parameters are frozen, and get no
/// gradient, unless they are tracked (a `Var` or computed from one).
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
        Ok(Self(Kind::Rms { weight: weight.contiguous()?, eps }))
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
        let (weight, bias) = (weight.contiguous()?, bias.contiguous()?);
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
        let Some(width) = self.width() else { return Ok(x.clone()) };
        check_last_dim(self.name(), x, width)?;
        let forward = Forward(self.frozen());
        match &self.0 {
            Kind::Rms { weight, .. } if self.is_trained() => apply2(forward, x, weight),
            Kind::Layer { weight, bias, .. } if self.is_trained() => {
                apply3(forward, &x.contiguous()?, weight, bias)
            }
            _ => apply1(forward, x),
        }
    }

    /// Whether a parameter gets a gradient.
    pub fn is_trained(&self) -> bool {
        match &self.0 {
            Kind::Identity => false,
            Kind::Rms { weight, .. } => weight.track_op(),
            Kind::Layer { weight, bias, .. } => weight.track_op() || bias.track_op(),
        }
    }

    /// The same values without a history.
    fn frozen(&self) -> Self {
        Self(match &self.0 {
            Kind::Identity => Kind::Identity,
            Kind::Rms { weight, eps } => Kind::Rms { weight: weight.detach(), eps: *eps },
            Kind::Layer { weight, bias, eps } => {
                Kind::Layer { weight: weight.detach(), bias: bias.detach(), eps: *eps }
            }
        })
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

impl Norm {
    /// What a GPU normalises, and the tensors that it needs for it: weight and, for layer norm, bias.
    fn on_gpu<S: GpuStorage>(&self, x: &Arg<'_, S>) -> candle_core::Result<(NormShape, Vec<Read<'_>>)> {
        let (kind, eps, parameters) = match &self.0 {
            Kind::Rms { weight, eps } => (NormKind::Rms, *eps, vec![Read::new(weight)]),
            Kind::Layer { weight, bias, eps } => {
                (NormKind::Layer, *eps, vec![Read::new(weight), Read::new(bias)])
            }
            Kind::Identity => candle_core::bail!("the identity is no norm"),
        };
        let (rows, d) = (x.rows(), x.last_dim());
        Ok((NormShape { kind, rows, d, eps: eps as f32, dtype: fwd_kernels::DType::F32 }, parameters))
    }
}

struct Forward(Norm);
struct Backward(Norm);

struct WeightGradient {
    norm: Norm,
    /// The gradient of the bias, where it comes out of the same pass (on a GPU).
    bias: Arc<OnceLock<Tensor>>,
}

impl Forward {
    fn run<E: Elem>(&self, x: &View<'_, E>) -> candle_core::Result<(Vec<E>, Shape)> {
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

    fn run_gpu<S: GpuStorage>(&self, x: Arg<'_, S>) -> candle_core::Result<(S, Shape)> {
        let (shape, parameters) = self.0.on_gpu(&x)?;
        let parameters = parameters.iter().map(Read::on_gpu).collect::<candle_core::Result<Vec<_>>>()?;
        let inputs: Vec<_> = std::iter::once(x).chain(parameters.iter().map(|p| p.arg())).collect();
        Ok((x.launch_one(plan_norm_forward(&shape), &inputs)?, Shape::from_dims(x.dims())))
    }

    /// The gradients of input, weight and bias.
    fn gradients(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 3]> {
        let dx = if x.track_op() { Some(apply2(Backward(self.0.clone()), x, dy)?) } else { None };
        let d_bias = Arc::default();
        let dw = if weight.track_op() {
            let kernel = WeightGradient { norm: self.0.clone(), bias: Arc::clone(&d_bias) };
            Some(apply2(kernel, x, dy)?)
        } else {
            None
        };
        let db = match bias.filter(|b| b.track_op()) {
            Some(_) => Some(d_bias.get().cloned().map_or_else(|| apply1(SumRows, dy), Ok)?),
            None => None,
        };
        Ok([dx, dw, db])
    }
}

/// With frozen parameters.
impl Kernel<1> for Forward {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu<E: Elem>(&self, [x]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        self.run(&x)
    }

    fn gpu<S: GpuStorage>(&self, [x]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        self.run_gpu(x)
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

/// RMS norm with its weight as an argument that gets a gradient.
impl Kernel<2> for Forward {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu<E: Elem>(&self, [x, _]: [View<'_, E>; 2]) -> candle_core::Result<(Vec<E>, Shape)> {
        self.run(&x)
    }

    fn gpu<S: GpuStorage>(&self, [x, _]: [Arg<'_, S>; 2]) -> candle_core::Result<(S, Shape)> {
        self.run_gpu(x)
    }

    fn backward(
        &self,
        [x, weight]: [&Tensor; 2],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 2]> {
        let [dx, dw, _] = self.gradients(x, weight, None, dy)?;
        Ok([dx, dw])
    }
}

/// Layer norm with weight and bias as arguments that get gradients.
impl Kernel<3> for Forward {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu<E: Elem>(&self, [x, _, _]: [View<'_, E>; 3]) -> candle_core::Result<(Vec<E>, Shape)> {
        self.run(&x)
    }

    fn gpu<S: GpuStorage>(&self, [x, _, _]: [Arg<'_, S>; 3]) -> candle_core::Result<(S, Shape)> {
        self.run_gpu(x)
    }

    fn backward(
        &self,
        [x, weight, bias]: [&Tensor; 3],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 3]> {
        self.gradients(x, weight, Some(bias), dy)
    }
}

impl Kernel<2> for WeightGradient {
    fn name(&self) -> &'static str {
        "norm_weight_gradient"
    }

    fn cpu<E: Elem>(&self, [x, dy]: [View<'_, E>; 2]) -> candle_core::Result<(Vec<E>, Shape)> {
        let read = self.norm.read();
        let values = read.values()?;
        let (norm, d) = (values.as_ref(), x.last_dim());
        let mut dw = vec![E::zero(); d];
        simd(
            #[inline(always)]
            || norm_rows_weight_gradient(norm, x.data, dy.data, &mut dw),
        );
        Ok((dw, Shape::from(d)))
    }

    fn gpu<S: GpuStorage>(&self, [x, dy]: [Arg<'_, S>; 2]) -> candle_core::Result<(S, Shape)> {
        let (shape, _) = self.norm.on_gpu(&x)?;
        let plan = plan_norm_weight_gradient(&shape, &x.storage.target()?).map_err(OpError::from)?;
        let mut outputs = x.storage.launch(&plan, &[x, dy])?.into_iter();
        let Some(dw) = outputs.next() else { candle_core::bail!("{}: no output", plan.op) };
        if let Some(db) = outputs.next() {
            let _ = self.bias.set(gpu::tensor(db, shape.d));
        }
        Ok((dw, Shape::from(shape.d)))
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

    fn gpu<S: GpuStorage>(&self, [x, dy]: [Arg<'_, S>; 2]) -> candle_core::Result<(S, Shape)> {
        let (shape, parameters) = self.0.on_gpu(&x)?;
        let weight = parameters[0].on_gpu()?;
        let dx = x.launch_one(plan_norm_backward(&shape), &[x, weight.arg(), dy])?;
        Ok((dx, Shape::from_dims(x.dims())))
    }
}
