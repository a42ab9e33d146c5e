//! `cargo xtask dist`: the program as one file in an archive, for machines without Rust; and the proof that it needs nothing of the
//! source tree.

use crate::shell::{command, output, root, run};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The most bytes that the program may have beside the embedded benchmark and model.
const MOST_BYTES: u64 = 25_000_000;

/// Builds the program as README says and checks how large it is.
///
/// # Errors
/// If the build fails, or the program beside what it embeds is larger than 25 MB.
pub(crate) fn size() -> Result<()> {
    run(&mut command("cargo", &["build", "--release", "--locked"]))?;
    let whole = fs::metadata(crate::shell::built("fwd-prompt"))?.len();
    let embedded = bytes_below(&root().join("assets"))?;
    let rest = whole.saturating_sub(embedded);
    let mb = |bytes: u64| bytes as f64 / 1e6;
    eprintln!("the program has {:.1} MB, of which {:.1} MB are embedded data", mb(whole), mb(embedded));
    ensure!(
        rest <= MOST_BYTES,
        "the program has {:.1} MB beside its embedded data and may have {:.0}; find what grew with `cargo build --release --timings` and \
         `cargo tree -d`",
        mb(rest),
        mb(MOST_BYTES)
    );
    Ok(())
}

/// Bytes of all files below a folder but hidden ones, which are not embedded.
fn bytes_below(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        sum +=
            if entry.file_type()?.is_dir() { bytes_below(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(sum)
}

/// Builds the program and packs it with its README and licences.
///
/// # Errors
/// If the build, `tar` or the check with a hidden source tree fails.
pub(crate) fn dist() -> Result<()> {
    run(&mut command(
        "cargo",
        &["build", "--release", "--locked", "--package", "fwd-cli", "--features", "parquet"],
    ))?;
    let program = crate::shell::built("fwd-prompt");
    alone(&program)?;
    let version = output(Command::new(&program).arg("--version"))?;
    let version = version.split_whitespace().last().context("the program says no version")?.to_owned();
    let rustc = output(&mut command("rustc", &["-vV"]))?;
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let name = format!("fwd-prompt-{version}-{host}");
    let dir = root().join("target/dist");
    let folder = dir.join(&name);
    fs::create_dir_all(&folder)?;
    fs::copy(&program, folder.join("fwd-prompt"))?;
    for file in ["README.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        fs::copy(root().join(file), folder.join(file))?;
    }
    let archive = dir.join(format!("{name}.tar.gz"));
    run(Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(&dir).arg(&name))?;
    eprintln!("{} ({} MiB)", archive.display(), fs::metadata(&archive)?.len() >> 20);
    Ok(())
}

/// Runs `demo --quick` of the program of the tests from a folder of its own, while the source tree cannot be seen.
///
/// # Errors
/// If it fails, or if it leaves no result.
pub(crate) fn travel() -> Result<()> {
    // The same build as that of the tests: another choice of packages would compile the dependencies once more.
    run(&mut command(
        "cargo",
        &["test", "--workspace", "--test", "kills", "--no-run", "--locked", "--quiet"],
    ))?;
    alone(&crate::shell::built_for_tests("fwd-prompt"))
}

fn alone(program: &Path) -> Result<()> {
    let place = Place::new()?;
    let copy = place.0.join("fwd-prompt");
    fs::copy(program, &copy)?;
    let mut hidden = Command::new("unshare");
    hidden.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    hidden.arg(r#"mount -t tmpfs none "$1" && cd "$2" && exec ./fwd-prompt demo --quick"#);
    hidden.arg("sh").arg(root()).arg(&place.0);
    let has_namespaces =
        Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).status();
    if has_namespaces.is_ok_and(|status| status.success()) {
        run(place.isolated(&mut hidden))?;
    } else {
        let _hidden = Renamed::new(root().join("assets"))?;
        run(place.isolated(Command::new(&copy).args(["demo", "--quick"]).current_dir(&place.0)))?;
    }
    let result = place.0.join("runs/quick/fwd/metrics.json");
    ensure!(result.is_file(), "`demo --quick` left no {}", result.display());
    Ok(())
}

/// A folder for the program and what it writes, deleted in the end.
struct Place(PathBuf);

impl Place {
    fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("fwd-prompt-alone-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }

    /// Nothing of the user's cache, and no folder of assets by name.
    fn isolated<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("HOME", &self.0)
            .env("XDG_CACHE_HOME", self.0.join("cache"))
            .env_remove("FWD_PROMPT_ASSETS")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A folder under another name, until it is dropped.
struct Renamed(PathBuf, PathBuf);

impl Renamed {
    fn new(folder: PathBuf) -> Result<Self> {
        let other = folder.with_extension("hidden");
        fs::rename(&folder, &other).with_context(|| format!("cannot rename {}", folder.display()))?;
        Ok(Self(folder, other))
    }
}

impl Drop for Renamed {
    fn drop(&mut self) {
        if let Err(error) = fs::rename(&self.1, &self.0) {
            eprintln!("rename {} back to {}: {error}", self.1.display(), self.0.display());
        }
    }
}
