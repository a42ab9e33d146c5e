//! What CI runs, in the order in which it fails soonest.

use crate::fuzz::{self, FuzzArgs};
use crate::kernels::{self, KernelsArgs};
use crate::kills::{self, KillsArgs};
use crate::shell::{command, root, run as execute};
use crate::{dist, levels, package, real, tidy};
use anyhow::{Result, ensure};
use std::path::PathBuf;

/// The README's test command.
const TEST: [&str; 3] = ["cargo", "test", "--workspace"];

/// What takes time comes last: the README's test command, damaged inputs, kills, and the program with full optimisation.
pub(crate) fn run() -> Result<()> {
    tidy::run()?;
    let readme = std::fs::read_to_string(root().join("README.md"))?;
    ensure!(readme.contains(&TEST.join(" ")), "README.md must name the test command `{}`", TEST.join(" "));
    execute(&mut command("cargo", &["fmt", "--all", "--check"]))?;
    execute(&mut command(
        "cargo",
        &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
    ))?;
    // The program as it is built by default: in the workspace, other members switch on features of its dependencies.
    execute(&mut command("cargo", &["check", "--locked"]))?;
    kernels::check_cuda()?;
    execute(
        command("cargo", &["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    execute(&mut command(
        cargo_deny()?.to_string_lossy().as_ref(),
        &["check", "licenses", "bans", "sources"],
    ))?;
    package::run()?;
    kernels::kernels(&KernelsArgs::CHECK)?;
    kernels::emulate()?;
    execute(&mut command("cargo", &TEST[1..]))?;
    levels::levels()?;
    dist::travel()?;
    real::run()?;
    fuzz::fuzz(&FuzzArgs::for_seconds(60))?;
    kills::kills(&KillsArgs::of_all(20))
}

/// cargo-deny, installed into the target folder on first use.
fn cargo_deny() -> Result<PathBuf> {
    const VERSION: &str = "0.20.2";
    let tools = root().join(format!("target/tools/cargo-deny-{VERSION}"));
    let program = tools.join("bin/cargo-deny");
    if !program.exists() {
        let tools = tools.to_string_lossy().into_owned();
        execute(&mut command(
            "cargo",
            &["install", "--locked", "--quiet", "cargo-deny", "--version", VERSION, "--root", &tools],
        ))?;
    }
    Ok(program)
}
