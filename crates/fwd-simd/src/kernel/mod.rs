//! The innermost loops: a block of rows times a panel.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod bf16;
#[cfg(target_arch = "x86_64")]
mod dot;
mod f32;
mod portable;
mod vector;
#[cfg(target_arch = "x86_64")]
mod widened;

use crate::element::Kernel;
use crate::element::sealed::Kernels;
use crate::level::{Cpu, Level};

pub(crate) use f32::{DEPTH, Dense, Tile};

impl Kernels for ::core::primitive::f32 {
    fn kernel(cpu: Cpu) -> Kernel<Self> {
        match cpu.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Bf16 | Level::Amx => avx512::KERNEL,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::KERNEL,
            _ => portable::KERNEL,
        }
    }
}

/// How a level multiplies f32 in place.
pub(crate) fn dense(cpu: Cpu) -> &'static Dense {
    match cpu.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Bf16 | Level::Amx => &avx512::DENSE,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => &avx2::DENSE,
        _ => &portable::DENSE,
    }
}

impl Kernels for half::bf16 {
    fn kernel(cpu: Cpu) -> Kernel<Self> {
        match cpu.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => widened::avx2(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => widened::avx512(),
            #[cfg(target_arch = "x86_64")]
            Level::Bf16 => dot::kernel(),
            #[cfg(target_arch = "x86_64")]
            Level::Amx => amx::kernel(),
            _ => portable::kernel(),
        }
    }
}
