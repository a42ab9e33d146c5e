//! `demo`: the embedded model learns the embedded benchmark's tasks one after another, by plain prompt tuning, with a shared pool,
//! by Fwd-Prompt, and with prompts that reuse those of pre-training tasks; one table compares them.
//!
//! With `--text` a language model alone learns questions without pictures, in fewer steps.
//!
//! Each method is an ordinary run in a folder of its own, so that everything about it can be looked at, and a demo that was stopped
//! goes on where it was.

mod smollm2;

use super::session;
use crate::args::{Common, DemoArgs};
use crate::terminal::Terminal;
use crate::{output, progress, table};
use anyhow::{Result, ensure};
use fwd_prompt::{LrUnit, Place};
use fwd_run::run::{Manifest, RunMetrics, RunPaths, train};
use fwd_run::{Method, RunConfig, Session, SessionOptions, assets};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// In this order: the scores of the tasks learnt alone are needed by the others. The last one needs a library of prompts beside the model.
const METHODS: [Method; 5] =
    [Method::Independent, Method::Sequential, Method::L2p, Method::Fwd, Method::Reuse];

/// Training samples of a task, so that five runs take two minutes.
const SAMPLES: usize = 64;

/// The methods of `--text`, the number of its tasks, their training samples and steps, and the samples of a step.
const TEXT_METHODS: [Method; 3] = [Method::Sequential, Method::Fwd, Method::Reuse];
const TEXT_TASKS: usize = 2;
const TEXT_SAMPLES: usize = 64;
const TEXT_STEPS: usize = 16;
const TEXT_BATCH: usize = 8;

/// The longest answer in tokens, and the samples of each pre-training task that are scored: before it learns, the model talks on and on.
const TEXT_ANSWER: usize = 6;
const TEXT_RETENTION: usize = 2;

/// The methods of `--quick`.
const QUICK_METHODS: [Method; 2] = [Method::Sequential, Method::Fwd];

/// The number of tasks of `--quick`, from the front of the sequence; a language model learns one.
const QUICK_TASKS: usize = 2;

/// The training steps of a task under `--quick`: enough to see that everything works, not to learn it.
const QUICK_STEPS: usize = 10;

/// The command `demo`.
///
/// # Errors
/// As `train`.
pub(super) fn command(args: &DemoArgs, common: &Common) -> Result<ExitCode> {
    let began = Instant::now();
    let (backbone, bench) = if args.text {
        let backbone = args.backbone.clone().unwrap_or_else(|| PathBuf::from("smollm2"));
        let bench = args.bench.clone().map_or_else(assets::text_benchmark, Ok)?;
        smollm2::fetch(&backbone, args.yes)?;
        (Some(backbone), Some(bench))
    } else {
        (args.backbone.clone(), args.bench.clone())
    };
    let options = SessionOptions {
        backbone,
        bench,
        device: args.device,
        dtype: args.model.dtype.unwrap_or_default(),
        compute: args.model.compute.unwrap_or_default(),
        template: args.model.template,
        ..session::options()
    };
    let session = Session::open(&options, &Terminal)?;
    let out = args.out.clone().unwrap_or_else(|| default_folder(args));
    let mut methods = match args {
        DemoArgs { quick: true, .. } => QUICK_METHODS.to_vec(),
        DemoArgs { text: true, .. } => TEXT_METHODS.to_vec(),
        _ => METHODS.to_vec(),
    };
    let needs_library = |method: &Method| method.reuses() && !session.backbone.has_library();
    if let Some(method) = methods.iter().find(|method| needs_library(method)) {
        progress::note(&format!(
            "{method} is left out: no library of prompts lies beside the model (`fwd-prompt pretrain --library` makes one)"
        ));
    }
    methods.retain(|method| !needs_library(method));
    let mut results: Vec<RunMetrics> = Vec::new();
    for (i, &method) in methods.iter().enumerate() {
        let dir = out.join(method.to_string());
        let config = configuration(args, method, &session, &out);
        progress::note(&format!("[{}/{}] {method}: {}", i + 1, methods.len(), dir.display()));
        results.push(if RunPaths::new(&dir).is_finished() {
            let run = Manifest::read(&dir)?.run;
            let is_same = run.config.seed == args.seed
                && run.config.training == config.training
                && run.config.training_samples == config.training_samples
                && run.config.device == args.device
                && run.config.dtype == session.backbone.dtype
                && run.config.compute == session.backbone.compute
                && run.config.template.unwrap_or_default() == session.backbone.template()
                && run.backbone_hash == session.backbone.hash
                && run.data_hash == session.bench.hash().to_string();
            ensure!(
                is_same,
                "{} holds a run of another seed, device, model, benchmark or version; choose another --out",
                dir.display()
            );
            progress::note("finished before; its result is taken");
            RunMetrics::read(&dir)?
        } else {
            train(&session, config, &dir, &Terminal)?
        });
    }
    progress::note(&format!("{:.0} s", began.elapsed().as_secs_f64()));
    // Tasks learnt alone have a score each, and no course.
    let compared: Vec<&RunMetrics> = results.iter().filter(|run| run.method != Method::Independent).collect();
    if common.json {
        output::print_json(&compared)?;
    } else {
        output::print(&table::comparison(&compared))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn default_folder(args: &DemoArgs) -> PathBuf {
    PathBuf::from(match args {
        DemoArgs { text: true, quick: true, .. } => "runs/text-quick",
        DemoArgs { text: true, .. } => "runs/text",
        DemoArgs { quick: true, .. } => "runs/quick",
        _ => "runs/demo",
    })
}

/// What a method is run with.
fn configuration(args: &DemoArgs, method: Method, session: &Session, out: &Path) -> RunConfig {
    let mut config = RunConfig::of(method);
    (config.seed, config.device) = (args.seed, args.device);
    let first = |n: usize| session.bench.sequence().iter().take(n).map(|task| task.name.clone()).collect();
    if args.text {
        // Behind the question a prompt costs less, and what it is made of is small in a language model.
        config.pool.place = Place::End;
        config.training.lr_unit = LrUnit::Embedding;
        config.training.batch_size = TEXT_BATCH;
        config.max_new_tokens = TEXT_ANSWER;
        config.retention_samples = TEXT_RETENTION;
    }
    if args.quick {
        config.tasks = first(if args.text { 1 } else { QUICK_TASKS });
        config.training.steps = Some(QUICK_STEPS);
        return config;
    }
    if args.text {
        config.tasks = first(TEXT_TASKS);
        config.training_samples = Some(TEXT_SAMPLES);
        config.training.steps = Some(TEXT_STEPS);
        return config;
    }
    config.training_samples = Some(SAMPLES);
    if method != Method::Independent {
        config.paths.alone = Some(out.join(Method::Independent.to_string()));
    }
    config
}
