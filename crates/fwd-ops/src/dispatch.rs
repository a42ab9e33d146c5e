//! The one place where an operation meets candle: [`apply1`] … [`apply3`] run a [`Kernel`] where its tensors are and record it for the
//! backward pass, and [`Read`] opens a tensor that a kernel carries along.

use crate::cpu::Elem;
use crate::cpu::linear::widen;
use crate::emulation;
use crate::error::Result;
use crate::gpu::{Arg, GpuStorage};
use crate::kernel::{Kernel, run_cpu, run_gpu};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Shape, Storage, StorageRef,
    Tensor,
};
use std::borrow::Cow;

/// Whether the operations on a tensor run on a GPU, be it an emulated one.
pub(crate) fn on_gpu(tensor: &Tensor) -> bool {
    !tensor.device().is_cpu() || emulation::is_on()
}

/// A kernel as an operation of candle.
struct Op<K>(K);

/// Runs a kernel on tensors in the memory of the CPU: on the CPU, or as an emulated GPU would.
fn run<const N: usize, K: Kernel<N>>(
    kernel: &K,
    args: [(&CpuStorage, &Layout); N],
) -> candle_core::Result<(CpuStorage, Shape)> {
    emulation::run(kernel, args).unwrap_or_else(|| run_cpu(kernel, args))
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
    /// Values that were widened for one product.
    pub(crate) fn widened(storage: S, layout: Layout) -> Self {
        Self { memory: Memory::Widened(storage), layout }
    }

    pub(crate) fn arg(&self) -> Arg<'_, S> {
        let storage = match &self.memory {
            Memory::Stored(storage) => *storage,
            Memory::Widened(storage) => storage,
        };
        Arg::new(storage, &self.layout)
    }
}
