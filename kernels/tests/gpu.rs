//! Every operation on the GPU, where there is one: `cargo test --features cuda --test gpu`.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // Helpers of a test may speak and panic.

mod common;
mod ops;

#[test]
fn operations_on_the_gpu() {
    if let Some(device) = common::device() {
        ops::check_all(&device);
    }
}
