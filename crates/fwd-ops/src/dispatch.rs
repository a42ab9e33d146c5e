//! The one place where an operation meets candle: a [`Kernel`] is written once over element types and plain slices, and
//! [`apply1`] … [`apply3`] run it and record it for the backward pass.
//!
//! A kernel's `backward` is itself made of kernels, so another device needs no more than a twin of [`Kernel::cpu`]. Today
//! there is the CPU alone, and candle answers for the others that the operation has no implementation.

use crate::cpu::Elem;
use crate::cpu::gemm::widen;
use crate::error::Result;
use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Shape, Storage, StorageRef, Tensor,
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

fn run<const N: usize, K: Kernel<N>>(
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
            Err(crate::OpError::DType { op: kernel.name(), dtype, supported: "activations are f32 or f64" }
                .into())
        }
    }
}

impl<K: Kernel<1>> CustomOp1 for Op<K> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        run(&self.0, [(s1, l1)])
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

/// Keeps data for the backward pass.
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
}
