//! `cargo xtask bundle`: a folder that a machine with a GPU runs without Rust and without a network.
//!
//! It holds the GPU tests, the benchmark and the program built with the feature `cuda`, packed into one archive, the assets that the
//! program needs, PyTorch's side of the benchmark, and `run.sh`, which runs them in order and leaves JSON. Nothing here needs a GPU: the
//! kernels are compiled by the fetched nvcc, and the program is linked against stand-ins that have the sonames of NVIDIA's libraries
//! and no code.

use crate::kernels;
use crate::shell::{command, output, root, run};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    /// Where to put it; what is there is replaced.
    #[arg(long, default_value = "target/bundle")]
    out: PathBuf,
    /// Leave the program out: it alone needs minutes, for candle's own kernels.
    #[arg(long)]
    without_program: bool,
}

const MOST_MIB: u64 = 60;

/// Library, soname, and how the names of its functions start.
const LIBRARIES: [(&str, &str, &str); 7] = [
    ("cublasLt", "libcublasLt.so.13", "cublasLt"),
    ("cublas", "libcublas.so.13", "cublas"),
    ("curand", "libcurand.so.10", "curand"),
    ("cusolver", "libcusolver.so.12", "cusolver"),
    ("cusparse", "libcusparse.so.12", "cusparse"),
    ("nvrtc", "libnvrtc.so.13", "nvrtc"),
    ("cuda", "libcuda.so.1", "cu"),
];

pub(crate) fn bundle(args: &BundleArgs) -> Result<()> {
    let nvcc = kernels::nvcc()?;
    let out = root().join(&args.out);
    let unfinished = out.with_extension("part");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    let programs = unfinished.join("programs");
    fs::create_dir_all(&programs)?;
    let mut cargo = command(
        "cargo",
        &["test", "--release", "--locked", "--no-run", "--message-format=json", "--features", "cuda"],
    );
    cargo
        .args(["--package", "fwd-kernels", "--test", "gpu", "--test", "gpu_device", "--test", "gpu_solver"])
        .env("FWD_NVCC", &nvcc);
    for (name, path) in executables(&output(&mut cargo)?)? {
        put(&path, &programs.join(format!("test-{name}")))?;
    }
    let mut cargo =
        command("cargo", &["build", "--release", "--locked", "--message-format=json", "--features", "cuda"]);
    cargo.args(["--package", "fwd-benches", "--bin", "gpu"]).env("FWD_NVCC", &nvcc);
    for (name, path) in executables(&output(&mut cargo)?)? {
        put(&path, &programs.join(format!("bench-{name}")))?;
    }
    if !args.without_program {
        put(&program(&nvcc)?, &programs.join("fwd-prompt"))?;
        run(Command::new("cp").arg("-r").arg(root().join("assets")).arg(&unfinished))?;
    }
    // All of them hold the same kernels, so that one archive is much smaller: 18 MB of 99.
    let mut tar = Command::new("tar");
    tar.args(["-cJf", "programs.tar.xz", "programs"]).env("XZ_OPT", "-9").current_dir(&unfinished);
    run(&mut tar)?;
    fs::remove_dir_all(&programs)?;
    fs::copy(root().join("benches/gpu_torch.py"), unfinished.join("gpu_torch.py"))?;
    put(&root().join("xtask/run.sh"), &unfinished.join("run.sh"))?;
    let mib = size(&unfinished)? / (1 << 20);
    ensure!(mib < MOST_MIB, "the bundle has {mib} MiB, at most {MOST_MIB} are due");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    fs::rename(&unfinished, &out)?;
    eprintln!("{}: {mib} MiB; on a machine with a GPU: ./run.sh", out.display());
    Ok(())
}

/// Name and path of each program in cargo's messages.
fn executables(messages: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("cargo writes one JSON value a line")?;
        if let (Some(path), Some(name)) = (message["executable"].as_str(), message["target"]["name"].as_str())
        {
            found.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    ensure!(!found.is_empty(), "cargo built no program");
    Ok(found)
}

/// Copies a program, without its symbols if it is one.
fn put(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    if from.extension().is_none() {
        run(Command::new("strip").arg(to))?;
    }
    Ok(())
}

fn size(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(sum)
}

/// The program with the feature `cuda`, candle's kernels included.
fn program(nvcc: &Path) -> Result<PathBuf> {
    let toolkit = nvcc.ancestors().nth(2).context("nvcc lies in a toolkit's bin folder")?;
    let stubs = stand_ins(toolkit)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [toolkit.join("bin")].into_iter().chain(std::env::split_paths(&path));
    let mut flags = OsString::from("-L native=");
    flags.push(&stubs);
    let list = [
        "build",
        "--release",
        "--locked",
        "--message-format=json",
        "--package",
        "fwd-cli",
        "--features",
        "cuda",
    ];
    let mut cargo = command("cargo", &list);
    cargo.env("PATH", std::env::join_paths(folders)?).env("RUSTFLAGS", flags);
    cargo.env("CUDA_HOME", toolkit).env("CUDA_COMPUTE_CAP", "80").env("FWD_NVCC", nvcc);
    // Flags of their own would rebuild everything in the usual folder at the next build.
    cargo.env("CARGO_TARGET_DIR", root().join("target/cuda"));
    executables(&output(&mut cargo)?)?.remove("fwd-prompt").context("cargo built no fwd-prompt")
}

/// Shared libraries with the sonames of NVIDIA's and every function that cudarc declares, each empty.
fn stand_ins(toolkit: &Path) -> Result<PathBuf> {
    let folder = root().join("target/cuda-stand-ins");
    fs::create_dir_all(&folder)?;
    let metadata: Value = serde_json::from_str(&output(&mut command(
        "cargo",
        &["metadata", "--format-version=1", "--locked", "--all-features"],
    ))?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let cudarc = packages.iter().find(|p| p["name"] == "cudarc").and_then(|p| p["manifest_path"].as_str());
    let source = Path::new(cudarc.context("cudarc is a dependency")?).with_file_name("src");
    let names = functions(&source)?;
    for (index, (library, soname, start)) in LIBRARIES.iter().enumerate() {
        let mut code = String::new();
        for name in names.iter().filter(|name| {
            name.starts_with(start) && !LIBRARIES[..index].iter().any(|(_, _, other)| name.starts_with(other))
        }) {
            writeln!(code, "void {name}(void) {{}}")?;
        }
        let file = folder.join(format!("{library}.c"));
        fs::write(&file, code)?;
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(folder.join(format!("lib{library}.so")));
        run(cc.arg(format!("-Wl,-soname,{soname}")).arg(&file))?;
    }
    fs::copy(toolkit.join("lib/libcudart_static.a"), folder.join("libcudart.a"))?;
    Ok(folder)
}

/// The names of the C functions that cudarc's `sys` modules declare.
fn functions(source: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(source)? {
        let path = entry?.path().join("sys/mod.rs");
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for piece in text.split("fn ").skip(1) {
            let name: String = piece.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if LIBRARIES.iter().any(|(_, _, start)| name.starts_with(start)) {
                names.insert(name);
            }
        }
    }
    ensure!(names.len() > 1000, "cudarc's sys modules declare only {} functions", names.len());
    Ok(names)
}
