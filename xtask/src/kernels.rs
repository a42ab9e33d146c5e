//! `cargo xtask kernels` and `cargo xtask emulate`: the CUDA kernels compiled for every target and run on the CPU, without a GPU.

use crate::shell::{command, output, root, run};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

/// The architectures that each kernel is compiled for.
const TARGETS: [&str; 3] = ["sm_80", "sm_90a", "sm_100"];

/// NVIDIA's compiler as wheels of PyPI; the meta-package pins all parts to one release.
const TOOLKIT: &str = "cuda-toolkit[nvcc,cudart,crt,nvvm,cccl]==13.0.2";

const TABLE: &str = "kernels/RESOURCES.md";

#[derive(Debug, Args)]
pub(crate) struct KernelsArgs {
    /// Fail if kernels/RESOURCES.md is not what the compiler says.
    #[arg(long)]
    check: bool,
}

impl KernelsArgs {
    /// As CI runs it.
    pub(crate) const CHECK: Self = Self { check: true };
}

/// What the compiler says of one kernel on one target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Resources {
    registers: u32,
    stack: u32,
    spills: u32,
}

type Table = BTreeMap<(String, String), [Resources; TARGETS.len()]>;

/// Compiles every kernel for every target and writes, or compares, the table of what they need.
pub(crate) fn kernels(args: &KernelsArgs) -> Result<()> {
    let nvcc = nvcc()?;
    let folder = root().join("target/kernels");
    std::fs::create_dir_all(&folder)?;
    let mut table = Table::new();
    for file in files()? {
        for (column, target) in TARGETS.iter().enumerate() {
            let mut compile = Command::new(&nvcc);
            compile.args([
                "-std=c++17",
                "-O3",
                "-lineinfo",
                "-cubin",
                "-Werror",
                "all-warnings",
                "-Xptxas",
                "-v",
            ]);
            compile
                .arg(format!("-arch={target}"))
                .arg("-o")
                .arg(folder.join(format!("{file}.{target}.cubin")));
            compile.arg(root().join(format!("kernels/cuda/{file}.cu")));
            let ran = compile.output().with_context(|| format!("cannot start {}", nvcc.display()))?;
            let words = String::from_utf8_lossy(&ran.stderr);
            ensure!(ran.status.success(), "{file}.cu does not compile for {target}:\n{words}");
            for (kernel, resources) in parse(&words) {
                table.entry((file.clone(), kernel)).or_default()[column] = resources;
            }
        }
    }
    let spilled: Vec<&str> = table
        .iter()
        .filter(|(_, all)| all.iter().any(|r| r.spills > 0))
        .map(|((_, kernel), _)| kernel.as_str())
        .collect();
    ensure!(spilled.is_empty(), "kernels that spill registers: {}", spilled.join(", "));
    let text = render(&table)?;
    let path = root().join(TABLE);
    if args.check {
        let committed = std::fs::read_to_string(&path).with_context(|| format!("{TABLE} is missing"))?;
        ensure!(
            committed == text,
            "{TABLE} is not what the compiler says: run `cargo xtask kernels` and commit it"
        );
    } else {
        std::fs::write(&path, text).with_context(|| format!("cannot write {TABLE}"))?;
    }
    eprintln!("{} kernels for {}", table.len(), TARGETS.join(", "));
    Ok(())
}

/// Runs every kernel on the CPU, and the operations that launch them, against their references.
pub(crate) fn emulate() -> Result<()> {
    let list = ["test", "--locked", "--features", "emulate", "--package"];
    run(command("cargo", &list).args(["fwd-kernels", "--lib", "--test", "emulated", "--test", "emulator"]))?;
    run(command("cargo", &list).args(["fwd-ops", "--tests"]))?;
    // Whole models, forward and backward, against transformers.
    run(command("cargo", &list).args(["fwd-models", "--test", "oracle", "--test", "decoders"]))
}

