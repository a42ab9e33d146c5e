//! `data check`: the report on a benchmark; `data convert`: the same benchmark in another format; `data init`: a benchmark from pictures.

use super::session::on_bad;
use crate::args::{CheckArgs, Common, ConvertArgs, InitArgs, Layout};
use crate::{output, progress};
use anyhow::Result;
use fwd_data::bench::check as examine;
use fwd_data::task::{self, Init, Loaded, MadeTask, OnBad, TaskSet, convert as convert_to};
use fwd_run::model::ModelTokenizers;
use fwd_run::{TextLimits, assets};
use serde::Serialize;
use std::fmt::Display;
use std::process::ExitCode;

/// The command `data check`; the exit code is 1 if anything is wrong with the benchmark.
///
/// # Errors
/// A folder that is no benchmark.
pub(super) fn check(args: &CheckArgs, common: &Common) -> Result<ExitCode> {
    let dir = args.dir.clone().map_or_else(assets::benchmark, Ok)?;
    let on_bad = on_bad(args.skip_bad);
    let model = args.backbone.clone().map_or_else(assets::backbone, Ok)?;
    let (tokens, limits) = (ModelTokenizers::open(&model, args.template)?, TextLimits::default());
    if args.backbone.is_none() {
        progress::note(
            "texts are measured with the tokenizers of the embedded model; --backbone names another",
        );
    }
    if dir.join("benchmark.json").is_file() {
        let Loaded { bench, skipped } = task::open(&dir, on_bad)?;
        let mut report = examine(&bench, skipped);
        let refused = limits.findings(&bench, tokens.reader())?;
        match on_bad {
            OnBad::Skip => refused.into_iter().for_each(|what| report.left_out.list(what)),
            OnBad::Refuse => report.refused_by_model = refused,
        }
        return print(&report, report.is_clean(), common);
    }
    // A tokenizer that fails on one text fails in training too.
    let mut look = |_: &str, split, instruction: &str, answers: &[String]| {
        limits
            .excess(tokens.reader(), split, instruction, answers)
            .unwrap_or_else(|error| Some(format!("{error:#}")))
    };
    let report = task::check_with(&TaskSet::open(&dir)?, on_bad, &mut look)?;
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
pub(super) fn convert(args: &ConvertArgs, common: &Common) -> Result<ExitCode> {
    let loaded = task::open(&args.from, on_bad(args.skip_bad))?;
    let mut bench = loaded.bench;
    if let Some(names) = &args.tasks {
        for name in names {
            bench.task(name)?;
        }
        bench.tasks.retain(|task| names.contains(&task.name));
    }
    if let Some(sequence) = &args.sequence {
        bench = bench.stream(sequence, args.parts)?;
    }
    match args.to {
        Layout::Packed => convert_to::to_packed(&bench, &args.out)?,
        Layout::Coin => convert_to::to_llava(&bench, &args.out)?,
    }
    if common.json {
        output::print_json(&loaded.skipped)?;
    } else {
        loaded.skipped.reasons.iter().for_each(|reason| progress::note(reason));
        let kept = |name: &str| bench.tasks.iter().any(|task| task.name == name);
        let remarks = loaded.skipped.remarks.iter().filter(|remarks| kept(&remarks.task));
        remarks.for_each(|remarks| progress::note(&remarks.to_string()));
        let n = loaded.skipped.n_records;
        output::print(&format!("{} tasks, {n} records left out: {}", bench.tasks.len(), args.out.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The command `data init`.
///
/// # Errors
/// A folder without classes, a damaged table, a benchmark that is there already.
pub(super) fn init(args: &InitArgs, common: &Common) -> Result<ExitCode> {
    const FEW: usize = 10;
    let options = Init { seed: args.seed, test_share: args.test_share, question: args.question.clone() };
    let made = task::init(&args.from, &options)?;
    if common.json {
        output::print_json(&made)?;
        return Ok(ExitCode::SUCCESS);
    }
    for path in made.passed_over.iter().take(FEW) {
        progress::note(&format!("passed over: {:?}", path.display().to_string()));
    }
    for MadeTask { name, n_classes, n_records } in &made.tasks {
        let classes = n_classes.map_or_else(String::new, |n| format!("{n} classes, "));
        let splits: Vec<String> = n_records.iter().map(|(split, n)| format!("{n} {split}")).collect();
        output::print(&format!("{name}: {classes}{}", splits.join(", ")))?;
    }
    let n_passed_over = made.passed_over.len();
    let description = made.description.display();
    output::print(&format!(
        "{} tasks, {n_passed_over} pictures passed over: {description}",
        made.tasks.len()
    ))?;
    let dir = made.description.parent().unwrap_or(&made.description).display();
    output::print(&format!("next: fwd-prompt data check {dir}"))?;
    Ok(ExitCode::SUCCESS)
}
