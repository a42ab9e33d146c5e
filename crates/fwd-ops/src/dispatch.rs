//! The one place where an operation meets candle: a [`Kernel`] is written once over element types and plain slices for the CPU,
//! once over device memory for GPUs, and [`apply1`] … [`apply3`] run it and record it for the backward pass.
//!
//! A kernel's `backward` is itself made of kernels, and so the same for both. What is fused on the CPU alone (the sublayers) runs on a
//! GPU as the operations that it is made of.

use crate::cpu::Elem;
use crate::cpu::gemm::widen;
use crate::error::{OpError, Result};
use crate::gpu::{Arg, GpuStorage, emulated};
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Shape, Storage, StorageRef,
    Tensor,
};
use std::borrow::Cow;

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

struct Op<K>(K);

/// Runs a kernel on tensors of the CPU.
fn run<const N: usize, K: Kernel<N>>(
    kernel: &K,
    args: [(&CpuStorage, &Layout); N],
) -> candle_core::Result<(CpuStorage, Shape)> {
    emulated::run(kernel, args).unwrap_or_else(|| run_cpu(kernel, args))
}

fn run_cpu<const N: usize, K: Kernel<N>>(
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

impl<K: Kernel<1>> CustomOp1 for Op<K> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        run(&self.0, [(s1, l1)])
    }

    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        run_gpu(&self.0, [Arg::new(s1, l1)])
    }

    fn bwd(&self, a1: &Tensor, y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let [d1] = self.0.backward([a1], y, &dy.contiguous()?)?;
        Ok(untracked(d1))
    }
}

impl<K: Kernel<2>> CustomOp2 for Op<K> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        run(&self.0, [(s1, l1), (s2, l2)])
    }

    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        run_gpu(&self.0, [Arg::new(s1, l1), Arg::new(s2, l2)])
    }

    fn bwd(
        &self,
        a1: &Tensor,
        a2: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let [d1, d2] = self.0.backward([a1, a2], y, &dy.contiguous()?)?;
        Ok((untracked(d1), untracked(d2)))
    }
}

impl<K: Kernel<3>> CustomOp3 for Op<K> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        run(&self.0, [(s1, l1), (s2, l2), (s3, l3)])
    }

    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        run_gpu(&self.0, [Arg::new(s1, l1), Arg::new(s2, l2), Arg::new(s3, l3)])
    }

    fn bwd(
        &self,
        a1: &Tensor,
        a2: &Tensor,
        a3: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [d1, d2, d3] = self.0.backward([a1, a2, a3], y, &dy.contiguous()?)?;
        Ok((untracked(d1), untracked(d2), untracked(d3)))
    }
}

/// A gradient without the graph of its computation, which would keep the activations alive.
fn untracked(gradient: Option<Tensor>) -> Option<Tensor> {
    gradient.map(|g| g.detach())
}

/// Keeps data of the CPU for the backward pass.
pub(crate) fn keep<E: Elem>(data: Vec<E>) -> candle_core::Result<Tensor> {
    let n = data.len();
    Tensor::from_vec(data, n, &candle_core::Device::Cpu)
}

/// Runs a kernel on one contiguous tensor, recording it if the tensor is tracked.
pub(crate) fn apply1<K: Kernel<1>>(kernel: K, a: &Tensor) -> Result<Tensor> {
    let a = a.contiguous()?;
    Ok(if a.track_op() { a.apply_op1(Op(kernel))? } else { a.apply_op1_no_bwd(&Op(kernel))? })
}

/// Runs a kernel on two contiguous tensors.
pub(crate) fn apply2<K: Kernel<2>>(kernel: K, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    let tracked = a.track_op() || b.track_op();
    Ok(if tracked { a.apply_op2(&b, Op(kernel))? } else { a.apply_op2_no_bwd(&b, &Op(kernel))? })
}

/// Runs a kernel on three tensors of any strides.
pub(crate) fn apply3<K: Kernel<3>>(kernel: K, a: &Tensor, b: &Tensor, c: &Tensor) -> Result<Tensor> {
    let tracked = a.track_op() || b.track_op() || c.track_op();
    Ok(if tracked { a.apply_op3(b, c, Op(kernel))? } else { a.apply_op3_no_bwd(b, c, &Op(kernel))? })
}

/// A tensor that a kernel carries along (a frozen parameter, a saved activation), locked for reading.
pub(crate) struct Read<'a> {
    storage: StorageRef<'a>,
    tensor: &'a Tensor,
}

impl<'a> Read<'a> {
    pub(crate) fn new(tensor: &'a Tensor) -> Self {
        Self { storage: tensor.storage_and_layout().0, tensor }
    }

    /// The elements as `E`: borrowed if they are stored so, widened otherwise.
    pub(crate) fn values<E: Elem>(&self) -> candle_core::Result<Cow<'_, [E]>> {
        match &*self.storage {
            Storage::Cpu(storage) => widen(storage, self.tensor),
            _ => candle_core::bail!(
                "a parameter on {:?} was given to a CPU kernel",
                self.tensor.device().location()
            ),
        }
    }

    /// The tensor in the memory of a GPU, as it is.
    pub(crate) fn stored<S: GpuStorage>(&self) -> candle_core::Result<Arg<'_, S>> {
        match S::of(&self.storage) {
            Some(storage) => Ok(Arg::new(storage, self.tensor.layout())),
            None => candle_core::bail!(
                "a parameter on {:?} was given to a kernel of another device",
                self.tensor.device().location()
            ),
        }
    }

    /// The elements in the memory of a GPU: as they are stored if in f32, widened otherwise.
    pub(crate) fn on_gpu<S: GpuStorage>(&self) -> candle_core::Result<OnGpu<'_, S>> {
        let Arg { storage, layout } = self.stored::<S>()?;
        if storage.dtype() == DType::F32 {
            return Ok(OnGpu { memory: Memory::Stored(storage), layout: layout.clone() });
        }
        let widened = storage.to_dtype(layout, DType::F32)?;
        Ok(OnGpu { memory: Memory::Widened(widened), layout: Layout::contiguous(layout.shape()) })
    }
}

/// The f32 values of a tensor that a kernel carries along, on a GPU.
pub(crate) struct OnGpu<'a, S> {
    memory: Memory<'a, S>,
    layout: Layout,
}

enum Memory<'a, S> {
    Stored(&'a S),
    Widened(S),
}

impl<S: GpuStorage> OnGpu<'_, S> {
    pub(crate) fn arg(&self) -> Arg<'_, S> {
        let storage = match &self.memory {
            Memory::Stored(storage) => *storage,
            Memory::Widened(storage) => storage,
        };
        Arg::new(storage, &self.layout)
    }
}
