//! The emulator reports each fault of the kernels in `emulation/faults.cu`, and none where there is none.
#![cfg(feature = "emulate")]
#![allow(clippy::print_stdout, clippy::unwrap_used)] // Helpers of a test may speak and panic.

use fwd_kernels::{
    Arg, Buffer, DType, Data, Emulator, Executor, File, KernelError, Launch, Plan, Role, Target,
};
use half::bf16;

struct Case<'a> {
    kernel: &'a str,
    grid: u32,
    block: u32,
    cluster: u32,
    shared_bytes: u32,
}

/// Runs a kernel with its buffers and an integer.
fn run(case: &Case, inputs: &[Data], output: Data, number: Option<i32>) -> Result<Data, KernelError> {
    let buffer = |role, data: &Data| Buffer {
        name: if role == Role::Input { "x" } else { "y" },
        role,
        dtype: data.dtype(),
        len: data.len(),
    };
    let mut buffers: Vec<_> = inputs.iter().map(|data| buffer(Role::Input, data)).collect();
    buffers.push(buffer(Role::Output, &output));
    let mut args: Vec<_> = (0..buffers.len()).map(Arg::Buffer).collect();
    args.extend(number.map(Arg::I32));
    let launch = Launch {
        file: File::Faults,
        kernel: case.kernel.to_owned(),
        grid: [case.grid, 1, 1],
        block: case.block,
        cluster: case.cluster,
        shared_bytes: case.shared_bytes,
        args,
    };
    let plan = Plan { op: "test", buffers, launches: vec![launch] };
    let (mut inputs, mut output) = (inputs.to_vec(), output);
    let mut data: Vec<&mut Data> = inputs.iter_mut().chain([&mut output]).collect();
    Emulator::new(Target::H100).run(&plan, &mut data)?;
    Ok(output)
}

const SUM: Case = Case { kernel: "fault_sum", grid: 1, block: 64, cluster: 1, shared_bytes: 64 * 4 };

fn sum(fault: i32) -> Result<Data, KernelError> {
    let x = Data::F32((0..64).map(|i| i as f32).collect());
    run(&SUM, &[x], Data::zeros(DType::F32, 1), Some(fault))
}

#[test]
fn a_kernel_without_fault_runs() {
    assert_eq!(sum(0), Ok(Data::F32(vec![2016.0])));
}

#[test]
fn each_fault_is_reported() {
    for (fault, words) in [
        (1, "shared memory, which has 256"),
        (2, "depends on the order of threads"),
        (3, "finished threads do not reach"),
        (4, "write to x, which is an input, at byte 0"),
        (5, "access to byte 256 of y, which has 4"),
        (6, "write beside y"),
        (7, "finished threads do not reach"),
    ] {
        let error = sum(fault).expect_err("fault {fault} goes unnoticed").to_string();
        assert!(error.contains(words), "fault {fault}: {error}");
    }
}

#[test]
fn a_copy_is_not_there_before_it_is_waited_for() {
    let case = Case { kernel: "fault_copy", grid: 1, block: 32, cluster: 1, shared_bytes: 128 * 4 };
    let x = Data::F32((0..128).map(|i| i as f32).collect());
    let copied = |wait| {
        run(&case, std::slice::from_ref(&x), Data::zeros(DType::F32, 32), Some(wait)).unwrap().to_f64()
    };
    let expected: Vec<f64> = (0..32).map(|i| f64::from((i + 1) % 32)).collect();
    assert_eq!(copied(1), expected);
    assert!(copied(0).iter().all(|x| x.is_nan()), "shared memory starts as NaN");
}

#[test]
fn an_index_outside_of_a_local_array_is_reported() {
    let case = Case { kernel: "fault_local", grid: 1, block: 32, cluster: 1, shared_bytes: 0 };
    let local = |index| run(&case, &[], Data::zeros(DType::F32, 32), Some(index));
    assert_eq!(local(2).unwrap().to_f64()[31], 4.0);
    assert!(local(3).unwrap_err().to_string().contains("index outside of an array"));
}

#[test]
fn a_cluster_shares_memory_and_needs_its_barrier() {
    let case = Case { kernel: "fault_cluster", grid: 8, block: 32, cluster: 4, shared_bytes: 32 * 4 };
    let x = Data::F32((0..256).map(|i| (i / 32) as f32).collect());
    let sums = |barrier| run(&case, std::slice::from_ref(&x), Data::zeros(DType::F32, 256), Some(barrier));
    let expected: Vec<f64> = (0..256).map(|i| if i < 128 { 6.0 } else { 22.0 }).collect();
    assert_eq!(sums(1).unwrap().to_f64(), expected);
    assert!(sums(0).unwrap_err().to_string().contains("depends on the order"));
}

#[test]
fn a_cluster_loads_four_floats_where_they_are_aligned() {
    let case = Case { kernel: "fault_cluster4", grid: 4, block: 32, cluster: 4, shared_bytes: 32 * 4 };
    let x = Data::F32((0..128).map(|i| i as f32).collect());
    let sums = |offset| run(&case, std::slice::from_ref(&x), Data::zeros(DType::F32, 128), Some(offset));
    let expected: Vec<f64> =
        (0..128).map(|i| f64::from(4 * ((i / 32 * 32 + 32) % 128 + i % 32 / 8 * 8 + 4) + 6)).collect();
    assert_eq!(sums(4).unwrap().to_f64(), expected);
    assert!(sums(2).unwrap_err().to_string().contains("not aligned to 16 bytes"));
}

#[test]
fn tensor_core_fragments_have_the_layout_of_the_manual() {
    let case = Case { kernel: "matrices_bf16", grid: 1, block: 32, cluster: 1, shared_bytes: 384 * 2 };
    let number = |i: usize, n: usize| ((i * 37 % 17) as f64 - 8.0) / n as f64;
    let a: Vec<f64> = (0..256).map(|i| number(i, 8)).collect();
    let b: Vec<f64> = (0..128).map(|i| number(i + 5, 4)).collect();
    let product = |k: usize| -> Vec<f64> {
        (0..128).map(|e| (0..k).map(|j| a[e / 8 * k + j] * b[j * 8 + e % 8]).sum()).collect()
    };
    let half = |v: &[f64]| Data::Bf16(v.iter().map(|&x| bf16::from_f64(x)).collect());
    let found = run(&case, &[half(&a), half(&b)], Data::zeros(DType::F32, 128), None).unwrap();
    assert_eq!(found.to_f64(), product(16));
    let single = |v: &[f64]| Data::F32(v.iter().map(|&x| x as f32).collect());
    let case = Case { kernel: "matrices_tf32", shared_bytes: 0, ..case };
    let found =
        run(&case, &[single(&a[..128]), single(&b[..64])], Data::zeros(DType::F32, 128), None).unwrap();
    assert_eq!(found.to_f64(), product(8));
}

#[test]
fn a_plan_that_does_not_fit_its_kernel_is_refused() {
    let x = Data::zeros(DType::F32, 64);
    let run = |case: &Case, number| {
        run(case, std::slice::from_ref(&x), Data::zeros(DType::F32, 1), number).unwrap_err().to_string()
    };
    assert!(run(&SUM, None).contains("takes arguments ppi, not pp"));
    assert!(run(&Case { kernel: "no_such", ..SUM }, Some(0)).contains("no kernel of this name"));
    assert!(run(&Case { block: 48, ..SUM }, Some(0)).contains("multiple of 32"));
}
