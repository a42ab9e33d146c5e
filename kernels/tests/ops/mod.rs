//! One check for each operation, on any executor: the emulator (`emulated.rs`) or a GPU (`gpu.rs`), against f64 on the host.

mod activation;
mod adamw;
mod cross_entropy;
mod embedding;
mod gram;
mod norm;
mod projection;
mod rotary;
mod selection;
mod softmax;
mod solver;

use fwd_kernels::{DType, Data, Executor, Plan};
use rand::{SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, StandardNormal};

/// Runs every check.
pub(crate) fn check_all(executor: &dyn Executor) {
    activation::check(executor);
    cross_entropy::check(executor);
    embedding::check(executor);
    norm::check(executor);
    rotary::check(executor);
    softmax::check(executor);
    gram::check(executor);
    selection::check(executor);
    projection::check(executor);
    adamw::check(executor);
    solver::check(executor);
}

/// Standard normal numbers, rounded to a type.
pub(crate) fn normal(seed: u64, dtype: DType, len: usize) -> Data {
    let mut random = StdRng::seed_from_u64(seed);
    Data::from_f64(dtype, (0..len).map(|_| StandardNormal.sample(&mut random)))
}

/// Half the distance between 1 and the next number.
pub(crate) fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2f64.powi(-24),
        DType::F16 => 2f64.powi(-11),
        DType::Bf16 => 2f64.powi(-8),
        DType::F64 => 2f64.powi(-53),
        DType::I64 | DType::U32 => 0.0,
    }
}

/// Runs a plan; a failure names it.
pub(crate) fn run(executor: &dyn Executor, plan: &Plan, data: &mut [&mut Data]) {
    if let Err(error) = executor.run(plan, data) {
        panic!("{}: {error}\n{:?}", plan.op, plan.launches);
    }
}

/// Compares with the reference: `|a − b| ≤ relative·|b| + absolute` for each element.
pub(crate) fn close(what: &str, found: &Data, expected: &[f64], relative: f64, absolute: f64) {
    let found = found.to_f64();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= relative * b.abs() + absolute, "{what}: element {i} is {a}, expected {b}");
    }
}
