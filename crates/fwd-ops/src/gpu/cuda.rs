//! candle's CUDA storage: plans run on the stream that candle works on, into memory of that stream.

use super::{Arg, GpuStorage, dense};
use crate::error::OpError;
use candle_core::{CudaStorage, Storage};
use fwd_kernels::cudarc::driver::{CudaSlice, CudaView, CudaViewMut};
use fwd_kernels::{Binding, Buffer, DType, Device, Executor, KernelError, Plan, Role, Target};

/// Where a buffer of a kernel may begin.
const ALIGNMENT: usize = 16;

impl GpuStorage for CudaStorage {
    fn of(storage: &Storage) -> Option<&Self> {
        match storage {
            Storage::Cuda(storage) => Some(storage),
            _ => None,
        }
    }

    fn into_storage(self) -> Storage {
        Storage::Cuda(self)
    }

    fn target(&self) -> candle_core::Result<Target> {
        Ok(device_of(self)?.target())
    }

    fn launch(&self, plan: &Plan, inputs: &[Arg<'_, Self>]) -> candle_core::Result<Vec<Self>> {
        let device = device_of(self)?;
        // A tensor that is a part of another one may begin where no kernel's buffer may.
        let copies = inputs.iter().map(aligned_copy).collect::<candle_core::Result<Vec<_>>>()?;
        let views = inputs.iter().zip(&copies).map(|(input, copy)| match copy {
            None => View::new(input.storage, input.layout.start_offset(), input.len()),
            Some(copy) => View::new(copy, 0, input.len()),
        });
        let views = views.collect::<candle_core::Result<Vec<_>>>()?;
        let outputs = plan.bound().filter(|buffer| buffer.role == Role::Output);
        let mut outputs =
            outputs.map(|b| Output::new(&device, plan, b)).collect::<Result<Vec<_>, OpError>>()?;
        let mut written: Vec<_> = outputs.iter_mut().map(Output::view).collect();
        let (mut given, mut made) =
            (views.iter().map(View::binding), written.iter_mut().map(OutputView::binding));
        let mut bindings = Vec::new();
        for buffer in plan.bound() {
            let binding = if buffer.role == Role::Output { made.next() } else { given.next() };
            let Some(binding) = binding else {
                candle_core::bail!("{}: {} is not given", plan.op, buffer.name)
            };
            bindings.push(binding);
        }
        device.run_on(plan, &mut bindings).map_err(OpError::from)?;
        drop(bindings);
        Ok(outputs.into_iter().map(|output| output.into_storage(self)).collect())
    }
}

fn device_of(storage: &CudaStorage) -> candle_core::Result<Device> {
    Ok(Device::on_stream(&storage.device.cuda_stream()).map_err(OpError::from)?)
}

/// A copy of an argument that begins where no kernel's buffer may, or whose elements lie apart.
fn aligned_copy(arg: &Arg<'_, CudaStorage>) -> candle_core::Result<Option<CudaStorage>> {
    use candle_core::backend::BackendStorage;
    let start = arg.layout.start_offset() * arg.storage.dtype().size_in_bytes();
    let fits = start.is_multiple_of(ALIGNMENT) && arg.layout.is_contiguous();
    if fits { Ok(None) } else { dense(arg.storage, arg.layout).map(Some) }
}

/// Elements that a plan reads.
enum View<'a> {
    F32(CudaView<'a, f32>),
    I64(CudaView<'a, i64>),
    U32(CudaView<'a, u32>),
}

impl<'a> View<'a> {
    fn new(storage: &'a CudaStorage, start: usize, len: usize) -> candle_core::Result<Self> {
        use candle_core::backend::BackendStorage;
        let range = start..start + len;
        Ok(match storage.dtype() {
            candle_core::DType::F32 => Self::F32(storage.as_cuda_slice()?.slice(range)),
            candle_core::DType::I64 => Self::I64(storage.as_cuda_slice()?.slice(range)),
            candle_core::DType::U32 => Self::U32(storage.as_cuda_slice()?.slice(range)),
            other => candle_core::bail!("no plan reads {other:?}"),
        })
    }

    fn binding(&self) -> Binding<'_> {
        match self {
            Self::F32(view) => Binding::read(view),
            Self::I64(view) => Binding::read(view),
            Self::U32(view) => Binding::read(view),
        }
    }
}

/// Elements that a plan writes.
enum Memory {
    F32(CudaSlice<f32>),
    I64(CudaSlice<i64>),
}

/// A result of a plan. An empty one has an element, because CUDA allocates no empty memory.
struct Output {
    memory: Memory,
    len: usize,
}

enum OutputView<'a> {
    F32(CudaViewMut<'a, f32>),
    I64(CudaViewMut<'a, i64>),
}

impl Output {
    fn new(device: &Device, plan: &Plan, buffer: &Buffer) -> Result<Self, OpError> {
        let len = buffer.len;
        let memory = match buffer.dtype {
            DType::F32 => Memory::F32(device.output(len.max(1))?),
            DType::I64 => Memory::I64(device.output(len.max(1))?),
            other => {
                let message = format!("no tensor takes {}, which is {}", buffer.name, other.suffix());
                return Err(KernelError::Shape { op: plan.op, message }.into());
            }
        };
        Ok(Self { memory, len })
    }

    fn view(&mut self) -> OutputView<'_> {
        match &mut self.memory {
            Memory::F32(slice) => OutputView::F32(slice.slice_mut(..self.len)),
            Memory::I64(slice) => OutputView::I64(slice.slice_mut(..self.len)),
        }
    }

    fn into_storage(self, like: &CudaStorage) -> CudaStorage {
        match self.memory {
            Memory::F32(slice) => CudaStorage::wrap_cuda_slice(slice, like.device.clone()),
            Memory::I64(slice) => CudaStorage::wrap_cuda_slice(slice, like.device.clone()),
        }
    }
}

impl OutputView<'_> {
    fn binding(&mut self) -> Binding<'_> {
        match self {
            Self::F32(view) => Binding::write(view),
            Self::I64(view) => Binding::write(view),
        }
    }
}
