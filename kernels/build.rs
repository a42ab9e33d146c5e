//! Compiles the kernels for the CPU if the feature `emulate` is on, and to a fat binary if `cuda` is on and nvcc is at hand.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The names of the kernel files, those of `cuda/`.
fn files() -> Vec<String> {
    let entries = std::fs::read_dir("cuda").expect("the crate has a folder cuda");
    let paths = entries.map(|entry| entry.expect("cuda can be listed").path());
    let kernels = paths.filter(|path| path.extension().is_some_and(|extension| extension == "cu"));
    let mut names: Vec<String> =
        kernels.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    names
}

fn main() {
    println!("cargo:rerun-if-changed=cuda");
    println!("cargo:rerun-if-changed=emulation");
    println!("cargo:rerun-if-env-changed=FWD_NVCC");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        fat_binaries(&out);
    }
    #[cfg(feature = "emulate")]
    emulate(&out);
}

/// A fat binary of each file where `FWD_NVCC` names a compiler; an empty file stands for "compile with NVRTC on first use".
fn fat_binaries(out: &Path) {
    let nvcc = env::var_os("FWD_NVCC").filter(|name| !name.is_empty());
    for file in files() {
        let fat = out.join(format!("{file}.fatbin"));
        let Some(nvcc) = &nvcc else {
            std::fs::write(&fat, []).expect("OUT_DIR is writable");
            continue;
        };
        let mut command = Command::new(nvcc);
        // Ten times as small: a program carries every kernel for four targets.
        command.args(["-Xfatbin=-compress-all", "--compress-mode=size"]);
        command
            .args(["-std=c++17", "-O3", "-lineinfo", "-fatbin", "-o"])
            .arg(&fat)
            .arg(format!("cuda/{file}.cu"));
        for target in [
            "arch=compute_80,code=sm_80",
            "arch=compute_90a,code=sm_90a",
            "arch=compute_100,code=[sm_100,compute_100]",
        ] {
            command.arg(format!("-gencode={target}"));
        }
        let status =
            command.status().unwrap_or_else(|error| panic!("cannot start {}: {error}", nvcc.display()));
        assert!(status.success(), "{command:?} failed: {status}");
    }
}

/// One translation unit for each kernel file, and the emulator.
#[cfg(feature = "emulate")]
fn emulate(out: &Path) {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .opt_level(2)
        .include("emulation")
        .include("cuda")
        .file("emulation/emulator.cpp");
    // An index outside of an array traps, which the emulator reports; contraction would differ from the f64 reference by rounding only,
    // but must not differ between two orders of threads.
    build.flags([
        "-fsanitize=bounds",
        "-fsanitize-undefined-trap-on-error",
        "-ffp-contract=off",
        "-fno-strict-aliasing",
    ]);
    build.flags(["-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-unused-variable"]);
    for file in files().into_iter().chain(["../emulation/faults".to_owned()]) {
        let name = file.rsplit('/').next().unwrap_or(&file);
        let unit = out.join(format!("{name}.cpp"));
        let source = root.join(format!("cuda/{file}.cu"));
        let text = format!("#include \"common.cuh\"\nnamespace {{\n#include \"{}\"\n}}\n", source.display());
        std::fs::write(&unit, text).expect("OUT_DIR is writable");
        build.file(unit);
    }
    // Kernels are found by name alone: nothing refers to their objects.
    build.link_lib_modifier("+whole-archive").compile("fwd_emulation");
}
