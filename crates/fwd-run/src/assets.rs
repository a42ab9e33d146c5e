//! Where the embedded benchmark and the embedded model lie: in the folder that the variable `FWD_PROMPT_ASSETS` names, in `assets`
//! beside the program, or in the source tree.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The folder of assets, where this variable names it.
const VARIABLE: &str = "FWD_PROMPT_ASSETS";

/// The folder of the embedded benchmark.
///
/// # Errors
/// If it is nowhere; the message says what to do.
pub fn benchmark() -> Result<PathBuf> {
    find("bench").context("the embedded benchmark is not here; name one with --bench DIR")
}

/// The folder of the embedded model.
///
/// # Errors
/// If it is nowhere; the message says what to do.
pub fn backbone() -> Result<PathBuf> {
    find("mini").context("the embedded model is not here; name one with --backbone DIR")
}

/// A folder of the assets: of the variable, beside the program, or of the source tree it was built in.
fn find(name: &str) -> Option<PathBuf> {
    let variable = std::env::var_os(VARIABLE).map(PathBuf::from);
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent).map(|dir| dir.join("assets"));
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    let places = [variable, beside, Some(sources)].into_iter().flatten();
    let folder = places.map(|dir| dir.join(name)).find(|dir| dir.is_dir())?;
    Some(folder.canonicalize().unwrap_or(folder))
}
