//! What the harness is told, and what its parent process tells a child.

use clap::Parser;
use std::path::PathBuf;

/// Damages the inputs of every reader and looks for panics, aborts, hangs and unbounded memory.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask fuzz")]
pub(crate) struct Args {
    /// How long all readers together are tried; each has an equal share.
    #[arg(long, default_value_t = 60.0, conflicts_with = "inputs")]
    pub(crate) seconds: f64,
    /// How many inputs each reader is given, instead of a time.
    #[arg(long, value_name = "N")]
    pub(crate) inputs: Option<u64>,
    /// Only these readers, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub(crate) reader: Vec<String>,
    /// Seed of all damage.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Read a finding again.
    #[arg(long, value_name = "FILE")]
    pub(crate) replay: Option<PathBuf>,
    /// Seconds that one input may take.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) limit: f64,
    /// Memory that a process may ask for, in MiB, beside its program and its stacks.
    #[arg(long, default_value_t = 1024)]
    pub(crate) memory: u64,
    /// Also find errors that are no sentence: longer than 4 KiB, or with control characters.
    #[arg(long)]
    pub(crate) messages: bool,
    /// Name the readers.
    #[arg(long)]
    pub(crate) list: bool,
    #[command(flatten)]
    pub(crate) child: ChildArgs,
}

/// What the parent tells a child.
#[derive(Debug, clap::Args)]
pub(crate) struct ChildArgs {
    /// The folder to work in.
    #[arg(long, hide = true)]
    pub(crate) work: Option<PathBuf>,
    /// The number of the first input.
    #[arg(long, hide = true, default_value_t = 0)]
    pub(crate) from: u64,
}
