//! `data check`: the report on a benchmark; `data convert`: the same benchmark in another format.

use crate::args::{CheckArgs, Common, ConvertArgs, Layout};
use crate::{assets, output, progress};
use anyhow::Result;
use fwd_data::bench::{Benchmark, check as examine};
use fwd_data::task::{self, OnBad, TaskSet, convert as convert_to};
use serde::Serialize;
use std::fmt::Display;
use std::process::ExitCode;

/// The command `data check`; the exit code is 1 if anything is wrong with the benchmark.
///
/// # Errors
/// A folder that is no benchmark.
pub(crate) fn check(args: &CheckArgs, common: &Common) -> Result<ExitCode> {
    let dir = args.dir.clone().map_or_else(assets::benchmark, Ok)?;
    if dir.join("benchmark.json").is_file() {
        let report = examine(&Benchmark::open(&dir)?);
        return print(&report, report.is_clean(), common);
    }
    let report = task::check(&TaskSet::open(&dir)?)?;
    print(&report, report.is_clean(), common)
}

fn print(report: &(impl Serialize + Display), is_clean: bool, common: &Common) -> Result<ExitCode> {
    if common.json {
        output::print_json(report)?;
    } else {
        output::print(&report.to_string())?;
    }
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The command `data convert`.
///
/// # Errors
/// A folder that is no benchmark, an unknown task, an output folder that is not empty.
pub(crate) fn convert(args: &ConvertArgs, common: &Common) -> Result<ExitCode> {
    let loaded = task::open(&args.from, if args.skip_bad { OnBad::Skip } else { OnBad::Refuse })?;
    let mut bench = loaded.bench;
    if let Some(names) = &args.tasks {
        for name in names {
            bench.task(name)?;
        }
        bench.tasks.retain(|task| names.contains(&task.name));
    }
    match args.to {
        Layout::Packed => convert_to::to_packed(&bench, &args.out)?,
        Layout::Coin => convert_to::to_llava(&bench, &args.out)?,
    }
    if common.json {
        output::print_json(&loaded.skipped)?;
    } else {
        loaded.skipped.reasons.iter().for_each(|reason| progress::note(reason));
        let n = loaded.skipped.n_records;
        output::print(&format!("{} tasks, {n} records left out: {}", bench.tasks.len(), args.out.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
