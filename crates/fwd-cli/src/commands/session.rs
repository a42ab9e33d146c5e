//! The model and the benchmark that a command asks for.

use crate::args::{ModelArgs, Places};
use crate::terminal::Terminal;
use anyhow::Result;
use fwd_data::task::OnBad;
use fwd_run::model::ModelOptions;
use fwd_run::run::{Reopening, SavedRun};
use fwd_run::{DeviceKind, Session, SessionOptions};

/// This program with version and build, as manifests name it.
const PROGRAM: &str = concat!("fwd-prompt ", env!("CARGO_PKG_VERSION"), " (", env!("FWD_BUILD"), ")");

/// What a session of this program is opened with, where flags do not say otherwise.
pub(super) fn options() -> SessionOptions {
    SessionOptions { program: PROGRAM.to_owned(), ..SessionOptions::default() }
}

/// The model and the benchmark of a run, where it found them or where flags say that they are now.
///
/// # Errors
/// Another model or benchmark than the run's.
pub(super) fn of_run(run: &SavedRun, places: &Places, device: DeviceKind) -> Result<Session> {
    let model = places.model.into();
    let places = Reopening { backbone: places.backbone.clone(), bench: places.bench.clone(), device, model };
    run.session(&places, &Terminal)
}

/// What a model is opened with: what flags say, else as the run did, else the default.
pub(super) fn model_options(args: ModelArgs, run: Option<&SavedRun>) -> ModelOptions {
    if let Some(run) = run {
        return run.model_options(args.into(), &Terminal);
    }
    let ModelArgs { dtype, compute, template } = args;
    ModelOptions { dtype: dtype.unwrap_or_default(), compute: compute.unwrap_or_default(), template }
}

/// What the flag `--skip-bad` asks for.
pub(super) fn on_bad(skip: bool) -> OnBad {
    if skip { OnBad::Skip } else { OnBad::Refuse }
}
