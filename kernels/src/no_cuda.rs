//! The GPU of a build without the feature `cuda`: there is none.

use crate::data::Data;
use crate::error::{KernelError, Result};
use crate::info::DeviceInfo;
use crate::plan::{Executor, Plan, Target};
use crate::solver::{EigenPlan, SvdPlan};
use std::time::Duration;

/// A GPU. This build cannot have one.
#[derive(Debug, Clone)]
pub enum Device {}

impl Device {
    /// Opens a GPU by its number.
    ///
    /// # Errors
    /// [`KernelError::CudaUnavailable`], always.
    pub fn open(_ordinal: usize) -> Result<Self> {
        Err(KernelError::CudaUnavailable {
            reason: "this program was built without it; build with --features cuda".to_owned(),
        })
    }

    /// Waits for everything that was enqueued.
    ///
    /// # Errors
    /// Never: there is no device.
    pub fn synchronize(&self) -> Result<()> {
        match *self {}
    }

    /// What a report says of the GPU.
    ///
    /// # Errors
    /// Never: there is no device.
    pub fn info(&self) -> Result<DeviceInfo> {
        match *self {}
    }

    /// Does work and measures how long the GPU took.
    ///
    /// # Errors
    /// Never: there is no device.
    pub fn time<R>(&self, _work: impl FnOnce() -> Result<R>) -> Result<(R, Duration)> {
        match *self {}
    }
}

impl Executor for Device {
    fn target(&self) -> Target {
        match *self {}
    }

    fn run(&self, _plan: &Plan, _data: &mut [&mut Data]) -> Result<()> {
        match *self {}
    }
}

/// cuSOLVER on a GPU. This build has neither.
#[derive(Debug)]
pub enum Solver {}

impl Solver {
    /// Makes ready to decompose matrices.
    ///
    /// # Errors
    /// Never: there is no device.
    pub fn new(device: &Device) -> Result<Self> {
        match *device {}
    }

    /// Decomposes matrices on the host: u (batch, k, m), s (batch, k), v (batch, k, n).
    ///
    /// # Errors
    /// Never: there is no device.
    pub fn svd_host(&mut self, _plan: &SvdPlan, _a: &Data) -> Result<[Data; 3]> {
        match *self {}
    }

    /// Eigenvalues (batch, n) and eigenvectors (batch, n, n) of symmetric matrices on the host.
    ///
    /// # Errors
    /// Never: there is no device.
    pub fn eigen_host(&mut self, _plan: &EigenPlan, _a: &Data) -> Result<[Data; 2]> {
        match *self {}
    }
}
