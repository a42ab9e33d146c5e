//! Where the embedded benchmark and the embedded model lie: in the folder that the variable `FWD_PROMPT_ASSETS` names, in `assets`
//! beside the program, in the source tree (of a debug build), or within the program itself.
//!
//! Files within the program are written to the user's cache once, into a folder that is named by their content.

use crate::model::library_beside;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The variable that names the folder of assets.
pub const VARIABLE: &str = "FWD_PROMPT_ASSETS";

/// The assets that a program carries within itself.
#[derive(Debug, Clone, Copy)]
pub struct Embedded {
    /// A name that changes with their content, such as a hash.
    pub name: &'static str,
    /// Each file's path below the folder of assets, with `/` between its parts, and its content.
    pub files: &'static [(&'static str, &'static [u8])],
}

static EMBEDDED: OnceLock<Embedded> = OnceLock::new();

/// Says what the program carries within itself; the first call counts.
pub fn embed(assets: Embedded) {
    let _ = EMBEDDED.set(assets);
}

/// The folder of the embedded benchmark.
///
/// # Errors
/// If it is nowhere, or cannot be written to the user's cache; the message says what to do.
pub fn benchmark() -> Result<PathBuf> {
    find("bench")?.context("the embedded benchmark is not here; name one with --bench DIR")
}

/// The folder of the embedded benchmark without pictures, for a language model alone.
///
/// # Errors
/// As [`benchmark`].
pub fn text_benchmark() -> Result<PathBuf> {
    find("text")?.context("the embedded benchmark without pictures is not here; name one with --bench DIR")
}

/// The library of prompts that was tuned for SmolLM2-135M-Instruct in Q4_1; none if it is not among the assets.
pub fn smollm2_library() -> Option<PathBuf> {
    let dir = find("smollm2").ok().flatten()?;
    Some(library_beside(&dir)).filter(|library| library.is_file())
}

/// The folder of the embedded model.
///
/// # Errors
/// If it is nowhere, or cannot be written to the user's cache; the message says what to do.
pub fn backbone() -> Result<PathBuf> {
    find("mini")?.context("the embedded model is not here; name one with --backbone DIR")
}

/// A folder that a run has used, or the embedded one where that folder is gone: whoever moves a run to another machine finds the
/// same content there, which the run knows by its hash.
///
/// # Errors
/// As `embedded`, which is [`benchmark`] or [`backbone`].
pub fn or_embedded(used: &Path, embedded: fn() -> Result<PathBuf>) -> Result<PathBuf> {
    if used.is_dir() || used.is_file() {
        return Ok(used.to_path_buf());
    }
    embedded().with_context(|| format!("{} is no longer there", used.display()))
}

/// A folder of the assets; none if they are nowhere.
fn find(name: &str) -> Result<Option<PathBuf>> {
    if let Some(dir) = std::env::var_os(VARIABLE).filter(|dir| !dir.is_empty()) {
        let folder = PathBuf::from(dir).join(name);
        ensure!(
            folder.is_dir(),
            "{} is no folder; the variable {VARIABLE} must name the folder that holds it",
            folder.display()
        );
        return Ok(Some(folder.canonicalize().unwrap_or(folder)));
    }
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent).map(|dir| dir.join("assets"));
    // An installed program must not depend on the folder that it was built in.
    let sources = cfg!(debug_assertions).then(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets"));
    let places = [beside, sources].into_iter().flatten();
    if let Some(folder) = places.map(|dir| dir.join(name)).find(|dir| dir.is_dir()) {
        return Ok(Some(folder.canonicalize().unwrap_or(folder)));
    }
    let Some(embedded) = EMBEDDED.get() else { return Ok(None) };
    let dir = user_cache().join("fwd-prompt").join(format!("assets-{}", embedded.name));
    unpack(embedded, &dir).with_context(|| {
        format!(
            "cannot write the embedded benchmark and model to {}; free room there, or let the variable {VARIABLE} name a folder that \
             has them",
            dir.display()
        )
    })?;
    Ok(Some(dir.join(name)).filter(|dir| dir.is_dir()))
}

/// Writes the files that are not there yet, or not whole; each is renamed into place, so that processes may do this side by side.
fn unpack(embedded: &Embedded, dir: &Path) -> io::Result<()> {
    for (name, content) in embedded.files {
        let path = dir.join(name);
        let is_whole = fs::metadata(&path).is_ok_and(|file| file.len() == content.len() as u64);
        if !is_whole {
            fwd_files::write_atomically(&path, content)?;
        }
    }
    Ok(())
}

/// Where programs keep what they can make again.
fn user_cache() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home = |below: &str| variable("HOME").map(|home| home.join(below));
    let dir = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        home("Library/Caches")
    } else {
        variable("XDG_CACHE_HOME").or_else(|| home(".cache"))
    };
    dir.unwrap_or_else(std::env::temp_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_files_are_written_once_and_again_where_they_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let embedded = Embedded { name: "a", files: &[("bench/one", b"1"), ("mini/deep/two", b"22")] };
        unpack(&embedded, dir.path()).unwrap();
        let two = dir.path().join("mini/deep/two");
        assert_eq!(fs::read(&two).unwrap(), b"22");
        fs::write(&two, b"").unwrap();
        fs::write(dir.path().join("bench/one"), b"x").unwrap();
        unpack(&embedded, dir.path()).unwrap();
        assert_eq!(fs::read(&two).unwrap(), b"22");
        assert_eq!(fs::read(dir.path().join("bench/one")).unwrap(), b"x");
    }

    #[test]
    fn a_folder_that_is_gone_gives_way_to_the_embedded_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(or_embedded(dir.path(), benchmark).unwrap(), dir.path());
        let found = or_embedded(&dir.path().join("gone"), benchmark).unwrap();
        assert_eq!(found, benchmark().unwrap());
    }
}
