//! Memory for what a plan writes.

use super::library::driver;
use super::{Device, Element};
use crate::error::Result;
use cudarc::driver::CudaSlice;

impl Device {
    /// Memory for an output of a plan ([`Role::Output`](crate::Role::Output)), on the stream of this device. It is not cleared.
    ///
    /// # Errors
    /// [`KernelError::Cuda`](crate::KernelError::Cuda) if there is not enough.
    pub fn output<T: Element>(&self, len: usize) -> Result<CudaSlice<T>> {
        // SAFETY: elements are numbers, of which any bits are one, and a plan writes its outputs in full.
        unsafe { self.stream().alloc::<T>(len) }.map_err(driver("cuMemAllocAsync"))
    }
}
