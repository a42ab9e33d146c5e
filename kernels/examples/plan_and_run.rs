//! Plans a few operations for an A100 and an H100 and prints their launches; with the feature `emulate` it also runs one on the CPU.
//!
//! ```text
//! cargo run -p fwd-kernels --example plan_and_run [--features emulate]
//! ```
//! Neither needs a GPU, a driver or a toolkit. The feature needs a C++20 compiler.

#![allow(clippy::print_stdout)]

use fwd_kernels::{
    DType, GramShape, KernelError, NormKind, NormShape, Plan, ProjectionShape, Role, SoftmaxShape, Target,
    plan_gram, plan_norm_forward, plan_projection, plan_softmax_forward,
};

/// Prints what a plan asks of a GPU.
fn describe(gpu: &str, plan: &Plan) {
    println!("{} on {gpu}", plan.op);
    for buffer in &plan.buffers {
        let role = match buffer.role {
            Role::Input => "read",
            Role::Output => "written",
            Role::InOut => "read and written",
            Role::Scratch => "scratch",
        };
        println!("    {:<10} {:>10} × {:<4} {role}", buffer.name, buffer.len, buffer.dtype.suffix());
    }
    for launch in &plan.launches {
        let [x, y, z] = launch.grid;
        println!(
            "    {}<<<({x}, {y}, {z}), {}>>>, clusters of {}, {} bytes of shared memory",
            launch.kernel, launch.block, launch.cluster, launch.shared_bytes
        );
    }
    println!();
}

fn main() -> Result<(), KernelError> {
    let norm = NormShape { kind: NormKind::Rms, rows: 2, d: 8, eps: 1e-6, dtype: DType::F32 };
    let projection = ProjectionShape { rows: 200, d: 2048, rank: 512, keeps_rest: true, dtype: DType::F32 };
    let gram = GramShape { rows: 200_000, d: 2048, dtype: DType::Bf16 };
    describe("any GPU", &plan_norm_forward(&norm)?);
    describe("any GPU", &plan_softmax_forward(&SoftmaxShape::rows(64, 512, DType::F32))?);
    for (gpu, target) in [("an A100", Target::A100), ("an H100", Target::H100)] {
        describe(gpu, &plan_projection(&projection, &target)?);
        describe(gpu, &plan_gram(&gram, &target)?);
    }

    // What has no launch is an error of the plan, before anything runs.
    let too_long = NormShape { d: 1 << 20, ..norm };
    if let Err(error) = plan_norm_forward(&too_long) {
        println!("refused: {error}");
    }
    emulate(&norm)
}

/// Runs the norm on the CPU, through the source that a GPU would compile.
#[cfg(feature = "emulate")]
fn emulate(shape: &NormShape) -> Result<(), KernelError> {
    use fwd_kernels::{Data, Emulator, Executor};

    let rows = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0];
    let mut x = Data::from_f64(DType::F32, rows);
    let mut weight = Data::from_f64(DType::F32, [1.0; 8]);
    let mut y = Data::zeros(DType::F32, rows.len());
    Emulator::new(Target::H100).run(&plan_norm_forward(shape)?, &mut [&mut x, &mut weight, &mut y])?;
    println!("x / sqrt(mean x²), emulated:");
    for row in y.to_f64().chunks(shape.d) {
        println!("    {row:.4?}");
    }
    Ok(())
}

#[cfg(not(feature = "emulate"))]
fn emulate(_: &NormShape) -> Result<(), KernelError> {
    println!("With --features emulate the norm is also run, on the CPU.");
    Ok(())
}
