//! Every operation on the GPU, where there is one: `cargo test --features cuda --test gpu`.

mod ops;

use fwd_kernels::{Device, KernelError};

#[test]
fn operations_on_the_gpu() {
    match Device::open(0) {
        Ok(device) => ops::check_all(&device),
        // `FWD_GPU=1` says that there is one: then its absence is a failure.
        Err(KernelError::CudaUnavailable { reason }) if std::env::var_os("FWD_GPU").is_none() => {
            println!("not run, CUDA is not available: {reason}");
        }
        Err(error) => panic!("{error}"),
    }
}
