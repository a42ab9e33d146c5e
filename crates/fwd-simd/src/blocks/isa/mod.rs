//! The vector instructions that decoders and dot products are made of, at each level.
//!
//! A value of a type with these traits is proof that the processor has the instructions. Everything is `#[inline(always)]`, so that it is
//! compiled for the function with `#[target_feature]` in which it ends: those of [`x86`], reached by [`run_floats`] and [`run_int8`].

mod portable;
mod traits;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::level::Cpu;
#[cfg(target_arch = "x86_64")]
use crate::level::Level;
use portable::Portable;
pub(super) use traits::{Codes, Floats, FloatsWork, Int8, Int8Work};

/// Runs it with the instructions of a level.
pub(super) fn run_floats(cpu: Cpu, work: impl FloatsWork) {
    #[cfg(target_arch = "x86_64")]
    if cpu.level() >= Level::Avx512 && x86::has_f16c() {
        return x86::run_avx512(cpu, work);
    } else if cpu.level() >= Level::Avx2 && x86::has_f16c() {
        return x86::run_avx2(cpu, work);
    }
    let _ = cpu;
    work.run(Portable);
}

/// Runs it with the instructions of a level. Dot products of bytes are an extension of their own beside AVX-512.
pub(super) fn run_int8(cpu: Cpu, work: impl Int8Work) {
    #[cfg(target_arch = "x86_64")]
    if cpu.level() >= Level::Avx512 && x86::has_f16c() && x86::has_vnni() {
        return x86::run_int8_vnni(cpu, work);
    } else if cpu.level() >= Level::Avx2 && x86::has_f16c() {
        return x86::run_int8_avx2(cpu, work);
    }
    let _ = cpu;
    work.run(Portable);
}
