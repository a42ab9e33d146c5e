//! GELU in its exact (erf), tanh and quick forms, ReLU, SiLU, and gated activations.

pub use crate::cpu::activation::Activation;

use crate::cpu::activation::{activate, activate_backward, gate, gate_backward, with_act};
use crate::cpu::{Elem, rows_per_task, simd};
use crate::dispatch::{apply1, apply2};
use crate::error::{OpError, Result};
use crate::gpu::{Arg, GpuStorage};
use crate::kernel::{Kernel, View};
use crate::linear::with_last_dim;
use candle_core::{Shape, Tensor};
use fwd_kernels::{
    ActivationKind, DType, GatedShape, plan_activation_backward, plan_activation_forward,
    plan_gated_backward, plan_gated_forward,
};
use rayon::prelude::*;

const BLOCK: usize = 1 << 14;

impl Activation {
    /// Applies the activation to every element of `x` (f32 or f64).
    ///
    /// # Errors
    /// [`OpError::DType`] for other element types.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        apply1(Forward(self), x)
    }

    /// The gated form of Shazeer 2020 (GEGLU, SwiGLU): `y = f(h[…, ..n])·h[…, n..]`.
    ///
    /// # Shapes
    /// `h (…, 2n)` -> `(…, n)`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the last dimension is odd or missing.
    pub fn forward_gated(self, h: &Tensor) -> Result<Tensor> {
        match h.dims().last() {
            Some(&wide) if wide % 2 == 0 => apply1(Gate(self), h),
            _ => Err(OpError::shape(
                "gated_activation",
                format!("the last dimension must be even (gate and up), got {:?}", h.shape()),
            )),
        }
    }

    fn kind(self) -> ActivationKind {
        match self {
            Self::GeluErf => ActivationKind::GeluErf,
            Self::GeluTanh => ActivationKind::GeluTanh,
            Self::Relu => ActivationKind::Relu,
            Self::Silu => ActivationKind::Silu,
            Self::QuickGelu => ActivationKind::QuickGelu,
        }
    }

    /// The rows of `h (…, 2n)` as a GPU gates them.
    fn gated<S: GpuStorage>(self, h: &Arg<'_, S>) -> GatedShape {
        GatedShape { kind: self.kind(), rows: h.rows(), d: h.last_dim() / 2, dtype: DType::F32 }
    }

    /// The activation that a Hugging Face configuration names.
    ///
    /// # Examples
    /// ```
    /// assert_eq!(fwd_ops::Activation::from_hf_name("gelu_new"), Some(fwd_ops::Activation::GeluTanh));
    /// assert_eq!(fwd_ops::Activation::from_hf_name("swish"), Some(fwd_ops::Activation::Silu));
    /// assert_eq!(fwd_ops::Activation::from_hf_name("mish"), None);
    /// ```
    pub fn from_hf_name(name: &str) -> Option<Self> {
        match name {
            "gelu" => Some(Self::GeluErf),
            "gelu_new" | "gelu_pytorch_tanh" => Some(Self::GeluTanh),
            "relu" => Some(Self::Relu),
            "silu" | "swish" => Some(Self::Silu),
            "quick_gelu" => Some(Self::QuickGelu),
            _ => None,
        }
    }
}

struct Forward(Activation);
struct Backward(Activation);
struct Gate(Activation);
struct GateBackward(Activation);

