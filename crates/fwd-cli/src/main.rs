//! The program `fwd-prompt`: a frozen multimodal language model learns a sequence of image–text tasks through soft prompts.
//!
//! `train` runs a sequence with one method into a run directory, `eval` scores a run again, `ask` answers a question about an
//! image, `data check` examines a benchmark, `compare` and `report` put finished runs beside each
//! other. Each module is one step of that and can be read alone; [`train`] is the centre.

#![forbid(unsafe_code)]

mod analyze;
mod args;
mod ask;
mod assets;
mod backbone;
mod compare;
mod config;
mod data;
mod demo;
mod device;
mod eval;
mod failure;
mod features;
mod files;
mod findings;
mod finetune;
mod frozen;
mod images;
mod inspect;
mod interrupt;
mod interval;
mod logging;
mod matrix;
mod method;
mod metrics;
mod output;
mod predict;
mod pretrain;
mod progress;
mod ranks;
mod report;
mod results;
mod run_dir;
mod runs;
mod samples;
mod score;
mod session;
mod table;
mod threads;
mod timing;
mod train;
mod watch;
mod weights;

use args::{Args, Command, DataCommand};
use clap::{CommandFactory, Parser};
use std::process::ExitCode;

// Tensors are large and short-lived; glibc maps and unmaps each of them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    threads::restart_with_environment();
    let ended = interrupt::install().and_then(|()| threads::with_large_stack(move || run(args)));
    ended.unwrap_or_else(|error| failure::report(&error))
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    logging::install(args.common.verbose, args.common.quiet);
    progress::configure(args.common.quiet);
    match &args.command {
        Command::Demo(demo) => demo::command(demo, &args.common),
        Command::Train(train) => train::command(train, &args.common),
        Command::Eval(eval) => eval::command(eval, &args.common),
        Command::Ask(ask) => ask::command(ask, &args.common),
        Command::Analyze(analyze) => analyze::command(analyze, &args.common),
        Command::Inspect(inspect) => inspect::command(inspect, &args.common),
        Command::Pretrain(pretrain) => pretrain::command(pretrain, &args.common),
        Command::Data(DataCommand::Check(check)) => data::check(check, &args.common),
        Command::Data(DataCommand::Convert(convert)) => data::convert(convert, &args.common),
        Command::Score(score) => score::command(score, &args.common),
        Command::Metrics(metrics) => matrix::command(metrics, &args.common),
        Command::Compare(compare) => compare::command(compare, &args.common),
        Command::Report(report) => report::command(report, &args.common),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "fwd-prompt", &mut script);
            output::print(&String::from_utf8_lossy(&script))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
