//! `cargo xtask kills`: the test of the program that kills it at random moments, with as many kills as wanted.

use crate::shell::{command, run};
use anyhow::Result;

/// Runs the test with `n` kills.
pub(crate) fn kills(n: u32) -> Result<()> {
    const TEST: [&str; 6] = ["test", "--package", "fwd-cli", "--test", "interrupts", "killed"];
    run(command("cargo", &TEST).env("FWD_KILLS", n.to_string()))
}
