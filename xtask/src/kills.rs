//! `cargo xtask kills`: the test of the program that kills its commands at random moments, with as many kills as wanted.

use crate::shell::{command, run};
use anyhow::Result;

/// Which commands are killed, and how often.
#[derive(Debug, clap::Args)]
pub(crate) struct KillsArgs {
    /// How many kills there are in all.
    #[arg(long, default_value_t = 20)]
    pub(crate) n: u32,
    /// Only these commands, separated by commas: train, finetune, lora, pretrain, eval, inspect, compare, report, convert.
    #[arg(long, value_delimiter = ',', value_name = "COMMAND,…")]
    pub(crate) commands: Vec<String>,
    /// Seed of the moments.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

impl KillsArgs {
    /// So many kills of all commands.
    pub(crate) fn of_all(n: u32) -> Self {
        Self { n, commands: Vec::new(), seed: 0 }
    }
}

/// Runs the test.
pub(crate) fn kills(args: &KillsArgs) -> Result<()> {
    // The choice of packages is that of the README's test command, whose build is used.
    const TEST: [&str; 5] = ["test", "--workspace", "--test", "kills", "killed"];
    let mut test = command("cargo", &TEST);
    test.args(["--", "--nocapture"]);
    test.env("FWD_KILLS", args.n.to_string()).env("FWD_KILLS_SEED", args.seed.to_string());
    run(test.env("FWD_KILLS_COMMANDS", args.commands.join(",")))
}
