//! What an operation runs on a GPU: launches of `fwd-kernels`, and the matrix products of candle's backend (cuBLAS).
//!
//! A kernel's GPU side is written once over [`GpuStorage`]. One implementation is candle's CUDA storage, on candle's own stream
//! and with its allocator; the other (`emulation.rs`, feature `emulate`) is host memory, where the same launches run through the emulator of
//! `fwd-kernels` and the same products through candle's CPU backend, so that all of it is tested without a GPU.

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(not(feature = "cuda"))]
mod no_cuda;

use crate::error::{OpError, Result};
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::op::{self, BackpropOp};
use candle_core::{DType, Device, Layout, Shape, Storage, Tensor};
use fwd_kernels::{Plan, Target};

/// Opens the GPU of a number (0 is the first) for tensors.
///
/// The kernels of this crate cannot run on its tensors yet: candle opens the device on the per-thread default stream, which
/// [`fwd_kernels::Device`] refuses. The first launch ends in an error that says so.
///
/// # Errors
/// [`OpError::Kernel`] with the reason if this build, this machine or its driver has no CUDA.
///
/// # Examples
/// ```
/// match fwd_ops::cuda_device(0) {
///     Ok(device) => assert!(device.is_cuda()),
///     Err(error) => assert!(error.to_string().starts_with("CUDA is not available: ")),
/// }
/// ```
pub fn cuda_device(ordinal: usize) -> Result<Device> {
    // candle panics where there is no driver; this says what is missing.
    fwd_kernels::Device::open(ordinal)?;
    Ok(Device::new_cuda(ordinal)?)
}

/// Memory of a device that runs plans.
pub(crate) trait GpuStorage: BackendStorage<Device: BackendDevice<Storage = Self>> {
    /// The memory of a tensor, if it lies on such a device.
    fn of(storage: &Storage) -> Option<&Self>;

    /// The memory as a tensor's.
    fn into_storage(self) -> Storage;

    /// What to plan for.
    fn target(&self) -> candle_core::Result<Target>;

    /// Runs a plan on the device of this memory; the result are its outputs (f32 or i64).
    fn launch(&self, plan: &Plan, inputs: &[Arg<'_, Self>]) -> candle_core::Result<Vec<Self>>;
}

/// An argument of a kernel on a GPU.
pub(crate) struct Arg<'a, S> {
    pub(crate) storage: &'a S,
    pub(crate) layout: &'a Layout,
}

impl<S> Clone for Arg<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Arg<'_, S> {}

impl<'a, S: GpuStorage> Arg<'a, S> {
    pub(crate) fn new(storage: &'a S, layout: &'a Layout) -> Self {
        Self { storage, layout }
    }

    pub(crate) fn dims(&self) -> &'a [usize] {
        self.layout.dims()
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.layout.shape().elem_count()
    }

    /// Size of the last dimension (1 for a scalar).
    pub(crate) fn last_dim(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// Number of rows of the last dimension.
    pub(crate) fn rows(&self) -> usize {
        self.len().checked_div(self.last_dim()).unwrap_or(0)
    }

    /// Where the elements lie, as rows of the last dimension.
    pub(crate) fn matrix(&self) -> Layout {
        Layout::contiguous_with_offset((self.rows(), self.last_dim()), self.layout.start_offset())
    }

    /// Runs a plan whose single output is the result.
    pub(crate) fn launch_one(
        &self,
        plan: fwd_kernels::Result<Plan>,
        inputs: &[Self],
    ) -> candle_core::Result<S> {
        let plan = plan.map_err(OpError::from)?;
        let mut outputs = self.storage.launch(&plan, inputs)?;
        match outputs.pop() {
            Some(output) if outputs.is_empty() => Ok(output),
            _ => candle_core::bail!("{}: the plan has not one output", plan.op),
        }
    }

    /// A host vector on the device of this argument. An empty one has an element, because CUDA allocates no empty memory.
    pub(crate) fn upload<T: candle_core::WithDType>(&self, values: &[T]) -> candle_core::Result<S> {
        let one = [T::zero()];
        self.storage.device().storage_from_slice(if values.is_empty() { &one } else { values })
    }
}

/// Zeros in f32. Empty tensors keep one element, because CUDA allocates no empty memory.
pub(crate) fn zeros<S: GpuStorage>(like: &S, shape: &Shape) -> candle_core::Result<S> {
    let shape = if shape.elem_count() == 0 { &Shape::from(1) } else { shape };
    like.device().zeros_impl(shape, DType::F32)
}

/// A copy of elements that lie apart, in order.
pub(crate) fn dense<S: GpuStorage>(storage: &S, layout: &Layout) -> candle_core::Result<S> {
    if layout.shape().elem_count() == 0 {
        return zeros(storage, layout.shape());
    }
    // The one operation of the backend that reads any layout into memory that it allocates without clearing it.
    storage.affine(layout, 1.0, 0.0)
}

/// The layout with its last two dimensions exchanged.
pub(crate) fn transposed(layout: &Layout) -> Layout {
    let (mut dims, mut stride) = (layout.dims().to_vec(), layout.stride().to_vec());
    let n = dims.len();
    dims.swap(n - 2, n - 1);
    stride.swap(n - 2, n - 1);
    Layout::new(Shape::from(dims), stride, layout.start_offset())
}

/// `lhs (…, m, k) · rhs (…, k, n)`; each is dense or the transpose of a dense one.
pub(crate) fn product<S: GpuStorage>(
    (lhs, lhs_layout): (&S, &Layout),
    (rhs, rhs_layout): (&S, &Layout),
) -> candle_core::Result<S> {
    let (a, b) = (lhs_layout.dims(), rhs_layout.dims());
    let ([batch @ .., m, k], [.., n]) = (a, b) else { candle_core::bail!("a product of {a:?} and {b:?}") };
    let batch = batch.iter().product::<usize>();
    if batch * m * n * k == 0 {
        return zeros(lhs, &Shape::from(batch * m * n));
    }
    lhs.matmul(rhs, (batch, *m, *n, *k), lhs_layout, rhs_layout)
}

/// `x + row` for every row of `x (m, n)`, dense.
pub(crate) fn add_row<S: GpuStorage>(
    x: S,
    (m, n): (usize, usize),
    (row, row_layout): (&S, &Layout),
) -> candle_core::Result<S> {
    if m * n == 0 {
        return Ok(x);
    }
    let every = Layout::new(Shape::from((m, n)), vec![0, 1], row_layout.start_offset());
    x.binary_impl::<op::Add>(row, &Layout::contiguous((m, n)), &every)
}

/// A tensor without a history.
pub(crate) fn tensor<S: GpuStorage>(storage: S, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(storage.into_storage(), shape, BackpropOp::none(), false)
}
