//! What an operation is: a [`Kernel`] is written once over element types and plain slices for the CPU, and once over device memory
//! for GPUs.
//!
//! A kernel's `backward` is itself made of kernels, and so the same for both. What is fused on the CPU alone (the sublayers) runs on a
//! GPU as the operations that it is made of.

use crate::cpu::Elem;
use crate::error::OpError;
use crate::gpu::{Arg, GpuStorage};
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{CpuStorage, DType, Layout, Shape, Tensor};

/// The elements of one argument: `data` starts at the first element, `stride` is in elements.
pub(crate) struct View<'a, E> {
    pub(crate) data: &'a [E],
    pub(crate) dims: &'a [usize],
    pub(crate) stride: &'a [usize],
}

impl<'a, E: Elem> View<'a, E> {
    fn new(storage: &'a CpuStorage, layout: &'a Layout) -> candle_core::Result<Self> {
        let data = &E::cpu_storage_as_slice(storage)?[layout.start_offset()..];
        let data = if layout.is_contiguous() { &data[..layout.shape().elem_count()] } else { data };
        Ok(Self { data, dims: layout.dims(), stride: layout.stride() })
    }

    /// Size of the last dimension (1 for a scalar).
    pub(crate) fn last_dim(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }
}

/// An operation on `N` tensors of one element type.
pub(crate) trait Kernel<const N: usize>: Send + Sync + 'static {
    /// The name in error messages and profiles.
    fn name(&self) -> &'static str;

    /// Computes the result and its shape from the arguments.
    fn cpu<E: Elem>(&self, args: [View<'_, E>; N]) -> candle_core::Result<(Vec<E>, Shape)>;

    /// The same on a GPU, in f32.
    fn gpu<S: GpuStorage>(&self, _args: [Arg<'_, S>; N]) -> candle_core::Result<(S, Shape)> {
        candle_core::bail!("{} has no GPU kernel", self.name())
    }

    /// Gradients of the arguments; `None` for one that has none.
    fn backward(
        &self,
        _args: [&Tensor; N],
        _y: &Tensor,
        _dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; N]> {
        Err(candle_core::Error::BackwardNotSupported { op: self.name() })
    }
}

/// Runs a kernel on tensors of the CPU.
pub(crate) fn run_cpu<const N: usize, K: Kernel<N>>(
    kernel: &K,
    args: [(&CpuStorage, &Layout); N],
) -> candle_core::Result<(CpuStorage, Shape)> {
    fn typed<const N: usize, K: Kernel<N>, E: Elem>(
        kernel: &K,
        args: [(&CpuStorage, &Layout); N],
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let mut views = Vec::with_capacity(N);
        for (storage, layout) in args {
            views.push(View::<E>::new(storage, layout)?);
        }
        let Ok(views) = views.try_into() else { unreachable!("as many views as arguments") };
        let (data, shape) = kernel.cpu::<E>(views)?;
        Ok((E::to_cpu_storage_owned(data), shape))
    }
    match args[0].0.dtype() {
        DType::F32 => typed::<N, K, f32>(kernel, args),
        DType::F64 => typed::<N, K, f64>(kernel, args),
        dtype => {
            Err(OpError::DType { op: kernel.name(), dtype, supported: "activations are f32 or f64" }.into())
        }
    }
}

/// Runs a kernel on tensors of a GPU.
pub(crate) fn run_gpu<const N: usize, K: Kernel<N>, S: GpuStorage>(
    kernel: &K,
    args: [Arg<'_, S>; N],
) -> candle_core::Result<(S, Shape)> {
    match args.iter().map(|arg| arg.storage.dtype()).find(|&dtype| dtype != DType::F32) {
        None => kernel.gpu(args),
        Some(dtype) => {
            let supported = "activations and trained parameters on a GPU are f32";
            Err(OpError::DType { op: kernel.name(), dtype, supported }.into())
        }
    }
}

/// The GPU side of a kernel that has none: the argument is copied to the host, and the result back.
pub(crate) fn on_host<K: Kernel<1>, S: GpuStorage>(
    kernel: &K,
    arg: Arg<'_, S>,
) -> candle_core::Result<(S, Shape)> {
    let (result, shape) = run_cpu(kernel, [(&arg.storage.to_cpu_storage()?, arg.layout)])?;
    Ok((arg.storage.device().storage_from_cpu_storage_owned(result)?, shape))
}
