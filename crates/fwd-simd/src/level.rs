//! Which vector instructions are used: what the processor has, or less if `FWD_CPU` says so.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// The environment variable that names the level to stay at.
const VARIABLE: &str = "FWD_CPU";

/// Vector instructions that products are made of; each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Whatever the compiler makes of plain loops for the baseline of the architecture (SSE2, NEON).
    Portable,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AVX-512 (F, BW, CD, DQ, VL: what a x86-64-v4 processor has).
    Avx512,
    /// Dot products of bf16 pairs (AVX-512 BF16).
    Bf16,
    /// Tiles of bf16 (AMX-TILE and AMX-BF16), with the operating system's leave.
    Amx,
}

impl Level {
    /// All levels, the lowest first.
    pub const ALL: [Self; 5] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Bf16, Self::Amx];

    /// The name that `FWD_CPU` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Bf16 => "bf16",
            Self::Amx => "amx",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = LevelError;

    fn from_str(name: &str) -> Result<Self, LevelError> {
        Self::ALL
            .into_iter()
            .find(|level| level.name() == name)
            .ok_or_else(|| LevelError::Unknown(name.into()))
    }
}

/// Why a level cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LevelError {
    /// The name is none of the levels'.
    #[error("`{0}` is no level of vector instructions: FWD_CPU takes portable, avx2, avx512, bf16 or amx")]
    Unknown(String),
    /// The processor or the operating system lacks it.
    #[error("this processor cannot run the level `{asked}`: the best that it has is `{best}` (FWD_CPU)")]
    Missing {
        /// What was asked for.
        asked: Level,
        /// The best level of this processor.
        best: Level,
    },
}

/// Proof that the processor which runs this has the instructions of a [`Level`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu(Level);

impl Cpu {
    /// The best level of this processor.
    pub fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        Self(*BEST.get_or_init(detect))
    }

    /// A given level.
    ///
    /// # Errors
    /// [`LevelError::Missing`] if the processor has not all of its instructions.
    pub fn at(level: Level) -> Result<Self, LevelError> {
        let Self(best) = Self::best();
        if level <= best { Ok(Self(level)) } else { Err(LevelError::Missing { asked: level, best }) }
    }

    /// A level that the processor may lack: for tests that run its instructions in an emulator.
    ///
    /// # Safety
    /// Every instruction of the level that is executed on behalf of this value must be one that the processor has or that a handler of
    /// the illegal instruction carries out.
    #[doc(hidden)]
    #[allow(unsafe_code)]
    pub unsafe fn assume(level: Level) -> Self {
        Self(level)
    }

    /// The level that `FWD_CPU` names, or the best one if it is not set or empty. A program asks this once, when it starts, to tell its
    /// user of a wrong name; [`Cpu::current`] takes the best level then.
    ///
    /// # Errors
    /// [`LevelError`] if the variable names no level or one that this processor lacks.
    pub fn from_env() -> Result<Self, LevelError> {
        match std::env::var(VARIABLE) {
            Ok(name) if !name.is_empty() => Self::at(name.parse()?),
            _ => Ok(Self::best()),
        }
    }

    /// The level of this process: [`Cpu::from_env`] as it was at the first call.
    pub fn current() -> Self {
        static CURRENT: OnceLock<Cpu> = OnceLock::new();
        *CURRENT.get_or_init(|| Self::from_env().unwrap_or_else(|_| Self::best()))
    }

    /// Every level that this processor has, the lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        Level::ALL.into_iter().filter_map(|level| Self::at(level).ok())
    }

    /// The level that this proves.
    pub fn level(self) -> Level {
        self.0
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    if pulp::x86::V3::try_new().is_none() {
        Level::Portable
    } else if pulp::x86::V4::try_new().is_none() {
        Level::Avx2
    } else if !std::arch::is_x86_feature_detected!("avx512bf16") {
        Level::Avx512
    } else if !has_tiles() {
        Level::Bf16
    } else {
        Level::Amx
    }
}

/// Whether the processor has AMX-BF16, the operating system keeps tiles over a change of threads, and it lets this process use them.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[allow(unsafe_code)]
fn has_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    /// Bits of leaf 7: AMX-BF16 and AMX-TILE.
    const TILES: u32 = 1 << 22 | 1 << 24;
    /// State components: the configuration of the tiles, and the tiles.
    const COMPONENTS: u64 = 1 << 17 | 1 << 18;

    #[target_feature(enable = "xsave")]
    fn enabled_components() -> u64 {
        // SAFETY: the function has the instruction; register 0 exists wherever it does.
        unsafe { _xgetbv(0) }
    }

    // Safe functions since Rust 1.93.
    #[allow(unused_unsafe)]
    // SAFETY: every x86-64 processor has the instruction, and the first leaf says whether there is a seventh.
    let has_tiles = unsafe { __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & TILES == TILES };
    if !has_tiles {
        return false;
    }
    // SAFETY: AVX-512 was detected before, for which the operating system must have enabled `xgetbv`.
    let enabled = unsafe { enabled_components() };
    enabled & COMPONENTS == COMPONENTS && ask_for_tiles()
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn has_tiles() -> bool {
    false
}

/// Asks Linux for the leave to use tiles in this process (`arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`), without which the first
/// use of one ends it. The leave holds for all threads. Linux before 5.16 and processors without tiles refuse.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[allow(unsafe_code)]
fn ask_for_tiles() -> bool {
    const SYS_ARCH_PRCTL: isize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let result: isize;
    // SAFETY: the call takes two numbers and changes no memory; the kernel overwrites rcx and r11.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") SYS_ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Portable
}

/// Runs `body` compiled for the vector registers of this process' level: AVX2 and FMA, AVX-512, or the baseline.
///
/// The closure must be `#[inline(always)]`, and so must everything it calls: what is not inlined is compiled for the baseline, four
/// times slower on x86-64.
#[inline(always)]
pub fn vectorize<R>(body: impl FnOnce() -> R) -> R {
    struct Body<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Body<F> {
        type Output = R;
        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }
    #[cfg(target_arch = "x86_64")]
    {
        static ARCH: OnceLock<pulp::Arch> = OnceLock::new();
        let arch = ARCH.get_or_init(|| {
            let level = Cpu::current().level();
            let v4 = pulp::x86::V4::try_new().filter(|_| level >= Level::Avx512).map(pulp::Arch::V4);
            let v3 = pulp::x86::V3::try_new().filter(|_| level >= Level::Avx2).map(pulp::Arch::V3);
            v4.or(v3).unwrap_or(pulp::Arch::Scalar)
        });
        arch.dispatch(Body(body))
    }
    #[cfg(not(target_arch = "x86_64"))]
    pulp::Arch::new().dispatch(Body(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_unknown_ones_are_refused() {
        for level in Level::ALL {
            assert_eq!(level.name().parse(), Ok(level));
        }
        let error = "sse9".parse::<Level>().unwrap_err().to_string();
        assert!(error.contains("sse9") && error.contains("avx512"), "{error}");
    }

    #[test]
    fn levels_up_to_the_best_exist_and_no_others() {
        let best = Cpu::best();
        for level in Level::ALL {
            assert_eq!(Cpu::at(level).is_ok(), level <= best.level());
        }
        assert_eq!(Cpu::all().last(), Some(best));
    }
}
