//! `data check`: the report on a benchmark.

use crate::args::{CheckArgs, Common};
use crate::assets;
use crate::output;
use anyhow::Result;
use fwd_data::bench::{Benchmark, check as examine};
use std::process::ExitCode;

/// The command `data check`; the exit code is 1 if anything is wrong with the benchmark.
///
/// # Errors
/// A directory that is no benchmark.
pub(crate) fn check(args: &CheckArgs, common: &Common) -> Result<ExitCode> {
    let dir = args.dir.clone().map_or_else(assets::benchmark, Ok)?;
    let report = examine(&Benchmark::open(&dir)?);
    if common.json {
        output::print_json(&report)?;
    } else {
        output::print(&report.to_string())?;
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
