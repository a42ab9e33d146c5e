//! The GPU for tests, where there is one.

use fwd_kernels::{Device, KernelError};

/// The first GPU, or none after saying why. `FWD_GPU=1` says that there is one: then its absence is a failure.
pub(crate) fn device() -> Option<Device> {
    match Device::open(0) {
        Ok(device) => Some(device),
        Err(KernelError::CudaUnavailable { reason }) if std::env::var_os("FWD_GPU").is_none() => {
            println!("not run, CUDA is not available: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
