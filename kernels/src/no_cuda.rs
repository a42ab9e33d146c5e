//! The GPU of a build without the feature `cuda`: there is none.

use crate::data::Data;
use crate::error::{KernelError, Result};
use crate::plan::{Executor, Plan, Target};

/// A GPU. This build cannot have one.
#[derive(Debug)]
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
}

impl Executor for Device {
    fn target(&self) -> Target {
        match *self {}
    }

    fn run(&self, _plan: &Plan, _data: &mut [&mut Data]) -> Result<()> {
        match *self {}
    }
}
