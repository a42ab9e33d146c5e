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
    keep_fenced_panics_quiet();
    let args = Args::parse();
    threads::restart_with_environment();
    let ended = interrupt::install().and_then(|()| threads::with_large_stack(move || run(&args)));
    ended.unwrap_or_else(|error| failure::report(&error))
}

/// A library that panics on a damaged file is caught, and the file is named; its own message would only confuse.
fn keep_fenced_panics_quiet() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !fwd_data::is_fenced() {
            report(panic);
        }
    }));
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    assets::embed();
    logging::install(args.common.verbose, args.common.quiet);
    progress::configure(args.common.quiet);
    // Asked once: what computes later takes the best level if the variable is wrong.
    fwd_simd::Cpu::from_env()?;
    commands::run(args)
}
