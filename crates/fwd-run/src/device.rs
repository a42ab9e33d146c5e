//! Where a model computes: the CPU, or an NVIDIA GPU (feature `cuda`).

use crate::choice::Choice;
use anyhow::{Context, Result};
use candle_core::Device;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What kind of device a model computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// The processor, all its cores.
    #[default]
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
}

impl Choice for DeviceKind {
    fn all() -> Vec<(Self, &'static str, String)> {
        vec![
            (Self::Cpu, "cpu", "The processor, all its cores".to_owned()),
            (Self::Cuda, "cuda", "The first NVIDIA GPU".to_owned()),
        ]
    }
}

/// The name on the command line and in files.
impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl DeviceKind {
    /// The device itself; of the GPUs the first.
    ///
    /// # Errors
    /// That says what is missing: the feature, the driver or the GPU.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda => fwd_ops::cuda_device(0).context("--device cuda"),
        }
    }

    /// What keeps results of this device apart from those of another, whose last digits differ: of a CPU the level of vector
    /// instructions, at which sums are taken in an order of their own.
    pub(crate) fn tag(device: &Device) -> &'static str {
        if device.is_cpu() { fwd_simd::Cpu::current().level().name() } else { "cuda" }
    }
}
