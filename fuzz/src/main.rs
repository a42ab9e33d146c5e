//! `cargo xtask fuzz`: damages the inputs of every reader and looks for panics, aborts, hangs and unbounded memory.
//!
//! Input number `n` of a reader is made from its small intact files by the random stream (seed, reader, n), so one seed gives the same
//! inputs. They are read in child processes with bounded memory: [`parent`] starts them, notices how they end and writes findings down,
//! [`child`] makes and reads the inputs, [`readers`] knows the readers. Unix only.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // A report on standard output is what it is for.

mod bytes;
mod child;
mod finding;
mod folder;
mod parent;
mod reader;
mod readers;
mod tokens;
mod toy;

use anyhow::Result;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Damages the inputs of every reader and looks for panics, aborts, hangs and unbounded memory.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask fuzz")]
pub(crate) struct Args {
    /// How long all readers together are tried; each has an equal share.
    #[arg(long, default_value_t = 60.0, conflicts_with = "inputs")]
    seconds: f64,
    /// How many inputs each reader is given, instead of a time.
    #[arg(long, value_name = "N")]
    inputs: Option<u64>,
    /// Only these readers, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    reader: Vec<String>,
    /// Seed of all damage.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Read a finding again.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Seconds that one input may take.
    #[arg(long, default_value_t = 5.0)]
    limit: f64,
    /// Memory that a process may ask for, in MiB, beside its program and its stacks.
    #[arg(long, default_value_t = 1024)]
    memory: u64,
    /// Also find errors that are no sentence: longer than 4 KiB, or with control characters.
    #[arg(long)]
    messages: bool,
    /// Name the readers.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    child: child::ChildArgs,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(work) = &args.child.work {
        return child::run(&args, work).map(|()| ExitCode::SUCCESS);
    }
    if args.list {
        readers::ALL.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    parent::run(&args)
}
