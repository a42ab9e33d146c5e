//! The GPU storage of a build without the feature `cuda`: there is none, and no tensor has it.

use super::{Arg, GpuStorage};
use candle_core::{CudaStorage, Error, Storage};
use fwd_kernels::{Plan, Target};

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
        Err(Error::NotCompiledWithCudaSupport)
    }

    fn launch(&self, _: &Plan, _: &[Arg<'_, Self>]) -> candle_core::Result<Vec<Self>> {
        Err(Error::NotCompiledWithCudaSupport)
    }
}
