//! `train`: one method on a sequence of tasks, into a run directory.

use super::session;
use crate::args::{Common, TrainArgs};
use crate::terminal::Terminal;
use crate::{output, progress, table};
use anyhow::Result;
use fwd_prompt::{Fallback, Start};
use fwd_run::config::{Paths, parse_split};
use fwd_run::run::{directory_below, refuse_finished, train};
use fwd_run::{Method, RunConfig, Session, SessionOptions};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where run directories lie that nobody has named.
const RUNS: &str = "runs";

/// The command `train`.
///
/// # Errors
/// A configuration that cannot be, and those of [`train`].
pub(super) fn command(args: &TrainArgs, common: &Common) -> Result<ExitCode> {
    let config = configuration(args)?;
    if let Some(out) = &config.paths.out {
        refuse_finished(out)?;
    }
    let options = SessionOptions {
        backbone: config.paths.backbone.clone(),
        bench: config.paths.bench.clone(),
        device: config.device,
        dtype: config.dtype,
        compute: config.compute,
        template: config.template,
        instruction: config.instruction.clone(),
        on_bad: session::on_bad(config.skip_bad),
        limits: config.limits,
        ..session::options()
    };
    let session = Session::open(&options, &Terminal)?;
    let out = match &config.paths.out {
        Some(out) => out.clone(),
        None => {
            let out = directory_below(Path::new(RUNS), &session, &config)?;
            progress::note(&format!("run directory: {}", out.display()));
            out
        }
    };
    let metrics = train(&session, config, &out, &Terminal)?;
    if common.json {
        output::print_json(&metrics)?;
    } else {
        output::print(&format!("{}\n{}", table::scores(&metrics), table::comparison(&[&metrics])))?;
    }
    // The list of what was left out scrolled by long ago.
    session.note_losses(&Terminal);
    Ok(ExitCode::SUCCESS)
}

/// The file that the flags name, if any, then the flags.
///
/// # Errors
/// As [`RunConfig::read`] and [`RunConfig::check`].
fn configuration(args: &TrainArgs) -> Result<RunConfig> {
    let choose = |named: Option<Method>, paths: &Paths| {
        let (backbone, library) = (&args.backbone, &args.library);
        // Whoever names a library says what it is for.
        let names_library = library.is_some() || paths.library.is_some();
        let backbone = backbone.as_deref().or(paths.backbone.as_deref());
        args.method.or(named).unwrap_or_else(|| {
            let suited = if names_library { Method::default() } else { Method::suited_to(backbone) };
            progress::note(&format!("method: {suited} (--method chooses another)"));
            suited
        })
    };
    let mut config = RunConfig::read_with(args.config.as_deref(), &args.set, choose)?;
    apply(args, &mut config)?;
    config.check()?;
    Ok(config)
}

/// Puts what flags say into a configuration.
fn apply(args: &TrainArgs, config: &mut RunConfig) -> Result<()> {
    fn replace<T: Clone>(target: &mut T, flag: Option<&T>) {
        if let Some(value) = flag {
            *target = value.clone();
        }
    }
    fn replace_path(target: &mut Option<PathBuf>, flag: Option<&PathBuf>) {
        if flag.is_some() {
            *target = flag.cloned();
        }
    }
    replace(&mut config.seed, args.seed.as_ref());
    replace(&mut config.tasks, args.tasks.as_ref());
    replace(&mut config.order, args.order.as_ref());
    replace(&mut config.device, args.device.as_ref());
    replace(&mut config.dtype, args.model.dtype.as_ref());
    replace(&mut config.compute, args.model.compute.as_ref());
    config.template = args.model.template.or(config.template);
    replace(&mut config.training.batch_size, args.batch_size.as_ref());
    replace(config.learning_rate(), args.lr.as_ref());
    config.skip_bad |= args.skip_bad;
    if args.steps.is_some() {
        config.training.steps = args.steps;
    }
    if let Some(epochs) = args.epochs {
        (config.training.epochs, config.training.steps) = (epochs, None);
    }
    if let Some(split) = &args.split {
        config.split = parse_split(split)?;
    }
    replace_path(&mut config.paths.out, args.out.as_ref());
    replace_path(&mut config.paths.backbone, args.backbone.as_ref());
    replace_path(&mut config.paths.bench, args.bench.as_ref());
    replace_path(&mut config.paths.cache, args.cache.as_ref());
    replace_path(&mut config.paths.alone, args.alone.as_ref());
    replace_path(&mut config.paths.library, args.library.as_ref());
    let is_used = config.pool.start != Start::Normal || config.pool.fallback != Fallback::Nothing;
    if args.library.is_some() && !is_used {
        config.pool.start = Start::Library;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fwd_prompt::{Allocation, PoolConfig, Rejection};

    #[test]
    fn the_readme_shows_the_keys_and_their_defaults() {
        let readme = include_str!("../../README.md");
        let (_, rest) = readme.split_once("```toml\n").unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        let shown = RunConfig::parse(text, "README.md").unwrap();
        shown.check().unwrap();
        let mut chosen = RunConfig::default();
        (chosen.seed, chosen.tasks, chosen.paths) = (1, shown.tasks.clone(), shown.paths.clone());
        chosen.pool = PoolConfig {
            allocation: Allocation::Partitioned(4),
            rejection: Rejection::BelowQuantile(0.0),
            ..PoolConfig::default()
        };
        assert_eq!(shown, chosen);
    }
}
