//! `pretrain`: trains the embedded model anew, or measures whether a model is fit to be built on.

use crate::args::{Common, PretrainArgs};
use crate::output;
use crate::terminal::Terminal;
use anyhow::{Context, Result, bail};
use fwd_run::files::write_json;
use fwd_run::pretraining::gates::{self, Report};
use fwd_run::pretraining::{
    LibraryOptions, ModelPaths, Parts, PretrainingOptions, Recipe, assemble, assemble_language, library,
    pretrain,
};
use fwd_run::{RunConfig, assets};
use std::fmt::Write;
use std::process::ExitCode;

/// The command `pretrain`.
///
/// # Errors
/// Those of [`pretrain`] and of [`gates::measure`].
pub(super) fn command(args: &PretrainArgs, common: &Common) -> Result<ExitCode> {
    if !args.parts.is_empty() {
        return put_together(args);
    }
    let bench = args.bench.clone().map_or_else(assets::benchmark, Ok)?;
    let device = args.device.open()?;
    if args.gates {
        let model = args.out.clone().map_or_else(assets::backbone, Ok)?;
        let report = gates::measure(&model, &bench, &args.tasks, args.cache.as_deref(), &device, &Terminal)?;
        // What was measured of some tasks alone does not take the place of the whole.
        if args.tasks.is_empty() {
            write_json(&ModelPaths::new(&model).gates(), &report)?;
        }
        if common.json {
            output::print_json(&report)?;
        } else {
            output::print(&tables(&report))?;
        }
        return Ok(if report.is_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let out = args.out.clone().context("name a folder for the model with --out DIR")?;
    if args.library {
        let mut settings = RunConfig::read(None, &args.set)?;
        settings.compute = args.compute.unwrap_or(settings.compute);
        let options = LibraryOptions {
            model: out,
            bench,
            tasks: args.pretraining_tasks.clone(),
            cache: args.cache.clone(),
            device: args.device,
            settings,
        };
        let path = library(&options, &Terminal)?;
        output::print(&format!("{}\n", path.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let recipe = match &args.recipe {
        Some(path) => path.clone(),
        None => ModelPaths::new(&assets::backbone()?).recipe(),
    };
    let recipe = Recipe::read(&recipe)?;
    let (from, cache) = (args.from.clone(), args.cache.clone());
    pretrain(&recipe, &PretrainingOptions { out, from, bench, cache, device }, &Terminal)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the model directory that `--parts` asks for.
fn put_together(args: &PretrainArgs) -> Result<ExitCode> {
    let out = args.out.as_deref().context("name a folder for the model with --out DIR")?;
    match &args.parts[..] {
        [language] => assemble_language(language, out)?,
        [vision, text, language] => {
            let [vision, text, language] = [vision, text, language].map(Clone::clone);
            assemble(&Parts { vision, text, language }, out)?;
        }
        _ => bail!("--parts takes an ONNX file, the folder of a BERT and a GGUF file, or a GGUF file alone"),
    }
    output::print(&format!("{}\n", out.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Three Markdown tables and what is not met.
fn tables(report: &Report) -> String {
    let mut out = String::new();
    let e = &report.embeddings;
    let _ = writeln!(out, "| input embeddings | measured | gate |\n|---|---|---|");
    let _ = writeln!(out, "| between-query share of the variance | {:.2} | > 0.2 |", e.between_queries);
    let _ = writeln!(
        out,
        "| length of visual and text tokens | {:.1}, {:.1} | within 2× |",
        e.visual_norm, e.text_norm
    );
    let _ = writeln!(
        out,
        "| rank at 95 % energy | {} of {} | ≥ {} |\n",
        e.rank,
        e.d_model,
        e.d_model.div_ceil(5)
    );
    let _ = writeln!(
        out,
        "| pre-training task | metric | samples | model | majority: global | per instruction | linear probe or retrieval |\n|---|---|---|---|---|---|---|"
    );
    for p in &report.pretraining {
        let metric = p.metric;
        let _ = writeln!(
            out,
            "| {} | {metric} | {} | {:.1} | {:.1} | {:.1} | {:.1} |",
            p.task, p.samples, p.score, p.global_majority, p.instruction_majority, p.probe
        );
    }
    let _ = writeln!(
        out,
        "\n| downstream task | metric | samples | majority per instruction | zero-shot | prompts tuned | all tuned | in reach | in the sequence |\n|---|---|---|---|---|---|---|---|---|"
    );
    let yes = |b: bool| if b { "yes" } else { "no" };
    for t in &report.downstream {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {:.1} | {:.1} | {:.1} | {} | {} | {} |",
            t.task,
            t.metric,
            t.samples,
            t.instruction_majority,
            t.zero_shot,
            t.prompt_tuned,
            t.fine_tuned.map_or_else(|| "–".to_owned(), |score| format!("{score:.1}")),
            yes(t.is_in_reach()),
            yes(t.in_sequence)
        );
    }
    if report.is_met() {
        out.push_str("\nAll gates are met.\n");
    } else {
        let _ = writeln!(out, "\nNot met:\n- {}", report.failures.join("\n- "));
    }
    out
}
