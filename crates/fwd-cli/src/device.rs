//! Where a model computes: the CPU, or an NVIDIA GPU (feature `cuda`).

use anyhow::{Context, Result};
use candle_core::Device;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DeviceKind {
    /// The processor, all its cores.
    #[default]
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
}

impl DeviceKind {
    /// Opens it.
    ///
    /// # Errors
    /// That says what is missing: the feature, the driver or the GPU.
    pub(crate) fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda => fwd_ops::cuda_device(0).context("--device cuda"),
        }
    }

    /// What keeps results of this device apart from those of another, whose last digits differ.
    pub(crate) fn tag(device: &Device) -> &'static str {
        if device.is_cpu() { "" } else { "cuda" }
    }
}
