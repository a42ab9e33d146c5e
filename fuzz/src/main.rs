//! `cargo xtask fuzz`: damages the inputs of every reader and looks for panics, aborts, hangs and unbounded memory.
//!
//! Input number `n` of a reader is made from its small intact files by the random stream (seed, reader, n), so one seed gives the same
//! inputs. They are read in child processes with bounded memory: [`parent`] starts them, notices how they end and writes findings down,
//! [`child`] makes and reads the inputs, [`readers`] knows the readers. Unix only.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // A report on standard output is what it is for.

mod args;
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
use args::Args;
use clap::Parser;
use std::process::ExitCode;

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
