//! What a report says of a GPU.

use std::fmt;

/// A GPU and the software that drives it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The name, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// The newest CUDA that the driver knows.
    pub cuda: (u32, u32),
    /// The release of the driver, such as `580.82.07`; where the system does not tell, there is none.
    pub driver: Option<String>,
    /// The run-time compiler, if there is one.
    pub nvrtc: Option<(u32, u32)>,
    /// Size of the device memory in bytes.
    pub memory_bytes: usize,
    /// Streaming multiprocessors.
    pub n_multiprocessors: u32,
    /// Second-level cache in bytes.
    pub l2_bytes: usize,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = self.memory_bytes as f64 / (1u64 << 30) as f64;
        let mib = self.l2_bytes as f64 / (1u64 << 20) as f64;
        write!(
            f,
            "{} ({}.{}, {} SMs, {gib:.1} GiB",
            self.name, self.capability.0, self.capability.1, self.n_multiprocessors
        )?;
        write!(f, ", {mib:.0} MiB L2), CUDA {}.{}", self.cuda.0, self.cuda.1)?;
        if let Some(driver) = &self.driver {
            write!(f, ", driver {driver}")?;
        }
        if let Some((major, minor)) = self.nvrtc {
            write!(f, ", NVRTC {major}.{minor}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_tells_all() {
        let info = DeviceInfo {
            name: "NVIDIA H100".to_owned(),
            capability: (9, 0),
            cuda: (13, 0),
            driver: Some("580.82.07".to_owned()),
            nvrtc: None,
            memory_bytes: 80 << 30,
            n_multiprocessors: 132,
            l2_bytes: 50 << 20,
        };
        let line = "NVIDIA H100 (9.0, 132 SMs, 80.0 GiB, 50 MiB L2), CUDA 13.0, driver 580.82.07";
        assert_eq!(info.to_string(), line);
    }
}
