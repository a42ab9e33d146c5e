//! CPU tensors computed as a GPU would: launches through the emulator, products by candle's CPU backend.

use crate::error::OpError;
use crate::gpu::{Arg, GpuStorage};
use crate::kernel::{Kernel, run_gpu};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Shape, Storage};
use fwd_kernels::{Data, Emulator, Executor, Plan, Role, Target};
use std::cell::Cell;

thread_local!(static TARGET: Cell<Option<Target>> = const { Cell::new(None) });

/// Runs `body` with every operation of this thread on CPU tensors computed as the GPU `target` would: each kernel by the emulator,
/// sublayers as the single operations that they are made of. For tests: it is slow, and f32 only.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// let norm = fwd_ops::Norm::rms(Tensor::new(&[1f32, 2.], &Device::Cpu)?, 0.0)?;
/// let x = Tensor::new(&[[3f32, 4.]], &Device::Cpu)?;
/// let y = fwd_ops::emulated(fwd_kernels::Target::H100, || norm.forward(&x))?;
/// assert!((y.to_vec2::<f32>()?[0][1] - 8. / 12.5f32.sqrt()).abs() < 1e-6);
/// # Ok::<(), fwd_ops::OpError>(())
/// ```
pub fn emulated<R>(target: Target, body: impl FnOnce() -> R) -> R {
    with(Some(target), body)
}

fn with<R>(target: Option<Target>, body: impl FnOnce() -> R) -> R {
    /// Puts the state back, also when `body` panics.
    struct Restore(Option<Target>);
    impl Drop for Restore {
        fn drop(&mut self) {
            TARGET.set(self.0);
        }
    }
    let _restore = Restore(TARGET.replace(target));
    body()
}

/// Whether this thread emulates a GPU.
pub(crate) fn is_on() -> bool {
    TARGET.get().is_some()
}

/// A kernel as the emulated GPU runs it; none if there is no such GPU.
pub(crate) fn run<const N: usize, K: Kernel<N>>(
    kernel: &K,
    args: [(&CpuStorage, &Layout); N],
) -> Option<candle_core::Result<(CpuStorage, Shape)>> {
    is_on().then(|| run_gpu(kernel, args.map(|(storage, layout)| Arg::new(storage, layout))))
}

impl GpuStorage for CpuStorage {
    fn of(storage: &Storage) -> Option<&Self> {
        match storage {
            Storage::Cpu(storage) => Some(storage),
            _ => None,
        }
    }

    fn into_storage(self) -> Storage {
        Storage::Cpu(self)
    }

    fn target(&self) -> candle_core::Result<Target> {
        match TARGET.get() {
            Some(target) => Ok(target),
            None => candle_core::bail!("no GPU is emulated on this thread"),
        }
    }

    fn launch(&self, plan: &Plan, inputs: &[Arg<'_, Self>]) -> candle_core::Result<Vec<Self>> {
        let mut given = inputs.iter();
        let mut data = Vec::new();
        for buffer in plan.bound() {
            data.push(match buffer.role {
                Role::Output => Data::zeros(buffer.dtype, buffer.len),
                _ => match given.next() {
                    Some(input) => on_host(input)?,
                    None => candle_core::bail!("{}: {} is not given", plan.op, buffer.name),
                },
            });
        }
        let target = GpuStorage::target(self)?;
        Emulator::once(target).run(plan, &mut data.iter_mut().collect::<Vec<_>>()).map_err(OpError::from)?;
        let outputs = plan.bound().zip(data).filter(|(buffer, _)| buffer.role == Role::Output);
        outputs
            .map(|(buffer, data)| match data {
                Data::F32(values) => Ok(CpuStorage::F32(values)),
                Data::I64(values) => Ok(CpuStorage::I64(values)),
                _ => candle_core::bail!("{}: no tensor takes {}", plan.op, buffer.name),
            })
            .collect()
    }
}

/// The elements of an argument.
fn on_host(arg: &Arg<'_, CpuStorage>) -> candle_core::Result<Data> {
    let Some((start, end)) = arg.layout.contiguous_offsets() else {
        candle_core::bail!("an argument of a plan must be contiguous, not {:?}", arg.layout)
    };
    Ok(match arg.storage {
        CpuStorage::F32(values) => Data::F32(values[start..end].to_vec()),
        CpuStorage::I64(values) => Data::I64(values[start..end].to_vec()),
        CpuStorage::U32(values) => Data::U32(values[start..end].to_vec()),
        other => candle_core::bail!("no plan reads {:?}", other.dtype()),
    })
}
