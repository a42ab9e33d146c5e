//! Which of CUDA's libraries are at hand, asked before the first call: cudarc panics where one is missing.

use crate::error::{KernelError, Result};
use cudarc::driver::DriverError;
use libloading::{Library as Handle, Symbol};
use std::error::Error;
use std::ffi::c_int;

/// The CUDA version that this program speaks, as the driver counts: 1000 × major + 10 × minor.
const CUDA: c_int = 13_000;

/// A library of the CUDA toolkit.
pub(crate) struct Library {
    /// File names, in the order in which cudarc tries them.
    files: &'static [&'static str],
    /// The newest function that is called.
    symbol: &'static [u8],
    help: &'static str,
}

pub(crate) const NVRTC: Library = Library {
    files: &["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", "nvrtc64_130_0.dll"],
    symbol: b"nvrtcGetCUBIN\0",
    help: "install the CUDA toolkit or the wheel nvidia-cuda-nvrtc and put its folder on LD_LIBRARY_PATH, or build with FWD_NVCC",
};
pub(crate) const CUSOLVER: Library = Library {
    files: &["libcusolver.so", "libcusolver.so.12", "libcusolver.so.11", "cusolver64_12.dll"],
    symbol: b"cusolverDnXsyevBatched\0",
    help: "install the CUDA toolkit or the wheels nvidia-cusolver, nvidia-cusparse, nvidia-cublas and nvidia-nvjitlink, and put their folders on LD_LIBRARY_PATH",
};
pub(crate) const CUBLAS: Library = Library {
    files: &["libcublas.so", "libcublas.so.13", "libcublas.so.12", "cublas64_13.dll"],
    symbol: b"cublasDgemmStridedBatched\0",
    help: "install the CUDA toolkit or the wheel nvidia-cublas and put its folder on LD_LIBRARY_PATH",
};

pub(crate) fn unavailable(reason: impl Into<String>) -> KernelError {
    KernelError::CudaUnavailable { reason: reason.into() }
}

/// Turns an error of the driver into ours. Its `Display` would call into the driver, its code does not.
pub(crate) fn driver(call: &'static str) -> impl Fn(DriverError) -> KernelError {
    move |error| KernelError::Cuda { call, code: format!("{:?}", error.0) }
}

/// Loads the first of the files that loads, or tells what the loader said.
fn open(files: &[&str]) -> Result<Handle, String> {
    let mut words = Vec::new();
    for file in files {
        // SAFETY: NVIDIA's libraries may be loaded at any time, from any thread.
        match unsafe { Handle::new(*file) } {
            Ok(handle) => return Ok(handle),
            // The cause is the loader's own text; the error alone says no more than that it failed.
            Err(error) => words.push(error.source().map_or_else(|| error.to_string(), ToString::to_string)),
        }
    }
    // A file that is there lacks another one, which is worth more than the names of those that are not there.
    let lacking = words.iter().zip(files).find(|(words, file)| !words.contains(*file));
    Err(lacking.map_or_else(|| format!("none of {} is found", files.join(", ")), |(words, _)| words.clone()))
}

/// Whether a library can be loaded and is new enough.
///
/// # Errors
/// [`KernelError::CudaUnavailable`] with what to install.
pub(crate) fn require(library: &Library) -> Result<()> {
    let handle = open(library.files).map_err(|words| unavailable(format!("{words}; {}", library.help)))?;
    // SAFETY: the symbol is only looked for, not called.
    let symbol: Result<Symbol<*const ()>, _> = unsafe { handle.get(library.symbol) };
    symbol.map(drop).map_err(|_| {
        let name = String::from_utf8_lossy(&library.symbol[..library.symbol.len() - 1]);
        unavailable(format!("{} is too old, it has no {name}; {}", library.files[0], library.help))
    })
}

/// Whether there is a driver that knows CUDA 13.
///
/// # Errors
/// [`KernelError::CudaUnavailable`] if there is none, or an older one.
pub(crate) fn require_driver() -> Result<()> {
    let handle = open(&["libcuda.so", "libcuda.so.1", "nvcuda.dll"])
        .map_err(|words| unavailable(format!("no NVIDIA driver: {words}")))?;
    // SAFETY: this is the signature in cuda.h, with the enumeration that it returns as an integer.
    let version: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int> =
        unsafe { handle.get(b"cuDriverGetVersion\0") }
            .map_err(|_| unavailable("libcuda has no cuDriverGetVersion: it is not NVIDIA's"))?;
    let mut number = 0;
    // SAFETY: `number` is an int to write to; the call needs no initialisation.
    let code = unsafe { version(&raw mut number) };
    if code != 0 {
        return Err(unavailable(format!("the driver does not tell its version (code {code})")));
    }
    if number < CUDA {
        let (major, minor) = version_parts(number);
        return Err(unavailable(format!(
            "the driver knows CUDA {major}.{minor}, 13.0 is needed: install driver 580 or newer"
        )));
    }
    Ok(())
}

/// Major and minor of a version as the driver counts.
pub(crate) fn version_parts(number: c_int) -> (u32, u32) {
    let number = number.max(0).unsigned_abs();
    (number / 1000, number % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named_with_what_to_do() {
        let missing =
            Library { files: &["libno-such.so", "libno-such.so.13"], symbol: b"f\0", help: "install it" };
        let error = require(&missing).unwrap_err().to_string();
        assert!(error.ends_with("none of libno-such.so, libno-such.so.13 is found; install it"), "{error}");
    }

    #[test]
    fn a_library_without_the_function_is_too_old() {
        let old = Library { files: &["libc.so.6"], symbol: b"no_such_function\0", help: "update it" };
        let error = require(&old).unwrap_err().to_string();
        assert!(error.contains("has no no_such_function; update it"), "{error}");
    }

    #[test]
    fn versions_are_split_as_the_driver_counts() {
        assert_eq!(version_parts(13_020), (13, 2));
        assert_eq!(version_parts(12_060), (12, 6));
    }
}
