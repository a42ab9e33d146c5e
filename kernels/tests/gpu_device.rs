//! Plans on memory of the GPU, where there is one: `cargo test --features cuda --test gpu_device`.
#![cfg(feature = "cuda")]
#![allow(clippy::print_stdout, clippy::unwrap_used)] // Helpers of a test may speak and panic.

mod common;

use fwd_kernels::cudarc::driver::CudaStream;
use fwd_kernels::{
    Binding, DType, Data, Device, Executor, KernelError, NormKind, NormShape, Plan, plan_norm_forward,
};
use std::sync::Arc;

const ROWS: usize = 37;
const D: usize = 256;

fn plan() -> Plan {
    let shape = NormShape { kind: NormKind::Rms, rows: ROWS, d: D, eps: 1e-6, dtype: DType::F32 };
    plan_norm_forward(&shape).unwrap()
}

fn inputs() -> (Vec<f32>, Vec<f32>) {
    let x = (0..ROWS * D).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
    (x, (0..D).map(|i| 0.5 + i as f32 / D as f32).collect())
}

/// What the plan gives for data of the host.
fn expected(device: &Device) -> Vec<f32> {
    let (x, w) = inputs();
    let (mut x, mut w, mut y) = (Data::F32(x), Data::F32(w), Data::zeros(DType::F32, ROWS * D));
    device.run(&plan(), &mut [&mut x, &mut w, &mut y]).unwrap();
    let Data::F32(y) = y else { unreachable!("y is f32") };
    assert!(y.iter().all(|y| y.is_finite()) && y.iter().any(|&y| y != 0.0));
    y
}

fn run(stream: &Arc<CudaStream>) -> Vec<f32> {
    let device = Device::on_stream(stream).unwrap();
    let (x, w) = inputs();
    let (x, w) = (stream.clone_htod(&x).unwrap(), stream.clone_htod(&w).unwrap());
    let mut y = stream.alloc_zeros::<f32>(ROWS * D).unwrap();
    device.run_on(&plan(), &mut [Binding::read(&x), Binding::read(&w), Binding::write(&mut y)]).unwrap();
    stream.clone_dtoh(&y).unwrap()
}

#[test]
fn memory_of_the_device_gives_what_data_of_the_host_give() {
    let Some(device) = common::device() else { return };
    let expected = expected(&device);
    assert_eq!(run(device.stream()), expected);
    assert_eq!(run(&device.stream().context().new_stream().unwrap()), expected);
}

#[test]
fn a_stream_waits_for_what_another_one_writes() {
    let Some(device) = common::device() else { return };
    let context = device.stream().context();
    let (first, second) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let (writer, reader) = (Device::on_stream(&first).unwrap(), Device::on_stream(&second).unwrap());
    let (x, w) = inputs();
    let (x, w) = (first.clone_htod(&x).unwrap(), first.clone_htod(&w).unwrap());
    let mut y = first.alloc_zeros::<f32>(ROWS * D).unwrap();
    let mut z = second.alloc_zeros::<f32>(ROWS * D).unwrap();
    // The norm of a row that is normed already, many times over: each must see what the one before wrote.
    for _ in 0..100 {
        writer.run_on(&plan(), &mut [Binding::read(&x), Binding::read(&w), Binding::write(&mut y)]).unwrap();
        reader.run_on(&plan(), &mut [Binding::read(&y), Binding::read(&w), Binding::write(&mut z)]).unwrap();
        first.memset_zeros(&mut y).unwrap();
    }
    let found = second.clone_dtoh(&z).unwrap();
    let (mut y, mut w) = (Data::F32(expected(&device)), Data::F32(inputs().1));
    let mut z = Data::zeros(DType::F32, ROWS * D);
    device.run(&plan(), &mut [&mut y, &mut w, &mut z]).unwrap();
    assert_eq!(Data::F32(found), z);
}

#[test]
fn a_buffer_that_does_not_fit_is_named() {
    let Some(device) = common::device() else { return };
    let stream = device.stream();
    let x = stream.alloc_zeros::<f32>(ROWS * D + 4).unwrap();
    let (w, mut y) = (stream.alloc_zeros::<f32>(D).unwrap(), stream.alloc_zeros::<f32>(ROWS * D).unwrap());
    let error = |buffers: &mut [Binding<'_>]| match device.run_on(&plan(), buffers) {
        Err(KernelError::Buffer { name, expected, .. }) => format!("{name}: {expected}"),
        other => panic!("{other:?}"),
    };
    let view = |start: usize, len: usize| x.slice(start..start + len);
    let odd = view(1, ROWS * D);
    let found = error(&mut [Binding::read(&odd), Binding::read(&w), Binding::write(&mut y)]);
    assert_eq!(found, "x: at a multiple of 16 bytes");
    let short = view(0, ROWS * D - 1);
    let found = error(&mut [Binding::read(&short), Binding::read(&w), Binding::write(&mut y)]);
    assert_eq!(found, format!("x: {} × f32", ROWS * D));
    let whole = view(4, ROWS * D);
    let found = error(&mut [Binding::read(&whole), Binding::read(&w), Binding::read(&whole)]);
    assert_eq!(found, "y: given by Binding::write");
}

#[test]
fn the_device_tells_what_it_is_and_how_long_it_took() {
    let Some(device) = common::device() else { return };
    let info = device.info().unwrap();
    assert!(!info.name.is_empty() && info.memory_bytes > 1 << 30 && info.n_multiprocessors > 0, "{info}");
    assert_eq!(info.capability.0 * 10 + info.capability.1, device.target().capability);
    println!("{info}");
    let (found, time) = device.time(|| Ok(run(device.stream()))).unwrap();
    assert_eq!(found.len(), ROWS * D);
    assert!(!time.is_zero());
}
