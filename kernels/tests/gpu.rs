//! Every operation on the GPU, where there is one: `cargo test --features cuda --test gpu`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;
mod ops;

#[test]
fn operations_on_the_gpu() {
    if let Some(device) = common::device() {
        ops::check_all(&device);
    }
}
