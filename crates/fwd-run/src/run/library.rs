//! The library of prompts that a run begins with: that of a file, of another run, or the one that comes with the model.

use super::saved::SavedRun;
use crate::config::RunConfig;
use crate::method::Method;
use crate::model::library_beside;
use crate::session::Session;
use anyhow::{Context, Result, bail, ensure};
use fwd_prompt::{Allocation, Fallback, Library, Prompts, Start};
use std::path::Path;
use std::sync::Arc;

/// The library that a configuration asks for, if it asks for one: the one it names, or else the one in the model directory.
///
/// # Errors
/// A library that nothing is said to use, none where one is asked for, one that is unreadable or of another model.
pub(super) fn library_for(session: &Session, config: &RunConfig) -> Result<Option<Arc<Library>>> {
    let is_used = config.pool.start != Start::Normal || config.pool.fallback != Fallback::Nothing;
    let of_model = library_beside(&session.backbone.dir);
    let place = match config.paths.library.as_deref() {
        None if !is_used => return Ok(None),
        Some(_) if !is_used => bail!(
            "paths.library names a library of prompts, and neither pool.start nor pool.fallback says what it is for"
        ),
        Some(place) => place,
        None if of_model.is_file() => &of_model,
        None => bail!(
            "pool.start or pool.fallback asks for a library of prompts, and {} is not there: make it with `fwd-prompt pretrain --library \
             --out {}`, or name a run with prompts of its own for each task with --library RUN",
            of_model.display(),
            session.backbone.dir.display()
        ),
    };
    let library = if place.is_file() { of_file(session, place) } else { library_of(session, place) };
    let library = library?;
    library.check(&config.pool)?;
    Ok(Some(Arc::new(library)))
}

fn of_file(session: &Session, path: &Path) -> Result<Library> {
    let (library, model) = Library::read(path)?;
    let backbone = &session.backbone;
    ensure!(
        model == backbone.hash,
        "{} is of another model ({model}) than {} ({}); make one of this model with `fwd-prompt pretrain --library`",
        path.display(),
        backbone.dir.display(),
        backbone.hash
    );
    Ok(library)
}

/// The prompts of a finished run with some of each task's own.
///
/// # Errors
/// A run that is not finished, of another model, or whose tasks share their prompts.
pub(crate) fn library_of(session: &Session, dir: &Path) -> Result<Library> {
    let run = SavedRun::read(dir)?;
    ensure!(
        run.paths().is_finished(),
        "{}: a library needs a finished run; let this one go on to its end first",
        dir.display()
    );
    let backbone = &session.backbone;
    run.check_backbone(&backbone.hash, &backbone.dir)?;
    let (model, of_run) = (&*backbone.model, &run.manifest().run.config);
    let prompts = match of_run.method {
        Method::Independent => {
            of_run.tasks.iter().map(|task| run.prompts(model, Some(task))).collect::<Result<Vec<_>>>()?
        }
        _ => vec![run.prompts(model, None)?],
    };
    let is_shared = |prompts: &Prompts| matches!(prompts.config().pool.allocation, Allocation::Shared(_));
    ensure!(
        !prompts.iter().any(is_shared),
        "{}: its tasks share their prompts; a library needs some of each task's own",
        dir.display()
    );
    Library::of(&prompts).with_context(|| dir.display().to_string())
}
