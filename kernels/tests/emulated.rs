//! Every operation on the emulator, as an A100 and as an H100 would run it.
#![cfg(feature = "emulate")]
#![allow(clippy::print_stdout, clippy::unwrap_used)] // Helpers of a test may speak and panic.

mod ops;

use fwd_kernels::{Emulator, Target};

#[test]
fn operations_for_an_a100() {
    ops::check_all(&Emulator::new(Target::A100));
}

#[test]
fn operations_for_an_h100() {
    ops::check_all(&Emulator::new(Target::H100));
}
