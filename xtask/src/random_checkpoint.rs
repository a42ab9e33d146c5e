//! `cargo xtask random-checkpoint`: builds the writer of `fwd-benches` with optimisation, and runs it.

use crate::shell::{built, command, run};
use anyhow::Result;
use clap::Args;
use std::process::Command;

#[derive(Debug, Args)]
pub(crate) struct RandomCheckpointArgs {
    /// What the writer is given; `--help` shows it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    given: Vec<String>,
}

pub(crate) fn random_checkpoint(args: &RandomCheckpointArgs) -> Result<()> {
    let package = ["build", "--release", "--quiet", "--package", "fwd-benches", "--bin", "random_checkpoint"];
    run(&mut command("cargo", &package))?;
    // In the caller's folder, which relative paths are relative to.
    run(Command::new(built("random_checkpoint")).args(&args.given))
}
