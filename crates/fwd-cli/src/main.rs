//! The program `fwd-prompt`: a frozen multimodal language model learns a sequence of image–text tasks through soft prompts.
//!
//! It is arguments, progress and printing over the library `fwd-run`: [`commands`] has a module for each command, [`report`] draws
//! finished runs, [`terminal`] is what the library sees of the user.

#![forbid(unsafe_code)]

mod args;
mod assets;
mod commands;
mod failure;
mod interrupt;
mod logging;
mod output;
mod progress;
mod report;
mod table;
mod terminal;
mod threads;

use args::Args;
use clap::Parser;
use std::process::ExitCode;

// Tensors are large and short-lived; glibc maps and unmaps each of them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    threads::restart_with_environment();
    let ended = interrupt::install().and_then(|()| threads::with_large_stack(move || run(&args)));
    ended.unwrap_or_else(|error| failure::report(&error))
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    assets::embed();
    logging::install(args.common.verbose, args.common.quiet);
    progress::configure(args.common.quiet);
    commands::run(args)
}
