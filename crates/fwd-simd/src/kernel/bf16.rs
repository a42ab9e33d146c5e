//! Products of bf16.

use super::{Kernel, portable};
use crate::level::Cpu;
use half::bf16;

pub(super) fn kernel(_: Cpu) -> Kernel<bf16> {
    portable::kernel()
}
