//! Every kernel file compiles with NVRTC, for which no GPU is needed: `cargo test --features cuda --test nvrtc`, with the folder of
//! libnvrtc on `LD_LIBRARY_PATH`.
#![cfg(feature = "cuda")]
#![allow(clippy::print_stdout, clippy::unwrap_used)] // Helpers of a test may speak and panic.

use fwd_kernels::{File, KernelError, NormKind, NormShape, compile, plan_nonfinite, plan_norm_forward};

/// Whether there is a compiler. `FWD_NVRTC=1` says that there is one: then its absence is a failure.
fn compiler() -> bool {
    match compile(File::Norm, "sm_80") {
        Err(KernelError::CudaUnavailable { reason }) if std::env::var_os("FWD_NVRTC").is_none() => {
            println!("not run, NVRTC is not available: {reason}");
            false
        }
        Err(error) => panic!("{error}"),
        Ok(_) => true,
    }
}

fn contains(code: &[u8], name: &str) -> bool {
    code.windows(name.len()).any(|window| window == name.as_bytes())
}

#[test]
fn every_file_compiles() {
    if !compiler() {
        return;
    }
    for architecture in ["sm_80", "sm_90a"] {
        for &file in File::ALL {
            let code = compile(file, architecture).unwrap_or_else(|error| panic!("{architecture}: {error}"));
            assert!(code.starts_with(b"\x7fELF"), "{} for {architecture} is no machine code", file.name());
        }
    }
}

#[test]
fn the_kernels_of_plans_are_in_their_files() {
    if !compiler() {
        return;
    }
    let shape =
        NormShape { kind: NormKind::Rms, rows: 3, d: 768, eps: 1e-6, dtype: fwd_kernels::DType::Bf16 };
    let plans = [plan_norm_forward(&shape).unwrap(), plan_nonfinite(fwd_kernels::DType::F64, 2, 9).unwrap()];
    for launch in plans.iter().flat_map(|plan| &plan.launches) {
        let code = compile(launch.file, "sm_90a").unwrap();
        assert!(contains(&code, &launch.kernel), "{} is not in {}.cu", launch.kernel, launch.file.name());
        assert!(!contains(&code, "norm_sideways"));
    }
}

#[test]
fn what_does_not_compile_tells_why() {
    if !compiler() {
        return;
    }
    match compile(File::Norm, "sm_1") {
        Err(KernelError::Compile { file: "norm", log }) => assert!(!log.is_empty()),
        other => panic!("{other:?}"),
    }
}