impl Kernel<1> for Forward {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu<E: Elem>(&self, [x]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let mut y = vec![E::zero(); x.data.len()];
        with_act!(self.0, A => x.data
            .par_chunks(BLOCK)
            .zip(y.par_chunks_mut(BLOCK))
            .for_each(|(x, y)| simd(#[inline(always)] || activate::<A, E>(x, y))));
        Ok((y, Shape::from_dims(x.dims)))
    }

    fn gpu<S: GpuStorage>(&self, [x]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        let plan = plan_activation_forward(self.0.kind(), x.len(), DType::F32, &x.storage.target()?);
        Ok((x.launch_one(plan, &[x])?, Shape::from_dims(x.dims())))
    }

    fn backward(
        &self,
        [x]: [&Tensor; 1],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 1]> {
        Ok([Some(apply2(Backward(self.0), x, dy)?)])
    }
}

impl Kernel<2> for Backward {
    fn name(&self) -> &'static str {
        "activation_backward"
    }

    fn cpu<E: Elem>(&self, [x, dy]: [View<'_, E>; 2]) -> candle_core::Result<(Vec<E>, Shape)> {
        let mut dx = vec![E::zero(); x.data.len()];
        with_act!(self.0, A => x.data
            .par_chunks(BLOCK)
            .zip(dy.data.par_chunks(BLOCK))
            .zip(dx.par_chunks_mut(BLOCK))
            .for_each(|((x, dy), dx)| simd(#[inline(always)] || activate_backward::<A, E>(x, dy, dx))));
        Ok((dx, Shape::from_dims(x.dims)))
    }

    fn gpu<S: GpuStorage>(&self, [x, dy]: [Arg<'_, S>; 2]) -> candle_core::Result<(S, Shape)> {
        let plan = plan_activation_backward(self.0.kind(), x.len(), DType::F32, &x.storage.target()?);
        Ok((x.launch_one(plan, &[x, dy])?, Shape::from_dims(x.dims())))
    }
}

impl Kernel<1> for Gate {
    fn name(&self) -> &'static str {
        "gated_activation"
    }

    fn cpu<E: Elem>(&self, [h]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let (wide, n) = (h.last_dim(), h.last_dim() / 2);
        let mut y = vec![E::zero(); h.data.len() / 2];
        if n > 0 {
            let step = rows_per_task(h.data.len() / wide);
            with_act!(self.0, A => h.data.par_chunks(step * wide).zip(y.par_chunks_mut(step * n)).for_each(|(h, y)| {
                simd(#[inline(always)] || h.chunks_exact(wide).zip(y.chunks_exact_mut(n)).for_each(|(h, y)| gate::<A, E>(h, y)));
            }));
        }
        Ok((y, with_last_dim(h.dims, n)))
    }

    fn gpu<S: GpuStorage>(&self, [h]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        let plan = plan_gated_forward(&self.0.gated(&h), &h.storage.target()?);
        Ok((h.launch_one(plan, &[h])?, with_last_dim(h.dims(), h.last_dim() / 2)))
    }

    fn backward(
        &self,
        [h]: [&Tensor; 1],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 1]> {
        Ok([Some(apply2(GateBackward(self.0), h, dy)?)])
    }
}

impl Kernel<2> for GateBackward {
    fn name(&self) -> &'static str {
        "gated_activation_backward"
    }

    fn cpu<E: Elem>(&self, [h, dy]: [View<'_, E>; 2]) -> candle_core::Result<(Vec<E>, Shape)> {
        let (wide, n) = (h.last_dim(), h.last_dim() / 2);
        let mut dh = vec![E::zero(); h.data.len()];
        if n > 0 {
            let step = rows_per_task(h.data.len() / wide);
            with_act!(self.0, A => h
            .data
            .par_chunks(step * wide)
            .zip(dy.data.par_chunks(step * n))
            .zip(dh.par_chunks_mut(step * wide))
            .for_each(|((h, dy), dh)| simd(#[inline(always)] || {
                for ((h, dy), dh) in h.chunks_exact(wide).zip(dy.chunks_exact(n)).zip(dh.chunks_exact_mut(wide)) {
                    gate_backward::<A, E>(h, dy, dh);
                }
            })));
        }
        Ok((dh, Shape::from_dims(h.dims)))
    }

    fn gpu<S: GpuStorage>(&self, [h, dy]: [Arg<'_, S>; 2]) -> candle_core::Result<(S, Shape)> {
        let plan = plan_gated_backward(&self.0.gated(&h), &h.storage.target()?);
        Ok((h.launch_one(plan, &[h, dy])?, Shape::from_dims(h.dims())))
    }
}
