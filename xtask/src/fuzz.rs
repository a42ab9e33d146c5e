//! `cargo xtask fuzz`: the harness that damages the inputs of every reader, built and run.

use crate::shell::{built, built_for_tests, command, run};
use anyhow::Result;

/// What it is built with, and what it is told.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct FuzzArgs {
    /// Build it optimised, as the program is released: faster, but overflows go unseen.
    #[arg(long)]
    release: bool,
    /// What the harness is told; `--help` shows what it understands.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl FuzzArgs {
    /// What CI runs.
    pub(crate) fn for_seconds(seconds: u32) -> Self {
        Self { release: false, args: vec!["--seconds".into(), seconds.to_string()] }
    }
}

/// Builds and runs the harness, which fails if it finds anything.
pub(crate) fn fuzz(args: &FuzzArgs) -> Result<()> {
    const NAME: &str = "fwd-fuzz";
    let program = if args.release {
        run(&mut command("cargo", &["build", "--quiet", "--release", "--package", NAME]))?;
        built(NAME)
    } else {
        // As `cargo test --workspace` builds it: another choice of packages would compile the dependencies once more.
        run(&mut command("cargo", &["test", "--quiet", "--workspace", "--test", "harness", "--no-run"]))?;
        built_for_tests(NAME)
    };
    run(command(&program.to_string_lossy(), &[]).args(&args.args))
}
