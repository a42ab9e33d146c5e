//! The commands: each reads its arguments, calls the library, and prints what it returns.

mod analyze;
mod ask;
mod compare;
mod completions;
mod data;
mod demo;
mod eval;
mod inspect;
mod metrics;
mod pretrain;
mod report;
mod score;
mod session;
mod train;

use crate::args::{Args, Command, DataCommand};
use anyhow::Result;
use std::process::ExitCode;

/// Carries out what the command line asks for.
///
/// # Errors
/// Those of the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let common = &args.common;
    match &args.command {
        Command::Demo(args) => demo::command(args, common),
        Command::Train(args) => train::command(args, common),
        Command::Eval(args) => eval::command(args, common),
        Command::Ask(args) => ask::command(args, common),
        Command::Analyze(args) => analyze::command(args, common),
        Command::Inspect(args) => inspect::command(args, common),
        Command::Pretrain(args) => pretrain::command(args, common),
        Command::Data(DataCommand::Check(args)) => data::check(args, common),
        Command::Data(DataCommand::Convert(args)) => data::convert(args, common),
        Command::Data(DataCommand::Init(args)) => data::init(args, common),
        Command::Score(args) => score::command(args, common),
        Command::Metrics(args) => metrics::command(args, common),
        Command::Compare(args) => compare::command(args, common),
        Command::Report(args) => report::command(args, common),
        Command::Completions { shell } => completions::command(*shell),
    }
}