/// Type-checks what is compiled with the feature `cuda` alone. A script stands in for the compiler that candle's kernels ask for: their code is
/// not needed to check types.
pub(crate) fn check_cuda() -> Result<()> {
    let cuda = ["--all-targets", "--features", "cuda", "--locked", "--", "-D", "warnings"];
    let mut kernels = command("cargo", &["clippy", "--package", "fwd-kernels"]);
    run(kernels.args(cuda))?;
    let mut program = command("cargo", &["clippy", "--package", "fwd-ops", "--package", "fwd-cli"]);
    let tools = root().join("xtask/stand-in");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([tools].into_iter().chain(std::env::split_paths(&path)))?;
    run(program.args(cuda).env("PATH", path).env("CUDA_COMPUTE_CAP", "80").env_remove("CUDA_HOME"))
}

/// The names of the kernel files.
fn files() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("kernels/cuda"))? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("cu")) {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    ensure!(!names.is_empty(), "no kernels in kernels/cuda");
    Ok(names)
}

/// `FWD_NVCC`, or the compiler in target/tools, which is fetched on first use.
pub(crate) fn nvcc() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("FWD_NVCC") {
        return Ok(given.into());
    }
    let folder = root().join("target/tools/cuda-13.0.2");
    let nvcc = folder.join("nvidia/cu13/bin/nvcc");
    if !nvcc.exists() {
        let unfinished = folder.with_extension("part");
        if unfinished.exists() {
            std::fs::remove_dir_all(&unfinished)?;
        }
        let list = ["-m", "pip", "install", "--quiet", "--no-compile", "--target"];
        let mut install = command("python3", &list);
        run(install.arg(&unfinished).arg(TOOLKIT)).context("python3 with pip fetches NVIDIA's compiler")?;
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::rename(&unfinished, &folder)?;
    }
    let version = output(Command::new(&nvcc).arg("--version"))?;
    if !version.contains("release 13.0") {
        bail!("{} is not release 13.0:\n{version}", nvcc.display());
    }
    Ok(nvcc)
}

/// The lines of `ptxas -v`: kernel by kernel.
fn parse(words: &str) -> Vec<(String, Resources)> {
    let mut found: Vec<(String, Resources)> = Vec::new();
    let number_before = |line: &str, what: &str| -> Option<u32> {
        let head = &line[..line.find(what)?];
        head.split_whitespace().next_back()?.parse().ok()
    };
    for line in words.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            found.push((rest.split('\'').next().unwrap_or_default().to_owned(), Resources::default()));
        }
        let Some((_, resources)) = found.last_mut() else { continue };
        if let Some(stack) = number_before(line, " bytes stack frame") {
            resources.stack = stack;
            let spill = |what| number_before(line, what).unwrap_or(0);
            resources.spills = spill(" bytes spill stores") + spill(" bytes spill loads");
        }
        if let Some(registers) = number_before(line, " registers") {
            resources.registers = registers;
        }
    }
    found
}

fn render(table: &Table) -> Result<String> {
    let mut text = String::from(
        "# What each kernel needs\n\n\
         Registers a thread, as `ptxas` of CUDA 13.0 reports them; none spills. A number after `+` is the bytes of stack. Shared memory is\n\
         dynamic and in the plans. Written by `cargo xtask kernels`, which CI repeats.\n\n",
    );
    writeln!(text, "| file | kernel | {} |", TARGETS.join(" | "))?;
    writeln!(text, "|---|---|{}", "---|".repeat(TARGETS.len()))?;
    for ((file, kernel), all) in table {
        let cells: Vec<String> =
            all.iter()
                .map(|r| {
                    if r.stack > 0 {
                        format!("{} + {}", r.registers, r.stack)
                    } else {
                        r.registers.to_string()
                    }
                })
                .collect();
        writeln!(text, "| {file} | `{kernel}` | {} |", cells.join(" | "))?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::{Resources, parse};

    #[test]
    fn the_compilers_words_are_understood() {
        let words = "ptxas info    : 0 bytes gmem\n\
                     ptxas info    : Compiling entry function 'a' for 'sm_90a'\n\
                     ptxas info    : Function properties for a\n    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
                     ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size\n\
                     ptxas info    : Compiling entry function 'b' for 'sm_90a'\n\
                     ptxas info    : Used 17 registers, used 0 barriers\n";
        let a = Resources { registers: 40, stack: 8, spills: 16 };
        let b = Resources { registers: 17, stack: 0, spills: 0 };
        assert_eq!(parse(words), [("a".to_owned(), a), ("b".to_owned(), b)]);
    }
}
